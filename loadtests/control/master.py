"""The master's part of a run: everyone joins, the load goes on, everything drains, and the figures are put together.

    idle --start--> joining --all joined--> load --time is up, or stopped--> drain --all settled--> done --> idle

Works on Locust's master and on a lone process; the other side of the messages is loadtests/control/worker.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import Final

import gevent
from gevent.event import Event

from loadtests.control.assemble import assemble
from loadtests.control.collector import Collector
from loadtests.control.facts import RunFacts
from loadtests.control.messages import (
    CompareClocks,
    Drain,
    Go,
    Quiet,
    Settled,
    Stop,
    TellTime,
    ToMaster,
    ToWorker,
    WorkerReport,
    WorkerTime,
)
from loadtests.control.worker import LATE_S
from loadtests.measuring.histogram import Histogram
from loadtests.results.schema import KindFigures, Result
from loadtests.results.validity import Finding
from loadtests.settings import Settings

JOIN_S_MAX: Final = 60.0
"""For everyone to join before the load, plus the following for every participant."""
JOIN_S_PER_PARTICIPANT: Final = 0.02
CLOCKS_S_MAX: Final = 10.0
"""For the offsets of the workers' clocks, where they have several; without them one-way times cannot be had."""
LEAD_S: Final = 0.5
"""From the word to the start: every worker has it by then."""
GRACE_S: Final = 3.0
"""What a worker may take beyond its own deadlines to answer."""
WORKER_S_MAX: Final = 5.0
"""For a worker that Locust misses to be heard again."""
LOST_S_MAX: Final = 10.0
"""With no participant attached for so long, the target is taken as gone."""
POLL_S: Final = 0.05
SAMPLE_S: Final = 1.0

_log = logging.getLogger(__name__)


