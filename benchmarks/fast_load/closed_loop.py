"""The load side of the throughput benchmark: publishers in a closed window, subscribers drained in bulk.

One process, one plain epoll loop, no framework: what is to be measured is the server. A publisher has `window`
publishes under way; as its acknowledgements arrive, that many go out in one send. Publishers are looked at all the
time, subscribers every few milliseconds, so that a read brings many records: a server's speed must not hang on how
fast its subscribers call recv. After the window publishing stops, everything under way is drained, and deliveries must
equal acknowledgements times subscribers.
"""

from __future__ import annotations

import math
import random
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Final

from benchmarks.fast_load.clients import ClientSide, Role
from benchmarks.fast_load.connections import Opened, connections
from benchmarks.fast_load.counting import READ_BYTES_MAX, CountingError
from benchmarks.rig.processes import Cores, Server
from benchmarks.rig.usage import CoreUsage, Meter, no_collections

DRAIN_EVERY_NS: Final = 4_000_000
"""At 2,000 records a second a subscriber has 2 KB waiting by then, far below any socket buffer."""
_READS_BETWEEN_ACKS: Final = 32
"""Subscribers read before publishers are looked at again, so that no acknowledgement waits for a long drain."""
SETTLE_S_MAX: Final = 20.0
"""For everything under way to arrive, once publishing has stopped."""
BLOCK_S: Final = 0.25
"""The load turns to the next server after this. Up to here the noise of neighbouring blocks falls with their length; longer
ones only see more of the machine's drift."""
TURN_S: Final = 0.15
"""Uncounted, when the load turns to a server. It may acknowledge early and let records gather (see `behind_ns`): as many are
to wait when a block begins as when it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many streams, subscribers of each, and publishes a publisher has under way. One publisher a stream."""

    name: str
    streams: int
    subscribers: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """One measurement. Processor shares are of one core, 1.0 is all of it.

    `behind_ns`: how long after its acknowledgement a record arrives on average (Little's law: those under way over their
    rate); a relay that acknowledges early may let more than a window of them gather, and this shows it.
    `others_cpu`: what other processes took of the server's core; `others_load_cpu` of the load's.
    """

    deliveries_per_s: float
    publishes_per_s: float
    behind_ns: float
    server_cpu: float
    load_cpu: float
    others_cpu: float
    others_load_cpu: float
    delivered: int
    acknowledged: int


class _Publisher:
    """Sends slices of its prepared frames. They go on past the cycle's end by a window, so no send wraps."""

    __slots__ = (
        "_cycle",
        "_cycle_bytes",
        "_frames",
        "_joined",
        "_position",
        "_renew",
        "_socket",
        "_stride",
        "counter",
        "recv_into",
    )

    def __init__(self, client: ClientSide, opened: Opened, window: int) -> None:
        frames = client.frames(opened.stream, opened.joined)
        self._stride = len(frames[0])
        assert all(len(frame) == self._stride for frame in frames), "frames of one length can be sliced"
        self._frames = bytearray(b"".join((*frames, *frames[:window])))
        self._cycle_bytes = self._stride * len(frames)
        self._position = self._cycle = 0
        self._joined = opened.joined
        self._renew = client.renew
        self._renew(self._joined, self._frames, 0)
        self._socket = opened.socket
        self.recv_into = opened.socket.recv_into
        self.counter = client.acknowledgements(opened.stream, opened.joined, opened.socket.send)

    def publish(self, count: int) -> None:
        start = self._position
        end = start + count * self._stride
        if self._socket.send(memoryview(self._frames)[start:end]) != end - start:
            raise CountingError("a window of publishes did not fit the socket: the server does not read")
        if end >= self._cycle_bytes:
            end -= self._cycle_bytes
            self._cycle += 1
            self._renew(self._joined, self._frames, self._cycle)
        self._position = end


