"""A relay's processes: started in a session of their own, awaited, observed as a whole, and ended.

A relay may be several processes. Whatever it starts belongs to its session, and is ended with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final

import psutil

from loadtests.address import PROBE_S_MAX, TargetError

START_S_MAX: Final = 60.0
"""RabbitMQ takes eight seconds on a machine of its own."""
STOP_S_MAX: Final = 12.0
"""A little more than the reference relay's own deadline for draining."""
POLL_S: Final = 0.02
_SCHEDULED: Final = 2
"""Kind of a CPU clock: the time for which a process was scheduled."""
_LAST_LINES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUsage:
    """What processes have used so far: CPU time of all their threads, and their resident memory now."""

    at_ns: int
    cpu_ns: int
    rss_bytes: int


def usage_of(process: psutil.Process) -> ProcessUsage | None:
    """Return the usage of `process` and all that it started, None when it is gone.

    CPU of a child that has ended stays with its parent, which waited for it. What several processes share counts once:
    of more than one, memory is the proportional share of each.
    """
    try:
        tree = [process, *process.children(recursive=True)]
        cpu_ns, rss_bytes = _usage(process, alone=len(tree) == 1)
    except psutil.Error:
        return None
    for child in tree[1:]:
        with suppress(psutil.Error):  # it may end while we look
            child_cpu_ns, child_rss_bytes = _usage(child, alone=False)
            cpu_ns += child_cpu_ns
            rss_bytes += child_rss_bytes
    return ProcessUsage(at_ns=time.monotonic_ns(), cpu_ns=cpu_ns, rss_bytes=rss_bytes)


def _usage(process: psutil.Process, *, alone: bool) -> tuple[int, int]:
    with process.oneshot():
        times = process.cpu_times()
        own_ns = _clock_ns(process.pid) or int((times.user + times.system) * 1e9)
        ended_s = times.children_user + times.children_system
        rss_bytes = process.memory_info().rss if alone else _share_bytes(process)
    return own_ns + int(ended_s * 1e9), rss_bytes


def _clock_ns(pid: int) -> int:
    """Return the CPU time of a process to the ns; 0 where the system does not tell.

    /proc tells it in ticks of 10 ms, which is more than some relays need for a short run's whole load. Source:
    clock_getcpuclockid(3), and the kernel's include/linux/posix-timers_types.h for how the clock's number is made.
    """
    if sys.platform != "linux":
        return 0
    try:
        return time.clock_gettime_ns((~pid << 3) | _SCHEDULED)
    except OSError:
        return 0


def _share_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:  # of another user: what is shared counts for each
        return int(process.memory_info().rss)


class TargetProcess:
    """A relay as a child process. `start` it, `await_port` or `await_page`, and `stop` it whatever happens."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        cores: set[int] | None = None,
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        """Its output goes to `log`; `name` stands in messages; it runs in `folder`, on `cores` alone.

        `go_on` is called while it is awaited, and may raise to give up.
        """
        self._go_on = go_on
        self.log = log
        self.name = name
        self._command = command
        self._environment = environment or {}
        self._folder = folder
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None
        self._observed: psutil.Process | None = None

    def start(self) -> None:
        """Start it. Raises TargetError."""
        before = os.sched_getaffinity(0)
        try:
            if self._cores:
                # Its threads inherit the cores: some programs have started dozens before these could be set from here.
                os.sched_setaffinity(0, self._cores)
            with self.log.open("wb") as log:
                # A session of its own: Ctrl-C is for the harness, which then stops the relay in order.
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=self._folder,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
                )
        except OSError as error:
            raise TargetError(f"{self.name} could not be started: {error.strerror}: {self._command[0]}.") from None
        finally:
            os.sched_setaffinity(0, before)
        try:
            self._observed = psutil.Process(self._process.pid)
        except (psutil.Error, OSError):
            self._raise_if_ended(wait_s=PROBE_S_MAX)
            raise

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        return None if self._process is None else self._process.poll()

    def usage(self) -> ProcessUsage | None:
        return None if self._observed is None or self.exit_code() is not None else usage_of(self._observed)

    def _raise_if_ended(self, wait_s: float = 0.0) -> None:
        if wait_s and self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
        code = self.exit_code()
        if code is not None:
            raise TargetError(f"{self.name} ended with code {code}. {self.last_words()}")

    def await_port(self, host: str, port: int) -> None:
        """Wait until the port accepts a connection. Raises TargetError."""

        def accepts() -> bool:
            try:
                socket.create_connection((host, port), timeout=PROBE_S_MAX).close()
            except OSError:
                return False
            return True

        self.await_that(accepts, f"does not listen at {host}:{port}")

    def await_page(self, url: str) -> None:
        """Wait until `url` answers with 200. Raises TargetError."""

        def answers() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=PROBE_S_MAX) as answer:  # noqa: S310  # its scheme is checked where it is given
                    return bool(answer.status == 200)
            except (OSError, HTTPException):
                return False

        self.await_that(answers, f"is not ready: {url} does not answer with 200")

    def await_that(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until `ready` says so. Raises TargetError with `what` is wrong where it does not in time."""
        deadline = time.monotonic() + START_S_MAX
        while not ready():
            self._go_on()
            self._raise_if_ended()
            if time.monotonic() > deadline:
                raise TargetError(f"{self.name} {what} after {START_S_MAX:.0f} s. {self.last_words()}")
            time.sleep(POLL_S)

    def stop(self) -> int | None:
        """Stop it and all that it started; return its exit code: negative if a signal ended it."""
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # a stopped process does not see the first
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S_MAX)
        # Its session is its group: what it left behind, or itself if it would not go.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return process.returncode

    def kill(self) -> None:
        """End it and all that it started as a crash does: without a word to anybody."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def logged(self) -> str:
        return self.log.read_text(errors="replace") if self.log.is_file() else ""

    def last_words(self) -> str:
        lines = [line.strip() for line in self.logged().splitlines() if line.strip()]
        return f"Its log ends: {' | '.join(lines[-_LAST_LINES:])}" if lines else "Its log is empty."
