"""The participants of one worker, with all that they share: loop, keys, ledger, recorder, clock.

    built --enter(i) for each--> joining --go()--> sending --end of the plan or stop()--> quiet --drain()--> settled

The master moves all workers from one phase to the next (loadtests/control/master.py). Nothing here knows Locust.
"""

from __future__ import annotations

import gc
import resource
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from time import monotonic_ns
from typing import Any, ClassVar, Final

import psutil

from loadtests.accounting.ledger import Ledger
from loadtests.accounting.settlement import Finals, SentLog
from loadtests.dialects.base import Dialect, Failed, Place, Ready, Reply, Timed
from loadtests.dialects.reference import Reference
from loadtests.driver.connection import Connection
from loadtests.driver.event_loop import EventLoop
from loadtests.driver.participant import Participant
from loadtests.measuring.clock import OffsetEstimator
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.room_spread import FanoutNotes, step_of
from loadtests.measuring.series import series_name
from loadtests.sealing.envelope import Keyring, Opener, Sealer, Suite, suite_for
from loadtests.sealing.records import KIND_NAMES
from loadtests.sealing.vouchers import Till, issue
from loadtests.settings import SUITES, Settings
from loadtests.workload.traffic import Action, Workload

EXPIRES_S: Final = 8 * 86_400
PROBE_NS: Final = 100_000_000
"""How often the clock is compared with the relay's: the estimate takes the best of many."""
FIRST_PROBES: Final = 10
FIRST_PROBE_NS: Final = 20_000_000
"""The first come faster: there is to be an estimate when the load begins."""
PROBE_AGAIN_NS: Final = 1_000_000_000
GC_THRESHOLD: Final = 200_000
"""A collection looks at what was made since the freeze only; the records of the hot path are no cycles."""


def _per_kind() -> list[int]:
    return [0] * len(KIND_NAMES)


@dataclass(slots=True)
class Counts:
    """What a worker counts beside its ledger; the lists are indexed by kind."""

    due: list[int] = field(default_factory=_per_kind)
    """Records that the plan, or a receipt's delay, made due."""
    sent: list[int] = field(default_factory=_per_kind)
    acknowledged: list[int] = field(default_factory=_per_kind)
    refused: list[int] = field(default_factory=_per_kind)
    sealed_bytes: list[int] = field(default_factory=_per_kind)
    received: int = 0
    skipped: int = 0
    """States that were due while their sender was not connected."""
    unopened: int = 0
    """Payloads that did not open."""
    cuts: int = 0
    events: Counter[str] = field(default_factory=Counter)

    def count(self, what: str) -> None:
        self.events[what] += 1

    def to_wire(self) -> dict[str, Any]:
        return {**{name.name: getattr(self, name.name) for name in fields(self)}, "events": dict(self.events)}


class AttemptTimes:
    """When participants began to come, and when each was there: for joins, and for resumes."""

    __slots__ = ("done_ns", "first_ns", "tried")

    def __init__(self) -> None:
        self.tried = 0
        self.first_ns = 0
        self.done_ns: array[int] = array("q")

    def begin(self, at_ns: int) -> None:
        self.tried += 1
        self.first_ns = min(self.first_ns or at_ns, at_ns)

    def to_wire(self, start_ns: int) -> dict[str, Any]:
        """Times are from `start_ns`, so that those of several hosts can be put together."""
        return {
            "tried": self.tried,
            "first_ns": self.first_ns - start_ns,
            "done_ns": array("q", [at_ns - start_ns for at_ns in self.done_ns]).tobytes(),
        }


