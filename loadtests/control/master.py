"""The master's part of a run: everyone joins, the load goes on, everything drains, and the figures are put together.

    idle --test_start--> joining --all joined--> loaded --time is up, or stopped--> quiet --all sent--> draining --> done

Works on Locust's master and on a lone process; the other side of the messages is loadtests/control/worker.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic_ns
from typing import Any, Final

import gevent
from gevent.event import Event

from loadtests.control.collector import Gathering, command_line
from loadtests.control.worker import CLOCKS, DRAIN, GO, LATE_S, QUIET, REPORT, SETTLED, STOP
from loadtests.measuring.histogram import Histogram
from loadtests.results.environment import machine
from loadtests.results.schema import Kind, Result
from loadtests.results.thresholds import Threshold
from loadtests.results.validity import Finding
from loadtests.settings import Settings
from loadtests.target.reference_relay import ReferenceRelay

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


class Conductor:
    """One run at a time. What a caller may set before it starts stands in the attributes without underscore."""

    def __init__(
        self,
        *,
        send: Callable[[str, dict[str, Any], str | None], None],
        alive: Callable[[str], bool],
        on_done: Callable[[Result], None],
    ) -> None:
        """`send(type, data, worker or None for all)`; `alive(worker)`; `on_done` gets the result of every run."""
        self._send = send
        self._alive = alive
        self._on_done = on_done
        self.relay: ReferenceRelay | None = None
        self.target = "external"
        self.thresholds: Sequence[Threshold] = ()
        self.options: dict[str, Any] = {}
        self.command: Sequence[str] = command_line()
        self.calibration: Histogram | None = None
        self.machine = machine()
        self.gathering: Gathering | None = None
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

    def start(self, settings: Settings, workers: Sequence[str]) -> None:
        """Begin a run with these workers, in this order."""
        self.result = None
        self.done.clear()
        self._stop.clear()
        self._quiet, self._settled, self._lost = set(), set(), set()
        self._missing_since_ns.clear()
        self._empty_since_ns = 0
        self.gathering = Gathering(settings, target=self.target, relay=self.relay, workers=workers)
        self.gathering.calibration = self.calibration
        self.gathering.machine = self.machine
        self.gathering.note_idle_relay()
        gevent.spawn(self._conduct, self.gathering)

    def stop(self, *, interrupted: bool = False) -> None:
        """End the run now, in order; wait for `done` afterwards."""
        if not self.done.is_set() and not self._stop.is_set():
            if interrupted and self.gathering is not None:
                self.gathering.interrupted = True
                self.gathering.event("interrupted")
            self._stop.set()

    def _conduct(self, run: Gathering) -> None:
        try:
            self.phase = "joining"
            if self._join(run):
                self.phase = "load"
                self._load(run)
            self.phase = "drain"
            self._drain(run)
            self.phase = "done"
            self.result = run.result(self.thresholds, self.command, self.options)
            self._on_done(self.result)
        finally:
            self.phase = "idle"
            self.done.set()

    def _join(self, run: Gathering) -> bool:
        """Wait until everyone who joins before the load has; False if the run cannot go on."""
        wanted = run.settings.participants
        end_ns = monotonic_ns() + int((JOIN_S_MAX + JOIN_S_PER_PARTICIPANT * wanted) * 1e9)
        clocks_end_ns = monotonic_ns() + int(CLOCKS_S_MAX * 1e9)
        while not self._stop.wait(POLL_S):
            self._watch(run)
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
        offsets = sorted(run.offsets_ns().items())
        for worker, line in run.lines.items():
            self._send(GO, {"lead_ns": int(LEAD_S * 1e9), "clock": line.clock, "offsets_ns": offsets}, worker)
        gevent.sleep(LEAD_S)
        run.starts_now()
        return True

    def _load(self, run: Gathering) -> None:
        end_ns = run.load_from_ns + int(run.settings.duration_s * 1e9)
        while monotonic_ns() < end_ns and not self._stop.wait(POLL_S):
            self._watch(run)
            if self._trouble(run):
                break

    def _drain(self, run: Gathering) -> None:
        over = run.load_from_ns and monotonic_ns() - run.load_from_ns >= int(run.settings.duration_s * 1e9)
        self._send(STOP, {"cut": not over}, None)
        if run.load_from_ns:
            run.load_ends()
        patience_s = run.settings.drain_s + GRACE_S
        self._wait(lambda: self._all_but_lost(run, self._quiet), patience_s)
        assert run.settings is not None
        finals = run.sent_log.finals().to_wire() if run.sent_log is not None else []
        self._send(DRAIN, {"finals": finals}, None)
        self._wait(lambda: self._all_but_lost(run, self._settled), patience_s + LATE_S)
        for worker in run.lines.keys() - self._settled:
            self._lose(run, worker)

    # -- watching ------------------------------------------------------------------------------------

    def _watch(self, run: Gathering) -> None:
        now_ns = monotonic_ns()
        if now_ns - self._sampled_ns < int(SAMPLE_S * 1e9):
            return
        self._sampled_ns = now_ns
        run.sample_relay()
        if run.clocks > 1:
            offsets = sorted(run.offsets_ns().items())
            self._send(CLOCKS, {"offsets_ns": offsets}, None)
        for worker in run.lines:
            if self._alive(worker):
                self._missing_since_ns.pop(worker, None)
            # A worker may be too busy for a while to say that it lives.
            elif now_ns - self._missing_since_ns.setdefault(worker, now_ns) > WORKER_S_MAX * 1e9:
                self._lose(run, worker)

    def _trouble(self, run: Gathering) -> bool:
        """Return whether the run is pointless from now on; the finding says why."""
        code = self.relay.exit_code() if self.relay is not None else None
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

    def _lose(self, run: Gathering, worker: str) -> None:
        if worker not in self._lost:
            self._lost.add(worker)
            name = run.lines[worker].name
            self._find(run, "worker-lost", f"{name} was lost, and with it what it had measured: see its log.")

    def _find(self, run: Gathering, code: str, sentence: str) -> None:
        run.findings.append(Finding(code, sentence))
        run.event(sentence)
        _log.error(sentence)

    def _all_but_lost(self, run: Gathering, heard: set[str]) -> bool:
        return heard >= run.lines.keys() - self._lost

    def _wait(self, reached: Callable[[], bool], patience_s: float) -> None:
        end_ns = monotonic_ns() + int(patience_s * 1e9)
        while not reached() and monotonic_ns() < end_ns:
            gevent.sleep(POLL_S)

    def so_far(self) -> tuple[Mapping[str, Histogram], Mapping[str, Kind]]:
        """Return the histograms by series and what was done by kind; both are empty before the first run."""
        run = self.gathering
        return ({}, {}) if run is None else (run.recorder.totals, run.kinds_so_far())

    # -- messages from workers -----------------------------------------------------------------------

    def on_message(self, kind: str, worker: str, data: dict[str, Any]) -> None:
        run = self.gathering
        if run is None or worker not in run.lines or self.done.is_set():
            return
        if kind == REPORT:
            run.take_report(worker, data)
        elif kind == QUIET and worker not in self._quiet:
            run.take_sent(data)
            self._quiet.add(worker)
        elif kind == SETTLED and worker not in self._settled:
            run.take_settled(worker, data)
            self._settled.add(worker)