class ClosedLoop:
    """The connections of one measurement and its counts."""

    def __init__(
        self, client: ClientSide, shape: Shape, subscribers: Sequence[Opened], publishers: Sequence[Opened]
    ) -> None:
        self._shape = shape
        self.delivered = 0
        self.acknowledged = 0
        self.behind = 0.0
        """Deliveries under way whose publish was acknowledged: the mean of the last run."""
        self._published = 0
        self._publishing = False
        self._buffer = bytearray(READ_BYTES_MAX)
        self._publishers = {one.socket.fileno(): _Publisher(client, one, shape.window) for one in publishers}
        self._subscribers = {
            one.socket.fileno(): (
                one.socket.recv_into,
                client.deliveries(one.stream, one.joined, one.socket.send).feed,
            )
            for one in subscribers
        }
        self._acks = select.epoll()
        self._records = select.epoll()
        for descriptor in self._publishers:
            self._acks.register(descriptor, select.EPOLLIN)
        for descriptor in self._subscribers:
            self._records.register(descriptor, select.EPOLLIN)

    def close(self) -> None:
        self._acks.close()
        self._records.close()

    def start(self) -> None:
        """Publish the first window of every publisher."""
        self._publishing = True
        for publisher in self._publishers.values():
            publisher.publish(self._shape.window)
            self._published += self._shape.window

    def run(self, seconds: float) -> int:
        """Keep the windows full for so long; return how long it really was, ns."""
        started = now = time.monotonic_ns()
        end = started + int(seconds * 1e9)
        due = started + DRAIN_EVERY_NS
        drains = behind = 0
        while now < end:
            if now >= due:
                self._drain_subscribers()
                drains += 1
                behind += self._due() - self.delivered
                # From now on, not from when it was due: a loop that is late must not starve the publishers.
                due = time.monotonic_ns() + DRAIN_EVERY_NS
            self._serve_publishers(max(0.0, (min(due, end) - time.monotonic_ns()) / 1e9))
            now = time.monotonic_ns()
        self._drain_subscribers()
        self.behind = behind / drains if drains else 0.0
        return time.monotonic_ns() - started

    def settle(self) -> None:
        """Stop publishing and drain. Raises CountingError unless every subscriber got every acknowledged record."""
        self._publishing = False
        deadline = time.monotonic() + SETTLE_S_MAX
        while time.monotonic() < deadline:
            self._serve_publishers(0.0)
            self._drain_subscribers()
            if self.acknowledged == self._published and self.delivered >= self._due():
                break
            time.sleep(0.001)
        # Once more: a duplicate may come after the last record that was due.
        time.sleep(0.02)
        self._drain_subscribers()
        if self.acknowledged != self._published or self.delivered != self._due():
            raise CountingError(
                f"{self._published} published, {self.acknowledged} acknowledged, "
                f"{self.delivered} delivered where {self._due()} were due"
            )

    def _due(self) -> int:
        return self.acknowledged * self._shape.subscribers

    def _serve_publishers(self, timeout_s: float) -> None:
        buffer, publishers = self._buffer, self._publishers
        for descriptor, _ in self._acks.poll(timeout_s):
            publisher = publishers[descriptor]
            length = publisher.recv_into(buffer)
            if not length:
                raise CountingError("the server closed a publisher")
            count = publisher.counter.feed(buffer, length)
            if count:
                self.acknowledged += count
                if self._publishing:
                    publisher.publish(count)
                    self._published += count

    def _drain_subscribers(self) -> None:
        buffer, subscribers = self._buffer, self._subscribers
        reads = 0
        delivered = 0
        for descriptor, _ in self._records.poll(0, len(subscribers)):
            recv_into, feed = subscribers[descriptor]
            length = recv_into(buffer)
            if not length:
                raise CountingError("the server closed a subscriber")
            delivered += feed(buffer, length)
            reads += 1
            if reads == _READS_BETWEEN_ACKS:
                reads = 0
                self._serve_publishers(0.0)
        self.delivered += delivered


