"""Socket.IO 4 over WebSocket (Engine.IO protocol 4), with loadtests/target/relays/socketio_server.js at the other end.

| the relay sends             | means                                                       |
|-----------------------------|-------------------------------------------------------------|
| 0{...}                      | the connection is open: 40, which enters the main namespace |
| 40{...}                     | Ready                                                       |
| 2                           | its ping: Reply(3)                                          |
| 43ID[]                      | the request ID is done                                      |
| 451-["message",topic,...]   | a delivery; its bytes are the next message                  |
| 451-["state",topic,slot,...]| a state; its bytes are the next message                     |
| 1, 41, 44{...}              | the connection, or its entry, is over: Failed               |

The client sends 42ID["join",topic,receives], 42ID["leave",topic], 451-ID["publish",topic,...] and
451-["state",topic,slot,...] in the same forms. A delivery has arrived with its second message.
There is no resume here: connection state recovery continues a session from a string that it gave with the last event,
not a stream from a number, and what it recovers cannot be told from what it does not.
Source: socket.io/docs/v4, engine-io-protocol and socket-io-protocol.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias

import msgspec
from msgspec.structs import replace

from loadtests.dialects.base import (
    Attach,
    Event,
    Features,
    Place,
    Published,
    Ready,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import TEXT
from loadtests.dialects.websocket import WebSocket

_HERE: Final = '{"_placeholder":true,"num":0}'
"""Stands where the attachment belongs."""


class _Here(msgspec.Struct, forbid_unknown_fields=True):
    placeholder: bool = msgspec.field(name="_placeholder")
    num: int


class _Message(msgspec.Struct, array_like=True, tag="message", forbid_unknown_fields=True):
    topic: str
    sealed: _Here


class _State(msgspec.Struct, array_like=True, tag="state", forbid_unknown_fields=True):
    topic: str
    slot: int
    sealed: _Here


_DECODER: Final = msgspec.json.Decoder(_Message | _State)
_HEADS_MAX: Final = 4096

_Head: TypeAlias = tuple[int, int | None]
"""Stream and slot of what an attachment belongs to; no slot: a durable record."""


class SocketIo:
    """One connection to a Socket.IO server."""

    __slots__ = ("_head", "_heads", "_id", "_pending", "_ready", "_streams", "_topics", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=True, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        path = f"{place.path or '/socket.io/'}?EIO=4&transport=websocket"
        self._websocket = WebSocket(replace(place, path=path), path, None, random_bits)
        self._id = 0
        self._ready = False
        self._pending: dict[int, Event] = {}  # what each acknowledgement will mean
        self._streams: dict[str, int] = {}
        self._topics: dict[int, str] = {}
        self._head: _Head | None = None  # what the next message belongs to
        self._heads: dict[bytes, _Head] = {}  # an event's text -> what it says: it comes again and again

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        self._streams[attach.topic], self._topics[attach.stream] = attach.stream, attach.topic
        id_ = self._ask(Subscribed(attach.stream, None, None, False))
        return self._say(f'42{id_}["join","{attach.topic}",{"true" if attach.use & 1 else "false"}]')

    def unsubscribe(self, stream: int) -> bytes:
        topic = self._topics.pop(stream)
        return self._say(f'42{self._ask(Unsubscribed(stream, None))}["leave","{topic}"]')

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        topic = self._topics[stream]
        if durable:
            head = f'451-{self._ask(Published(id, None))}["publish","{topic}",{_HERE}]'
        else:
            head = f'451-["state","{topic}",{slot},{_HERE}]'
        return self._say(head) + self._websocket.frame(sealed)

    def ack(self, stream: int, upto: int) -> bytes:
        return self._topics[stream][:0].encode()

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._say("41") + self._websocket.close(code)

    def _say(self, text: str) -> bytes:
        return self._websocket.frame(text.encode("ascii"), TEXT)

    def _ask(self, done: Event) -> int:
        self._id += 1
        self._pending[self._id] = done
        return self._id

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        heads = self._heads
        for item in self._websocket.feed(data):
            if not isinstance(item, bytes):
                if not isinstance(item, str):
                    events.append(item)
                continue
            if self._head is not None:
                stream, slot = self._head
                self._head = None
                events.append((stream, None, None, item) if slot is None else State(stream, b"", slot, item))
                continue
            self._head = heads.get(item)
            if self._head is None:
                try:
                    self._take(item, events)
                except (ValueError, LookupError, RecursionError):
                    said = item[:120].decode("utf-8", "replace")
                    events += self._websocket.fail(f"the relay said {said!r}, which answers nothing that was asked")
                    break
        return events

    def _take(self, item: bytes, events: list[Event]) -> None:
        """Take one text message. Raises DecodeError, ValueError or LookupError if it has no place here."""
        if item.startswith(b"451-"):
            said = _DECODER.decode(item[4:])
            self._head = (self._streams[said.topic], said.slot if isinstance(said, _State) else None)
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            self._heads[item] = self._head
        elif item.startswith(b"43"):
            id_, opened, _ = item[2:].partition(b"[")
            done = self._pending.pop(int(id_) if opened else 0)
            if isinstance(done, Unsubscribed):
                self._forget(done.stream)
            events.append(done)
        elif item == b"2":
            events.append(Reply(self._say("3")))
        elif item.startswith(b"0{") and not self._ready:
            events.append(Reply(self._say("40")))
        elif item.startswith(b"40") and not self._ready:
            self._ready = True
            events.append(Ready(None))
        else:
            raise LookupError

    def _forget(self, stream: int) -> None:
        """Take a stream that was left out of what deliveries are looked up in, unless it was joined again since."""
        if stream not in self._topics:
            self._streams = {topic: number for topic, number in self._streams.items() if number != stream}
            self._heads.clear()
