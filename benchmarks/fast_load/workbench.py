"""What measures targets in turn, kept for a whole session: the harness's engine for runs, and the process that counts.

    with workbench(folder) as bench:
        with bench.opened(target, folder) as found:
            result, others_cpu = bench.run(settings, facts)
            saturation = bench.saturate(settings, found, seconds=1.0, warmup_s=0.3)

Import it only where a run is certain: gevent, which the engine needs, changes the process that imports it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gevent.event import Event

from benchmarks.fast_load.counting_process import CountedRelay, CountingProcess
from benchmarks.fast_load.saturate import Saturation
from benchmarks.rig.priority import giving_way, prefer_sessions, preferred
from benchmarks.rig.processes import Cores, ServerError, choose_cores
from benchmarks.rig.usage import OthersMeter
from loadtests.control.facts import RunFacts
from loadtests.dialects.find import find
from loadtests.engine import Engine
from loadtests.options import without_secrets
from loadtests.results.environment import commit, machine
from loadtests.results.schema import Result
from loadtests.results.thresholds import Threshold
from loadtests.settings import Settings
from loadtests.signals import on_ending
from loadtests.target.opening import OpenTarget, opened
from loadtests.target.process import ProcessUsage
from loadtests.target.target import Target


class Workbench:
    """See the module; made by `workbench`. Ctrl-C and the like end what goes on, and then `go_on` raises."""

    def __init__(self, folder: Path, cores: Cores, stack: ExitStack) -> None:
        self.cores = cores
        self._interrupted = Event()
        self._machine = machine()  # before this process binds itself to some of the cores
        self._commit = commit(Path(__file__).parent)
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        if not cores.shared:
            os.sched_setaffinity(0, {cores.load})
        self._preferred = stack.enter_context(preferred())
        # An exception may strike where it is lost, so that a signal only says that there was one.
        on_ending(stack, self._interrupted.set)
        self.counting = stack.enter_context(CountingProcess(cores.load))
        self.engine = stack.enter_context(Engine(folder, workers=1, cores=[cores.load], go_on=self.go_on))
        on_ending(stack, self._end_in_order)

    def _end_in_order(self) -> None:
        self._interrupted.set()
        self.engine.interrupt()
        self.counting.interrupt()

    def go_on(self) -> None:
        """Raise KeyboardInterrupt if there was a signal."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt

    @contextmanager
    def opened(self, target: Target, folder: Path) -> Iterator[OpenTarget]:
        """Give the target, on the server's core if it is started here, ahead of the machine's other work."""
        with opened(target, folder, cores={self.cores.server}) as found:
            if self._preferred:
                prefer_sessions()
            yield found

    def facts(self, target: Target, found: OpenTarget, thresholds: Sequence[Threshold] = ()) -> RunFacts:
        """Return what is known of a run before it begins."""
        return RunFacts(
            target=target.name,
            version=found.version,
            promises=target.promises.words(),
            relay=found.relay,
            thresholds=thresholds,
            machine=self._machine,
            commit=self._commit,
            command=without_secrets(["relaymark", *sys.argv[1:]]),
            options={"tls": found.address.tls},
        )

    def run(self, settings: Settings, facts: RunFacts) -> tuple[Result, float | None]:
        """Run the scenario; return its result, and the share that others took of the server's core, if that is known."""
        relay = None if self.cores.shared else facts.relay

        def used_ns() -> int | None:
            usage = relay.usage() if relay is not None else None
            return usage.cpu_ns if usage is not None else None

        others = OthersMeter(self.cores.server, used_ns)
        # The master only adds up during a run: a worker on the same core goes first.
        with giving_way(preferred=self._preferred):
            result = self.engine.run(settings, facts)
        return result, others.share()

    def counted(self, settings: Settings, found: OpenTarget) -> CountedRelay:
        """Return a target that was started here as the process that counts knows it."""
        assert found.pid is not None, "it was started here"
        return CountedRelay(settings=settings, pid=found.pid)

    def saturate(self, settings: Settings, found: OpenTarget, *, seconds: float, warmup_s: float) -> Saturation | None:
        """Return what it carries; None of a relay that acknowledges nothing: no window can be kept full of that.

        Raises LoadError.
        """
        if not find(settings.dialect).features.acknowledges:
            return None
        return self.counting.saturate(self.counted(settings, found), self.cores, seconds=seconds, warmup_s=warmup_s)


@contextmanager
def workbench(folder: Path) -> Iterator[Workbench]:
    """Start the engine and the process that counts; their logs go to `folder`. Raises CannotRun, KeyboardInterrupt."""
    with ExitStack() as stack:
        _log_to(folder / "harness.log", stack)
        yield Workbench(folder, choose_cores(), stack)


def usage_of(found: OpenTarget) -> ProcessUsage:
    """Return what a target's processes have used. Raises ServerError if they are gone."""
    usage = found.relay.usage() if found.relay is not None else None
    if usage is None:
        raise ServerError("it ended by itself")
    return usage


def _log_to(path: Path, stack: ExitStack) -> None:
    """Let what Locust and the engine log stand in a file, as that of `relaymark run` does."""
    handler, root = logging.FileHandler(path), logging.getLogger()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    stack.callback(handler.close)
    stack.callback(root.removeHandler, handler)
