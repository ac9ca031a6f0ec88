"""The participants of one worker, from their first connection to the settlement of their accounts.

    built --enter(i) for each--> joining --begin--> sending --end of the plan or stop()--> quiet --drain()--> settled

The master moves all workers from one phase to the next (loadtests/control/master.py). Nothing here knows Locust.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Any, Final

import psutil

from loadtests.accounting.ledger import Ledger
from loadtests.accounting.settlement import Finals, SentLog
from loadtests.dialects.find import find
from loadtests.driver.clock_probe import ClockProbe
from loadtests.driver.context import Context, Credentials, Meters, Phase
from loadtests.driver.counts import Presence, RunningCounts
from loadtests.driver.event_loop import EventLoop
from loadtests.driver.participant import Participant
from loadtests.driver.sockets import allow_descriptors
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.room_spread import SpreadNotes
from loadtests.settings import SUITES, Settings

POLL_NS: Final = 50_000_000
SILENCE_NS: Final = 300_000_000
"""Who cannot know whether more is to come leaves when nothing has come for so long."""
GC_THRESHOLD: Final = 200_000
"""A collection looks at what was made since the freeze only; the records of the hot path are no cycles."""


class Population:
    """All participants of one worker. Call from the worker's own thread, inside gevent."""

    def __init__(self, settings: Settings, *, worker: int, on_joined: Callable[[], None] | None = None) -> None:
        """`on_joined` is called whenever one more participant is attached to all that its plan says."""
        self.settings = settings
        target = settings.address
        workload = settings.workload()
        shifts = settings.clock_shift_ms
        self.phase = Phase(int(shifts[worker] * 1e6) if worker < len(shifts) else 0)
        self.recorder = Recorder(monotonic_ns(), keep_history=False)
        self.context = Context(
            loop=EventLoop(
                tls=settings.client_context(), server_name=target.host if target.tls else None, on_tick=self._tick
            ),
            address=target.numeric(),
            dialect_class=find(settings.dialect),
            place=settings.place(),
            workload=workload,
            phase=self.phase,
            meters=Meters(self.recorder),
            credentials=Credentials(workload, settings.run, SUITES[settings.suite]),
            counts=RunningCounts(),
            presence=Presence(on_joined),
            ledger=Ledger(),
            fanout=SpreadNotes(),
        )
        self.participants: dict[int, Participant] = {}
        self._clock_probe = ClockProbe(self.context)
        self._process = psutil.Process()
        self._cpu_at = (monotonic_ns(), time.process_time_ns())
        self._load_from = self._load_to = self._cpu_at
        self._gc_threshold = gc.get_threshold()

    def _tick(self, lag_ns: int) -> None:
        # Before and after the load the worker derives keys and adds up: nobody is measured then.
        if self.phase.sending and monotonic_ns() >= self.phase.start_ns:
            self.context.meters.loop_lags(lag_ns)

    # -- the phases ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the event loop, and the comparison of clocks."""
        allow_descriptors()
        self.context.loop.start()
        self._clock_probe.start()

    def enter(self, index: int) -> None:
        """Participant `index` joins: now, or later if its plan says so."""
        plan = self.context.workload.participant(index)
        participant = self.participants[index] = Participant(self.context, plan)
        self.context.presence.expected_first += not participant.late
        if not participant.late:
            participant.enter(monotonic_ns())
        if self.phase.started:
            participant.start(self.phase.start_ns)

    def leave(self, index: int) -> None:
        """Participant `index` is stopped by Locust before the end."""
        participant = self.participants.get(index)
        if participant is not None and not self.phase.over:
            participant.leave()

    def begin(self, start_ns: int, clock: int) -> None:
        """The load begins at `start_ns` (monotonic); `clock` names this worker's clock in stamps."""
        self.phase.begin(start_ns, clock)
        self.context.ledger.begin(clock)
        self.recorder.started_ns = start_ns
        gc.collect()
        gc.freeze()
        self._gc_threshold = gc.get_threshold()
        gc.set_threshold(GC_THRESHOLD, 20, 100)
        for participant in self.participants.values():
            participant.start(start_ns)
        at = self.context.loop.at
        at(start_ns, self._mark_start)
        at(start_ns + int(self.settings.duration_s * 1e9), lambda due_ns, now_ns: self.stop())

    def _mark_start(self, _due_ns: int, now_ns: int) -> None:
        self._load_from = self._load_to = (now_ns, time.process_time_ns())

    def stop(self) -> None:
        """Nobody begins anything new. The population does this itself when the load is over."""
        if self.phase.sending:
            self._load_to = (monotonic_ns(), time.process_time_ns())
        self.phase.sending = False
        for participant in self.participants.values():
            participant.read_at_full_speed()

    @property
    def silent(self) -> bool:
        """Everything that was due is sent and acknowledged."""
        return not self.phase.sending and all(each.publisher.silent for each in self.participants.values())

    def end_sending(self) -> SentLog:
        """End all sending and return what was sent; what still waits for its turn stays unsent."""
        self.stop()
        self.phase.quiet = True
        return self.context.ledger.sent_log()

    def drain(self, finals: Finals) -> None:
        """Every recipient unsubscribes: at once where the relay's numbers say what it owes, and sends before its answer.

        Elsewhere each does when it has all that the senders' final counters tell, or nobody can say and nothing comes.
        """
        self.phase.draining = True
        if self.context.features.numbers:
            self.leave_all()
        else:
            now_ns = monotonic_ns()
            self._leave_when_served(finals, list(self.participants.values()), now_ns, 0, now_ns)

    def _leave_when_served(
        self, finals: Finals, there: list[Participant], since_ns: int, _due_ns: int, now_ns: int
    ) -> None:
        if self.phase.over:
            return
        still = []
        for participant in there:
            if participant.waits(finals, since_ns, now_ns - SILENCE_NS):
                still.append(participant)
            else:
                participant.leave()
        if still:
            # A look at everybody takes a while: no more than a tenth of the time.
            pause_ns = max(POLL_NS, 10 * (monotonic_ns() - now_ns))
            self.context.loop.at(now_ns + pause_ns, partial(self._leave_when_served, finals, still, since_ns))

    def leave_all(self) -> None:
        for participant in self.participants.values():
            if not participant.leaving:
                participant.leave()

    @property
    def gone(self) -> bool:
        return all(participant.gone for participant in self.participants.values())

    def count_the_rest_as_late(self) -> None:
        """The time to drain is over."""
        self.context.ledger.drained()
        self.leave_all()

    def settle(self, finals: Finals) -> dict[str, Any]:
        """End every account and return the settlement for the master."""
        self.phase.over = True
        for participant in self.participants.values():
            participant.finish()
        return self.context.ledger.settle(finals, self.phase.latest_on).to_wire()

    def close(self) -> None:
        self.phase.over = True
        self.context.loop.stop()
        gc.unfreeze()
        gc.set_threshold(*self._gc_threshold)

    # -- reports -------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the figures of this moment; CPU is of one core, since the last call."""
        now_ns, cpu_ns = monotonic_ns(), time.process_time_ns()
        then_ns, cpu_then_ns = self._cpu_at
        self._cpu_at = (now_ns, cpu_ns)
        estimate, presence, loop = self._clock_probe.estimate, self.context.presence, self.context.loop
        return {
            "participants": len(self.participants),
            "joined": presence.joined,
            "attached": presence.attached,
            "expected_first": presence.expected_first,
            "joined_first": presence.joined_first,
            # A look at everybody takes a while: not during the load.
            "unsent": 0 if self.phase.sending else sum(each.publisher.unsent for each in self.participants.values()),
            "unacknowledged": 0
            if self.phase.sending or not self.context.features.acknowledges
            else sum(each.publisher.unacknowledged for each in self.participants.values()),
            "cpu": (cpu_ns - cpu_then_ns) / max(now_ns - then_ns, 1),
            "load_cpu": (self._load_to[1] - self._load_from[1]) / max(self._load_to[0] - self._load_from[0], 1),
            "rss_bytes": self._process.memory_info().rss,
            "clock": self.phase.clock,
            "offset_ns": estimate.offset_ns if estimate.valid else None,
            "clock_error_ns": estimate.error_ns if estimate.valid else None,
            "descriptors_exhausted": loop.descriptors_exhausted,
            "ports_exhausted": loop.ports_exhausted,
            "joins": presence.joins.tried,
            "resumes": presence.resumes.tried,
            "connections": len(loop),
            "counts": self.context.counts.to_wire(),
        }

    def attempts(self) -> dict[str, Any]:
        """Return when participants joined and resumed."""
        presence, start_ns = self.context.presence, self.phase.start_ns
        return {"joins": presence.joins.to_wire(start_ns), "resumes": presence.resumes.to_wire(start_ns)}
