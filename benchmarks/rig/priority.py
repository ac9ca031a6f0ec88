"""Puts this process and what it starts ahead of the machine's other work, where that is allowed, and back afterwards."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NICE: Final = -10
"""Nine tenths of a core against a neighbour of ordinary priority; no real-time class, which could starve it."""
_GROUP: Final = Path("/proc/self/autogroup")


@contextlib.contextmanager
def preferred() -> Iterator[bool]:
    """Yield whether it was allowed. Source: setpriority(2); sched(7), "The autogroup feature"."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError:
        yield False
        return
    group = _set_group(NICE)
    try:
        yield True
    finally:
        if group is not None:
            _set_group(group)
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _set_group(nice: int) -> int | None:
    """Set the nice value of the session's group, which outweighs that of its processes; return what it was.

    None: it could not be set. The file is empty for a process that is in no group, and missing without the feature.
    """
    with contextlib.suppress(OSError):
        match = re.fullmatch(r"/autogroup-\d+ nice (-?\d+)\n?", _GROUP.read_text())
        if match:
            _GROUP.write_text(str(nice))
            return int(match[1])
    return None
