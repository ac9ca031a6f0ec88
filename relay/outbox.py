"""The byte-bounded queue of one connection: lanes and what happens when they are full. Sans-IO.

While the socket accepts, nothing is queued: what a turn pushed is gathered and written at once. On a short write the
outbox *stands*: the rest waits in lanes until the transport says that the socket can be written again.

    lane        holds                                   when full
    CONTROL     answers to this client                  lossless; `choked`: the relay stops reading from it
    DURABLE     records, and what must keep their order  `overflowing`: they are dropped and replayed from the store
    EPHEMERAL   the newest state per (stream, handle,    the oldest are dropped
                slot); an older one is replaced

A connection that is closed for being slow is a decision of the session; here only bytes are counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from struct import Struct as Layout
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from relay import framing, wire
from relay.counters import Counters
from relay.limits import (
    CONTROL_QUEUE_BYTES_MAX,
    DURABLE_QUEUE_BYTES_MAX,
    EPHEMERAL_QUEUE_BYTES_MAX,
    REPLAY_BYTES,
)

DURABLE: Final = 1
EPHEMERAL: Final = 2
ORDERED: Final = 3
"""Not a record, but kept in the order of the records: SUBSCRIBED, ERASED, UNSUBSCRIBED. Never dropped."""


StateKey: TypeAlias = tuple[int, bytes, int]
"""(stream number, handle, slot): a newer state with the same key replaces it."""


class Chunk(msgspec.Struct, gc=False):
    """Frames for one or many connections: the records `first` to `last` of stream `number`, or one state.

    One object serves all subscribers of a stream. Control frames are pushed as plain bytes.
    """

    data: bytes
    lane: int
    number: int
    first: int = 0
    last: int = 0
    state: StateKey | None = None


Item: TypeAlias = Chunk | bytes | memoryview
_SomeItem = TypeVar("_SomeItem", bound=Item)


class _Standing:
    """The lanes of an outbox whose socket does not accept. Made on the first short write, dropped when drained."""

    __slots__ = ("control", "control_bytes", "durable", "durable_bytes", "ephemeral", "ephemeral_bytes", "rest")

    def __init__(self) -> None:
        self.rest: memoryview | bytes = b""
        self.control: deque[bytes | memoryview] = deque()
        self.control_bytes = 0
        self.durable: deque[Chunk] = deque()
        self.durable_bytes = 0
        self.ephemeral: dict[StateKey | None, Chunk] = {}
        self.ephemeral_bytes = 0


class Outbox:
    """One connection's way out. `pending` is what this turn pushed; `acks` are its gathered acknowledgements.

    `dirty` says that the outbox is in the hub's list of what to flush; `overflowing`, that its records must be dropped;
    `lagging`, that they were, and the client is replayed from the store; `ended`, that the close frame was pushed. `owner`
    is the transport's: its connection, of whatever class.
    """

    __slots__ = ("acks", "counters", "dirty", "ended", "lagging", "overflowing", "owner", "pending", "standing")

    def __init__(self, counters: Counters) -> None:
        self.pending: list[Item] = []
        self.acks: list[int] = []
        self.dirty = False
        self.ended = False
        self.lagging = False
        self.overflowing = False
        self.standing: _Standing | None = None
        self.counters = counters
        self.owner: Any = None

    def gather(self) -> bytes | memoryview:
        """Return everything that is to be written now, in order; b"" if nothing is.

        The transport writes what it can and then calls `wrote` with the count of bytes.
        """
        if self.standing is not None:
            self._queue_pending()
            self._refill()
        pending = self.pending
        if self.acks and not self.ended:
            acks = published_frame(self.acks)
            self.acks = []
            if not pending:
                pending.append(acks)
                return acks
            pending.insert(0, acks)
        if len(pending) == 1:
            only = pending[0]
            return only.data if isinstance(only, Chunk) else only
        return b"".join([item.data if isinstance(item, Chunk) else item for item in pending])

    def wrote(self, sent_bytes: int) -> None:
        """Account for `sent_bytes` of what `gather` returned; the rest of it waits, in front of all else."""
        pending, self.pending = self.pending, []
        for index, item in enumerate(pending):
            data = item.data if isinstance(item, Chunk) else item
            if sent_bytes < len(data):
                standing = self.standing
                if standing is None:
                    standing = self.standing = _Standing()
                if sent_bytes:  # A frame that was begun must be ended before anything else.
                    standing.rest = memoryview(data)[sent_bytes:]
                    index += 1
                self._queue_in_front(standing, pending[index:])
                return
            sent_bytes -= len(data)

    def stand(self) -> None:
        """Move what this turn pushed into the lanes: the socket does not accept now."""
        if self.standing is None:
            self.standing = _Standing()
        self._queue_pending()

    def end(self) -> None:
        """What was pushed last is the close frame, and the last to leave (RFC 6455 section 5.5.1).

        Of what waits, only answers leave before it; the client resumes from the records that it has.
        """
        if self.acks:
            self.pending.insert(0, published_frame(self.acks))
            self.acks = []
        self.ended = True
        standing = self.standing
        if standing is not None:
            standing.durable.clear()
            standing.durable_bytes = 0
            standing.ephemeral.clear()
            standing.ephemeral_bytes = 0

    def _queue_pending(self) -> None:
        if self.acks and not self.ended:
            self.pending.insert(0, published_frame(self.acks))
            self.acks = []
        if self.pending:
            pending, self.pending = self.pending, []
            self._queue(pending)

    def _queue(self, items: list[Item]) -> None:
        standing = self.standing
        assert standing is not None
        for item in items:
            if not isinstance(item, Chunk):
                standing.control.append(item)
                standing.control_bytes += len(item)
            elif self.ended:
                continue
            elif item.lane == EPHEMERAL:
                self._queue_state(standing, item)
            else:
                standing.durable.append(item)
                standing.durable_bytes += len(item.data)
        if standing.durable_bytes > DURABLE_QUEUE_BYTES_MAX:
            self.overflowing = True  # The hub moves the cursors back and drops the records.

    def _queue_in_front(self, standing: _Standing, items: list[Item]) -> None:
        for item in reversed(items):
            if not isinstance(item, Chunk):
                standing.control.appendleft(item)
                standing.control_bytes += len(item)
            elif self.ended:
                continue
            elif item.lane != EPHEMERAL:
                standing.durable.appendleft(item)
                standing.durable_bytes += len(item.data)
            elif item.state in standing.ephemeral:
                self.counters.ephemeral_superseded += 1
            else:
                self._queue_state(standing, item)
        if standing.durable_bytes > DURABLE_QUEUE_BYTES_MAX:
            self.overflowing = True

    def _queue_state(self, standing: _Standing, chunk: Chunk) -> None:
        states = standing.ephemeral
        older = states.pop(chunk.state, None)
        if older is not None:
            standing.ephemeral_bytes -= len(older.data)
            self.counters.ephemeral_superseded += 1
        states[chunk.state] = chunk
        standing.ephemeral_bytes += len(chunk.data)
        while standing.ephemeral_bytes > EPHEMERAL_QUEUE_BYTES_MAX and len(states) > 1:
            dropped = states.pop(next(iter(states)))
            standing.ephemeral_bytes -= len(dropped.data)
            self.counters.ephemeral_dropped += 1

    def _refill(self) -> None:
        """Take up to REPLAY_BYTES from the lanes, in the order in which they may leave."""
        standing = self.standing
        assert standing is not None
        pending = self.pending
        size = 0
        if standing.rest:
            pending.append(standing.rest)
            size += len(standing.rest)
            standing.rest = b""
        while standing.control and size < REPLAY_BYTES:
            frame = standing.control.popleft()
            standing.control_bytes -= len(frame)
            pending.append(frame)
            size += len(frame)
        while standing.durable and size < REPLAY_BYTES:
            chunk = standing.durable.popleft()
            standing.durable_bytes -= len(chunk.data)
            pending.append(chunk)
            size += len(chunk.data)
        while standing.ephemeral and size < REPLAY_BYTES:
            chunk = standing.ephemeral.pop(next(iter(standing.ephemeral)))
            standing.ephemeral_bytes -= len(chunk.data)
            pending.append(chunk)
            size += len(chunk.data)
        if not (standing.control or standing.durable or standing.ephemeral):
            self.standing = None

    @property
    def choked(self) -> bool:
        """Whether the client takes so few of its answers that its requests must wait.

        After `drop_records` a durable lane over its limit holds only answers that keep the order of records.
        """
        standing = self.standing
        return standing is not None and (
            standing.control_bytes > CONTROL_QUEUE_BYTES_MAX or standing.durable_bytes > DURABLE_QUEUE_BYTES_MAX
        )

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait in the lanes."""
        standing = self.standing
        if standing is None:
            return 0
        return len(standing.rest) + standing.control_bytes + standing.durable_bytes + standing.ephemeral_bytes

    def drop_records(self, number: int | None = None) -> dict[int, int]:
        """Drop the waiting records (of one stream, or all); return the lowest dropped number of each stream.

        What stands before an ORDERED chunk of its stream stays: that subscription or epoch is over, and nobody replays it.
        """
        lowest: dict[int, int] = {}
        over: set[int] = set()

        def kept(items: Iterable[_SomeItem]) -> list[_SomeItem]:
            left = []
            for item in items:
                if isinstance(item, Chunk) and item.lane == ORDERED:
                    over.add(item.number)
                elif (
                    isinstance(item, Chunk)
                    and item.lane == DURABLE
                    and (number is None or item.number == number)
                    and item.number not in over
                ):
                    lowest[item.number] = item.first
                    continue
                left.append(item)
            left.reverse()
            return left

        # From the newest to the oldest.
        self.pending = kept(reversed(self.pending))
        standing = self.standing
        if standing is not None:
            standing.durable = deque(kept(reversed(standing.durable)))
            standing.durable_bytes = sum(len(chunk.data) for chunk in standing.durable)
        return lowest

    def drop_states(self, number: int) -> None:
        """Drop the waiting states of a stream that the client leaves: their lane is the last, behind UNSUBSCRIBED."""
        kept = [
            item
            for item in self.pending
            if not (isinstance(item, Chunk) and item.lane == EPHEMERAL and item.number == number)
        ]
        self.counters.ephemeral_dropped += len(self.pending) - len(kept)
        self.pending = kept
        standing = self.standing
        if standing is None:
            return
        for key in [key for key, chunk in standing.ephemeral.items() if chunk.number == number]:
            standing.ephemeral_bytes -= len(standing.ephemeral.pop(key).data)
            self.counters.ephemeral_dropped += 1


def frame_of(record: wire.RelayRecord) -> bytes:
    """Return the WebSocket frame of a record."""
    return framing.encode(framing.BINARY, wire.encode(record))


# Most often there is one: frame, record and array in one go.
_published_one: Final = Layout(">6sQsQ").pack


def published_frame(acks: list[int]) -> bytes:
    """Return the frame of PUBLISHED."""
    if len(acks) == 2:
        return _published_one(b"\x82\x15\x92\x12\x92\xcf", acks[0], b"\xcf", acks[1])
    return framing.encode(framing.BINARY, wire.encode(wire.Published(acks)))
