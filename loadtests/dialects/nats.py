"""NATS over WebSocket: the text protocol of nats-server, `verbose` so that it answers every request in order.

| the server says | means                                                                          |
|-----------------|--------------------------------------------------------------------------------|
| INFO            | the first: CONNECT and PING are sent; later ones only tell of the cluster      |
| MSG             | a delivery                                                                     |
| +OK, PONG       | the oldest request under way is done; the first is the greeting: Ready         |
| PING            | Reply(PONG)                                                                    |
| -ERR            | of permissions: the oldest request is refused; anything else: Failed           |

Source: docs.nats.io, reference/nats-protocol; the server's source for what is sent when.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

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
from loadtests.dialects.nats_text import NatsReader
from loadtests.dialects.websocket import UPGRADED, WebSocket

_CONNECT: Final = (
    b'CONNECT {"verbose":true,"pedantic":false,"echo":true,"headers":false,"protocol":0,"lang":"python"}\r\n'
)
_DIGITS_MAX: Final = 9
"""Digits of a subscription's number."""


class Nats:
    """One connection to nats-server."""

    __slots__ = ("_pending", "_reader", "_ready", "_subjects", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(place, "/", None, random_bits, pieces=True)
        self._reader = NatsReader()
        self._ready = False
        self._pending: deque[Event | None] = deque()  # what each answer will mean; None: nothing
        self._subjects: dict[int, bytes] = {}

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        subject = attach.topic.encode()
        self._subjects[attach.stream] = subject
        self._pending.append(Subscribed(attach.stream, None, None, False))
        receives = attach.use & 1
        return self._websocket.frame(b"SUB %b %d\r\n" % (subject, attach.stream) if receives else b"PING\r\n")

    def unsubscribe(self, stream: int) -> bytes:
        del self._subjects[stream]
        self._pending.append(Unsubscribed(stream, None))
        return self._websocket.frame(b"UNSUB %d\r\n" % stream)

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        subject = self._subjects[stream]
        self._pending.append(Published(id, None) if durable else None)
        return self._websocket.frame(b"PUB %b %d\r\n%b\r\n" % (subject, len(sealed), sealed))

    def ack(self, stream: int, upto: int) -> bytes:
        return self._subjects[stream][:0]

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return self._websocket.close(code)

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                for line, payload in self._reader.cut(item, events):
                    fault = self._line(line, events) if payload is None else self._message(line, payload, events)
                    if fault is not None:
                        events += self._websocket.fail(fault)
                        return events
            elif not isinstance(item, str):
                events.append(item)
            elif item == UPGRADED:
                self._pending.extend((None, Ready(None)))
        return events

    def _message(self, line: bytes, payload: bytes, events: list[Event]) -> str | None:
        """Append the delivery behind `MSG subject sid [reply] bytes`; return a sentence if the line is none."""
        parts = line.split()
        if len(parts) < 4 or not parts[2].isdigit() or len(parts[2]) > _DIGITS_MAX:
            return _said(line)
        stream = int(parts[2])
        self._reader.remember(line, stream, len(payload))
        events.append((stream, None, None, payload))
        return None

    def _line(self, line: bytes, events: list[Event]) -> str | None:
        """Append what a line means; return a sentence if it means that the connection is over."""
        if line in (b"+OK", b"PONG"):
            if not self._pending:
                return "the relay answered more often than it was asked"
            event = self._pending.popleft()
            if event is not None:
                self._ready = True
                events.append(event)
        elif line == b"PING":
            events.append(Reply(self._websocket.frame(b"PONG\r\n")))
        elif line.startswith(b"INFO "):
            if not self._ready:
                events.append(Reply(self._websocket.frame(_CONNECT + b"PING\r\n")))
        elif line.startswith(b"-ERR 'Permissions Violation") and self._pending:
            events.append(_refused(self._pending.popleft()))
        else:
            return _said(line)
        return None


def _said(line: bytes) -> str:
    return f"the relay said {line[:120].decode('latin-1')!r}"


def _refused(asked: Event | None) -> Refused:
    """Return the refusal of what would have been answered with `asked`. NATS has no codes: 0."""
    match asked:
        case Subscribed():
            return Refused(0, "subscribe", asked.stream)
        case Published():
            return Refused(0, "publish", asked.id)
        case _:
            return Refused(0, "other", 0)