class Population:
    """All participants of one worker. Call from the worker's own thread, inside gevent."""

    def __init__(self, settings: Settings, *, worker: int, on_entered: Callable[[], None] | None = None) -> None:
        """`on_entered` is called whenever one more participant is attached to all that its plan says."""
        self.settings = settings
        self._on_entered = on_entered
        target = settings.address
        self.address = target.numeric()
        self._host = f"{target.host}:{target.port}"
        self._path = target.path
        shifts = settings.clock_shift_ms
        self.shift_ns = int(shifts[worker] * 1e6) if worker < len(shifts) else 0
        """What the clock of this worker adds to CLOCK_MONOTONIC; not 0 only where that fault is injected."""
        self.workload = Workload(
            settings.scenario,
            seed=settings.seed,
            participants=settings.participants,
            rate=settings.rate,
            duration_s=settings.duration_s,
        )
        self.keyring = Keyring(settings.seed, settings.run)
        self._gateway = self.keyring.gateway_key()
        self.expires_s = int(time.time()) + EXPIRES_S
        self.ledger = Ledger()
        self.counts = Counts()
        self.joins = AttemptTimes()
        self.resumptions = AttemptTimes()
        self.fanout = FanoutNotes()
        features = Reference.features
        self.echoes, self.acknowledges, self.resumes = features.echoes, features.acknowledges, features.resumes
        self._suite = SUITES[settings.suite]
        self._openers: dict[int, Opener] = {}
        self._name_series()

        self.start_ns = 0
        self.started = False
        self.sending = False
        self.quiet = False
        """The senders' final counters are told: nothing more is sent but what was sent before."""
        self.draining = False
        self.over = False
        self.clock = 0
        self._corrections: dict[int, int] = {}
        self.participants: dict[int, Participant] = {}
        self.attached = 0
        """Participants that have their connection and all their streams now."""
        self.joined = self.joined_first = self.expected_first = 0
        """Participants that were attached once; those of them, and of all, who join before the load begins."""
        self.loop = EventLoop(
            tls=settings.client_context(),
            server_name=target.host if target.tls else None,
            on_tick=self._tick,
        )
        self.clock_probe = ClockProbe(self)
        self._process = psutil.Process()
        self._cpu_at = (monotonic_ns(), time.process_time_ns())
        self._load_from = self._load_to = self._cpu_at
        self._gc_threshold = gc.get_threshold()

    def _name_series(self) -> None:
        self.recorder = Recorder(monotonic_ns(), keep_history=False)

        def series(metric: str, **labels: str) -> Callable[[int], None]:
            return self.recorder.series(series_name(metric, **labels)).append

        kinds = KIND_NAMES
        self.deliver_intended = [series("deliver", kind=kind, basis="intended") for kind in kinds]
        self.deliver_sent = [series("deliver", kind=kind, basis="sent") for kind in kinds]
        self.deliver_slow = series("deliver_slow")
        self.acked = [series("ack", kind=kind) for kind in kinds]
        self.lags = series("lag")
        self.join_times = series("join")
        self.resume_times = series("resume")
        self._loop_lags = series("loop_lag")
        self.sealed = series("seal")
        self.opened = series("open")

    def _tick(self, lag_ns: int) -> None:
        # Before and after the load the worker derives keys and adds up: nobody is measured then.
        if self.sending and monotonic_ns() >= self.start_ns:
            self._loop_lags(lag_ns)

    # -- what participants ask -----------------------------------------------------------------------------

    def dialect(self) -> Dialect:
        return Reference(Place(host=self._host, path=self._path))

    def sealer(self, stream: int, sender: int, peer: int | None) -> Sealer:
        return self.keyring.sealer(self._suite_of(peer), stream, sender, peer=peer)

    def opener(self, stream: int, member: int, peer: int | None) -> Opener:
        # One opener serves all recipients of a stream: it knows the stream's keys, and nothing of the recipient.
        opener = self._openers.get(stream)
        if opener is None:
            opener = self._openers[stream] = self.keyring.opener(self._suite_of(peer), stream, member, peer=peer)
        return opener

    def _suite_of(self, peer: int | None) -> Suite:
        return suite_for(self._suite, private=peer is not None)

    def fanout_step(self, stream: int) -> int:
        return step_of(self.workload.streams[stream].members)

    def till(self, stream: int, member: int) -> Till | None:
        """Return the till of a room's performer, None for everybody else."""
        plan = self.workload.streams[stream]
        if plan.purpose != "room" or plan.owner != member:
            return None
        return Till(self._gateway.verify_key, stream)

    def body_of(self, action: Action) -> bytes:
        """Return what a record's body is; that of a tip is its voucher, signed by the gateway."""
        if action.voucher is None:
            return self.workload.body_of(action)
        return issue(self._gateway, serial=action.voucher, room=action.stream, amount_cents=action.amount_cents)

    def correction_ns(self, clock: int) -> int | None:
        """Return what to add to a time on `clock` to have it on ours; None, and counted, while that is not known."""
        correction_ns = self._corrections.get(clock)
        if correction_ns is None:
            self.counts.count("delivery from a clock of unknown offset, not timed")
        return correction_ns

    def entered(self, late: bool, intended_ns: int, now_ns: int) -> None:
        """Someone joined."""
        self.joined += 1
        self.joined_first += not late
        self.join_times(now_ns - intended_ns)
        self.joins.done_ns.append(now_ns)
        if self._on_entered is not None:
            self._on_entered()

    def resumed(self, intended_ns: int, now_ns: int) -> None:
        """Someone who had been cut off has caught up."""
        self.resume_times(now_ns - intended_ns)
        self.resumptions.done_ns.append(now_ns)

    # -- the phases ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the loop, and the comparison of clocks."""
        allow_descriptors()
        self.loop.start()
        self.clock_probe.start()

    def enter(self, index: int) -> None:
        """Participant `index` joins: now, or later if its plan says so."""
        plan = self.workload.participant(index)
        participant = self.participants[index] = Participant(self, plan)
        self.expected_first += not participant.late
        if not participant.late:
            participant.enter(monotonic_ns())
        if self.started:
            participant.start(self.start_ns)

    def leave(self, index: int) -> None:
        """Participant `index` is stopped by Locust before the end."""
        participant = self.participants.get(index)
        if participant is not None and not self.over:
            participant.leave()

    def go(self, start_ns: int, clock: int) -> None:
        """The load begins at `start_ns` (monotonic); `clock` names this worker's clock in stamps."""
        self.clock = clock
        self.start_ns = start_ns
        self.recorder.started_ns = start_ns
        self.started = self.sending = True
        gc.collect()
        gc.freeze()
        self._gc_threshold = gc.get_threshold()
        gc.set_threshold(GC_THRESHOLD, 20, 100)
        for participant in self.participants.values():
            participant.start(start_ns)
        self.loop.at(start_ns, self._mark_start)
        self.loop.at(start_ns + int(self.settings.duration_s * 1e9), lambda due_ns, now_ns: self.stop())

    def _mark_start(self, _due_ns: int, now_ns: int) -> None:
        self._load_from = self._load_to = (now_ns, time.process_time_ns())

    def compare_clocks(self, offsets_ns: dict[int, int]) -> None:
        """Take the offset (relay minus local) of every worker's clock."""
        own = offsets_ns.get(self.clock)
        if own is not None:
            self._corrections = {clock: offset - own for clock, offset in offsets_ns.items() if clock != self.clock}

    def stop(self) -> None:
        """Nobody begins anything new. The population does this itself when the load is over."""
        if self.sending:
            self._load_to = (monotonic_ns(), time.process_time_ns())
        self.sending = False
        for participant in self.participants.values():
            participant.read_at_full_speed()

    @property
    def silent(self) -> bool:
        """Everything that was due is sent and acknowledged."""
        return not self.sending and all(participant.silent for participant in self.participants.values())

    def end_sending(self) -> SentLog:
        """End all sending and return what was sent; what still waits for its turn stays unsent."""
        self.stop()
        self.quiet = True
        return self.ledger.sent_log()

    def drain(self) -> None:
        """Every recipient unsubscribes; the relay's answer comes after all that it owed."""
        self.draining = True
        for participant in self.participants.values():
            participant.leave()

    @property
    def gone(self) -> bool:
        return all(participant.gone for participant in self.participants.values())

    def count_the_rest_as_late(self) -> None:
        self.ledger.drained()

    def settle(self, finals: Finals) -> dict[str, Any]:
        """End every account and return the settlement for the master."""
        self.over = True
        for participant in self.participants.values():
            participant.finish()
        return self.ledger.settle(finals).to_wire()

    def close(self) -> None:
        self.over = True
        self.loop.stop()
        gc.unfreeze()
        gc.set_threshold(*self._gc_threshold)

    # -- reports -------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return the figures of this moment; CPU is of one core, since the last call."""
        now_ns, cpu_ns = monotonic_ns(), time.process_time_ns()
        then_ns, cpu_then_ns = self._cpu_at
        self._cpu_at = (now_ns, cpu_ns)
        estimate = self.clock_probe.estimate
        return {
            "participants": len(self.participants),
            "joined": self.joined,
            "attached": self.attached,
            "expected_first": self.expected_first,
            "joined_first": self.joined_first,
            # A look at everybody takes a while: not during the load.
            "unsent": 0 if self.sending else sum(participant.unsent for participant in self.participants.values()),
            "cpu": (cpu_ns - cpu_then_ns) / max(now_ns - then_ns, 1),
            "load_cpu": (self._load_to[1] - self._load_from[1]) / max(self._load_to[0] - self._load_from[0], 1),
            "rss_bytes": self._process.memory_info().rss,
            "clock": self.clock,
            "offset_ns": estimate.offset_ns if estimate.valid else None,
            "clock_error_ns": estimate.error_ns if estimate.valid else None,
            "descriptors_exhausted": self.loop.descriptors_exhausted,
            "ports_exhausted": self.loop.ports_exhausted,
            "joins": self.joins.tried,
            "resumes": self.resumptions.tried,
            "connections": len(self.loop),
            "tally": self.counts.to_wire(),
        }

    def comings(self) -> dict[str, Any]:
        return {"joins": self.joins.to_wire(self.start_ns), "resumes": self.resumptions.to_wire(self.start_ns)}


