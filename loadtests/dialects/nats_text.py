"""The text protocol of nats-server, cut into lines and messages, for the dialects that speak it.

A WebSocket message is a piece of a byte stream here, not a record.
Source: docs.nats.io, reference/nats-protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from loadtests.dialects.base import Event
from loadtests.dialects.frames import MESSAGE_BYTES_MAX

_LINE_BYTES_MAX: Final = 65_536
"""INFO of a large cluster is the longest."""
_HEADS_MAX: Final = 4096
_DIGITS_MAX: Final = 9


class NatsReader:
    """Cuts what the server sends, however the bytes are split.

    `heads`: by a whole MSG line, (stream, bytes of the payload). A subject without reply has the same line again and
    again, and what is known is told as a delivery without being handed out.
    """

    __slots__ = ("_rest", "heads")

    def __init__(self) -> None:
        self._rest = b""
        self.heads: dict[bytes, tuple[int, int]] = {}

    def remember(self, line: bytes, stream: int, size: int) -> None:
        if len(self.heads) >= _HEADS_MAX:
            self.heads.clear()
        self.heads[line] = (stream, size)

    def cut(self, data: bytes, events: list[Event]) -> Iterator[tuple[bytes, bytes | None]]:
        """Append the deliveries that are known by their line to `events`, and yield every other line with its payload.

        The payload is None for lines that have none, and for one that is too long. What is not whole is kept.
        """
        if self._rest:
            data = self._rest + data
        position, end, heads = 0, len(data), self.heads
        while (stop := data.find(b"\r\n", position)) >= 0:
            line = data[position:stop]
            start = stop + 2
            head = heads.get(line)
            if head is not None:
                after = start + head[1] + 2
                if after > end:
                    break
                events.append((head[0], None, None, data[start : after - 2]))
                position = after
                continue
            size = None if line == b"+OK" else _size(line)
            after = start if size is None else start + size + 2
            if after > end:
                break
            yield line, None if size is None else data[start : after - 2]
            position = after
        if stop < 0 and end - position > _LINE_BYTES_MAX:
            yield data[position : position + _LINE_BYTES_MAX], None
        self._rest = data[position:]


def _size(line: bytes) -> int | None:
    """Return the length of the payload behind a line; None if it has none, or says no length that can be."""
    if line[:4] != b"MSG " and line[:5] != b"HMSG ":
        return None
    digits = line[line.rfind(b" ") + 1 :]
    if not digits.isdigit() or len(digits) > _DIGITS_MAX:
        return None
    size = int(digits)
    return size if size <= MESSAGE_BYTES_MAX else None
