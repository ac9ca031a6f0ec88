"""What all participants of a worker share, and nothing else of it: clock, keys, meters, the connections' event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final

from msgspec.structs import replace

from loadtests.accounting.ledger import Ledger
from loadtests.accounting.lines import NEVER_NS
from loadtests.dialects.base import Attach, Dialect, Features, Place
from loadtests.driver.connection import Connection, Handler
from loadtests.driver.counts import Presence, RunningCounts
from loadtests.driver.event_loop import EventLoop
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.room_spread import SpreadNotes, step_of
from loadtests.measuring.series import series_name
from loadtests.sealing.envelope import Keyring, Opener, Sealer, Suite, suite_for
from loadtests.sealing.records import KIND_NAMES
from loadtests.sealing.vouchers import Till, issue
from loadtests.workload.traffic import Action, Workload

EXPIRES_S: Final = 8 * 86_400
CLOCKS_APART_NS: Final = 100_000_000
"""More than the error with which two workers' clocks are compared."""


class Phase:
    """Where the run is, and the clock of this worker.

    `shift_ns`: what this worker's clock adds to CLOCK_MONOTONIC; not 0 only where that fault is injected.
    """

    __slots__ = ("_corrections", "clock", "draining", "over", "quiet", "sending", "shift_ns", "start_ns", "started")

    def __init__(self, shift_ns: int = 0) -> None:
        self.shift_ns = shift_ns
        self.clock = 0
        """The name of this worker's clock in stamps."""
        self.start_ns = 0
        self.started = False
        self.sending = False
        self.quiet = False
        """The senders' final counters are told: nothing more is sent but what was sent before."""
        self.draining = False
        self.over = False
        self._corrections: dict[int, int] = {}

    def now_ns(self) -> int:
        """Return the time on this worker's clock, as stamps have it."""
        return monotonic_ns() + self.shift_ns

    def begin(self, start_ns: int, clock: int) -> None:
        self.start_ns, self.clock = start_ns, clock
        self.started = self.sending = True

    def compare_clocks(self, offsets_ns: dict[int, int]) -> None:
        """Take the offset (the common clock's time less theirs) of every worker's clock."""
        own = offsets_ns.get(self.clock)
        if own is not None:
            self._corrections = {clock: offset - own for clock, offset in offsets_ns.items() if clock != self.clock}

    def latest_on(self, at_ns: int, clock: int) -> int:
        """Return the latest that a time on our clock can be on `clock`; never, while that is not known."""
        if clock == self.clock:
            return at_ns
        correction_ns = self._corrections.get(clock)
        return NEVER_NS if correction_ns is None else at_ns - correction_ns + CLOCKS_APART_NS

    def correction_ns(self, clock: int) -> int | None:
        """Return what to add to a time on `clock` to have it on ours; None while that is not known."""
        return self._corrections.get(clock)


class Meters:
    """The series of a worker: each is the `append` of a buffer, those of deliveries and acknowledgements by kind."""

    __slots__ = (
        "acked",
        "deliver_intended",
        "deliver_sent",
        "deliver_slow",
        "join_times",
        "lags",
        "loop_lags",
        "opened",
        "resume_times",
        "sealed",
    )

    def __init__(self, recorder: Recorder) -> None:
        def series(metric: str, **labels: str) -> Callable[[int], None]:
            return recorder.series(series_name(metric, **labels)).append

        self.deliver_intended = [series("deliver", kind=kind, basis="intended") for kind in KIND_NAMES]
        self.deliver_sent = [series("deliver", kind=kind, basis="sent") for kind in KIND_NAMES]
        self.deliver_slow = series("deliver_slow")
        self.acked = [series("ack", kind=kind) for kind in KIND_NAMES]
        self.lags = series("lag")
        self.join_times = series("join")
        self.resume_times = series("resume")
        self.loop_lags = series("loop_lag")
        self.sealed = series("seal")
        self.opened = series("open")


class Credentials:
    """The keys of a run: what attaches to streams, seals, opens, and pays."""

    __slots__ = ("_expires_s", "_gateway", "_keyring", "_openers", "_suite", "_workload")

    def __init__(self, workload: Workload, run: str, suite: Suite) -> None:
        self._workload = workload
        self._suite = suite
        self._keyring = Keyring(workload.seed, run)
        self._gateway = self._keyring.gateway_key()
        self._expires_s = int(time.time()) + EXPIRES_S
        self._openers: dict[int, Opener] = {}

    def attach(self, stream: int, member: int, rights: int) -> Attach:
        """Return what lets `member` use a stream."""
        capability = self._keyring.capability(stream, member, rights, expires_s=self._expires_s)
        return Attach(stream=stream, name=self._keyring.stream_name(stream), use=rights, capability=capability)

    def sealer(self, stream: int, sender: int, peer: int | None) -> Sealer:
        return self._keyring.sealer(self._suite_of(peer), stream, sender, peer=peer)

    def opener(self, stream: int, member: int, peer: int | None) -> Opener:
        # One opener serves all recipients of a stream: it knows the stream's keys, and nothing of the recipient.
        opener = self._openers.get(stream)
        if opener is None:
            opener = self._openers[stream] = self._keyring.opener(self._suite_of(peer), stream, member, peer=peer)
        return opener

    def _suite_of(self, peer: int | None) -> Suite:
        return suite_for(self._suite, private=peer is not None)

    def till(self, stream: int, member: int) -> Till | None:
        """Return the till of a room's performer, None for everybody else."""
        plan = self._workload.streams[stream]
        if plan.purpose != "room" or plan.owner != member:
            return None
        return Till(self._gateway.verify_key, stream)

    def body_of(self, action: Action) -> bytes:
        """Return what a record's body is; that of a tip is its voucher, signed by the gateway."""
        if action.voucher is None:
            return self._workload.body_of(action)
        return issue(self._gateway, serial=action.voucher, room=action.stream, amount_cents=action.amount_cents)


@dataclass(slots=True, kw_only=True)
class Context:
    """All that a participant may use of its worker."""

    loop: EventLoop
    address: tuple[str, int]
    dialect_class: type[Dialect]
    place: Place
    workload: Workload
    phase: Phase
    meters: Meters
    credentials: Credentials
    counts: RunningCounts
    presence: Presence
    ledger: Ledger
    fanout: SpreadNotes

    @property
    def features(self) -> Features:
        return self.dialect_class.features

    def dialect(self, attach: Attach | None = None) -> Dialect:
        """Return the dialect of a new connection; `attach`: what it is for, where a connection is for one stream."""
        place = self.place if attach is None else replace(self.place, attach=attach)
        return self.dialect_class(place)

    def connect(self, handler: Handler, piece_bytes: int | None = None) -> Connection:
        return self.loop.connect(handler, self.address, piece_bytes=piece_bytes)

    def fanout_step(self, stream: int) -> int:
        return step_of(self.workload.streams[stream].members)
