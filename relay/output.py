"""What the command says: a stdout or stderr that takes nothing more is told once, and changes no verdict.

relaymark run --json >/dev/full      the disk is full
relaymark targets | head -c1         the reader has enough
relaymark report RUN >&-             there is none
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, Final

_NAMES: Final = {1: "stdout", 2: "stderr"}
_WORDS: Final = {errno.EPIPE: "its reader has gone", errno.EBADF: "it is closed"}
"""Where the system's own say less."""


class Output(io.FileIO):
    """A descriptor that takes whatever is written: `failed` says why it is not passed on, once it cannot be."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failed is None:
            try:
                while (written := super().write(data)) is None:
                    select.select([], [self], [])  # whoever shares it with us made it non-blocking
                return written
            except OSError as error:
                self.failed = error
                self._tell(error)
        return len(data)

    def _tell(self, error: OSError) -> None:
        if self.fileno() == 1:
            why = _WORDS.get(error.errno or 0, error.strerror)
            sys.stderr.write(f"relaymark: stdout takes nothing more: {why}; the rest of the output is not shown.\n")


def guard() -> None:
    """Let this process write to its own stdout and stderr as above; opens the standard descriptors that are closed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # For reading: what is written must fail, and be told. Left closed, the next file would get the number.
            os.dup2(os.open(os.devnull, os.O_RDONLY), descriptor)
    for descriptor, name in _NAMES.items():
        before: io.TextIOWrapper | None = getattr(sys, name)
        if before is getattr(sys, f"__{name}__"):
            after = _text(descriptor, before)
            setattr(sys, name, after)
            setattr(sys, f"__{name}__", after)  # which is flushed at the end


def _text(descriptor: int, before: io.TextIOWrapper | None) -> io.TextIOWrapper:
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(Output(descriptor)),
        encoding="utf-8" if before is None else before.encoding,
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
        write_through=before is not None and before.write_through,
    )


def failed() -> bool:
    """Return whether stdout takes nothing more: a command that only prints may stop."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, Output) and raw.failed is not None
