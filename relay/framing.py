"""WebSocket frames and their bytes, server side and sans-IO (RFC 6455 section 5, without extensions).

Bytes of a client go into a FrameReader, complete messages and control frames come out. A reader knows two things:
whether a message is under way, and whether the bytes stand inside a payload. So it is in one of four states:

    state     what is kept                                what may come next
    --------  ------------------------------------------  --------------------------------------------------
    between   at most 13 bytes of a data frame's header   TEXT, BINARY, CLOSE, PING, PONG
    open      the message so far, FIN not yet seen        CONTINUATION, CLOSE, PING, PONG
    inside    the message so far, the rotated mask        payload bytes of the current data frame
    shut      nothing                                     nothing: all further bytes are ignored

    between  -- data frame -->             inside
    inside   -- its last byte, FIN -->     between    (the message is an event)
    inside   -- its last byte, no FIN -->  open
    open     -- CONTINUATION -->           inside
    between, open  -- CLOSE -->            shut       (the last event)
    any      -- violation -->              shut       (FramingError)

What is left of bytes after as many small frames as `feed` may read waits in front of the first of them, in any state
but shut.

A control frame is at most 131 bytes and is kept until it is whole, so it never shows half-read in these states.
What is wrong with a header is refused when the bytes that say so arrive, before any of the payload is kept. Payload is
unmasked, and text is checked, as it arrives: each byte is touched a fixed number of times, however it is cut.

Golden vectors: tests/golden/framing.json.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from dataclasses import dataclass
from struct import Struct as Layout
from typing import Final, TypeAlias

from relay.errors import RelayError
from relay.limits import FRAGMENTS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform for which that library publishes no compiled module
    from websockets.utils import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

PROTOCOL_ERROR: Final = 1002
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009

CONTROL_BYTES_MAX: Final = 125
"""RFC 6455 section 5.5."""
UNBOUNDED: Final = 1 << 62

# FIN, BINARY, masked, and a 16-bit length: what nearly every frame of a client begins with.
_BINARY_16: Final = 0x82FE
_BINARY_7: Final = 0x8280
_head: Final = Layout(">HH4s").unpack_from
_header_16: Final = Layout(">BBH").pack
_header_64: Final = Layout(">BBQ").pack
_Utf8Decoder: Final = getincrementaldecoder("utf-8")

# RFC 6455 section 7.4.1 and the IANA registry of close codes: those that may stand in a close frame.
_CLOSE_CODES: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))


@dataclass(frozen=True, slots=True)
class Ping:
    """RFC 6455 section 5.5.2: to be answered with a PONG of the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """RFC 6455 section 5.5.3: an answer to a ping, or a sign of life."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """RFC 6455 section 5.5.1: the last frame of the client. `code` None: it gave none."""

    code: int | None
    reason: str


Event: TypeAlias = bytes | str | Ping | Pong | Close
"""A binary message is bytes, without a wrapper, for speed; a text message is str."""


class FramingError(RelayError):
    """The client broke RFC 6455: close with `close_code`. `events` are those that were complete before the fault."""

    def __init__(self, close_code: int, reason: str, events: list[Event]) -> None:
        super().__init__(f"{close_code}: {reason}")
        self.close_code = close_code
        self.reason = reason
        self.events = events


class Partial:
    """A message under way. Idle connections have none."""

    __slots__ = ("data", "decoder", "final", "fragments", "mask", "missing")

    def __init__(self, opcode: int) -> None:
        self.data = bytearray()
        self.decoder: IncrementalDecoder | None = _Utf8Decoder() if opcode == TEXT else None
        self.final = False
        self.fragments = 0
        self.mask = b""
        self.missing = 0


class FrameReader:
    """Turns the bytes of one client into messages and control frames."""

    __slots__ = ("_begin", "_message_bytes_max", "_rest", "_shut", "fragments", "partial", "waiting")

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self.partial: Partial | None = None  # the message under way
        self._message_bytes_max = message_bytes_max
        self._rest = b""  # of it, what is behind `_begin`
        self._begin = 0
        self._shut = False
        self.fragments = 0  # continuation frames so far
        self.waiting = False  # for `feed` to go on: it stopped at its limit

    def hold(self, data: bytes) -> None:
        """Keep bytes for the next `feed`."""
        self._rest = self._rest[self._begin :] + data
        self._begin = 0
        self.waiting = True

    def feed(self, data: bytes, small_max: int = UNBOUNDED) -> list[Event]:
        """Return the events that `data` completes, in order. Raises FramingError; RFC 6455 section 5.2.

        At most `small_max` frames other than whole binary ones above 125 bytes are read, which cost more than their
        bytes say: the rest waits. `feed(b"")` goes on with it.
        """
        events: list[Event] = []
        self.waiting = False
        if self._shut:
            return events
        position = 0
        if self._rest:
            if data:
                data = self._rest[self._begin :] + data
            else:  # Only on with what waits: a share at a time, and not copied each time.
                data, position = self._rest, self._begin
            self._rest = b""
            self._begin = 0
        limit = self._message_bytes_max
        end = len(data)
        while position < end:
            if self.partial is None:
                # The hot path: whole unfragmented binary frames, one after the other. Whatever else comes, or is
                # wrong with them, is left to _frame. Unpacking three fields at once beats indexing the bytes.
                while end - position >= 8:
                    head, length, mask = _head(data, position)
                    if head == _BINARY_16:
                        start = position + 8
                        if not CONTROL_BYTES_MAX < length <= limit:
                            break
                    elif _BINARY_7 <= head < _BINARY_16 and small_max > 0:
                        small_max -= 1
                        start = position + 6
                        length = head - _BINARY_7
                        mask = data[position + 2 : start]
                        if length > limit:
                            break
                    else:
                        break
                    stop = start + length
                    if stop > end:
                        break
                    events.append(apply_mask(data[start:stop], mask))
                    position = stop
                if position == end:
                    break
            elif self.partial.missing:
                position = self._payload(self.partial, data, position, events)
                continue
            if small_max <= 0:
                self._rest = data
                self._begin = position
                self.waiting = True
                break
            small_max -= 1
            position = self._frame(data, position, events)
        return events

    def _frame(self, data: bytes, position: int, events: list[Event]) -> int:
        """Read a frame's header and what there is of its payload; return where the next one begins.

        The checks go from byte to byte, so that the answer does not depend on how the bytes were cut.
        """
        message = self.partial
        first = data[position]
        opcode = first & 0x0F
        if first & 0x70:
            raise self._fault(PROTOCOL_ERROR, "a reserved bit is set", events)
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise self._fault(PROTOCOL_ERROR, "unknown opcode", events)
        if opcode >= CLOSE:
            if first < 0x80:
                raise self._fault(PROTOCOL_ERROR, "a fragmented control frame", events)
        elif opcode == CONTINUATION:
            if message is None:
                raise self._fault(PROTOCOL_ERROR, "a continuation of nothing", events)
        elif message is not None:
            raise self._fault(PROTOCOL_ERROR, "a new message inside a fragmented one", events)

        head = data[position + 1 : position + 10]
        if not head:
            return self._keep(data, position)
        if head[0] < 0x80:
            raise self._fault(PROTOCOL_ERROR, "an unmasked frame", events)
        length = head[0] & 0x7F
        start = position + 2
        if opcode >= CLOSE:
            if length > CONTROL_BYTES_MAX:
                raise self._fault(PROTOCOL_ERROR, "a control frame of more than 125 bytes", events)
            if len(data) < start + 4 + length:
                return self._keep(data, position)
        elif length > CONTROL_BYTES_MAX:
            width, shortest = (2, 126) if length == 126 else (8, 65_536)
            if len(head) < 1 + width:
                return self._keep(data, position)
            start += width
            length = int.from_bytes(head[1 : 1 + width], "big")
            if not shortest <= length < 1 << 63:
                raise self._fault(PROTOCOL_ERROR, "a length not written in the shortest form", events)
        mask = data[start : start + 4]
        start += 4

        if opcode >= CLOSE:
            self._control(opcode, apply_mask(data[start : start + length], mask), events)
            return len(data) if self._shut else start + length
        if (length if message is None else len(message.data) + length) > self._message_bytes_max:
            raise self._fault(TOO_BIG, f"a message of more than {self._message_bytes_max} bytes", events)
        if message is not None and message.fragments == FRAGMENTS_PER_MESSAGE_MAX:
            raise self._fault(TOO_BIG, f"a message of more than {FRAGMENTS_PER_MESSAGE_MAX} fragments", events)
        if len(mask) < 4:
            return self._keep(data, position)
        if message is None:
            self.partial = message = Partial(opcode)
        else:
            self.fragments += 1
        message.final = first >= 0x80
        message.fragments += 1
        message.mask = mask
        message.missing = length
        return self._payload(message, data, start, events)

    def _payload(self, message: Partial, data: bytes, position: int, events: list[Event]) -> int:
        """Take what there is of the current data frame's payload; return where it stops."""
        chunk = apply_mask(data[position : position + message.missing], message.mask)
        message.data += chunk
        message.missing -= len(chunk)
        ended = message.final and not message.missing
        if message.decoder is not None:
            try:
                message.decoder.decode(chunk, ended)
            except UnicodeDecodeError:
                raise self._fault(INVALID_DATA, "text that is not UTF-8", events) from None
        if ended:
            self.partial = None
            events.append(bytes(message.data) if message.decoder is None else message.data.decode())
        else:
            turn = len(chunk) % 4
            message.mask = message.mask[turn:] + message.mask[:turn]
        return position + len(chunk)

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            close = self._read_close(payload, events)
            self._shut_down()
            events.append(close)

    def _read_close(self, payload: bytes, events: list[Event]) -> Close:
        """RFC 6455 sections 5.5.1 and 7.4."""
        if not payload:
            return Close(None, "")
        code = int.from_bytes(payload[:2], "big")
        if code not in _CLOSE_CODES and not 3000 <= code <= 4999:  # half a code is below 256, and refused here too
            raise self._fault(PROTOCOL_ERROR, "a close code that may not be sent", events)
        try:
            return Close(code, payload[2:].decode())
        except UnicodeDecodeError:
            raise self._fault(INVALID_DATA, "a close reason that is not UTF-8", events) from None

    def _keep(self, data: bytes, position: int) -> int:
        self._rest = data[position:]
        return len(data)

    def _shut_down(self) -> None:
        self._shut = True
        self.partial = None

    def _fault(self, close_code: int, reason: str, events: list[Event]) -> FramingError:
        self._shut_down()
        return FramingError(close_code, reason, events)


