"""A bare WebSocket relay, as loadtests/target/relays/bun_server.js: what is published is passed on as it came.

| client sends               | relay answers | relay sends to subscribers |
|----------------------------|---------------|----------------------------|
| S topic    receive         | S topic       |                            |
| J topic    publish only    | J topic       |                            |
| U topic    leave           | U topic       |                            |
| P topic id sealed          | A topic id    | P topic id sealed          |

One binary message each: a letter, the topic (8 bytes of the stream's name), the id (4 bytes, big-endian), the rest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, Final

from loadtests.dialects.base import Attach, Event, Features, Place, Published, Ready, Subscribed, Unsubscribed
from loadtests.dialects.websocket import UPGRADED, WebSocket

_TOPIC_END: Final = 9
_ID_END: Final = 13
_PUBLISH: Final = 0x50


class Raw:
    """One connection to a bare relay."""

    __slots__ = ("_ready", "_streams", "_topics", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(place, "/raw", None, random_bits)
        self._ready = False
        self._streams: dict[bytes, int] = {}
        self._topics: dict[int, bytes] = {}  # of streams that are subscribed

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        topic = attach.name[:8]
        self._streams[topic] = attach.stream
        return self._websocket.frame((b"S" if attach.use & 1 else b"J") + topic)

    def unsubscribe(self, stream: int) -> bytes:
        return self._websocket.frame(b"U" + self._topics.pop(stream))

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        return self._websocket.frame(b"P%b%b%b" % (self._topics[stream], id.to_bytes(4, "big"), sealed))

    def ack(self, stream: int, upto: int) -> bytes:
        return self._topics[stream][:0]

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        streams = self._streams
        for item in self._websocket.feed(data):
            if not isinstance(item, bytes):
                if item == UPGRADED:
                    self._ready = True
                    events.append(Ready(None))
                elif not isinstance(item, str):
                    events.append(item)
                continue
            stream = streams.get(item[1:_TOPIC_END])
            if stream is None:
                events += self._websocket.fail("the relay spoke of a stream that was not asked for")
                break
            if item[0] == _PUBLISH and len(item) > _ID_END:
                events.append((stream, None, None, item[_ID_END:]))
            elif not self._answer(stream, item, events):
                events += self._websocket.fail(f"the relay sent a message that begins with {item[:1]!r}")
                break
        return events

    def _answer(self, stream: int, item: bytes, events: list[Event]) -> bool:
        match item[:1], len(item):
            case b"A", 13:
                events.append(Published(int.from_bytes(item[_TOPIC_END:], "big"), None))
            case b"S" | b"J", 9:
                self._topics[stream] = item[1:]
                events.append(Subscribed(stream, None, None, False))
            case b"U", 9:
                del self._streams[item[1:]]
                events.append(Unsubscribed(stream, None))
            case _:
                return False
        return True
