"""The counting load in a process of its own, asked over pipes: the engine's gevent takes `epoll` from the process it is in.

    Hold       so many more connections join one stream, and stay until something else is asked
    Saturate   how much a relay carries, by a closed window
    Step       what a delivery costs two relays, by fixed work in turn

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

from benchmarks.fast_load.dialect_steps import costs_ns
from benchmarks.fast_load.members import LoadError, attach_of, joined
from benchmarks.fast_load.saturate import Saturation, saturate
from benchmarks.fast_load.window_work import CONNECTIONS, keyring
from benchmarks.rig.processes import Cores, ServerError, raise_file_limit, stop
from loadtests.settings import Settings
from relay.capability import Right
from relaymark import child_module

_SPARE_FILES: Final = 200


class CountedRelay(Struct, frozen=True, kw_only=True):
    """A relay to be counted: how it is reached, and its process, to which all belongs that it started."""

    settings: Settings
    pid: int


class Hold(Struct, frozen=True, kw_only=True, tag="hold"):
    settings: Settings
    count: int


class Saturate(Struct, frozen=True, kw_only=True, tag="saturate"):
    relay: CountedRelay
    server_core: int
    load_core: int
    seconds: float
    warmup_s: float


class Step(Struct, frozen=True, kw_only=True, tag="step"):
    relays: tuple[CountedRelay, CountedRelay]
    seconds: float


class Held(Struct, frozen=True, kw_only=True, tag="held"):
    """They have joined."""


class Carried(Struct, frozen=True, kw_only=True, tag="carried"):
    saturation: Saturation


class Costs(Struct, frozen=True, kw_only=True, tag="costs"):
    """Processor time a delivery of both."""

    costs_ns: tuple[float, float]


class Broken(Struct, frozen=True, kw_only=True, tag="broken"):
    """It could not be measured; `text` says why."""

    text: str


_Request: TypeAlias = Hold | Saturate | Step
_Answer: TypeAlias = Held | Carried | Costs | Broken
_A = TypeVar("_A", Held, Carried, Costs)


class CountingProcess:
    """The process, from the side that asks. `interrupt` may be called from a signal handler."""

    def __init__(self, core: int) -> None:
        """The process stays on `core`."""
        self._core = core

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            child_module("benchmarks.fast_load.counting_process", str(self._core)),
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

    def saturate(self, relay: CountedRelay, cores: Cores, *, seconds: float, warmup_s: float) -> Saturation:
        """Measure how much the relay carries. Raises LoadError."""
        request = Saturate(
            relay=relay, server_core=cores.server, load_core=cores.load, seconds=seconds, warmup_s=warmup_s
        )
        return self._ask(request, Carried).saturation

    def costs_ns(self, relays: tuple[CountedRelay, CountedRelay], seconds: float) -> tuple[float, float]:
        """Measure the processor time a delivery of both. Raises LoadError."""
        return self._ask(Step(relays=relays, seconds=seconds), Costs).costs_ns

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
            raise LoadError(f"the process that counts ended: {self._process.wait()}")
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
            if isinstance(request, Step):
                return Costs(costs_ns=costs_ns([(r.settings, r.pid) for r in request.relays], request.seconds))
            return Carried(
                saturation=saturate(
                    request.relay.settings,
                    request.relay.pid,
                    Cores(server=request.server_core, load=request.load_core),
                    seconds=request.seconds,
                    warmup_s=request.warmup_s,
                )
            )
        except (LoadError, ServerError, OSError) as error:
            self.close()
            return Broken(text=str(error))

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
