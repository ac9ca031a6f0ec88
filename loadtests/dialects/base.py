"""What every dialect gives the event loop: bytes to send, and the same few events whatever relay is at the other end.

A dialect is the sans-IO client side of one connection to one kind of relay: no socket, no clock, no keys. It is made
for one connection and thrown away with it. `stream` in calls and events is the caller's own number for a stream.

    opening()  ->  receive(...)  ->  Reply*  ->  Ready
               ->  subscribe(...)  ->  Subscribed  ->  publish(...), Delivered ...  ->  Closed | Failed

After Closed or Failed nothing more is to be fed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

import msgspec

Delivered: TypeAlias = tuple[int, int | None, int | None, bytes]
"""(stream, seq, at_ns, sealed): a durable record. A plain tuple, the only event that is: `type(event) is tuple`.

A named tuple would cost as much as the rest of its parsing. `seq` and `at_ns` (Unix time at the relay) are None on
relays that give none.
"""


class Reply(NamedTuple):
    """Bytes that the protocol wants sent now: a pong, a greeting, the answer to a close."""

    data: bytes


class Ready(NamedTuple):
    """The connection may be used. `now_ns`: the relay's clock, where it tells."""

    now_ns: int | None


class Subscribed(NamedTuple):
    """`epoch` and `head` are None on relays without numbers; `recovered`: nothing is missing since `after`."""

    stream: int
    epoch: int | None
    head: int | None
    recovered: bool


class State(NamedTuple):
    """An ephemeral record. `handle`: the relay's pseudonym for its publisher, empty where there is none."""

    stream: int
    handle: bytes
    slot: int
    sealed: bytes


class Published(NamedTuple):
    """The relay has taken the durable record `id`; `seq` is None on relays without numbers."""

    id: int
    seq: int | None


class Gap(NamedTuple):
    """The relay cannot give the numbers `first` to `last`, both included."""

    stream: int
    first: int
    last: int


class Erased(NamedTuple):
    """Everything in the stream was deleted; its numbers start again at 1 in the new epoch."""

    stream: int
    epoch: int


class Unsubscribed(NamedTuple):
    """The client was sent everything up to `head`; nothing of the stream follows."""

    stream: int
    head: int | None


class Refused(NamedTuple):
    """One request was refused, and the connection goes on.

    `what`: subscribe, unsubscribe, publish, ack, erase, export or other. `about`: the id of a publish, otherwise the
    stream.
    """

    code: int
    what: str
    about: int


class GoingAway(NamedTuple):
    """The relay goes down: connect again after `retry_ms`, and resume."""

    retry_ms: int


class Timed(NamedTuple):
    """The answer to `time`: our own stamp, and the relay's clock at receipt and at reply."""

    sent_ns: int
    received_ns: int
    replied_ns: int


class Closed(NamedTuple):
    """The relay closed the connection in good form (after a Reply, if it began)."""

    code: int
    reason: str


class Failed(NamedTuple):
    """The other end does not speak this protocol, or broke it. `text` is one sentence for the user."""

    text: str


Event: TypeAlias = (
    Delivered
    | Reply
    | Ready
    | Subscribed
    | State
    | Published
    | Gap
    | Erased
    | Unsubscribed
    | Refused
    | GoingAway
    | Timed
    | Closed
    | Failed
)


class Attach(msgspec.Struct, frozen=True, kw_only=True):
    """What a connection says to use a stream; each dialect takes what its relay asks for.

    `name`: 32 bytes, the stream's public key; `use`: rights as in relay.capability (1 receive, 2 publish);
    `prove(challenge)`: the holder's signature, where the capability names a holder.
    """

    stream: int
    name: bytes
    use: int
    capability: bytes
    prove: Callable[[bytes], bytes] | None = None

    @property
    def topic(self) -> str:
        """The stream's name for relays that name streams by text: 16 hexadecimal digits."""
        return self.name[:8].hex()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a connection is opened, and how its opening handshake looks. ValueError for what no header can hold.

    `host`: HOST:PORT; `path` empty: the dialect's own; `query`: what is added to the path behind a question mark;
    `subprotocol` None: the dialect's own. `attach` is set only where the dialect's features say `one_stream`: the stream
    that the connection is for, and what it does there.
    """

    host: str
    path: str = ""
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    origin: str | None = None
    subprotocol: str | None = None
    attach: Attach | None = None

    def __post_init__(self) -> None:
        parts = [
            self.host,
            self.path,
            self.query,
            self.origin or "",
            self.subprotocol or "",
            *chain.from_iterable(self.headers),
        ]
        if any(character in part for part in parts for character in "\r\n\0"):
            raise ValueError("a header of the opening handshake must be one line")


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay has, so that the harness knows what it can ask of it and how to keep the ledger."""

    numbers: bool
    """Gapless sequence numbers per stream."""
    acknowledges: bool
    """Every durable publish is answered by Published."""
    resumes: bool
    """`after` is honoured."""
    ephemeral: bool
    """It knows states; otherwise they travel as durable records."""
    times: bool
    """It answers `time`."""
    echoes: bool
    """A publisher that also receives gets its own records back."""
    idempotent: bool = False
    """A durable publish that is sent again with its id, on a later connection, is taken once."""
    one_stream: bool = False
    """A connection is for one stream, and either receives or publishes."""

    @property
    def tells_time(self) -> bool:
        """A connection of no participant can ask it for the time."""
        return self.times and not self.one_stream


class Dialect(Protocol):
    """See the module. Made as `Class(place, random_bits=...)`, where `random_bits(n)` returns n random bits.

    Calls that name a stream which is not subscribed raise LookupError.
    """

    features: ClassVar[Features]

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = ...) -> None: ...

    def opening(self) -> bytes:
        """Return what to send once the transport is connected."""
        ...

    def receive(self, data: bytes) -> list[Event]:
        """Return what `data` means, in order. Never raises: a peer's fault is a Failed."""
        ...

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        """Attach to a stream. `after` None: only what comes from now on; else resume after that number of `epoch`."""
        ...

    def unsubscribe(self, stream: int) -> bytes: ...

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        """Publish; `id` must be unique among the unacknowledged durable records of the connection."""
        ...

    def ack(self, stream: int, upto: int) -> bytes: ...

    def time(self, sent_ns: int) -> bytes: ...

    def close(self, code: int = 1000) -> bytes: ...


__all__ = [
    "Attach",
    "Closed",
    "Delivered",
    "Dialect",
    "Erased",
    "Event",
    "Failed",
    "Features",
    "Gap",
    "GoingAway",
    "Place",
    "Published",
    "Ready",
    "Refused",
    "Reply",
    "State",
    "Subscribed",
    "Timed",
    "Unsubscribed",
]
