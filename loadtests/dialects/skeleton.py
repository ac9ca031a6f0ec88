"""A dialect to begin with: its relay speaks JSON in text messages over WebSocket. Make it speak as yours does.

| the client says                                       | the relay answers                                         |
|-------------------------------------------------------|-----------------------------------------------------------|
| {"do": "join", "room": "ab", "receive": true}         | {"is": "joined", "room": "ab"}                            |
| {"do": "send", "room": "ab", "id": 7, "sealed": "AQ"} | {"is": "taken", "id": 7}                                  |
|                                                       | to who receives: {"is": "message", "room": ..., "sealed"} |
| {"do": "leave", "room": "ab"}                         | {"is": "left", "room": "ab"}                              |

    relaymark dialect check skeleton.py:Skeleton --relay skeleton.py:SkeletonEnd
"""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from loadtests.dialects.base import Attach, Event, Features, Place, Published, Ready, Subscribed, Unsubscribed
from loadtests.dialects.check.scripted_end import OverWebSocket
from loadtests.dialects.frames import TEXT
from loadtests.dialects.websocket import UPGRADED, WebSocket

# 1. What the relay says, a class for each form. What has no such form raises, and the connection fails.


class Joined(msgspec.Struct, tag_field="is", tag="joined"):
    room: str


class Left(msgspec.Struct, tag_field="is", tag="left"):
    room: str


class Taken(msgspec.Struct, tag_field="is", tag="taken"):
    id: int


class Message(msgspec.Struct, tag_field="is", tag="message"):
    room: str
    sealed: bytes  # which is base64 in JSON


DECODER = msgspec.json.Decoder(Joined | Left | Taken | Message)


class Skeleton:
    """One connection. `stream` is the harness's number for what the relay calls a room."""

    # 2. What the relay has. Promise only what is true: the harness asks for it, and counts its absence as loss.
    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(place, "/", None, random_bits)  # its path, and its subprotocol if it has one
        self._ready = False
        self._rooms: dict[int, str] = {}  # of the streams that may be used
        self._streams: dict[str, int] = {}  # of the rooms that deliveries may come from

    # 3. What the client says. Each call returns the bytes to send.

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        self._rooms[attach.stream] = attach.topic
        self._streams[attach.topic] = attach.stream
        return self._say({"do": "join", "room": attach.topic, "receive": bool(attach.use & 1)})

    def unsubscribe(self, stream: int) -> bytes:
        return self._say({"do": "leave", "room": self._rooms.pop(stream)})

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        return self._say({"do": "send", "room": self._rooms[stream], "id": id, "sealed": sealed})

    def ack(self, stream: int, upto: int) -> bytes:
        return self._rooms[stream][:0].encode()  # nothing; and a LookupError for a stream that was not joined

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def _say(self, said: dict[str, Any]) -> bytes:
        return self._websocket.frame(msgspec.json.encode(said), TEXT)

    # 4. What the relay's messages mean, as events.

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                try:
                    events.append(self._meaning(item))
                except (ValueError, LookupError, RecursionError):
                    events += self._websocket.fail(f"the relay said {item[:120].decode('utf-8', 'replace')!r}")
                    break
            elif item == UPGRADED:
                self._ready = True
                events.append(Ready(None))
            elif not isinstance(item, str):
                events.append(item)  # Reply, Closed, Failed: as they are
        return events

    def _meaning(self, item: bytes) -> Event:
        said: Joined | Left | Taken | Message = DECODER.decode(item)
        match said:
            case Message():
                return (self._streams[said.room], None, None, said.sealed)
            case Taken():
                return Published(said.id, None)
            case Joined():
                return Subscribed(self._streams[said.room], None, None, False)
            case Left():
                return Unsubscribed(self._streams.pop(said.room), None)


# 5. The other end, for `relaymark dialect check`: write it from the protocol's description, not from the dialect.


class SkeletonEnd(OverWebSocket):
    text = True

    def answers(self, message: bytes) -> list[bytes]:
        answer: dict[str, Any]
        match json.loads(message):
            case {"do": "join", "room": str(room), "receive": bool()}:
                answer = {"is": "joined", "room": room}
            case {"do": "send", "room": str(), "id": int(number), "sealed": str()}:
                answer = {"is": "taken", "id": number}
            case {"do": "leave", "room": str(room)}:
                answer = {"is": "left", "room": room}
            case other:
                raise ValueError(f"no request: {other}")
        return [json.dumps(answer).encode()]

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        return json.dumps({"is": "message", "room": attach.topic, "sealed": b64encode(sealed).decode()}).encode()
