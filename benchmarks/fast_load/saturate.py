"""How much a relay carries: a closed window over all streams, every delivery compared with what was published.

`WINDOW` publishes are under way; as one is acknowledged, the next of the sequence goes out. Publishers are looked at all
the time, subscribers every few milliseconds, so that a read brings several records and the load has its core to spare.
A relay that acknowledges early may let deliveries pile up: past a bound no more is published until they have come.

Each sealed record that arrives is compared, byte for byte, with the one that is due in its stream. What comes out of
order, twice or changed is counted as wrong; what did not come in its place until the end is lost.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from msgspec import Struct

from benchmarks.fast_load.members import LoadError, Member, attach_of, joined
from benchmarks.fast_load.window_work import DELIVERIES_PER_PUBLISH, RING, SUBSCRIBERS, keyring, rings, sequence
from benchmarks.rig.processes import Cores
from benchmarks.rig.usage import Meter, no_collections, tree_of
from loadtests.dialects.base import Published
from loadtests.settings import Settings
from loadtests.workload.catalogue import DELIVERIES_PER_S_DEFAULT
from loadtests.workload.traffic import Workload
from relay.capability import Right

WINDOW: Final = 256
"""Enough to keep any relay busy while subscribers are drained; two or three publishes a stream."""
UNDER_WAY_MAX: Final = 20_000
"""Deliveries: a tenth of a second of the fastest relay."""
DRAIN_EVERY_NS: Final = 16_000_000
LOAD_SHARE: Final = 0.5
"""Share of a relay's saturation: far enough below that nothing queues for long."""
PUBLISH_WEIGHT: Final = 5
"""What a publish costs, in deliveries: as the workload's default rate counts it."""
WARMUP_S_MAX: Final = 10.0
_WARMUP_STEP_S: Final = 0.1
SETTLE_S_MAX: Final = 10.0
QUIET_S: Final = 2.0
"""If nothing has come for so long after the end, nothing will."""


class Saturation(Struct, frozen=True, kw_only=True):
    """One measurement. Processor shares are of one core; `others_cpu`: of other processes, on the server's core."""

    deliveries_per_s: float
    publishes_per_s: float
    cpu_ns_per_delivery: float
    server_cpu: float
    load_cpu: float
    others_cpu: float
    delivered: int
    lost: int
    wrong: int


def rate_for_all(workload: Workload, carried: Sequence[Saturation]) -> float:
    """Return chat messages a second that the load carries, and of the slowest relay at most half of what it carries."""
    loads = [one.deliveries_per_s * (1 + PUBLISH_WEIGHT / DELIVERIES_PER_PUBLISH) * LOAD_SHARE for one in carried]
    return min([DELIVERIES_PER_S_DEFAULT, *loads]) / workload.load_per_message


def saturate(settings: Settings, pid: int, cores: Cores, *, seconds: float, warmup_s: float) -> Saturation:
    """Keep the window full for so long; `pid` and what it started is the relay. Raises LoadError, ServerError."""
    seed, keys = settings.seed, keyring(settings.seed, "saturate")
    attaches = [
        attach_of(keys, stream, right)
        for right in (Right.SUBSCRIBE, Right.PUBLISH)
        for stream, subscribers in enumerate(SUBSCRIBERS)
        for _ in range(subscribers if right is Right.SUBSCRIBE else 1)
    ]
    with joined(settings, attaches) as members, no_collections():
        window = _Window(
            members[: -len(SUBSCRIBERS)], members[-len(SUBSCRIBERS) :], rings(keys), sequence(seed, "saturate")
        )
        try:
            window.publish()
            window.warm_up(warmup_s)
            delivered, acknowledged = window.delivered, window.acknowledged
            meter = Meter(cores, *tree_of(pid))
            elapsed_ns = window.run(seconds)
            usage = meter.read()
            delivered, acknowledged = window.delivered - delivered, window.acknowledged - acknowledged
            lost = window.settle()
        finally:
            window.close()
    if not delivered:
        raise LoadError("nothing was delivered")
    return Saturation(
        deliveries_per_s=delivered / elapsed_ns * 1e9,
        publishes_per_s=acknowledged / elapsed_ns * 1e9,
        cpu_ns_per_delivery=usage.server_ns / delivered,
        server_cpu=usage.server,
        load_cpu=usage.load,
        others_cpu=usage.others,
        delivered=window.delivered,
        lost=lost,
        wrong=window.wrong,
    )


