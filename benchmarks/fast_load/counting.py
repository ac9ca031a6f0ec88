"""Counts deliveries and acknowledgements in what a socket gave, exactly and cheaply, sans-IO.

A record of this benchmark has a fixed length and carries a running index, so a read that holds many of them is checked
with a few strided slices: the first bytes of every record, the running index of every record, and the whole payload of
the first one. A record that is missing, repeated or out of order does not fit, and whatever does not fit the quick way
is walked record by record and either explained (a ping, a split) or an error. Nothing looks for marker bytes: random
payloads contain every marker.

    counter.feed(buffer, length)  ->  how many records ended in buffer[:length]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from websockets.speedups import apply_mask

from relay import wire

CYCLE: Final = 1024
"""Payloads of one publisher, used in turn."""
PAYLOAD_BYTES: Final = 256
INDEX_AT: Final = 2
"""Where a payload carries its index in the cycle (two bytes, big-endian), behind the version and the suite byte."""
_LOW_AT: Final = INDEX_AT + 1

Answer = Callable[[bytes], object]
"""Sends bytes back on the connection: pongs."""

BINARY, TEXT, CLOSE, PING, PONG = 0x82, 0x81, 0x88, 0x89, 0x8A


_LOWS: Final = bytes(range(256)) * 33
READ_BYTES_MAX: Final = 262_144
"""The largest read that a counter is given."""
assert len(_LOWS) - 256 > READ_BYTES_MAX // PAYLOAD_BYTES + 2
assert not CYCLE % 256, "the low byte of the index runs on over the wrap"


class CountingError(Exception):
    """What arrived is not what was to arrive: a record lost, repeated, reordered, changed, or a refusal."""


def frame(payload: bytes, *, opcode: int = BINARY, mask: bytes | None = None) -> bytes:
    """Return one WebSocket frame, masked if `mask` (four bytes) is given. Source: RFC 6455, section 5.2."""
    bit = 0x80 if mask is not None else 0
    length = len(payload)
    if length < 126:
        head = bytes((opcode, bit | length))
    elif length < 1 << 16:
        head = bytes((opcode, bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((opcode, bit | 127)) + length.to_bytes(8, "big")
    return head + payload if mask is None else head + mask + apply_mask(payload, mask)


def frame_header(data: bytes | bytearray, position: int, length: int) -> tuple[int, int, int] | None:
    """Return (opcode byte, start, size) of the payload of the server's frame at `position`; None if cut short."""
    if length - position < 2:
        return None
    size, start = data[position + 1], position + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if length - start < width:
            return None
        size = int.from_bytes(data[start : start + width], "big")
        start += width
    return data[position], start, size


def split_frame(data: bytes | bytearray, position: int, length: int) -> tuple[int, int, int] | None:
    """Return (opcode byte, start and end of the payload) of the whole frame at `position`; None if cut short."""
    header = frame_header(data, position, length)
    if header is None or header[1] + header[2] > length:
        return None
    return header[0], header[1], header[1] + header[2]


def _control(opcode: int, payload: bytes, answer: Answer) -> None:
    """Answer a ping; anything else that is no binary message ends the measurement."""
    if opcode == PING:
        answer(frame(payload, opcode=PONG, mask=bytes(4)))
    elif opcode == CLOSE:
        raise CountingError(f"the server closed: {int.from_bytes(payload[:2], 'big')} {bytes(payload[2:])!r}")
    elif opcode != PONG:
        raise CountingError(f"a frame with the first byte 0x{opcode:02x}")


