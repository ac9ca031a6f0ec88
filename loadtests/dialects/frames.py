"""The client side of WebSocket (RFC 6455): the opening handshake and frames, to and from bytes, without I/O.

Separate from the relay's framing on purpose: a fault in a shared parser would cancel itself out. Built for what a load
generator reads: one large read that holds hundreds of small unmasked frames.

A FrameReader yields, in the order of the bytes:

    bytes                     a whole data message, binary or text, its fragments joined
    Control(opcode, payload)  ping, pong or close
    Fault(code, text)         the peer broke the protocol; nothing follows
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha1
from struct import Struct as Layout
from typing import Final, NamedTuple, TypeAlias

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the C extension
    from websockets.utils import apply_mask

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

MESSAGE_BYTES_MAX: Final = 4_194_304
"""No relay of a comparison sends larger messages; a wrong length must not make a worker gather bytes for ever."""
RESPONSE_BYTES_MAX: Final = 16_384
"""The answer to the opening handshake may be no longer."""
_GATHERED_BYTES_MAX: Final = 65_535
"""Least bytes of a frame whose bytes are pieces: a shorter one is waited for."""
CONTROL_BYTES_MAX: Final = 125
"""RFC 6455 section 5.5."""

_HEAD: Final = Layout(">HH")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Control(NamedTuple):
    opcode: int
    payload: bytes

    def close(self) -> tuple[int, str]:
        """Return code and reason of a CLOSE; 1005 where it has none (RFC 6455 section 7.1.5)."""
        if len(self.payload) < 2:
            return 1005, ""
        return int.from_bytes(self.payload[:2], "big"), self.payload[2:].decode("utf-8", "replace")


class Fault(NamedTuple):
    code: int
    text: str


Item: TypeAlias = bytes | Control | Fault


class FrameReader:
    """Cuts what a server sends into messages, however the bytes are split. `feed` never raises.

    `pieces`: messages carry a byte stream and mean nothing. Of what is longer than 64 KiB each read's part is given at
    once, without a limit: nats-server sends all that waits for a reader as one message, which may be many megabytes.
    """

    __slots__ = ("_broken", "_fragments", "_fragments_bytes", "_pieces", "_remaining", "_rest", "_wanted")

    def __init__(self, *, pieces: bool = False) -> None:
        self._pieces = pieces
        self._remaining = 0  # bytes of a long frame that are still to come, with `pieces`
        self._rest = bytearray()
        self._wanted = 0
        self._fragments: list[bytes] | None = None
        self._fragments_bytes = 0
        self._broken = False

    def feed(self, data: bytes) -> list[Item]:
        """Return everything that `data` completes."""
        if self._broken:
            return []
        items: list[Item] = []
        if self._remaining:
            items.append(data[: self._remaining])
            data, self._remaining = data[self._remaining :], max(0, self._remaining - len(data))
        elif self._rest:
            # Gathered, not parsed again at each read: a message in a thousand pieces costs its bytes once.
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest = bytearray()
        append, head_of = items.append, _HEAD.unpack_from
        position, end = 0, len(data)
        while position + 4 <= end:
            head, length = head_of(data, position)
            if (head == 0x827E or head == 0x817E) and self._fragments is None:
                # A whole message of 126 bytes to 64 KiB, binary or text: nearly all that comes.
                start = position + 4
                stop = start + length
                if stop > end:
                    break
                append(data[start:stop])
                position = stop
                continue
            stop = self._frame(data, position, end, items)
            if stop == position:
                break
            position = stop
        else:
            # Frames of two or three bytes, such as an empty pong, can stand at the very end.
            while position < end and (stop := self._frame(data, position, end, items)) != position:
                position = stop
        if position < end and not (items and type(items[-1]) is Fault):
            self._rest = bytearray(data[position:])
            self._wanted = self._wanted_bytes(data, position, end)
        return items

    @staticmethod
    def _wanted_bytes(data: bytes, position: int, end: int) -> int:
        """Return how many bytes, of those from `position`, are needed before there is any use in parsing again."""
        available = end - position
        length = data[position + 1] & 0x7F if available >= 2 else 0
        header = {126: 4, 127: 10}.get(length, 2)
        if available < header:
            return header
        if header > 2:
            length = int.from_bytes(data[position + 2 : position + header], "big")
        return header + length

    def _frame(self, data: bytes, position: int, end: int, items: list[Item]) -> int:
        """Take one frame of any form; return where it ends, or `position` if it is not whole or not valid."""
        if end - position < 2:
            return position
        first, second = data[position], data[position + 1]
        opcode, final, length = first & 0x0F, first & 0x80, second & 0x7F
        if first & 0x70:
            return self._break(items, position, 1002, "reserved bits, though no extension was negotiated")
        if second & 0x80:
            return self._break(items, position, 1002, "a masked frame from a server")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            return self._break(items, position, 1002, f"opcode {opcode}")
        start = position + 2
        if opcode >= CLOSE:
            if not final or length > CONTROL_BYTES_MAX:
                return self._break(items, position, 1002, "a control frame in fragments or above 125 bytes")
        elif (opcode == CONTINUATION) is (self._fragments is None):
            return self._break(items, position, 1002, "a continuation of nothing, or a message inside another")
        if length >= 126:
            width = 2 if length == 126 else 8
            start += width
            if start > end:
                return position
            length = int.from_bytes(data[position + 2 : start], "big")
        stop = start + length
        if self._pieces and opcode < CLOSE:
            return self._piece(data, position, start, stop, items, final=bool(final))
        if length + self._fragments_bytes > MESSAGE_BYTES_MAX:
            return self._break(items, position, 1009, f"a message above {MESSAGE_BYTES_MAX} bytes")
        if stop > end:
            return position
        payload = data[start:stop]
        if opcode >= CLOSE:
            items.append(Control(opcode, payload))
            return stop
        if self._fragments is None and final:
            items.append(payload)
            return stop
        if self._fragments is None:
            self._fragments = []
        self._fragments.append(payload)
        self._fragments_bytes += length
        if final:
            items.append(b"".join(self._fragments))
            self._fragments = None
            self._fragments_bytes = 0
        return stop

    def _piece(self, data: bytes, position: int, start: int, stop: int, items: list[Item], *, final: bool) -> int:
        """Take what there is of a data frame, if it is a long one, else all; return as `_frame` does."""
        there = min(stop, len(data)) if stop - start > _GATHERED_BYTES_MAX else stop
        if there > len(data):
            return position
        if there > start or stop == start:
            items.append(data[start:there])
        self._remaining = stop - there
        self._fragments = None if final else []
        return there

    def _break(self, items: list[Item], position: int, code: int, text: str) -> int:
        self._broken = True
        items.append(Fault(code, text))
        return position


def client_frame(payload: bytes, mask: int, opcode: int = BINARY) -> bytes:
    """Return one final frame, masked with the 32 bits of `mask` as RFC 6455 section 5.3 demands of clients."""
    length = len(payload)
    key = mask.to_bytes(4, "big")
    if length < 126:
        header = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65_536:
        header = bytes((0x80 | opcode, 0xFE)) + length.to_bytes(2, "big")
    else:
        header = bytes((0x80 | opcode, 0xFF)) + length.to_bytes(8, "big")
    return header + key + apply_mask(payload, key)


def close_frame(code: int, mask: int) -> bytes:
    """Return a close frame. 1005, which must not travel, becomes one without a code."""
    return client_frame(b"" if code == 1005 else code.to_bytes(2, "big"), mask, CLOSE)


class HandshakeError(Exception):
    """The target's answer is not the one to our upgrade; the text says what it was."""