def header(opcode: int, payload_bytes: int) -> bytes:
    """Return what stands before the payload of an unmasked frame with FIN: 2, 4 or 10 bytes (RFC 6455 section 5.2)."""
    if payload_bytes <= CONTROL_BYTES_MAX:
        return bytes((0x80 | opcode, payload_bytes))
    if payload_bytes < 65_536:
        return _header_16(0x80 | opcode, 126, payload_bytes)
    return _header_64(0x80 | opcode, 127, payload_bytes)


def encode(opcode: int, payload: bytes) -> bytes:
    """Return an unmasked, unfragmented frame, as a server sends it."""
    return header(opcode, len(payload)) + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """Return a close frame (RFC 6455 section 5.5.1). `code` None: without one. A reason above 123 bytes is cut."""
    if code is None:
        return encode(CLOSE, b"")
    text = reason.encode()[: CONTROL_BYTES_MAX - 2].decode(errors="ignore")  # a cut character goes altogether
    return encode(CLOSE, code.to_bytes(2, "big") + text.encode())


def split_all(frames: bytes) -> list[tuple[int, bytes]]:
    """Return (opcode, payload) of whole, unmasked, unfragmented frames that stand one after the other.

    For what frames by itself: other transports, and the replay from a store. ValueError for anything else.
    """
    found: list[tuple[int, bytes]] = []
    position = 0
    end = len(frames)
    while position < end:
        length = frames[position + 1] if end - position > 1 else 255
        start = position + 2
        if length > CONTROL_BYTES_MAX:
            start += 2 if length == 126 else 8
            length = int.from_bytes(frames[position + 2 : start], "big") if length <= 127 else end
        position, begin = start + length, position
        if frames[begin] >> 4 != 0x8 or position > end:  # FIN, and no reserved bit
            raise ValueError("not whole server frames")
        found.append((frames[begin] & 0x0F, frames[start:position]))
    return found


def split(frames: bytes) -> list[bytes]:
    """Return the payloads of whole binary frames that stand one after the other; see split_all."""
    found = split_all(frames)
    if any(opcode != BINARY for opcode, _ in found):
        raise ValueError("not only binary frames")
    return [payload for _, payload in found]
