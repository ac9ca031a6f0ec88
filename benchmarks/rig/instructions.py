"""Counts the instructions of user space that a process spends: a figure that no neighbour disturbs.

perf reads the processor's counter where there is one (virtual machines often have none), callgrind counts by emulation:
a relay starts in some 3 seconds under it.

Source: perf-stat(1); valgrind manual, "Callgrind", options and callgrind_control.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, Protocol

TOOL_S_MAX: Final = 15.0
_PERF_READY_S: Final = 0.2
"""Until perf has opened its counter; the process is idle then."""


class ToolError(Exception):
    """The tool is there, but does not count."""


class Tool(Protocol):
    """Counts instructions of a process."""

    name: str

    def fresh(self) -> Tool:
        """Return one for another process."""

    def wrap(self, arguments: list[str], directory: Path) -> list[str]:
        """Return the command that runs `arguments` so that they can be counted."""

    def start(self, pid: int, directory: Path) -> None:
        """Count from now on. Raises ToolError."""

    def read(self, pid: int, directory: Path) -> int:
        """Return the instructions since `start` or the last `read`. Raises ToolError."""


class Perf:
    """The processor's own counter."""

    name = "perf"

    def __init__(self, event: str = "instructions:u") -> None:
        self._event = event
        self._process: subprocess.Popen[bytes] | None = None

    def works(self) -> bool:
        """Whether perf is there and can count: it says `<not supported>` where the processor's counter is hidden."""
        done = _attempt(["perf", "stat", "-x,", "-e", self._event, "true"])
        return done is not None and _perf_count(done) is not None

    def fresh(self) -> Perf:
        return Perf(self._event)

    def wrap(self, arguments: list[str], directory: Path) -> list[str]:
        return arguments

    def start(self, pid: int, directory: Path) -> None:
        output = str(directory / "perf")
        # perf ends with the process that it counts, or by `read`.
        self._process = subprocess.Popen(
            ["perf", "stat", "-x,", "-e", self._event, "-o", output, "-p", str(pid)], process_group=0
        )
        time.sleep(_PERF_READY_S)

    def read(self, pid: int, directory: Path) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(TOOL_S_MAX)
        count = _perf_count((directory / "perf").read_text())
        if count is None:
            raise ToolError("perf counted nothing")
        self.start(pid, directory)
        return count


class Callgrind:
    """Emulation by valgrind, switched on and read through callgrind_control."""

    name = "callgrind"

    def works(self) -> bool:
        """Whether valgrind and its control are there."""
        return all(shutil.which(program) for program in ("valgrind", "callgrind_control"))

    def fresh(self) -> Callgrind:
        return self

    def wrap(self, arguments: list[str], directory: Path) -> list[str]:
        out = f"--callgrind-out-file={directory / 'count'}"
        return ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", out, *arguments]

    def start(self, pid: int, directory: Path) -> None:
        self._control("--instr=on", pid)
        self._control("--zero", pid)

    def read(self, pid: int, directory: Path) -> int:
        known = set(directory.iterdir())
        self._control("--dump", pid)
        for path in set(directory.iterdir()) - known:
            if found := re.search(r"^(?:summary|totals): (\d+)", path.read_text(errors="replace"), re.MULTILINE):
                return int(found[1])
        raise ToolError("callgrind wrote no count")

    def _control(self, order: str, pid: int) -> None:
        if _attempt(["callgrind_control", order, str(pid)]) is None:
            raise ToolError(f"callgrind_control {order} failed: it needs to trace the processes of its own user")


def _attempt(arguments: list[str]) -> str | None:
    """Return what a tool printed on both outputs; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=TOOL_S_MAX, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout + done.stderr


def _perf_count(text: str) -> int | None:
    """Return the value of the first line of perf's CSV; None if it is `<not supported>` or `<not counted>`."""
    found = re.search(r"^(\d+)(?:\.\d+)?,", text, re.MULTILINE)
    return int(found[1]) if found else None


def find() -> Perf | Callgrind | None:
    """Return what can count on this machine, the faster first."""
    for tool in (Perf(), Callgrind()):
        if tool.works():
            return tool
    return None
