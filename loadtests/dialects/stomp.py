"""STOMP 1.2 over WebSocket, as RabbitMQ's web-stomp plug-in speaks it: topics, and a receipt for each request.

| the server sends    | means                                                                                |
|---------------------|--------------------------------------------------------------------------------------|
| CONNECTED           | Ready                                                                                |
| MESSAGE             | a delivery                                                                           |
| RECEIPT             | Published, Subscribed or Unsubscribed, whichever its id names                        |
| an end of line      | behind a frame: nothing; alone, a heart-beat: it is answered                         |
| ERROR               | Failed: the server closes after it                                                   |

RabbitMQ ends a connection that sent nothing for a minute, though it reads. It is asked for a heart-beat when it was
silent for 5 s, and one is sent for each and for every eighth delivery: so some 40 s pass at the most.
A WebSocket message is a piece of a byte stream here, not a frame.
Source: stomp.github.io, STOMP Protocol Specification 1.2; rabbitmq.com/docs/stomp and web-stomp.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, Final

from loadtests.dialects.base import Attach, Event, Features, Place, Published, Ready, Reply, Subscribed, Unsubscribed
from loadtests.dialects.frames import MESSAGE_BYTES_MAX
from loadtests.dialects.websocket import UPGRADED, WebSocket

_HEART_BEAT_EVERY: Final = 8
_HEAD_BYTES_MAX: Final = 16_384
_NAMES_MAX: Final = 9
"""Digits of a length or a number of ours."""


class Stomp:
    """One connection to a STOMP server, as the user `login`."""

    __slots__ = (
        "_between",
        "_connect",
        "_pending",
        "_ready",
        "_receiving",
        "_rest",
        "_topics",
        "_unanswered",
        "_websocket",
    )

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(
        self,
        place: Place,
        *,
        login: str = "guest",
        passcode: str = "guest",
        random_bits: Callable[[int], int] = random.getrandbits,
    ) -> None:
        self._websocket = WebSocket(place, "/ws", "v12.stomp", random_bits)
        who = f"host:/\nlogin:{login}\npasscode:{passcode}"
        self._connect = f"CONNECT\naccept-version:1.2\n{who}\nheart-beat:0,5000\n\n\0".encode()
        self._rest = b""
        self._ready = False
        self._between = False  # a frame has just ended: an end of line may belong to it
        self._unanswered = 0  # deliveries since we last sent anything by ourselves
        self._pending: dict[bytes, Event] = {}  # what each receipt will mean
        self._topics: dict[int, bytes] = {}
        self._receiving: set[int] = set()

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        stream = attach.stream
        topic = self._topics[stream] = b"/topic/" + attach.topic.encode()
        receipt = self._receipt(b"s%d" % stream, Subscribed(stream, None, None, False))
        if not attach.use & 1:
            return self._nothing(stream, receipt)
        self._receiving.add(stream)
        return self._websocket.frame(b"SUBSCRIBE\nid:%d\ndestination:%b\nack:auto\n%b\n\n\0" % (stream, topic, receipt))

    def unsubscribe(self, stream: int) -> bytes:
        del self._topics[stream]
        receipt = self._receipt(b"u%d" % stream, Unsubscribed(stream, None))
        if stream not in self._receiving:
            return self._nothing(stream, receipt)
        self._receiving.discard(stream)
        return self._websocket.frame(b"UNSUBSCRIBE\nid:%d\n%b\n\n\0" % (stream, receipt))

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        head = b"SEND\ndestination:%b\ncontent-length:%d" % (self._topics[stream], len(sealed))
        if durable:
            head += b"\n" + self._receipt(b"p%d" % id, Published(id, None))
        return self._websocket.frame(b"%b\n\n%b\0" % (head, sealed))

    def ack(self, stream: int, upto: int) -> bytes:
        return self._topics[stream][:0]

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def _receipt(self, name: bytes, event: Event) -> bytes:
        self._pending[name] = event
        return b"receipt:" + name

    def _nothing(self, stream: int, receipt: bytes) -> bytes:
        """Return a transaction that holds nothing: its receipt tells that the server came to this place."""
        return self._websocket.frame(
            b"BEGIN\ntransaction:%d\n\n\0ABORT\ntransaction:%d\n%b\n\n\0" % (stream, stream, receipt)
        )

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                fault = self._parse(self._rest + item if self._rest else item, events)
                if fault is not None:
                    events += self._websocket.fail(fault)
                    break
            elif not isinstance(item, str):
                events.append(item)
            elif item == UPGRADED:
                events.append(Reply(self._websocket.frame(self._connect)))
        return events

    def _parse(self, data: bytes, events: list[Event]) -> str | None:
        """Append what `data` completes; return a sentence if it means that the connection is over."""
        position, end = 0, len(data)
        while position < end:
            if data[position] in b"\r\n":
                if data[position] == 10:
                    if not self._between:
                        self._beat(events)
                    self._between = False
                position += 1
                continue
            stop = data.find(b"\n\n", position, position + _HEAD_BYTES_MAX)
            if stop < 0:
                if end - position >= _HEAD_BYTES_MAX:
                    return f"the relay said {data[position : position + 120].decode('latin-1')!r}"
                break
            head, body = data[position:stop], stop + 2
            length = _field(head, b"content-length")
            if length is None:
                after = data.find(b"\0", body)
            elif length.isdigit() and len(length) <= _NAMES_MAX and int(length) <= MESSAGE_BYTES_MAX:
                after = body + int(length)
            else:
                return f"the relay sent a frame of {length[:20].decode('latin-1')!r} bytes"
            if after < 0 and end - body > MESSAGE_BYTES_MAX:
                return "the relay sent a frame without an end"
            if not -1 < after < end:
                break
            if data[after]:
                return "the relay sent a frame that is longer than it says"
            if (fault := self._frame(head, data[body:after], events)) is not None:
                return fault
            self._between = True
            position = after + 1
        self._rest = data[position:]
        return None

    def _frame(self, head: bytes, body: bytes, events: list[Event]) -> str | None:
        if head.startswith(b"MESSAGE\n"):
            name = _field(head, b"subscription") or b""
            if not name.isdigit() or len(name) > _NAMES_MAX:
                return f"the relay sent a message of the subscription {name[:20].decode('latin-1')!r}"
            events.append((int(name), None, None, body))
            self._unanswered += 1
            if self._unanswered == _HEART_BEAT_EVERY:
                self._beat(events)
        elif head.startswith(b"RECEIPT\n"):
            event = self._pending.pop(_field(head, b"receipt-id") or b"", None)
            if event is None:
                return f"the relay gave a receipt that was not asked for: {head[:120].decode('latin-1')!r}"
            events.append(event)
        elif head.startswith(b"CONNECTED\n") and not self._ready:
            self._ready = True
            events.append(Ready(None))
        else:
            said = _field(head, b"message") or head
            return f"the relay said {said[:120].decode('latin-1')!r}"
        return None

    def _beat(self, events: list[Event]) -> None:
        self._unanswered = 0
        events.append(Reply(self._websocket.frame(b"\n")))


def _field(head: bytes, name: bytes) -> bytes | None:
    """Return the first value of a header, None if there is none. Ours have nothing in them that STOMP escapes."""
    start = head.find(b"\n%b:" % name)
    if start < 0:
        return None
    start += len(name) + 2
    stop = head.find(b"\n", start)
    return head[start:] if stop < 0 else head[start:stop]
