"""Redis and Valkey Pub/Sub: RESP3 over plain TCP, so that one connection may publish and receive.

| the server sends                    | means                                                            |
|-------------------------------------|------------------------------------------------------------------|
| a map                               | the answer to HELLO 3: Ready                                     |
| push `message topic sealed`         | a delivery                                                       |
| push `subscribe` or `unsubscribe`   | the oldest request is done                                       |
| a number                            | the oldest request, a PUBLISH, is done                           |
| +PONG                               | the oldest request, to attach for publishing alone, is done      |
| +OK, after QUIT                     | Closed                                                           |
| an error                            | the oldest request is refused; before Ready: Failed              |

Source: redis.io, docs/reference/protocol-spec and docs/interact/pubsub.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

from loadtests.dialects.base import (
    Attach,
    Closed,
    Event,
    Failed,
    Features,
    Place,
    Published,
    Ready,
    Refused,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.resp import ErrorReply, Malformed, parse

_HELLO: Final = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
_BYE: Final = b"+OK\r\n"
_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_MESSAGE: Final = b">3\r\n$7\r\nmessage\r\n$16\r\n"
_TOPIC_AT: Final = len(_MESSAGE)
_LENGTH_AT: Final = _TOPIC_AT + 16 + 3


class Redis:
    """One connection to Redis or Valkey."""

    __slots__ = ("_closing", "_over", "_pending", "_ready", "_rest", "_streams", "_topics")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._rest = b""
        self._ready = False
        self._over = False
        self._closing = False
        self._pending: deque[Event | None] = deque([Ready(None)])  # what each answer will mean; None: nothing
        self._streams: dict[bytes, int] = {}
        self._topics: dict[int, bytes] = {}

    def opening(self) -> bytes:
        return _HELLO

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        topic = attach.topic.encode()
        self._streams[topic], self._topics[attach.stream] = attach.stream, topic
        self._pending.append(Subscribed(attach.stream, None, None, False))
        return b"*2\r\n$9\r\nSUBSCRIBE\r\n$16\r\n%b\r\n" % topic if attach.use & 1 else _PING

    def unsubscribe(self, stream: int) -> bytes:
        self._pending.append(Unsubscribed(stream, None))
        return b"*2\r\n$11\r\nUNSUBSCRIBE\r\n$16\r\n%b\r\n" % self._topics.pop(stream)

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        topic = self._topics[stream]
        self._pending.append(Published(id, None) if durable else None)
        return b"*3\r\n$7\r\nPUBLISH\r\n$16\r\n%b\r\n$%d\r\n%b\r\n" % (topic, len(sealed), sealed)

    def ack(self, stream: int, upto: int) -> bytes:
        return self._topics[stream][:0]

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        self._closing = True
        return b"*1\r\n$4\r\nQUIT\r\n"

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        data = self._rest + data if self._rest else data
        position, end = 0, len(data)
        streams, find = self._streams, data.find
        try:
            while position < end:
                if self._closing and data.startswith(_BYE, position):
                    self._over = True
                    events.append(Closed(1000, ""))
                    break
                if data.startswith(_MESSAGE, position):
                    # The quick way for nearly all that comes; what is cut short takes the thorough one.
                    start = find(b"\r\n", position + _LENGTH_AT) + 2
                    if start > 1:
                        stop = start + int(data[position + _LENGTH_AT : start - 2])
                        stream = streams.get(data[position + _TOPIC_AT : position + _TOPIC_AT + 16])
                        if start <= stop <= end - 2 and stream is not None:
                            events.append((stream, None, None, data[start:stop]))
                            position = stop + 2
                            continue
                found = parse(data, position)
                if found is None:
                    break
                self._take(found[0], data[position : position + 1], events)
                position = found[1]
        except (Malformed, ValueError, LookupError, RecursionError) as error:
            self._over = True
            events.append(Failed(f"the relay does not speak RESP3: {error}"))
        self._rest = data[position:]
        return events

    def _take(self, value: Any, form: bytes, events: list[Event]) -> None:
        """Append what one answer or push means. Raises Malformed, ValueError, LookupError for what was not asked for."""
        if form == b">":
            if value[0] == b"message":
                _, topic, sealed = value
                if not (isinstance(topic, bytes) and isinstance(sealed, bytes)):
                    raise Malformed(f"a message of {sealed!r:.80} to {topic!r:.80}")
                events.append((self._streams[topic], None, None, sealed))
                return
            if value[0] not in (b"subscribe", b"unsubscribe"):
                raise Malformed(f"push {value[0]!r}")
        if not self._pending:
            raise Malformed(f"it answered {value!r:.80} though nothing was asked")
        event = self._pending.popleft()
        if isinstance(value, ErrorReply):
            if not self._ready:
                raise Malformed(value)
            events.append(_refused(event))
            return
        self._ready = True
        if isinstance(event, Unsubscribed):
            self._streams = {topic: stream for topic, stream in self._streams.items() if stream != event.stream}
        if event is not None:
            events.append(event)


def _refused(asked: Event | None) -> Refused:
    """Return the refusal of what would have been answered with `asked`. RESP has no codes: 0."""
    match asked:
        case Subscribed():
            return Refused(0, "subscribe", asked.stream)
        case Published():
            return Refused(0, "publish", asked.id)
        case _:
            return Refused(0, "other", 0)
