"""The closed window in a process of its own, asked over pipes: the engine's gevent takes `epoll` from the process it is in.

    Hold(settings, count)       so many connections join one stream and stay, one that stays behind by `Hold(count=0)`
    Saturate(settings, ...)     how much the relay carries

A request and its answer are a line of JSON each. The process ends with its input.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from benchmarks.compare.members import LoadError, attach_of, joined
from benchmarks.compare.saturate import Saturation, saturate
from benchmarks.compare.workload import CONNECTIONS, keyring
from benchmarks.rig.processes import Cores, ServerError, raise_file_limit, stop
from loadtests.settings import Settings
from relay.capability import Right
from relaymark import child_module

_SPARE_FILES: Final = 200


class Hold(Struct, frozen=True, kw_only=True, tag="hold"):
    """Let so many more connections join one stream, until the next request that is no Hold."""

    settings: Settings
    count: int


class Saturate(Struct, frozen=True, kw_only=True, tag="saturate"):
    """Let go of all connections, and keep a window full; `pid` and what it started is the relay."""

    settings: Settings
    pid: int
    server_core: int
    load_core: int
    seconds: float
    warmup_s: float


class Held(Struct, frozen=True, kw_only=True, tag="held"):
    """They have joined."""


class Broken(Struct, frozen=True, kw_only=True, tag="broken"):
    """It could not be measured; `text` says why."""

    text: str


class Carried(Struct, frozen=True, kw_only=True, tag="carried"):
    saturation: Saturation


_Request: TypeAlias = Hold | Saturate
_Answer: TypeAlias = Held | Broken | Carried
_A = TypeVar("_A", Held, Carried)


class Window:
    """The process, from the side that asks. `interrupt` may be called from a signal handler."""

    def __init__(self, core: int) -> None:
        """The process stays on `core`."""
        self._core = core

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            child_module("benchmarks.compare.window", str(self._core)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stop(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def interrupt(self) -> None:
        """Let whatever is asked fail now."""
        self._process.terminate()

    def hold(self, settings: Settings, count: int) -> None:
        """Return when so many more connections have joined. Raises LoadError."""
        self._ask(Hold(settings=settings, count=count), Held)

    def saturate(self, settings: Settings, pid: int, cores: Cores, *, seconds: float, warmup_s: float) -> Saturation:
        """Measure how much the relay carries. Raises LoadError."""
        request = Saturate(
            settings=settings,
            pid=pid,
            server_core=cores.server,
            load_core=cores.load,
            seconds=seconds,
            warmup_s=warmup_s,
        )
        return self._ask(request, Carried).saturation

    def _ask(self, request: _Request, expected: type[_A]) -> _A:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise LoadError(f"the process of the closed window ended: {self._process.wait()}")
        answer = msgspec.json.decode(line, type=_Answer)
        if isinstance(answer, Broken):
            raise LoadError(answer.text)
        assert isinstance(answer, expected), "one answer a request, in order"
        return answer


class _Holding:
    """Answers the requests; holds connections between them."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def answer(self, request: _Request) -> _Answer:
        try:
            if isinstance(request, Hold):
                member = attach_of(keyring(request.settings.seed, "held"), 0, Right.SUBSCRIBE)
                raise_file_limit(request.count + _SPARE_FILES)
                self._stack.enter_context(joined(request.settings, [member] * request.count))
                return Held()
            self.close()
            raise_file_limit(CONNECTIONS + _SPARE_FILES)
            saturation = saturate(
                request.settings,
                request.pid,
                Cores(server=request.server_core, load=request.load_core),
                seconds=request.seconds,
                warmup_s=request.warmup_s,
            )
        except (LoadError, ServerError, OSError) as error:
            self.close()
            return Broken(text=str(error))
        return Carried(saturation=saturation)

    def close(self) -> None:
        self._stack.close()


def main() -> None:
    """Answer every line of the input."""
    os.sched_setaffinity(0, {int(sys.argv[1])})
    holding = _Holding()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(holding.answer(msgspec.json.decode(line, type=_Request))) + b"\n")
        sys.stdout.buffer.flush()
    holding.close()


if __name__ == "__main__":
    main()
