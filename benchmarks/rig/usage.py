"""What processes take of the processor and of memory, as the kernel tells it, and what is left to others.

Source: proc_pid_stat(5), proc_pid_status(5), proc_stat(5).
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.rig.processes import Cores, ServerError

_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def tree_of(pid: int) -> list[int]:
    """Return the ids of a process and all that it started. Raises ServerError."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        raise ServerError(f"process {pid} ended") from None


def cpu_ns(pid: int) -> int:
    """Return the processor time of a process and its threads so far, user and system, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_NS


def run_time_ns(pid: int) -> int:
    """Return the processor time of a process's threads so far, to the ns where the kernel tells it.

    Source: proc_pid_schedstat(5); without it, in steps of a clock tick.
    """
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    try:
        return sum(int(thread.read_text().split()[0]) for thread in threads) or cpu_ns(pid)
    except (OSError, IndexError, ValueError):
        return cpu_ns(pid)


def core_busy_ns(core: int) -> int:
    """Return the time that processes, of this machine or stolen by another, have used of a core so far.

    Interrupts are left out: they are not counted as a process's either. Raises ServerError.
    """
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = (int(tick) for tick in ticks[:8])
            return (user + nice + system + steal) * _TICK_NS
    raise ServerError(f"/proc/stat has no core {core}")


def resident_bytes(pid: int) -> int:
    """Return VmRSS of a process. Raises ServerError."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ServerError(f"process {pid} has no memory: it ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreUsage:
    """Processor time over `elapsed_ns` of the servers, of this process, and of everything on their cores.

    Shares are of one core, 1.0 is all of it.
    """

    elapsed_ns: int
    server_ns: int
    load_ns: int
    server_core_ns: int
    load_core_ns: int
    shared: bool

    def __add__(self, other: CoreUsage) -> CoreUsage:
        return CoreUsage(
            elapsed_ns=self.elapsed_ns + other.elapsed_ns,
            server_ns=self.server_ns + other.server_ns,
            load_ns=self.load_ns + other.load_ns,
            server_core_ns=self.server_core_ns + other.server_core_ns,
            load_core_ns=self.load_core_ns + other.load_core_ns,
            shared=self.shared,
        )

    @property
    def server(self) -> float:
        """The servers' share."""
        return self.server_ns / self.elapsed_ns

    @property
    def load(self) -> float:
        """This process's share."""
        return self.load_ns / self.elapsed_ns

    @property
    def others(self) -> float:
        """What other processes took of the servers' core."""
        return max(0, self.server_core_ns - self.server_ns - self.load_ns * self.shared) / self.elapsed_ns

    @property
    def others_on_load(self) -> float:
        """What other processes took of the load's core."""
        return max(0, self.load_core_ns - self.load_ns - self.server_ns * self.shared) / self.elapsed_ns


class Meter:
    """Reads the processor time of servers and of this process, from when it is made."""

    def __init__(self, cores: Cores, *pids: int) -> None:
        self._cores = cores
        self._pids = pids
        # The clock is read first here and last in `read`: what was used lies within the time that passed.
        self._began_ns = time.monotonic_ns()
        self._before = self._used()

    def read(self) -> CoreUsage:
        """Return what was used since the meter was made."""
        spans_ns = [now - before for before, now in zip(self._before, self._used(), strict=True)]
        server_ns, load_ns, server_core_ns, load_core_ns = spans_ns
        return CoreUsage(
            elapsed_ns=time.monotonic_ns() - self._began_ns,
            server_ns=server_ns,
            load_ns=load_ns,
            server_core_ns=server_core_ns,
            load_core_ns=load_core_ns,
            shared=self._cores.shared,
        )

    def _used(self) -> tuple[int, ...]:
        return (
            sum(map(cpu_ns, self._pids)),
            time.process_time_ns(),
            core_busy_ns(self._cores.server),
            core_busy_ns(self._cores.load),
        )


@contextmanager
def no_collections() -> Iterator[None]:
    """Keep this process's garbage collector from pausing the load."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class OthersMeter:
    """Measures what others than a server take of its core, from when it is made; `used_ns` tells what the server used."""

    def __init__(self, core: int, used_ns: Callable[[], int | None]) -> None:
        self._core = core
        self._used_ns = used_ns
        self._before = self._now()

    def share(self) -> float | None:
        """Return the share of the core; None where what the server used is not told."""
        now = self._now()
        if self._before is None or now is None:
            return None
        elapsed_ns, others_ns = (after - before for before, after in zip(self._before, now, strict=True))
        return max(0, others_ns) / elapsed_ns

    def _now(self) -> tuple[int, int] | None:
        used_ns = self._used_ns()
        return None if used_ns is None else (time.monotonic_ns(), core_busy_ns(self._core) - used_ns)
