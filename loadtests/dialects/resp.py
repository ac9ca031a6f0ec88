"""RESP3, what Redis and Valkey speak: values out of bytes, commands into bytes.

Source: redis.io, docs/reference/protocol-spec.
"""

from __future__ import annotations

from typing import Any, Final

BYTES_MAX: Final = 4_194_304
"""Longest string or line; a wrong length must not make a worker gather bytes for ever."""


class ErrorReply(str):
    """An error's text, told apart from other strings."""

    __slots__ = ()


class Malformed(Exception):
    """What came is not RESP3, or answers nothing that was asked."""


def command(*words: bytes) -> bytes:
    """Return one command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def parse(data: bytes, position: int) -> tuple[Any, int] | None:
    """Return the value at `position` and where it ends; None if it is cut short.

    Raises Malformed, ValueError, RecursionError.
    """
    stop = data.find(b"\r\n", position)
    if stop < 0:
        if len(data) - position > BYTES_MAX:
            raise Malformed("a line without an end")
        return None
    form, line, position = data[position : position + 1], data[position + 1 : stop], stop + 2
    match form:
        case b"+" | b"," | b"(":
            return line, position
        case b"-":
            return ErrorReply(line.decode("latin-1")), position
        case b":":
            return int(line), position
        case b"_":
            return None, position
        case b"#":
            return line == b"t", position
        case b"$" | b"=" | b"!":
            length = int(line)
            if not -1 <= length <= BYTES_MAX:
                raise Malformed(f"a string of {length} bytes")
            if length < 0:
                return None, position
            end = position + length + 2
            content = data[position : end - 2]
            return (
                (ErrorReply(content.decode("latin-1")) if form == b"!" else content, end) if end <= len(data) else None
            )
        case b"*" | b">" | b"~" | b"%":
            values = []
            for _ in range(int(line) * (2 if form == b"%" else 1)):
                found = parse(data, position)
                if found is None:
                    return None
                values.append(found[0])
                position = found[1]
            return values, position
    raise Malformed(f"a value that begins with {form!r}")