@contextmanager
def loaded(client: ClientSide, server: Server, shape: Shape) -> Iterator[ClosedLoop]:
    """Connect the publishers and subscribers of `shape`, and let go of them on the way out."""
    subscribers = [(stream, Role.SUBSCRIBE) for stream in range(shape.streams) for _ in range(shape.subscribers)]
    publishers = [(stream, Role.PUBLISH) for stream in range(shape.streams)]
    with (
        connections(client, server, subscribers) as receiving,
        connections(client, server, publishers) as sending,
    ):
        load = ClosedLoop(client, shape, receiving, sending)
        try:
            yield load
        finally:
            load.close()


def measure(
    client: ClientSide, server: Server, shape: Shape, cores: Cores, *, seconds: float, warmup_s: float
) -> Throughput:
    """Run `shape` against `server`. Raises CountingError if a record was lost, repeated or came out of order."""
    with loaded(client, server, shape) as load:
        measured = measure_in_turn([(server, load)], cores, blocks=1, block_s=seconds, warmup_s=warmup_s)[0]
    if isinstance(measured, Exception):
        raise measured
    return measured


def measure_in_turn(
    loads: Sequence[tuple[Server, ClosedLoop]],
    cores: Cores,
    *,
    blocks: int,
    block_s: float,
    warmup_s: float,
    seed: int = 0,
) -> list[Throughput | CountingError | OSError]:
    """Run each load for `blocks` times `block_s`, now the one and now the other, in an order drawn by `seed`.

    A machine that changes its speed changes it for all of them. Each time a load settles before the next one's turn: a
    slow server's backlog would be worked off in its time. Gives what was measured in the order of `loads`; in the place
    of a load that failed, why.
    """
    sums = [_Sum() for _ in loads]
    failures: dict[int, CountingError | OSError] = {}

    def attempt(number: int, call: Callable[[], object]) -> None:
        if number not in failures:
            try:
                call()
            except (CountingError, OSError) as error:
                failures[number] = error

    with no_collections():
        for number, (_, load) in enumerate(loads):
            attempt(number, load.start)
            attempt(number, partial(load.run, warmup_s))
            if len(loads) > 1:
                attempt(number, load.settle)
        order, draw = list(range(len(loads))), random.Random(seed)
        for _ in range(blocks):
            draw.shuffle(order)
            for number in order:
                server, load = loads[number]
                if len(loads) > 1:
                    attempt(number, load.start)
                    attempt(number, partial(load.run, TURN_S))
                attempt(number, partial(sums[number].add_block, load, server, cores, block_s))
                attempt(number, load.settle)
    return [failures.get(number) or sums[number].throughput(load) for number, (_, load) in enumerate(loads)]


class _Sum:
    """What the blocks of one load came to."""

    def __init__(self) -> None:
        self._delivered = self._acknowledged = self._elapsed_ns = 0
        self._behind: list[float] = []
        self._usage: list[CoreUsage] = []

    def add_block(self, load: ClosedLoop, server: Server, cores: Cores, seconds: float) -> None:
        delivered, acknowledged = load.delivered, load.acknowledged
        meter = Meter(cores, server.pid)
        self._elapsed_ns += load.run(seconds)
        self._usage.append(meter.read())
        self._delivered += load.delivered - delivered
        self._acknowledged += load.acknowledged - acknowledged
        self._behind.append(load.behind)

    def throughput(self, load: ClosedLoop) -> Throughput:
        elapsed_ns, (first, *others) = self._elapsed_ns, self._usage
        usage = sum(others, first)
        behind = fmean(self._behind) / self._delivered * elapsed_ns if self._delivered else math.inf
        return Throughput(
            deliveries_per_s=self._delivered / elapsed_ns * 1e9,
            publishes_per_s=self._acknowledged / elapsed_ns * 1e9,
            behind_ns=max(0.0, behind),
            server_cpu=usage.server,
            load_cpu=usage.load,
            others_cpu=usage.others,
            others_load_cpu=usage.others_on_load,
            delivered=load.delivered,
            acknowledged=load.acknowledged,
        )
