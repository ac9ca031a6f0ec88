"""A stream in memory, and who is attached to it. Sans-IO.

A durable record passes through a stream as a Group (what one publisher sent in one read), then as a Run (numbered and
framed, what the store takes), then as a Chunk (what subscribers are sent).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, TypeVar

from relay import wire
from relay.capability import Right
from relay.errors import Code
from relay.outbox import Item, Outbox, StateKey
from relay.quorum import Quorum
from relay.store import Run
from relay.window import Window

T = TypeVar("T")
Done: TypeAlias = Callable[[T | None, Exception | None], None]
"""What is called on the loop with the result of a store's call, or with what it raised."""


class Submit(Protocol):
    """Makes a store's call, now or in a thread, and later `done` on the loop."""

    def __call__(self, call: Callable[[], T], done: Done[T], /) -> None: ...


def inline(call: Callable[[], T], done: Done[T]) -> None:
    """Make a store's call now: for stores that answer at once."""
    try:
        result = call()
    except Exception as error:
        done(None, error)
    else:
        done(result, None)


class Subscriber(Protocol):
    """What a replay needs of a connection."""

    box: Outbox
    attachments: dict[int, Attachment]


class Client(Subscriber, Protocol):
    """What the hub needs of a session."""

    exporting: bool
    unacked: int

    @property
    def ended(self) -> bool: ...

    def refuse(self, code: Code, record: int, about: int) -> None: ...

    def fail(self, code: Code, record: int = 0, about: int = 0) -> None: ...


_NO_WINDOW: Final[Window[Client]] = Window()
_NO_HANDLES: Final[list[bytes]] = []
"""Shared by all who may not publish."""


class Attachment:
    """A client on a stream. `cursor` None: live; otherwise it is replayed from there."""

    __slots__ = (
        "client",
        "cursor",
        "gone",
        "handle",
        "handles",
        "may_publish",
        "queued",
        "reading",
        "stream",
        "use",
        "window",
    )

    def __init__(self, stream: Stream, client: Client, use: int, handle: bytes) -> None:
        self.stream = stream
        self.client = client
        self.use = use
        self.handle = handle
        self.may_publish = bool(use & Right.PUBLISH)  # arithmetic on flags is too slow for every record
        self.handles = [handle] if self.may_publish else _NO_HANDLES  # of every run of one record: nobody changes it
        self.window = stream.window(handle) if self.may_publish else _NO_WINDOW
        self.window.users += 1
        self.cursor: int | None = None
        self.queued = False  # for a step of its replay
        self.reading = False
        self.gone = False


Group: TypeAlias = tuple[Attachment, int, bytes | None, list[int], list[bytes]]
"""Durable records that one publisher sent in one read: (attachment, size, commitment, ids, payloads).

All payloads are of one size. Without a commitment; a record with one is a group by itself. A tuple, and columns: of all
that could hold them, these are made and read fastest, and a decoded record's memory serves for the next.
"""


class Stream:
    """One stream in memory; the store holds its records."""

    __slots__ = (
        "acks",
        "attached",
        "catching",
        "chunks",
        "epoch",
        "erasing",
        "first",
        "fresh",
        "head",
        "idle_since_ns",
        "key",
        "live",
        "number",
        "outgoing",
        "outgoing_bytes",
        "position",
        "prefix",
        "queued",
        "quorum",
        "served",
        "stamped_ns",
        "states",
        "targets",
        "trimmed",
        "windows",
    )

    acks: Quorum | None

    def __init__(self, key: bytes, number: int, epoch: int, head: int, first: int, acks: dict[bytes, int]) -> None:
        self.key = key
        self.number = number
        self.prefix = wire.message_prefix(number)
        self.attached = 0
        self.idle_since_ns = 0
        self.quorum = 0
        self.erasing = False
        self.fresh: list[Group] = []
        self.live: dict[Outbox, Attachment] = {}
        self.catching: set[Attachment] = set()
        self.queued = False
        self.chunks: list[Item] = []
        self.targets: list[Outbox | None] | None = None
        self.position = 0
        self.windows: dict[bytes, Window[Client]] = {}
        self.restart(epoch)
        self.head = self.served = head
        self.first = first
        self.acks = Quorum(acks) if acks else None

    def restart(self, epoch: int) -> None:
        """Begin an epoch: nothing numbered, nothing remembered."""
        self.epoch = epoch
        self.head = self.served = self.stamped_ns = 0
        self.first = 1
        self.trimmed = 0
        self.acks = None
        self.outgoing: list[Run] = []
        self.outgoing_bytes = 0
        self.states: dict[StateKey, bytes] = {}
        for window in self.windows.values():  # Attachments hold them, so they stay what they are.
            window.clear()

    def window(self, handle: bytes) -> Window[Client]:
        """Return the idempotence window of a publisher."""
        window = self.windows.get(handle)
        if window is None:
            window = self.windows[handle] = Window()
        return window

    def forget_window(self, handle: bytes) -> None:
        """Forget the window of a publisher, unless it is connected."""
        window = self.windows.get(handle)
        if window is not None and not window.users:
            del self.windows[handle]

    @property
    def busy(self) -> bool:
        """Whether something of the stream is on its way."""
        return bool(self.queued or self.fresh or self.erasing or self.head != self.served)
