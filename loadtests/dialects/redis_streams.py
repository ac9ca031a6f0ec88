"""Redis Streams, of Redis 7 and Valkey: RESP3 over plain TCP; a connection is for one stream, and receives or publishes.

Three keys a stream: TOPIC holds the records, TOPIC:e its epoch, TOPIC:s is the Pub/Sub channel of its states.

| sent                                | the server answers                                                             |
|-------------------------------------|--------------------------------------------------------------------------------|
| HELLO 3                             | a map: Ready                                                                   |
| SET TOPIC:e RANDOM NX GET           | the epoch, or nothing: then it is what we sent                                 |
| XINFO STREAM TOPIC                  | the head and the first record kept, or an error: empty. Subscribed, Unsubscribed |
| XREAD BLOCK 1000 COUNT 256          | records after a number, or nothing after a second; then it is sent again       |
| XADD TOPIC 0-* s SEALED             | the number that the record got: Published                                      |
| SUBSCRIBE TOPIC:s, PUBLISH TOPIC:s  | pushes with states, which come through a blocked XREAD                         |

An id is `MILLISECONDS-COUNT`; `0-*` lets the server count alone, so that the numbers are gapless. A server that forgot a
stream forgot its epoch too. While XREAD blocks nothing else is answered, hence the second: what ends a subscription
waits for it.
Source: redis.io, docs/data-types/streams and the pages of these commands.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, TypeAlias

from loadtests.dialects.base import (
    Attach,
    Closed,
    Event,
    Failed,
    Features,
    Gap,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.resp import ErrorReply, Malformed, command, parse
from loadtests.dialects.resuming import start_of

_HELLO: Final = command(b"HELLO", b"3")
_BYE: Final = b"+OK\r\n"
_BLOCK_MS: Final = b"1000"
_COUNT: Final = b"256"
_EPOCH_BITS: Final = 48

_Asked: TypeAlias = Published | Literal["hello", "epoch", "head", "records", "end", "state"]


class RedisStreams:
    """One connection to Redis or Valkey, for one stream. `subscribe` raises ValueError for one that does both."""

    __slots__ = (
        *("_after", "_attach", "_closing", "_epoch", "_head", "_joined", "_last", "_left", "_over", "_pending"),
        *("_random_bits", "_ready", "_rest", "_token", "_topic", "_wanted_epoch"),
    )

    features: ClassVar[Features] = Features(
        numbers=True, acknowledges=True, resumes=True, ephemeral=True, times=False, echoes=True, one_stream=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._random_bits = random_bits
        self._rest = b""
        self._ready = False
        self._over = False
        self._closing = False
        self._pending: deque[_Asked] = deque(["hello"])
        self._attach: Attach | None = None
        self._joined = False
        self._topic = b""
        self._token = self._epoch = self._last = 0
        self._after: int | None = None
        self._wanted_epoch: int | None = None
        self._head: int | None = None  # once it leaves: what it still has to get
        self._left = 0  # records of the present answer to XREAD that are still to come

    def opening(self) -> bytes:
        return _HELLO

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        if self._attach is not None:
            raise LookupError("this connection has its stream")
        if attach.use not in (1, 2):
            raise ValueError("a connection that waits for records cannot publish meanwhile")
        self._attach, self._after, self._wanted_epoch = attach, after, epoch
        self._joined = True
        self._topic = topic = attach.topic.encode()
        self._token = self._random_bits(_EPOCH_BITS)
        self._pending.extend(("epoch", "head"))
        states = command(b"SUBSCRIBE", topic + b":s") if attach.use == 1 else b""
        epoch_key = command(b"SET", topic + b":e", b"%d" % self._token, b"NX", b"GET")
        return states + epoch_key + command(b"XINFO", b"STREAM", topic)

    def unsubscribe(self, stream: int) -> bytes:
        self._check(stream)
        self._joined = False
        self._pending.append("end")
        return command(b"XINFO", b"STREAM", self._topic)

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        self._check(stream)
        if not durable:
            self._pending.append("state")
            return command(b"PUBLISH", self._topic + b":s", sealed)
        self._pending.append(Published(id, None))
        return command(b"XADD", self._topic, b"0-*", b"s", sealed)

    def ack(self, stream: int, upto: int) -> bytes:
        self._check(stream)
        return b""

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        self._closing = True
        return command(b"QUIT")

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        data = self._rest + data if self._rest else data
        position, end = 0, len(data)
        try:
            while position < end:
                if self._closing and data.startswith(_BYE, position):
                    self._over = True
                    events.append(Closed(1000, ""))
                    break
                if self._left:
                    stop = self._record(data, position, events)
                elif self._pending and self._pending[0] == "records" and data.startswith(b"%1\r\n", position):
                    stop = self._records(data, position)
                else:
                    stop = self._answer(data, position, events)
                if stop is None:
                    break
                position = stop
        except (Malformed, ValueError, LookupError, TypeError, RecursionError) as error:
            self._over = True
            events.append(Failed(f"this is not what Redis 7 answers: {error}"))
        self._rest = data[position:]
        return events

    def _records(self, data: bytes, position: int) -> int | None:
        """Take the beginning of an answer to XREAD, and return where its records begin; None if it is cut short.

        They are taken one by one as they come: 256 media records are too much to be parsed again at each read.
        """
        head = b"%%1\r\n$%d\r\n%b\r\n*" % (len(self._topic), self._topic)
        stop = data.find(b"\r\n", position + len(head))
        if len(data) - position <= len(head) or stop < 0:
            if not head.startswith(data[position : position + len(head)]):
                raise Malformed("records of another stream")
            return None
        if not data.startswith(head, position):
            raise Malformed("records of another stream")
        self._left = int(data[position + len(head) : stop])
        if self._left < 1:
            raise Malformed(f"{self._left} records")
        return stop + 2

    def _record(self, data: bytes, position: int, events: list[Event]) -> int | None:
        found = parse(data, position)
        if found is None:
            return None
        (name, (field, sealed)), position = found
        if field != b"s" or not isinstance(sealed, bytes):
            raise Malformed(f"a record with the field {field!r:.80}")
        assert self._attach is not None
        seq, stream = _number(name), self._attach.stream
        if seq != self._last + 1:
            if seq <= self._last:
                raise Malformed(f"record {seq} after {self._last}")
            events.append(Gap(stream, self._last + 1, seq - 1))
        self._last = seq
        events.append((stream, seq, None, sealed))
        self._left -= 1
        if not self._left:
            self._pending.popleft()
            self._go_on(events)
        return position

    def _answer(self, data: bytes, position: int, events: list[Event]) -> int | None:
        found = parse(data, position)
        if found is None:
            return None
        said, after = found
        if data[position : position + 1] == b">":
            kind, _, sealed = said
            if kind == b"message" and isinstance(sealed, bytes):
                if self._attach is not None:
                    events.append(State(self._attach.stream, b"", 0, sealed))
            elif kind not in (b"subscribe", b"unsubscribe"):
                raise Malformed(f"push {kind!r:.80}")
            return after
        if not self._pending:
            raise Malformed(f"it answered {said!r:.80} though nothing was asked")
        asked = self._pending.popleft()
        match asked:
            case "hello":
                if not isinstance(said, list):
                    raise Malformed(said)
                self._ready = True
                events.append(Ready(None))
            case "epoch":
                if isinstance(said, ErrorReply):
                    raise Malformed(said)
                self._epoch = self._token if said is None else int(said)
            case "head":
                self._begin(said, events)
            case "records":
                if said is not None:
                    raise Malformed(said)
                self._go_on(events, none=True)
            case "end":
                self._head, _ = _extent(said)
                self._go_on(events)
            case Published():
                refused = isinstance(said, ErrorReply)
                events.append(Refused(0, "publish", asked.id) if refused else Published(asked.id, _number(said)))
        return after

    def _begin(self, said: Any, events: list[Event]) -> None:
        """Tell where the stream stands, and ask for what is wanted of it."""
        assert self._attach is not None
        head, first = _extent(said)
        start = start_of(self._after, self._wanted_epoch, epoch=self._epoch, first=first, head=head)
        events.append(Subscribed(self._attach.stream, self._epoch, head, start.recovered))
        self._last = start.last
        if self._attach.use == 1 and start.missing is not None:
            events.append(Gap(self._attach.stream, *start.missing))
        if self._attach.use == 1:
            self._go_on(events)

    def _go_on(self, events: list[Event], *, none: bool = False) -> None:
        """Ask for the next records, or end the subscription when all that is owed has come. `none`: none are left."""
        assert self._attach is not None
        stream, last, head = self._attach.stream, self._last, self._head
        receives = self._attach.use == 1
        if head is None:
            if self._joined:
                self._pending.append("records")
                events.append(Reply(self._read(b"BLOCK", _BLOCK_MS)))
        elif receives and last < head and not none:
            self._pending.append("records")
            events.append(Reply(self._read()))
        else:
            if receives and last < head:
                events.append(Gap(stream, last + 1, head))
            if receives:
                events.append(Reply(command(b"UNSUBSCRIBE", self._topic + b":s")))
            events.append(Unsubscribed(stream, head))
            self._attach = self._head = None

    def _read(self, *block: bytes) -> bytes:
        return command(b"XREAD", *block, b"COUNT", _COUNT, b"STREAMS", self._topic, b"0-%d" % self._last)

    def _check(self, stream: int) -> None:
        if not self._joined or self._attach is None or stream != self._attach.stream:
            raise LookupError(f"stream {stream} is not subscribed")


def _number(name: object) -> int:
    """Return the number in the id `0-NUMBER`. Raises Malformed, ValueError."""
    if not isinstance(name, bytes) or name[:2] != b"0-":
        raise Malformed(f"the id {name!r:.80}, which is not one of ours")
    return int(name[2:])


def _extent(said: Any) -> tuple[int, int]:
    """Return the head and the first number kept (head + 1: none), of an answer to XINFO STREAM."""
    if isinstance(said, ErrorReply):
        return 0, 1
    about = dict(zip(said[::2], said[1::2], strict=True))
    head = _number(about[b"last-generated-id"])
    first = about[b"first-entry"]
    return head, head + 1 if first is None else _number(first[0])