class Frames:
    """Records that are one WebSocket frame each: `prefix`, `middle_bytes` that vary, then the payload.

    `head`: the middle begins with a sequence number of eight bytes that must run on from it; None: there is none.
    """

    __slots__ = ("_answer", "_carry", "_head", "_index", "_payload_at", "_payloads", "_prefix", "_seq_at", "total")

    def __init__(
        self, prefix: bytes, middle_bytes: int, payloads: Sequence[bytes], answer: Answer, *, head: int | None = None
    ) -> None:
        self._prefix = prefix
        self._seq_at = len(prefix)
        self._payload_at = len(prefix) + middle_bytes
        self._payloads = payloads
        self._answer = answer
        self._head = head
        self._carry = b""
        self._index = 0
        self.total = 0

    def feed(self, buffer: bytes | bytearray, length: int) -> int:
        """Return how many records ended in `buffer[:length]`. Raises CountingError."""
        if self._carry:
            buffer = self._carry + buffer[:length]
            length = len(buffer)
            self._carry = b""
        at = self._payload_at
        stride = at + PAYLOAD_BYTES
        count = length // stride
        if not count:
            return self._walk(buffer, length)
        end = count * stride
        index = self._index
        low = index & 255
        if (
            buffer[at + _LOW_AT : end : stride] != _LOWS[low : low + count]
            or buffer[0:end:stride] != b"\x82" * count
            or not buffer.startswith(self._prefix)
            or not buffer.startswith(self._prefix, end - stride)
            or not buffer.startswith(self._payloads[index], at)
        ):
            return self._walk(buffer, length)
        if self._head is not None:
            seq_at = end - stride + self._seq_at
            if int.from_bytes(buffer[seq_at : seq_at + 8], "big") != self._head + self.total + count:
                return self._walk(buffer, length)
        self._index = (index + count) % CYCLE
        self.total += count
        if end != length:
            return count + self._walk(bytes(buffer[end:length]), length - end)  # a part of a record, or a ping
        return count

    def _walk(self, buffer: bytes | bytearray, length: int) -> int:
        position = count = 0
        while (found := split_frame(buffer, position, length)) is not None:
            opcode, start, end = found
            if opcode == BINARY:
                self._check(bytes(buffer[position:end]), start - position)
                self._index = (self._index + 1) % CYCLE
                self.total += 1
                count += 1
            else:
                _control(opcode, bytes(buffer[start:end]), self._answer)
            position = end
        self._carry = bytes(buffer[position:length])
        return count

    def _check(self, record: bytes, start: int) -> None:
        at = self._payload_at
        if len(record) != at + PAYLOAD_BYTES or not record.startswith(self._prefix):
            raise CountingError(f"after {self.total} records: unexpected {_explain(record[start:])}")
        if record[at:] != self._payloads[self._index]:
            got = int.from_bytes(record[at + INDEX_AT : at + INDEX_AT + 2], "big")
            raise CountingError(f"after {self.total} records: payload {got} where {self._index} was due")
        if self._head is not None:
            seq = int.from_bytes(record[self._seq_at : self._seq_at + 8], "big")
            if seq != self._head + self.total + 1:
                raise CountingError(f"number {seq} where {self._head + self.total + 1} was due")


def relay_records(number: int, head: int, payloads: Sequence[bytes], answer: Answer) -> Frames:
    """Return the counter of MESSAGE records of stream `number` after `head`."""
    prefix, suffix = wire.message_prefix(number), wire.message_suffix(0, None, PAYLOAD_BYTES)
    middle_bytes = 8 + len(suffix)
    header = frame(bytes(len(prefix) + middle_bytes + PAYLOAD_BYTES))[: -len(prefix) - middle_bytes - PAYLOAD_BYTES]
    return Frames(header + prefix, middle_bytes, payloads, answer, head=head)


class Units:
    """Acknowledgements that are the same bytes every time."""

    __slots__ = ("_answer", "_carry", "_unit", "total")

    def __init__(self, unit: bytes, answer: Answer) -> None:
        self._unit = unit
        self._answer = answer
        self._carry = b""
        self.total = 0

    def feed(self, buffer: bytes | bytearray, length: int) -> int:
        """Return how many units ended in `buffer[:length]`. Raises CountingError."""
        data = self._carry + buffer[:length]
        unit = self._unit
        count = len(data) // len(unit)
        if data == unit * count:
            self._carry = b""
        else:
            count = self._walk(bytes(data))
        self.total += count
        return count

    def _walk(self, data: bytes) -> int:
        position = count = 0
        while (found := split_frame(data, position, len(data))) is not None:
            opcode, start, end = found
            if data[position:end] == self._unit:
                count += 1
            elif opcode == BINARY:
                raise CountingError(f"no acknowledgement: {data[start:end][:60]!r}")
            else:
                _control(opcode, data[start:end], self._answer)
            position = end
        self._carry = data[position:]
        return count


class RelayAcks:
    """PUBLISHED records: the ids must be those published, counted up from the first, and the sequence numbers must run on."""

    __slots__ = ("_answer", "_carry", "_id", "_seq", "total")

    def __init__(self, first_id: int, head: int, answer: Answer) -> None:
        self._id = first_id
        self._answer = answer
        self._carry = b""
        self._seq = head
        self.total = 0

    def feed(self, buffer: bytes | bytearray, length: int) -> int:
        """Return how many publishes were acknowledged in `buffer[:length]`. Raises CountingError."""
        data = bytes(self._carry + buffer[:length])
        position = count = 0
        while (found := split_frame(data, position, len(data))) is not None:
            opcode, start, end = found
            if opcode == BINARY:
                count += self._acks(data[start:end])
            else:
                _control(opcode, data[start:end], self._answer)
            position = end
        self._carry = data[position:]
        self.total += count
        return count

    def _acks(self, record: bytes) -> int:
        try:
            published = wire.decode_one_relay(record)
        except msgspec.DecodeError:
            raise CountingError(f"unexpected {_explain(record)}") from None
        if not isinstance(published, wire.Published):
            raise CountingError(f"unexpected {published}")
        acks = published.acks
        count = len(acks) // 2
        due = list(range(self._id, self._id + count))
        self._seq += count
        if acks[0::2] != due or acks[-1] != self._seq:
            raise CountingError(f"acknowledged {acks}, due were ids {due} up to number {self._seq}")
        self._id += count
        return count


