"""NATS over WebSocket: the text protocol of nats-server, `verbose` so that it answers every request in order.

| the server says | means                                                                          |
|-----------------|--------------------------------------------------------------------------------|
| INFO            | the first: CONNECT and PING are sent; later ones only tell of the cluster      |
| MSG             | a delivery                                                                     |
| +OK, PONG       | the oldest request under way is done; the first is the greeting: Ready         |
| PING            | Reply(PONG)                                                                    |
| -ERR            | of permissions: the oldest request is refused; anything else: Failed           |

A WebSocket message is a piece of a byte stream here, not a record.
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
    Failed,
    Features,
    Published,
    Ready,
    Refused,
    Reply,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import MESSAGE_BYTES_MAX
from loadtests.dialects.websocket import UPGRADED, WebSocket

_CONNECT: Final = (
    b'CONNECT {"verbose":true,"pedantic":false,"echo":true,"headers":false,"protocol":0,"lang":"python"}\r\n'
)
_LINE_BYTES_MAX: Final = 65_536
"""INFO of a large cluster is the longest."""
_HEADS_MAX: Final = 4096
_DIGITS_MAX: Final = 9
"""Of a subscription's number and of a length."""


class Nats:
    """One connection to nats-server."""

    __slots__ = ("_heads", "_pending", "_ready", "_rest", "_subjects", "_websocket")

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, host: str, path: str = "/", *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(host, path, None, random_bits)
        self._rest = b""
        self._ready = False
        self._pending: deque[Event | None] = deque()  # what each answer will mean; None: nothing
        self._subjects: dict[int, bytes] = {}
        self._heads: dict[bytes, tuple[int, int]] = {}  # a MSG line -> (stream, bytes): it comes again and again

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
                self._parse(self._rest + item if self._rest else item, events)
                if events and type(events[-1]) is Failed:
                    break
            elif not isinstance(item, str):
                events.append(item)
            elif item == UPGRADED:
                self._pending.extend((None, Ready(None)))
        return events

    def _parse(self, data: bytes, events: list[Event]) -> None:
        position, end = 0, len(data)
        heads = self._heads
        while (stop := data.find(b"\r\n", position)) >= 0:
            line = data[position:stop]
            head = heads.get(line) or (self._head(line) if line[:4] == b"MSG " else None)
            if head is not None:
                start = stop + 2
                position_after = start + head[1] + 2
                if position_after > end:
                    break
                events.append((head[0], None, None, data[start : position_after - 2]))
                position = position_after
                continue
            position = stop + 2
            if (fault := self._line(line, events)) is not None:
                events += self._websocket.fail(fault)
                return
        self._rest = data[position:]
        if stop < 0 and len(self._rest) > _LINE_BYTES_MAX:
            events += self._websocket.fail("the relay sent a line without an end")

    def _head(self, line: bytes) -> tuple[int, int] | None:
        """Return (stream, bytes) of `MSG subject sid [reply] bytes`, and remember it; None if it is none or too large."""
        parts = line.split()
        if len(parts) < 4 or not all(part.isdigit() and len(part) <= _DIGITS_MAX for part in (parts[2], parts[-1])):
            return None
        if int(parts[-1]) > MESSAGE_BYTES_MAX:
            return None
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        head = self._heads[line] = (int(parts[2]), int(parts[-1]))
        return head

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
            return f"the relay said {line[:120].decode('latin-1')!r}"
        return None


def _refused(asked: Event | None) -> Refused:
    """Return the refusal of what would have been answered with `asked`. NATS has no codes: 0."""
    match asked:
        case Subscribed():
            return Refused(0, "subscribe", asked.stream)
        case Published():
            return Refused(0, "publish", asked.id)
        case _:
            return Refused(0, "other", 0)
