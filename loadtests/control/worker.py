"""One worker process in a run: turns the master's messages into phases of its population, and reports once a second."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final

import gevent
import msgspec
from gevent.event import Event

from loadtests.accounting.settlement import Finals
from loadtests.control.messages import (
    CompareClocks,
    Drain,
    Go,
    Quiet,
    Settled,
    Status,
    Stop,
    TellTime,
    ToMaster,
    ToWorker,
    WorkerReport,
    WorkerTime,
)
from loadtests.driver.population import Population
from loadtests.measuring.clock import clock_id
from loadtests.measuring.histogram import Histogram
from loadtests.settings import Settings

REPORT_S: Final = 1.0
POLL_S: Final = 0.02
YIELD_S: Final = 0.001
LATE_S: Final = 1.0
"""After the drain time: what still comes in this time is late, what does not is lost."""

_log = logging.getLogger(__name__)


class LoadWorker:
    """The population of this process, in the hands of the master."""

    def __init__(
        self,
        settings: Settings,
        *,
        ordinal: int,
        workers: int,
        send: Callable[[ToMaster], None],
        on_fold: Callable[[str, Histogram], None],
    ) -> None:
        """`ordinal`: which of the `workers` this is; `on_fold` gets each second's histograms, by series."""
        self._settings = settings
        self._workers = workers
        self._send = send
        self._on_fold = on_fold
        self._changed = Event()
        self.population = Population(settings, worker=ordinal, on_joined=self._joined)
        self._clock_id = clock_id(self.population.phase.shift_ns)
        self._free = iter(range(ordinal, settings.participants, workers))
        self._greenlets: list[Any] = []
        self._ending = False

    def open(self) -> None:
        self.population.open()
        self._greenlets.append(gevent.spawn(self._report_for_ever))

    # -- Locust's users ------------------------------------------------------------------------------

    def user_starts(self) -> int | None:
        """Return the participant that a new Locust user is, None if the plan has no more of them here."""
        index = next(self._free, None)
        if index is None:
            _log.warning("more users than the plan has participants: this one stays idle")
        else:
            self.population.enter(index)
        return index

    def user_stops(self, index: int) -> None:
        if not self._ending:
            self.population.leave(index)

    def _joined(self) -> None:
        self._changed.set()

    # -- messages from the master --------------------------------------------------------------------

    def on_message(self, message: ToWorker) -> None:
        if isinstance(message, TellTime):
            received_ns = self.population.phase.now_ns()
            replied_ns = self.population.phase.now_ns()
            self._send(WorkerTime(sent_ns=message.sent_ns, received_ns=received_ns, replied_ns=replied_ns))
        elif isinstance(message, Go):
            self.population.begin(monotonic_ns() + message.lead_ns, message.clock)
            self.population.phase.compare_clocks(dict(message.offsets_ns))
        elif isinstance(message, CompareClocks):
            self.population.phase.compare_clocks(dict(message.offsets_ns))
        elif isinstance(message, Stop):
            self._stop(message)
        elif isinstance(message, Drain):
            self._greenlets.append(gevent.spawn(self._settle, Finals.from_wire(message.finals)))

    def _stop(self, message: Stop) -> None:
        """The load is over, or was cut short: finish what is under way, then say so."""
        # Otherwise the population stops by itself, behind all that was due: a late worker must not skip what it is late with.
        if message.cut:
            self.population.stop()
        if not self._ending:
            self._ending = True
            self._greenlets.append(gevent.spawn(self._become_quiet))

    def _become_quiet(self) -> None:
        _wait_for(lambda: self.population.silent, self._settings.drain_s)
        self._send(Quiet(sent=self.population.end_sending().to_wire()))

    def _settle(self, finals: Finals) -> None:
        population = self.population
        population.drain(finals)
        if not _wait_for(lambda: population.gone, self._settings.drain_s):
            population.count_the_rest_as_late()
            _wait_for(lambda: population.gone, LATE_S)
        settlement = population.settle(finals)
        self._report()
        self._send(Settled(settlement=settlement, attempts=population.attempts()))

    # -- reports -------------------------------------------------------------------------------------

    def _report_for_ever(self) -> None:
        while True:
            if self.population.phase.started:
                gevent.sleep(REPORT_S)
            else:
                # While people join, the master wants to know at once that the last one has.
                self._changed.wait(REPORT_S)
                self._changed.clear()
                gevent.sleep(POLL_S)
            if not self.population.phase.over:
                self._report()

    def _report(self) -> None:
        recorder = self.population.recorder
        now_ns = monotonic_ns()
        # What came in the last second belongs to the second that it came in.
        second = recorder.second(now_ns - int(REPORT_S / 2 * 1e9)) if self.population.phase.started else 0
        folded = recorder.fold(now_ns)
        intervals = {}
        for name, histogram in folded.items():
            # The loop has its turn after each, so that nothing waits for all of this. A sleep of 0 would not do: gevent
            # runs what is ready for five milliseconds before it looks at sockets again.
            gevent.sleep(YIELD_S)
            intervals[name] = histogram.to_wire()
            self._on_fold(name, histogram)
        report = WorkerReport(
            second=second,
            intervals=intervals,
            fanout=self.population.context.fanout.take(),
            clock_id=self._clock_id,
            status=msgspec.convert(self.population.status(), Status),
        )
        self._send(report)

    def close(self) -> None:
        self._ending = True
        gevent.killall(self._greenlets, block=False)
        self.population.close()


def _wait_for(done: Callable[[], bool], patience_s: float) -> bool:
    """Return whether `done` came true in time."""
    end_ns = monotonic_ns() + int(patience_s * 1e9)
    while not done():
        if monotonic_ns() > end_ns:
            return False
        gevent.sleep(POLL_S)
    return True