class Unframed:
    """Binary messages as one run of bytes, wherever the frames end: how the NATS protocol travels."""

    __slots__ = ("_answer", "_head", "_left")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._head = b""
        self._left = 0  # bytes of the frame begun that are still to come

    def feed(self, buffer: bytes | bytearray, length: int) -> bytes | bytearray:
        """Return the payload bytes in `buffer[:length]`."""
        if not self._left and not self._head:
            found = split_frame(buffer, 0, length)
            if found is not None and found[2] == length and found[0] == BINARY:
                return buffer[found[1] : length]  # one whole frame, the usual case
        data = self._head + buffer[:length]
        self._head = b""
        parts = []
        position = 0
        while position < len(data):
            if self._left:
                part = data[position : position + self._left]
                parts.append(part)
                self._left -= len(part)
                position += len(part)
                continue
            header = frame_header(data, position, len(data))
            if header is None:
                self._head = bytes(data[position:])
                break
            opcode, start, size = header
            if opcode in (BINARY, 0x02, 0x00, 0x80):  # whole messages and fragments alike
                self._left = size
                position = start
            elif start + size > len(data):
                self._head = bytes(data[position:])
                break
            else:
                _control(opcode, bytes(data[start : start + size]), self._answer)
                position = start + size
        return b"".join(parts)


class NatsRecords:
    """MSG lines with their payloads, as many as there are in a frame and across frames."""

    __slots__ = ("_answer", "_carry", "_index", "_payloads", "_prefix", "_stride", "_unframed", "total")

    def __init__(self, prefix: bytes, payloads: Sequence[bytes], answer: Answer) -> None:
        self._prefix = prefix
        self._stride = len(prefix) + PAYLOAD_BYTES + 2
        self._payloads = payloads
        self._answer = answer
        self._unframed = Unframed(answer)
        self._carry = b""
        self._index = 0
        self.total = 0

    def feed(self, buffer: bytes | bytearray, length: int) -> int:
        """Return how many messages ended in `buffer[:length]`. Raises CountingError."""
        data = self._unframed.feed(buffer, length)
        if self._carry:
            data = self._carry + data
            self._carry = b""
        stride, index, at = self._stride, self._index, len(self._prefix)
        count = len(data) // stride
        end = count * stride
        low = index & 255
        if (
            not count
            or data[at + _LOW_AT : end : stride] != _LOWS[low : low + count]
            or data[0:end:stride] != b"M" * count
            or data[stride - 1 : end : stride] != b"\n" * count
            or not data.startswith(self._prefix)
            or not data.startswith(self._prefix, end - stride)
            or not data.startswith(self._payloads[index], at)
        ):
            return self._walk(bytes(data))
        self._index = (index + count) % CYCLE
        self.total += count
        if end != len(data):
            return count + self._walk(bytes(data[end:]))
        return count

    def _walk(self, data: bytes) -> int:
        position = count = 0
        while position < len(data):
            if data.startswith(self._prefix, position):
                end = position + self._stride
                if end > len(data):
                    break
                if data[position:end] != self._prefix + self._payloads[self._index] + b"\r\n":
                    raise CountingError(f"after {self.total + count} messages: not payload {self._index}")
                self._index = (self._index + 1) % CYCLE
                count += 1
                position = end
            else:
                after = _nats_line(data, position, self._answer)
                if after is None:
                    break
                position = after
        self._carry = data[position:]
        self.total += count
        return count


class NatsAcks:
    """`+OK` lines, one a publish."""

    __slots__ = ("_answer", "_carry", "_unframed", "total")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._unframed = Unframed(answer)
        self._carry = b""
        self.total = 0

    def feed(self, buffer: bytes | bytearray, length: int) -> int:
        """Return how many publishes were acknowledged in `buffer[:length]`. Raises CountingError."""
        data = bytes(self._carry + self._unframed.feed(buffer, length))
        self._carry = b""
        count = len(data) // 5
        if data != b"+OK\r\n" * count:
            count = position = 0
            while position < len(data):
                if data.startswith(b"+OK\r\n", position):
                    count += 1
                    position += 5
                    continue
                after = _nats_line(data, position, self._answer)
                if after is None:
                    break
                position = after
            self._carry = data[position:]
        self.total += count
        return count


def _nats_line(data: bytes, position: int, answer: Answer) -> int | None:
    """Pass a line that is no message: answer a PING, skip INFO. Return where it ends; None if it is cut short."""
    end = data.find(b"\r\n", position)
    if end < 0:
        return None
    line = data[position:end]
    if line == b"PING":
        answer(frame(b"PONG\r\n", mask=bytes(4)))
    elif not line.startswith(b"INFO "):
        raise CountingError(f"unexpected {line[:80]!r}")
    return end + 2


def _explain(record: bytes) -> str:
    try:
        return str(wire.decode_one_relay(record))[:200]
    except msgspec.DecodeError:
        return repr(record[:40])


Counter = Frames | Units | RelayAcks | NatsRecords | NatsAcks
