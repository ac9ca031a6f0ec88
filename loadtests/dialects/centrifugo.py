"""Centrifugo over WebSocket: its JSON protocol, sealed bytes as base64, as JSON has no bytes.

| the server sends            | means                                                   |
|-----------------------------|---------------------------------------------------------|
| {"id": n, "connect": ...}   | the first: Ready                                        |
| {"id": n, ...}              | the request n is done, or refused if it has "error"     |
| {"push": {"pub": ...}}      | a delivery                                              |
| {}                          | its ping: Reply({})                                     |

A message holds one such object a line. To publish without receiving needs no subscription; an unsubscribe, which is
answered in any case, tells that the stream may be used.
Source: centrifugal.dev, docs/transports/client_protocol.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec

from loadtests.dialects.base import (
    Attach,
    Event,
    Features,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import TEXT
from loadtests.dialects.websocket import UPGRADED, WebSocket


class _Pub(msgspec.Struct):
    data: bytes = b""


class _Push(msgspec.Struct):
    channel: str = ""
    pub: _Pub | None = None


class _Fault(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Answer(msgspec.Struct):
    id: int = 0
    error: _Fault | None = None
    push: _Push | None = None


_DECODER: Final = msgspec.json.Decoder(_Answer)


class Centrifugo:
    """One connection to Centrifugo."""

    __slots__ = ("_channels", "_id", "_pending", "_ready", "_streams", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(place, "/connection/websocket", None, random_bits)
        self._id = 0
        self._ready = False
        self._pending: dict[int, Event | None] = {}  # what each answer will mean; None: nothing
        self._streams: dict[str, int] = {}
        self._channels: dict[int, str] = {}

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        self._streams[attach.topic], self._channels[attach.stream] = attach.stream, attach.topic
        request = "subscribe" if attach.use & 1 else "unsubscribe"
        return self._ask(Subscribed(attach.stream, None, None, False), request, channel=attach.topic)

    def unsubscribe(self, stream: int) -> bytes:
        return self._ask(Unsubscribed(stream, None), "unsubscribe", channel=self._channels.pop(stream))

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        channel = self._channels[stream]
        done = Published(id, None) if durable else None
        return self._ask(done, "publish", channel=channel, data=sealed)

    def ack(self, stream: int, upto: int) -> bytes:
        return self._channels[stream][:0].encode()

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def _ask(self, done: Event | None, request: str, **arguments: Any) -> bytes:
        self._id += 1
        self._pending[self._id] = done
        return self._websocket.frame(msgspec.json.encode({"id": self._id, request: arguments}), TEXT)

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                try:
                    for line in item.split(b"\n"):
                        if line:
                            self._take(_DECODER.decode(line), events)
                except (ValueError, LookupError, RecursionError) as error:
                    events += self._websocket.fail(f"the relay sent what is no answer of the protocol: {error}")
                    break
            elif item == UPGRADED:
                events.append(Reply(self._ask(Ready(None), "connect")))
            elif not isinstance(item, str):
                events.append(item)
        return events

    def _take(self, answer: _Answer, events: list[Event]) -> None:
        """Append what one object means. Raises KeyError for what was not asked for."""
        if answer.push is not None:
            if answer.push.pub is not None and answer.push.channel in self._streams:
                stream = self._streams[answer.push.channel]
                events.append((stream, None, None, answer.push.pub.data))
            return
        if not answer.id:
            events.append(Reply(self._websocket.frame(b"{}", TEXT)))
            return
        done = self._pending.pop(answer.id)
        if answer.error is not None:
            events.append(_refused(done, answer.error.code))
            return
        if isinstance(done, Ready):
            self._ready = True
        if done is not None:
            events.append(done)


def _refused(asked: Event | None, code: int) -> Refused:
    match asked:
        case Subscribed():
            return Refused(code, "subscribe", asked.stream)
        case Published():
            return Refused(code, "publish", asked.id)
        case _:
            return Refused(code, "other", 0)