class _Window:
    """Publishers and subscribers of one measurement, and the counts."""

    def __init__(
        self,
        subscribers: Sequence[Member],
        publishers: Sequence[Member],
        records: list[list[bytes]],
        streams: Iterator[int],
    ) -> None:
        self._publishers = {member.socket.fileno(): member for member in publishers}
        self._by_stream = list(publishers)
        self._subscribers = {member.socket.fileno(): member for member in subscribers}
        self._records = records
        self._streams = streams
        self._id = 0
        self._published = 0
        self._due = 0
        self._publishing = True
        self.acknowledged = 0
        self.delivered = 0
        self.wrong = 0
        self._acks, self._arrivals = select.epoll(), select.epoll()
        for descriptor in self._publishers:
            self._acks.register(descriptor, select.EPOLLIN)
        for descriptor in self._subscribers:
            self._arrivals.register(descriptor, select.EPOLLIN)

    def close(self) -> None:
        self._acks.close()
        self._arrivals.close()

    def publish(self) -> None:
        """Fill the window."""
        free = WINDOW - (self._published - self.acknowledged)
        if free <= 0 or not self._publishing or self._due - self.delivered > UNDER_WAY_MAX:
            return
        frames: dict[int, list[bytes]] = {}
        for stream in islice(self._streams, free):
            member = self._by_stream[stream]
            self._id += 1
            sealed = self._records[stream][member.position % RING]
            member.position += 1
            frames.setdefault(stream, []).append(member.dialect.publish(stream, self._id, sealed))
            self._due += SUBSCRIBERS[stream]
        self._published += free
        for stream, parts in frames.items():
            self._by_stream[stream].send(b"".join(parts))

    def run(self, seconds: float) -> int:
        """Keep the window full for so long; return how long it really was, ns."""
        started = now = time.monotonic_ns()
        end = started + int(seconds * 1e9)
        due = started + DRAIN_EVERY_NS
        while now < end:
            if now >= due:
                self._drain()
                due = time.monotonic_ns() + DRAIN_EVERY_NS
            self._serve(max(0.0, (min(due, end) - time.monotonic_ns()) / 1e9))
            now = time.monotonic_ns()
        self._drain()
        return time.monotonic_ns() - started

    def warm_up(self, seconds: float) -> None:
        """Run for so long, and on until a whole window has come back: before that, a slow relay's rate is not its own."""
        deadline = time.monotonic() + WARMUP_S_MAX
        self.run(seconds)
        while self.acknowledged < WINDOW and time.monotonic() < deadline:
            self.run(_WARMUP_STEP_S)

    def settle(self) -> int:
        """Stop publishing, wait for what is under way, and return how much of it is lost."""
        self._publishing = False
        now = changed = time.monotonic()
        deadline = now + SETTLE_S_MAX
        while now < min(deadline, changed + QUIET_S):
            before = self.acknowledged + self.delivered
            self._serve(0.001)
            self._drain()
            now = time.monotonic()
            if self.acknowledged + self.delivered != before:
                changed = now
            if self.acknowledged == self._published and self.delivered >= self._due:
                break
        # Once more: a duplicate may come after the last record that was due.
        time.sleep(0.02)
        self._drain()
        if self.acknowledged != self._published:
            raise LoadError(f"{self._published - self.acknowledged} of {self._published} publishes got no answer")
        return max(0, self._due - self.delivered)

    def _serve(self, timeout_s: float) -> None:
        for descriptor, _ in self._acks.poll(timeout_s):
            member = self._publishers[descriptor]
            for event in member.dialect.receive(member.read()):
                if isinstance(event, Published):
                    self.acknowledged += 1
                elif type(event) is not tuple:
                    member.other(event)
            if member.waiting:
                member.send(b"")
        self.publish()

    def _drain(self) -> None:
        records = self._records
        delivered = reads = 0
        for descriptor, _ in self._arrivals.poll(0, len(self._subscribers)):
            member = self._subscribers[descriptor]
            position, ring = member.position, records[member.stream]
            for event in member.dialect.receive(member.read()):
                if type(event) is tuple:
                    sealed: bytes = event[3]  # type: ignore[misc, assignment]  # the only event that is a plain tuple
                    if sealed != ring[position % RING]:
                        self.wrong += 1
                        ahead = _ahead(sealed, ring, position)
                        if ahead is None:
                            continue
                        position += ahead
                    position += 1
                    delivered += 1
                else:
                    member.other(event)
            member.position = position
            reads += 1
            if reads == 32:
                # No acknowledgement is to wait for a long drain.
                self.delivered += delivered
                delivered = reads = 0
                self._serve(0.0)
        self.delivered += delivered


def _ahead(sealed: bytes, ring: list[bytes], position: int) -> int | None:
    """Return how many records before this one are missing; None if it came before, or is none of the stream's."""
    return next((step for step in range(1, RING // 2) if ring[(position + step) % RING] == sealed), None)
