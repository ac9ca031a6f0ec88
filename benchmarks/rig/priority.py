"""Puts this process and what it starts ahead of the machine's other work, where that is allowed, and back afterwards.

With autogroup the kernel shares a core between sessions first, by the nice value of each; that of a process counts among
those of its session only. Source: setpriority(2); sched(7), "The autogroup feature".
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

NICE: Final = -10
"""Nine tenths of a core against a neighbour of ordinary priority; no real-time class, which could starve it."""
_PROC: Final = Path("/proc")


@contextlib.contextmanager
def preferred() -> Iterator[bool]:
    """Go ahead, and yield whether it was allowed."""
    with _at(NICE) as allowed:
        yield allowed


@contextlib.contextmanager
def giving_way(*, preferred: bool) -> Iterator[None]:
    """Let what this process started go before it: at an ordinary priority, where that can be taken back."""
    if not preferred:
        yield
        return
    with _at(0):
        yield


def prefer_sessions() -> None:
    """Put the sessions of all that this process started ahead too; those in its own session are already."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError):
            if os.getsid(child.pid) != os.getsid(0):
                _set_group(child.pid, NICE)


@contextlib.contextmanager
def _at(nice: int) -> Iterator[bool]:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError:
        yield False
        return
    group = _set_group(os.getpid(), nice)
    try:
        yield True
    finally:
        if group is not None:
            _set_group(os.getpid(), group)
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _set_group(pid: int, nice: int) -> int | None:
    """Set the nice value of a process's session, which outweighs those of its processes; return what it was.

    None: it could not be set. The file is empty for a process that is in no group, and missing without the feature.
    """
    file = _PROC / str(pid) / "autogroup"
    with contextlib.suppress(OSError):
        match = re.fullmatch(r"/autogroup-\d+ nice (-?\d+)\n?", file.read_text())
        if match:
            file.write_text(str(nice))
            return int(match[1])
    return None