class Handshake:
    """The opening handshake (RFC 6455 section 4.1). `host` goes into the Host field; `random_bits(n)` makes n bits.

    `subprotocol` None: none is offered, and none may be chosen.
    """

    __slots__ = ("_gathered", "_key", "_subprotocol", "request")

    def __init__(
        self,
        host: str,
        path: str,
        subprotocol: str | None,
        random_bits: Callable[[int], int],
        *,
        origin: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._key = b64encode(random_bits(128).to_bytes(16, "big"))
        self._subprotocol = subprotocol
        self._gathered = b""
        fields = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {self._key.decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if subprotocol is not None:
            fields.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        if origin is not None:
            fields.append(f"Origin: {origin}")
        fields += [f"{name}: {value}" for name, value in headers]
        self.request = ("\r\n".join(fields) + "\r\n\r\n").encode("latin-1")
        """The bytes to send."""

    def feed(self, data: bytes) -> bytes | None:
        """Return what follows the answer once it is whole and right, None before. Raises HandshakeError."""
        self._gathered += data
        answer, separator, rest = self._gathered.partition(b"\r\n\r\n")
        if not separator:
            if not b"HTTP/1.1 ".startswith(answer[:9]):
                raise HandshakeError("the target does not speak HTTP/1.1")
            if len(answer) > RESPONSE_BYTES_MAX:
                raise HandshakeError(f"the answer's head is above {RESPONSE_BYTES_MAX} bytes")
            return None
        self._check(answer)
        self._gathered = b""
        return rest

    def _check(self, answer: bytes) -> None:
        status, *lines = answer.decode("latin-1").split("\r\n")
        if not status.startswith("HTTP/1.1 "):
            raise HandshakeError("the target does not speak HTTP/1.1")
        if status.split(" ")[1] != "101":
            raise HandshakeError(f"the target answered {status[9:120]!r} instead of an upgrade")
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        accept = b64encode(sha1(self._key + _GUID).digest()).decode()  # noqa: S324  RFC 6455 says SHA-1
        if fields.get("sec-websocket-accept") != accept:
            raise HandshakeError("Sec-WebSocket-Accept does not fit our key")
        if fields.get("upgrade", "").lower() != "websocket" or "upgrade" not in fields.get("connection", "").lower():
            raise HandshakeError("a 101 that does not upgrade to websocket")
        if fields.get("sec-websocket-protocol") != self._subprotocol:
            chosen = fields.get("sec-websocket-protocol", "no subprotocol")
            raise HandshakeError(f"the target chose {chosen!r}, not {self._subprotocol or 'none'!r}")
        if "sec-websocket-extensions" in fields:
            raise HandshakeError("the target uses an extension that was not offered")