class ClockProbe:
    """Compares the worker's clock with the relay's on a connection of its own, by the four-stamp exchange."""

    _features: ClassVar = Reference.features

    def __init__(self, population: Population) -> None:
        self._population = population
        self._connection: Connection | None = None
        self._dialect = population.dialect()
        self._asking = False
        self.estimate = OffsetEstimator()

    def start(self) -> None:
        if self._features.times:
            self._dialect = self._population.dialect()
            self._connection = self._population.loop.connect(self, self._population.address)

    def connected(self, now_ns: int) -> None:
        self._send(self._dialect.opening())

    def received(self, data: bytes, now_ns: int) -> None:
        for event in self._dialect.receive(data):
            if isinstance(event, Timed):
                self.estimate.add(
                    event.sent_ns, event.received_ns, event.replied_ns, now_ns + self._population.shift_ns
                )
            elif isinstance(event, Reply):
                self._send(event.data)
            elif isinstance(event, Ready) and not self._asking:
                self._asking = True
                self._ask(0, now_ns)
            elif isinstance(event, Failed):
                self._population.counts.count("clock: " + event.text)

    def closed(self, reason: str, now_ns: int) -> None:
        self._connection = None
        self._population.loop.at(now_ns + PROBE_AGAIN_NS, lambda due_ns, now_ns: self.start())

    def _ask(self, _due_ns: int, now_ns: int) -> None:
        self._asking = self._connection is not None and self._connection.open
        if self._asking:
            self._send(self._dialect.time(monotonic_ns() + self._population.shift_ns))
            pause_ns = FIRST_PROBE_NS if self.estimate.count < FIRST_PROBES else PROBE_NS
            self._population.loop.at(now_ns + pause_ns, self._ask)

    def _send(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.send(data)


def allow_descriptors() -> None:
    """Raise the limit of open descriptors as far as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
