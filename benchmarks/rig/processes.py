"""Starts a server pinned to one core, reads what it costs, and ends it by its process id whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

from loadtests.driver.sockets import allow_descriptors
from loadtests.signals import ending_signals
from relaymark import child_program

START_S_MAX: Final = 60.0
"""Under callgrind a relay starts in 3 s on a free machine, and in half a minute on a busy one."""
STOP_S_MAX: Final = 5.0
_ENDING_S_MAX: Final = 0.2
GIVE_UP_S_MAX: Final = 30.0
"""For a command of ours to end what it has started."""
_ADDRESS: Final = re.compile(rb"\bws://[\w.\[\]:-]+:\d+\b")


class ServerError(Exception):
    """A server did not start, or ended while it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Where the server and the load run; the same core twice on a machine that has only one."""

    server: int
    load: int

    @property
    def shared(self) -> bool:
        return self.server == self.load


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: its process and where it listens."""

    pid: int
    host: str
    port: int


def choose_cores() -> Cores:
    """Pick two of the cores that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(server=allowed[0], load=allowed[-1])


def raise_file_limit(needed: int) -> None:
    """Raise the soft limit of open files to the hard one, for this process and its servers. Raises ServerError."""
    hard = allow_descriptors()
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ServerError(
            f"{needed} open files are needed, the hard limit is {hard}: raise it with `ulimit -Hn {needed}`"
        )


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Take SIGTERM, and SIGHUP unless it is ignored, as Ctrl-C: what was started ends, and figures until then are told."""
    numbers = [number for number in ending_signals() if number is not signal.SIGINT]

    def leave(_number: int, _frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)  # we are leaving: another is not to stop that half way
        raise KeyboardInterrupt

    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C, SIGTERM and SIGHUP until the end of the block: nothing that it starts or ends is left half way.

    Threads other than the main one get none of them anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = [number for number in ending_signals() if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _frame: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextlib.contextmanager
def running(command: Sequence[str], cores: Cores, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start `command` on the server's core, wait until it prints a line with its address, and end it on the way out.

    Raises ServerError with the end of its output if it does not serve within a minute.
    """
    with tempfile.TemporaryFile() as output:
        # Threads inherit the affinity, so it is set before the process exists, not on the process.
        process = None
        try:
            os.sched_setaffinity(0, {cores.server})
            try:
                with uninterrupted():
                    process = subprocess.Popen(
                        child_program(command),
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env={**os.environ, **(environment or {})},
                        process_group=0,  # Ctrl-C reaches us alone, and we end it
                    )
            finally:
                os.sched_setaffinity(0, {cores.load})
            server = _wait_for_address(process, output.fileno(), command)
            cause = None
            try:
                yield server
            except Exception as error:
                # Its sockets go before it does: a broken connection is what is seen first.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_ENDING_S_MAX)
                if process.poll() is None:
                    raise
                cause = error
            if process.poll() is not None:
                raise ServerError(
                    f"{command[0]} ended by itself: {process.returncode}\n{_tail(output.fileno())}"
                ) from cause
        finally:
            if process is not None:
                stop(process)


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, seconds: float = STOP_S_MAX) -> None:
    """End the process: by SIGTERM or another signal, by SIGKILL if it is still there after 5 s. Its pipes are read."""
    with uninterrupted():
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def finish(
    command: Sequence[str],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    shown: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end, as subprocess.run does, and return what it printed, or show it at once.

    It starts processes of its own. Given up, it is interrupted and waited for, so that it can end them; subprocess.run
    would kill it, and they would stay. Raises subprocess.TimeoutExpired.
    """
    process, output = None, None if shown else subprocess.PIPE
    try:
        with uninterrupted():
            process = subprocess.Popen(
                child_program(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                process_group=0,  # Ctrl-C reaches us alone, and we pass it on
            )
        out, err = process.communicate(timeout=timeout_s)
    finally:
        if process is not None:
            stop(process, signal.SIGINT, GIVE_UP_S_MAX)
    printed, said = ((text or b"").decode(errors="replace") for text in (out, err))
    return subprocess.CompletedProcess(command, process.returncode, printed, said)


def _wait_for_address(process: subprocess.Popen[bytes], output: int, command: Sequence[str]) -> Server:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        found = _ADDRESS.search(_tail_bytes(output))
        if found is not None:
            address = urlsplit(found[0].decode())
            assert address.hostname is not None
            assert address.port is not None
            return Server(pid=process.pid, host=address.hostname, port=address.port)
        if process.poll() is not None:
            raise ServerError(f"{' '.join(command)} ended: {process.returncode}\n{_tail(output)}")
        time.sleep(0.02)
    raise ServerError(f"{' '.join(command)} did not serve within {START_S_MAX:.0f} s\n{_tail(output)}")


def _tail_bytes(output: int) -> bytes:
    size = os.fstat(output).st_size
    return os.pread(output, 4096, max(0, size - 4096))


def _tail(output: int) -> str:
    return _tail_bytes(output)[-1500:].decode(errors="replace")
