"""Tells an exception of code that a user wrote: what it says, and on which line of theirs."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Final

_OURS: Final = str(Path(__file__).parents[1])
_STANDARD: Final = sysconfig.get_path("stdlib")
_INSTALLED: Final = sysconfig.get_path("purelib")


def told(error: BaseException) -> str:
    """Return the error in one line, with the last line of the user's that led to it, where there is one."""
    said = f"{type(error).__name__}: {error}".replace("\n", " ").rstrip(": .")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_OURS, _STANDARD, "<"))
    ]
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)] or frames
    return f"{said} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else said
