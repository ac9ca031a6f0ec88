"""nchan over WebSocket: a connection is for one channel, whose name stands in its path, and receives or publishes.

| path              | the relay sends                                                    |
|-------------------|--------------------------------------------------------------------|
| /subscribe/TOPIC  | what is published, message by message                              |
| /publish/TOPIC    | a few lines of text for each message: its acknowledgement, in order |

It does not say when a subscription stands. It answers pings in order, so a ping and its pong say it.
Source: nchan's README, sections on publisher and subscriber endpoints.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from msgspec.structs import replace

from loadtests.dialects.base import Attach, Event, Features, Place, Published, Ready, Subscribed, Unsubscribed
from loadtests.dialects.websocket import PONG, UPGRADED, WebSocket


class Nchan:
    """One connection to nchan, for `place.attach` and no other. Raises ValueError for one that receives and publishes."""

    __slots__ = ("_attach", "_joined", "_pending", "_publishes", "_ready", "_under_way", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=False, one_stream=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        attach = place.attach
        if attach is None or attach.use not in (1, 2):
            raise ValueError("a connection to nchan is for one stream, and either receives or publishes")
        self._publishes = attach.use == 2
        self._attach = attach
        path = f"{place.path or '/'}{'publish' if self._publishes else 'subscribe'}/{attach.topic}"
        self._websocket = WebSocket(replace(place, path=path), path, None, random_bits)
        self._ready = False
        self._joined = False
        self._pending: deque[Event] = deque()  # what each pong will mean
        self._under_way: deque[int | None] = deque()  # ids of publishes; None: ephemeral

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        if attach.stream != self._attach.stream:
            raise LookupError("this connection is for another stream")
        self._pending.append(Subscribed(attach.stream, None, None, False))
        return self._websocket.ping()

    def unsubscribe(self, stream: int) -> bytes:
        """The connection is the subscription: what comes after the pong is not passed on."""
        self._check(stream)
        self._pending.append(Unsubscribed(stream, None))
        return self._websocket.ping()

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        self._check(stream)
        self._under_way.append(id if durable else None)
        return self._websocket.frame(sealed)

    def ack(self, stream: int, upto: int) -> bytes:
        self._check(stream)
        return b""

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        stream = self._attach.stream
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                if not self._publishes:
                    if self._joined:
                        events.append((stream, None, None, item))
                    continue
                if not self._under_way or not item.startswith(b"queued messages: "):
                    events += self._websocket.fail(f"the relay said {item[:120].decode('latin-1')!r}")
                    break
                done = self._under_way.popleft()
                if done is not None:
                    events.append(Published(done, None))
            elif item == UPGRADED:
                self._ready = True
                events.append(Ready(None))
            elif item == PONG:
                if self._pending:
                    event = self._pending.popleft()
                    self._joined = isinstance(event, Subscribed)
                    events.append(event)
            elif not isinstance(item, str):
                events.append(item)
        return events

    def _check(self, stream: int) -> None:
        if not self._joined or stream != self._attach.stream:
            raise LookupError(f"stream {stream} is not subscribed")
