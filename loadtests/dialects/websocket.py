"""A WebSocket that carries another relay's protocol: handshake, pings and closes, so that a dialect sees only messages.

`feed` returns, in the order of the bytes:

    bytes                   a whole message, or a piece of the byte stream, for the dialect
    UPGRADED                the handshake is done; messages may follow in the same read
    PONG                    the answer to `ping`
    Reply, Closed, Failed   events for the event loop, to be passed on as they are
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from loadtests.dialects.base import Closed, Failed, Place, Reply
from loadtests.dialects.frames import (
    BINARY,
    CLOSE,
    PING,
    Control,
    FrameReader,
    Handshake,
    HandshakeError,
    client_frame,
    close_frame,
)
from loadtests.dialects.frames import PONG as _PONG_OPCODE

UPGRADED: Final = "upgraded"
PONG: Final = "pong"

Item: TypeAlias = "bytes | Literal['upgraded', 'pong'] | Reply | Closed | Failed"


def handshake(place: Place, path: str, subprotocol: str | None, random_bits: Callable[[int], int]) -> Handshake:
    """Return the opening handshake at `place`; `subprotocol` is offered where the place names none."""
    if place.query:
        path = f"{path}?{place.query}"
    return Handshake(
        place.host, path, place.subprotocol or subprotocol, random_bits, origin=place.origin, headers=place.headers
    )


class WebSocket:
    """One connection's WebSocket, client side, sans-IO. After Closed or Failed `feed` returns nothing more."""

    __slots__ = ("_closing", "_handshake", "_over", "_random_bits", "_reader")

    def __init__(
        self,
        place: Place,
        path: str,
        subprotocol: str | None,
        random_bits: Callable[[int], int],
        *,
        pieces: bool = False,
    ) -> None:
        """`path` and `subprotocol` are the dialect's own; what the place says goes before them.

        `pieces`: messages carry a byte stream and mean nothing, so that long ones are given as they come.
        """
        self._handshake: Handshake | None = handshake(place, place.path or path, subprotocol, random_bits)
        self._reader = FrameReader(pieces=pieces)
        self._random_bits = random_bits
        self._closing = False
        self._over = False

    def opening(self) -> bytes:
        assert self._handshake is not None, "one object a connection"
        return self._handshake.request

    def frame(self, payload: bytes, opcode: int = BINARY) -> bytes:
        """Return `payload` as one masked message."""
        return client_frame(payload, self._random_bits(32), opcode)

    def ping(self) -> bytes:
        return self.frame(b"", PING)

    def close(self, code: int) -> bytes:
        self._closing = True
        return close_frame(code, self._random_bits(32))

    def fail(self, text: str) -> list[Reply | Failed]:
        """Return the events for a peer that breaks the carried protocol; nothing follows them."""
        self._over = True
        reply = [] if self._closing else [Reply(close_frame(1002, self._random_bits(32)))]
        return [*reply, Failed(text)]

    def feed(self, data: bytes) -> list[Item]:
        if self._over:
            return []
        items: list[Item] = []
        if self._handshake is not None:
            try:
                rest = self._handshake.feed(data)
            except HandshakeError as error:
                self._over = True
                return [Failed(str(error))]
            if rest is None:
                return items
            self._handshake = None
            items.append(UPGRADED)
            data = rest
        for item in self._reader.feed(data):
            if isinstance(item, bytes):
                items.append(item)
            elif not isinstance(item, Control):
                items += self.fail(f"the relay broke WebSocket: {item.text}")
            elif item.opcode == PING:
                items.append(Reply(self.frame(item.payload, _PONG_OPCODE)))
            elif item.opcode == CLOSE:
                code, reason = item.close()
                if not self._closing:
                    items.append(Reply(close_frame(code, self._random_bits(32))))
                items.append(Closed(code, reason))
                self._over = True
            else:
                items.append(PONG)
            if self._over:
                break
        return items
