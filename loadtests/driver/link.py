"""One connection of a participant: it connects, attaches its streams, and comes back when it is lost.

waiting --connect--> opening --Ready--> attaching --(every Subscribed)--> attached
   ^                                                                         |
   +-------------- cut, closed by the relay, GOAWAY: later again ------------+
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from loadtests.dialects.base import (
    Attach,
    Closed,
    Dialect,
    Erased,
    Event,
    Failed,
    Gap,
    GoingAway,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.fault import told
from loadtests.driver.connection import Connection
from loadtests.driver.context import Context
from loadtests.driver.publisher import Publisher
from loadtests.driver.recipient import Recipient
from relay.errors import Code

RETRY_NS_MIN: Final = 100_000_000
RETRY_NS_MAX: Final = 2_000_000_000
SLOW_PIECE_BYTES: Final = 4_096
"""What a slow reader reads at once, and its receive buffer: otherwise the kernel would take megabytes on its behalf."""
_SPREAD: Final = 97


class Owner(Protocol):
    """What a link tells its participant."""

    leaving: bool

    def link_attached(self, now_ns: int) -> None:
        """Every stream of the link is attached, for the first time or again."""

    def link_lost(self, link: Link) -> None:
        """It will come back by itself."""

    def link_returns(self, due_ns: int) -> None:
        """It connects again."""


class Link:
    """See the module. `place_in_line`: those who lost the relay together come back one after the other."""

    __slots__ = (
        "_asked",
        "_attached",
        "_attaches",
        "_connection",
        "_context",
        "_dialect",
        "_for_one",
        "_generation",
        "_owner",
        "_place_in_line",
        "_publisher",
        "_read_bytes_per_s",
        "_recipient",
        "_retry_ns",
        "publishes",
        "receives",
    )

    _dialect: Dialect  # of the present connection, or the last

    def __init__(
        self,
        context: Context,
        owner: Owner,
        recipient: Recipient,
        publisher: Publisher,
        attaches: Sequence[Attach],
        *,
        place_in_line: int,
        read_bytes_per_s: int | None,
    ) -> None:
        self._context = context
        self._owner = owner
        self._recipient = recipient
        self._publisher = publisher
        self._attaches = attaches
        self._for_one = attaches[0] if context.features.one_stream else None
        self._place_in_line = place_in_line
        self._read_bytes_per_s = read_bytes_per_s
        self._connection: Connection | None = None
        self._generation = 0
        self._retry_ns = RETRY_NS_MIN
        self._attached: set[int] = set()
        self._asked: dict[int, int | None] = {}
        self.receives = [attach.stream for attach in attaches if attach.use & 1]
        self.publishes = [attach.stream for attach in attaches if attach.use & 2]

    # -- coming and going ----------------------------------------------------------------------------

    def connect(self) -> None:
        self._dialect = self._context.dialect(self._for_one)
        self._attached.clear()
        piece_bytes = None if self._read_bytes_per_s is None else SLOW_PIECE_BYTES
        self._connection = self._context.connect(self, piece_bytes)

    @property
    def there(self) -> bool:
        """It has a connection, or is about to."""
        return self._connection is not None

    @property
    def asked(self) -> bool:
        """It has asked to attach its streams, at least once."""
        return bool(self._asked)

    @property
    def attached(self) -> bool:
        return len(self._attached) == len(self._attaches)

    def cut(self, back_ns: int) -> None:
        """Break the connection as a line breaks, and come back at `back_ns`."""
        if self._connection is not None:
            self._connection.abort()
        self._come_back(back_ns)

    def _come_back(self, at_ns: int) -> None:
        """Connect again at `at_ns`; what was attached resumes."""
        self._connection = None
        self._attached.clear()
        self._owner.link_lost(self)
        self._generation += 1
        self._context.loop.at(at_ns, partial(self._connect_again, self._generation))

    def _connect_again(self, generation: int, due_ns: int, _now_ns: int) -> None:
        # Only the latest reason to come back counts, and nobody comes back after the end.
        if generation == self._generation and not self._context.phase.over:
            self._owner.link_returns(due_ns)
            self.connect()

    def read_at_full_speed(self) -> None:
        """The load is over: who read slowly reads as fast as it can."""
        if self._read_bytes_per_s is not None and self._connection is not None:
            self._connection.resume()

    def leave(self) -> None:
        """Unsubscribe from everything that is received here."""
        if self._connection is None:
            return
        self._connection.resume()
        left = self._recipient.left or ()
        parts = [
            self._dialect.unsubscribe(stream)
            for stream in self.receives
            if stream in self._attached and stream not in left
        ]
        self._send(b"".join(parts))

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- what goes -----------------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        return self._connection is not None and self._connection.blocked

    def publish(self, stream: int, id_: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> None:
        if self._connection is not None:
            self._connection.send(self._dialect.publish(stream, id_, sealed, durable=durable, slot=slot))

    def _send(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.send(data)

    # -- the event loop's handler --------------------------------------------------------------------

    def connected(self, now_ns: int) -> None:
        self._send(self._dialect.opening())

    def received(self, data: bytes, now_ns: int) -> None:
        if self._read_bytes_per_s is not None:
            self._read_on(len(data), now_ns)
        try:
            events = self._dialect.receive(data)
        except Exception as error:  # a dialect may be a user's own: its fault ends a connection, not the run
            events = [Failed(f"the dialect raised {told(error)}")]
        delivered = self._recipient.delivered
        for event in events:
            if type(event) is tuple:
                delivered(event, now_ns)  # type: ignore[arg-type]  # the only event that is a plain tuple
            elif not self._take_event(event, now_ns):
                return

    def closed(self, reason: str, now_ns: int) -> None:
        self._context.counts.count("disconnected: " + reason)
        delay_ns, self._retry_ns = self._retry_ns, min(2 * self._retry_ns, RETRY_NS_MAX)
        self._come_back(now_ns + delay_ns + self._spread(delay_ns))

    def _spread(self, span_ns: int) -> int:
        """Return this link's part of `span_ns`: a thousand who lost the relay do not come back together."""
        return span_ns * (self._place_in_line % _SPREAD) // _SPREAD

    def _read_on(self, size: int, now_ns: int) -> None:
        """Let the connection, which pauses after each piece, read the next when this one's time has passed."""
        connection, bytes_per_s = self._connection, self._read_bytes_per_s
        assert connection is not None
        assert bytes_per_s is not None
        if not self._context.phase.sending:
            connection.resume()
        else:
            due_ns = now_ns + size * 1_000_000_000 // bytes_per_s
            self._context.loop.at(due_ns, lambda due_ns, now_ns: connection.resume())

    # -- what comes ----------------------------------------------------------------------------------

    def _take_event(self, event: Event, now_ns: int) -> bool:
        """Take what is not a durable record. False: this connection is over."""
        if isinstance(event, State):
            self._recipient.state(event, now_ns)
        elif isinstance(event, Published):
            stream = self._publisher.acknowledged(event.id, now_ns)
            if stream is not None and event.seq is not None:
                self._recipient.own_number(stream, event.seq)
        elif isinstance(event, Reply):
            self._send(event.data)
        elif isinstance(event, Ready):
            self._attach()
        elif isinstance(event, Subscribed):
            self._subscribed(event, now_ns)
        elif isinstance(event, Unsubscribed):
            self._recipient.unsubscribed(event)
        elif isinstance(event, Refused):
            self._context.counts.count(f"refused: {event.what} {_code_name(event.code)}")
            if event.what == "publish":
                self._publisher.refused(event, now_ns)
        elif isinstance(event, Gap):
            self._recipient.gap(event, now_ns)
        elif isinstance(event, Erased):
            self._recipient.erased(event)
        elif isinstance(event, GoingAway):
            self.hang_up()
            delay_ns = event.retry_ms * 1_000_000
            self._come_back(now_ns + delay_ns + self._spread(delay_ns))
            return False
        elif isinstance(event, Closed | Failed):
            self.hang_up()
            self.closed(f"code {event.code}" if isinstance(event, Closed) else event.text, now_ns)
            return False
        else:
            self._context.counts.count(f"unexpected {type(event).__name__}")
        return True

    def _attach(self) -> None:
        self._retry_ns = RETRY_NS_MIN
        parts = []
        for attach in self._attaches:
            epoch, after = self._recipient.cursor(attach.stream) if attach.use & 1 else (None, None)
            self._asked[attach.stream] = after
            parts.append(self._dialect.subscribe(attach, after=after, epoch=epoch))
        self._send(b"".join(parts))

    def _subscribed(self, event: Subscribed, now_ns: int) -> None:
        if event.stream in self._attached:
            return
        self._attached.add(event.stream)
        if event.stream in self.receives:
            self._recipient.subscribed(event, self._asked[event.stream], now_ns)
            if self._owner.leaving:
                self._send(self._dialect.unsubscribe(event.stream))
        if self.attached:
            self._owner.link_attached(now_ns)


def _code_name(code: int) -> str:
    try:
        return Code(code).name
    except ValueError:
        return str(code)