class Master:
    """One run at a time, any number one after the other."""

    def __init__(
        self,
        *,
        send: Callable[[ToWorker, str | None], None],
        alive: Callable[[str], bool],
        on_done: Callable[[Result], None],
    ) -> None:
        """`send(message, worker or None for all)`; `alive(worker)`; `on_done` gets the result of every run."""
        self._send = send
        self._alive = alive
        self._on_done = on_done
        self.collector: Collector | None = None
        """What is known of the run that goes on, or of the last one."""
        self.phase = "idle"
        self.done = Event()
        self.done.set()
        self.result: Result | None = None
        self._stop = Event()
        self._quiet: set[str] = set()
        self._settled: set[str] = set()
        self._lost: set[str] = set()
        self._missing_since_ns: dict[str, int] = {}
        self._sampled_ns = 0
        self._empty_since_ns = 0

    # -- the run -------------------------------------------------------------------------------------

    def start(self, settings: Settings, facts: RunFacts, workers: Sequence[str]) -> None:
        """Begin a run with these workers, in this order."""
        self.result = None
        self._stop.clear()
        self._quiet, self._settled, self._lost = set(), set(), set()
        self._missing_since_ns.clear()
        self._empty_since_ns = 0
        self.collector = Collector(settings, facts, workers)
        self.collector.relay.note_idle()
        self.done.clear()  # last: whoever waits must not wait for a run that could not begin
        gevent.spawn(self._conduct, self.collector, facts)

    def stop(self, *, interrupted: bool = False) -> None:
        """End the run now, in order; wait for `done` afterwards."""
        if not self.done.is_set() and not self._stop.is_set():
            if interrupted and self.collector is not None:
                self.collector.interrupted = True
                self.collector.event("interrupted")
            self._stop.set()

    def _conduct(self, run: Collector, facts: RunFacts) -> None:
        try:
            self.phase = "joining"
            if self._join(run):
                self.phase = "load"
                self._load(run)
            self.phase = "drain"
            self._drain(run)
            self.phase = "done"
            self.result = assemble(run, facts)
            self._on_done(self.result)
        finally:
            self.phase = "idle"
            self.done.set()

    def _join(self, run: Collector) -> bool:
        """Wait until everyone who joins before the load has; False if the run cannot go on."""
        wanted = run.settings.participants
        end_ns = monotonic_ns() + int((JOIN_S_MAX + JOIN_S_PER_PARTICIPANT * wanted) * 1e9)
        clocks_end_ns = monotonic_ns() + int(CLOCKS_S_MAX * 1e9)
        while not self._stop.wait(POLL_S):
            self._watch(run)
            self._ask_for_time(run)
            if self._trouble(run):
                return False
            if (
                run.everyone_reported
                and run.total("participants") >= wanted
                and run.total("joined_first") >= run.total("expected_first")
                and (run.clocks < 2 or len(run.offsets_ns()) == run.clocks or monotonic_ns() > clocks_end_ns)
            ):
                break
            if monotonic_ns() > end_ns:
                run.findings.append(
                    Finding(
                        "joins",
                        f"Only {run.total('joined')} of {wanted} participants could join: look at the relay's log.",
                    )
                )
                return False
        if self._stop.is_set():
            return False
        run.load_begins()
        offsets_ns = run.offsets_ns()
        for worker, line in run.lines.items():
            self._send(Go(lead_ns=int(LEAD_S * 1e9), clock=line.clock, offsets_ns=offsets_ns), worker)
        gevent.sleep(LEAD_S)
        run.starts_now()
        run.samples_begin()
        return True

    def _load(self, run: Collector) -> None:
        end_ns = run.load_from_ns + int(run.settings.duration_s * 1e9)
        while monotonic_ns() < end_ns and not self._stop.wait(POLL_S):
            self._watch(run)
            if self._trouble(run):
                break

    def _drain(self, run: Collector) -> None:
        over = bool(run.load_from_ns) and monotonic_ns() - run.load_from_ns >= int(run.settings.duration_s * 1e9)
        self._send(Stop(cut=not over), None)
        run.load_ends()
        patience_s = run.settings.drain_s + GRACE_S
        self._wait(lambda: self._all_but_lost(run, self._quiet), patience_s)
        self._send(Drain(finals=run.sent_log.finals().to_wire() if run.sent_log is not None else []), None)
        self._wait(lambda: self._all_but_lost(run, self._settled), patience_s + LATE_S)
        for worker in run.lines.keys() - self._settled:
            self._lose(run, worker)

    # -- watching ------------------------------------------------------------------------------------

    def _watch(self, run: Collector) -> None:
        now_ns = monotonic_ns()
        if now_ns - self._sampled_ns < int(SAMPLE_S * 1e9):
            return
        self._sampled_ns = now_ns
        run.sample_relay()
        if run.clocks > 1:
            self._ask_for_time(run)
            self._send(CompareClocks(offsets_ns=run.offsets_ns()), None)
        for worker in run.lines:
            if self._alive(worker):
                self._missing_since_ns.pop(worker, None)
            # A worker may be too busy for a while to say that it lives.
            elif now_ns - self._missing_since_ns.setdefault(worker, now_ns) > WORKER_S_MAX * 1e9:
                self._lose(run, worker)

    def _ask_for_time(self, run: Collector) -> None:
        """Compare the workers' clocks with ours, where there are several and the relay tells no time."""
        if run.clocks > 1 and not run.relay_tells_time:
            for worker in run.lines:
                self._send(TellTime(sent_ns=monotonic_ns()), worker)

    def _trouble(self, run: Collector) -> bool:
        """Return whether the run is pointless from now on; the finding says why."""
        code = run.relay.relay.exit_code() if run.relay.relay is not None else None
        if code is not None:
            self._find(run, "relay-ended", f"The relay ended in the run with code {code}: see relay.log.")
            return True
        if len(self._lost) == len(run.lines):
            return True
        if run.total("joined") == 0 or run.total("attached") > 0:
            self._empty_since_ns = monotonic_ns()
            return False
        if monotonic_ns() - self._empty_since_ns < LOST_S_MAX * 1e9:
            return False
        self._find(run, "target-lost", f"Nobody was connected for {LOST_S_MAX:.0f} s: the target went away.")
        return True

    def _lose(self, run: Collector, worker: str) -> None:
        if worker not in self._lost:
            self._lost.add(worker)
            name = run.lines[worker].name
            self._find(run, "worker-lost", f"{name} was lost, and with it what it had measured: see the workers' logs.")

    def _find(self, run: Collector, code: str, sentence: str) -> None:
        run.findings.append(Finding(code, sentence))
        run.event(sentence)
        _log.error(sentence)

    def _all_but_lost(self, run: Collector, heard: set[str]) -> bool:
        return heard >= run.lines.keys() - self._lost

    def _wait(self, reached: Callable[[], bool], patience_s: float) -> None:
        end_ns = monotonic_ns() + int(patience_s * 1e9)
        while not reached() and monotonic_ns() < end_ns:
            gevent.sleep(POLL_S)

    def so_far(self) -> tuple[Mapping[str, Histogram], Mapping[str, KindFigures]]:
        """Return the histograms by series and what was done by kind; both are empty before the first run."""
        run = self.collector
        return ({}, {}) if run is None else (run.recorder.totals, run.kinds_so_far())

    # -- messages from workers -----------------------------------------------------------------------

    def on_message(self, worker: str, message: ToMaster) -> None:
        run = self.collector
        if run is None or worker not in run.lines or self.done.is_set():
            return
        if isinstance(message, WorkerReport):
            run.take_report(worker, message)
        elif isinstance(message, WorkerTime):
            run.take_time(worker, message, monotonic_ns())
        elif isinstance(message, Quiet) and worker not in self._quiet:
            run.take_quiet(message)
            self._quiet.add(worker)
        elif isinstance(message, Settled) and worker not in self._settled:
            run.take_settled(worker, message)
            self._settled.add(worker)
