"""MQTT 3.1.1 over WebSocket, as mosquitto speaks it: published with QoS 1, so acknowledged; received with QoS 0.

| the server sends | means                                                                |
|------------------|----------------------------------------------------------------------|
| CONNACK          | the first: Ready, or Failed                                          |
| PUBLISH          | a delivery                                                           |
| PUBACK           | Published                                                            |
| SUBACK, UNSUBACK | Subscribed or Refused, Unsubscribed                                  |
| PINGRESP         | a stream that is only published to is attached: nothing else says so |

A WebSocket message is a piece of a byte stream here (section 6.0), not a packet.
Source: MQTT Version 3.1.1, OASIS Standard, sections 2 and 3.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

from loadtests.dialects.base import (
    Attach,
    Event,
    Failed,
    Features,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import MESSAGE_BYTES_MAX
from loadtests.dialects.websocket import UPGRADED, WebSocket

_CONNECT: Final = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
"""Protocol level 4, clean session, no keep-alive, the server makes up a name."""
_PINGREQ: Final = b"\xc0\x00"
_PACKET_IDS: Final = 65_535


class Mqtt:
    """One connection to an MQTT server."""

    __slots__ = ("_id", "_pending", "_pings", "_ready", "_rest", "_streams", "_topics", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(place, "/mqtt", "mqtt", random_bits)
        self._rest = b""
        self._ready = False
        self._id = 0
        self._pending: dict[int, Event] = {}  # packet id -> what its answer means
        self._pings: deque[Event] = deque()
        self._streams: dict[bytes, int] = {}
        self._topics: dict[int, bytes] = {}  # with their length before them

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        name = attach.topic.encode()
        topic = len(name).to_bytes(2, "big") + name
        self._streams[name], self._topics[attach.stream] = attach.stream, topic
        event = Subscribed(attach.stream, None, None, False)
        if not attach.use & 1:
            self._pings.append(event)
            return self._websocket.frame(_PINGREQ)
        return self._send(0x82, self._packet_id(event) + topic + b"\x00")

    def unsubscribe(self, stream: int) -> bytes:
        topic = self._topics.pop(stream)
        return self._send(0xA2, self._packet_id(Unsubscribed(stream, None)) + topic)

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        topic = self._topics[stream]
        if not durable:
            return self._send(0x30, topic + sealed)
        return self._send(0x32, topic + self._packet_id(Published(id, None)) + sealed)

    def ack(self, stream: int, upto: int) -> bytes:
        return self._topics[stream][:0]

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.frame(b"\xe0\x00") + self._websocket.close(code)

    def _send(self, first: int, body: bytes) -> bytes:
        length, digits = len(body), bytearray((first,))
        while length > 127:
            digits.append(length & 0x7F | 0x80)
            length >>= 7
        digits.append(length)
        return self._websocket.frame(bytes(digits) + body)

    def _packet_id(self, event: Event) -> bytes:
        assert len(self._pending) < _PACKET_IDS, "more under way than MQTT has numbers"
        self._id = self._id % _PACKET_IDS + 1
        while self._id in self._pending:
            self._id = self._id % _PACKET_IDS + 1
        self._pending[self._id] = event
        return self._id.to_bytes(2, "big")

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                self._parse(self._rest + item if self._rest else item, events)
                if events and type(events[-1]) is Failed:
                    break
            elif not isinstance(item, str):
                events.append(item)
            elif item == UPGRADED:
                events.append(Reply(self._websocket.frame(_CONNECT)))
        return events

    def _parse(self, data: bytes, events: list[Event]) -> None:
        position, end = 0, len(data)
        streams = self._streams
        while position + 2 <= end:
            length, start = data[position + 1], position + 2
            if length & 0x80:
                length, start = _length(data, position + 1)
                if not start:
                    break
                if start < 0:
                    events += self._websocket.fail("the relay sent a length of more than four digits")
                    return
            if length > MESSAGE_BYTES_MAX:
                events += self._websocket.fail(f"the relay sent a packet of {length} bytes")
                return
            stop = start + length
            if stop > end:
                break
            first = data[position]
            if first & 0xF6 == 0x30:  # PUBLISH with QoS 0, retained or not
                body = start + 2 + int.from_bytes(data[start : start + 2], "big")
                stream = streams.get(data[start + 2 : body])
                if stream is not None:
                    events.append((stream, None, None, data[body:stop]))
            elif (fault := self._packet(first, data[start:stop], events)) is not None:
                events += self._websocket.fail(fault)
                return
            position = stop
        self._rest = data[position:]

    def _packet(self, first: int, body: bytes, events: list[Event]) -> str | None:
        """Append what a packet means; return a sentence if it breaks the protocol."""
        if not self._ready:
            if first != 0x20 or len(body) != 2:
                return f"packet 0x{first:02x} instead of a CONNACK"
            if body[1]:
                return f"the relay refused the connection with code {body[1]}"
            self._ready = True
            events.append(Ready(None))
            return None
        if first == 0xD0 and self._pings:
            events.append(self._pings.popleft())
            return None
        event = self._pending.pop(int.from_bytes(body[:2], "big"), None)
        match first, event:
            case 0x40, Published() as published:
                events.append(published)
            case 0xB0, Unsubscribed() as left:
                events.append(left)
            case 0x90, Subscribed():
                code = body[2] if len(body) == 3 else 0x80
                events.append(Refused(code, "subscribe", event.stream) if code else event)
            case _:
                return f"packet 0x{first:02x}, which answers nothing that was sent"
        return None


def _length(data: bytes, position: int) -> tuple[int, int]:
    """Return a packet's length and where its body begins: 0 where that is cut short, -1 where it is too long."""
    length = 0
    for number, digit in enumerate(data[position : position + 4]):
        length |= (digit & 0x7F) << 7 * number
        if not digit & 0x80:
            return length, position + number + 1
    return 0, -1 if len(data) >= position + 4 else 0
