"""The load side of the throughput benchmark: publishers in a closed window, subscribers drained in bulk.

One process, one plain epoll loop, no framework: what is to be measured is the server. A publisher has `window`
publishes under way; as its acknowledgements arrive, that many go out in one send. Publishers are looked at all the
time, subscribers every few milliseconds, so that a read brings many records: a server's speed must not hang on how
fast its subscribers call recv. After the window publishing stops, everything under way is drained, and deliveries must
equal acknowledgements times subscribers.
"""

from __future__ import annotations

import gc
import math
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Final

from benchmarks.fast_load.clients import Client, Ready, Role
from benchmarks.fast_load.counting import READ_BYTES_MAX, CountingError
from benchmarks.rig.processes import Cores, Server, core_busy_ns, cpu_ns

DRAIN_EVERY_NS: Final = 4_000_000
"""At 2,000 records a second a subscriber has 2 KB waiting by then, far below any socket buffer."""
_READS_BETWEEN_ACKS: Final = 32
"""Subscribers read before publishers are looked at again, so that no acknowledgement waits for a long drain."""
SETTLE_S_MAX: Final = 20.0
"""For everything under way to arrive, once publishing has stopped."""
CONNECT_S_MAX: Final = 20.0
BLOCK_S: Final = 0.25
"""The load turns to the next server after this. Up to here the noise of neighbouring blocks falls with their length; longer
ones only see more of the machine's drift."""
TURN_S: Final = 0.15
"""Uncounted, when the load turns to a server. It may acknowledge early and let records gather (see `behind_ns`): as many are
to wait when a block begins as when it ends."""
_OPENING_AT_ONCE: Final = 100
"""Below every listen queue, and below the relay's bound on handshakes under way."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many streams, subscribers of each, and publishes a publisher has under way. One publisher a stream."""

    name: str
    streams: int
    subscribers: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
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


@dataclass(frozen=True, slots=True)
class Opened:
    socket: socket.socket
    stream: int
    ready: Ready


def open_connections(client: Client, server: Server, members: Sequence[tuple[int, Role]]) -> list[Opened]:
    """Connect and join each (stream, role), a hundred at a time. Raises CountingError, OSError."""
    opened: list[Opened] = []
    try:
        for start in range(0, len(members), _OPENING_AT_ONCE):
            opened += _open_batch(client, server, members[start : start + _OPENING_AT_ONCE])
    except BaseException:
        close_connections(opened)
        raise
    return opened


def close_connections(opened: Sequence[Opened]) -> None:
    """Close with a reset: thousands of sockets in TIME_WAIT would use up the ports of the next measurement."""
    for one in opened:
        one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        one.socket.close()


@contextmanager
def connections(client: Client, server: Server, members: Sequence[tuple[int, Role]]) -> Iterator[list[Opened]]:
    """Open the connections of `members`, and close them on the way out."""
    opened = open_connections(client, server, members)
    try:
        yield opened
    finally:
        close_connections(opened)


def _open_batch(client: Client, server: Server, members: Sequence[tuple[int, Role]]) -> list[Opened]:
    sockets: list[socket.socket] = []
    try:
        for stream, role in members:
            one = socket.create_connection((server.host, server.port), CONNECT_S_MAX)
            sockets.append(one)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.sendall(client.request(stream, role))
        early = [_read_upgrade(one) for one in sockets]
        for one, (stream, role) in zip(sockets, members, strict=True):
            greeting = client.greeting(stream, role)
            if greeting:
                one.sendall(greeting)
        opened = []
        for one, (stream, role), received in zip(sockets, members, early, strict=True):
            while (ready := client.ready(stream, role, received)) is None:
                received += _read_some(one)
            # From now on a read acknowledges what it takes, on the load's core. Left to itself the kernel waits 40 ms, and
            # then acknowledges thousands at one tick in an interrupt on the core that armed the timer: the server's.
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            one.setblocking(False)
            opened.append(Opened(one, stream, ready))
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return opened


def _read_upgrade(one: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _read_some(one)
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        raise CountingError(f"no upgrade: {head.splitlines()[0]!r}")
    return rest


def _read_some(one: socket.socket) -> bytes:
    data = one.recv(READ_BYTES_MAX)
    if not data:
        raise CountingError("the server closed a connection that was joining")
    return data


class _Publisher:
    """Sends slices of its prepared frames. They go on past the cycle's end by a window, so no send wraps."""

    __slots__ = (
        "_cycle",
        "_cycle_bytes",
        "_frames",
        "_position",
        "_ready",
        "_renew",
        "_socket",
        "_stride",
        "counter",
        "recv_into",
    )

    def __init__(self, client: Client, opened: Opened, window: int) -> None:
        frames = client.frames(opened.stream, opened.ready)
        self._stride = len(frames[0])
        assert all(len(frame) == self._stride for frame in frames), "frames of one length can be sliced"
        self._frames = bytearray(b"".join((*frames, *frames[:window])))
        self._cycle_bytes = self._stride * len(frames)
        self._position = self._cycle = 0
        self._ready = opened.ready
        self._renew = client.renew
        self._renew(self._ready, self._frames, 0)
        self._socket = opened.socket
        self.recv_into = opened.socket.recv_into
        self.counter = client.acknowledgements(opened.stream, opened.ready, opened.socket.send)

    def publish(self, count: int) -> None:
        start = self._position
        end = start + count * self._stride
        if self._socket.send(memoryview(self._frames)[start:end]) != end - start:
            raise CountingError("a window of publishes did not fit the socket: the server does not read")
        if end >= self._cycle_bytes:
            end -= self._cycle_bytes
            self._cycle += 1
            self._renew(self._ready, self._frames, self._cycle)
        self._position = end


class Load:
    """The connections of one measurement and its counts."""

    def __init__(
        self, client: Client, shape: Shape, subscribers: Sequence[Opened], publishers: Sequence[Opened]
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
                client.deliveries(one.stream, one.ready, one.socket.send).feed,
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
def loaded(client: Client, server: Server, shape: Shape) -> Iterator[Load]:
    """Connect the publishers and subscribers of `shape`, and let go of them on the way out."""
    subscribers = [(stream, Role.SUBSCRIBE) for stream in range(shape.streams) for _ in range(shape.subscribers)]
    publishers = [(stream, Role.PUBLISH) for stream in range(shape.streams)]
    with (
        connections(client, server, subscribers) as receiving,
        connections(client, server, publishers) as sending,
    ):
        load = Load(client, shape, receiving, sending)
        try:
            yield load
        finally:
            load.close()


def measure(client: Client, server: Server, shape: Shape, cores: Cores, *, seconds: float, warmup_s: float) -> Measured:
    """Run `shape` against `server`. Raises CountingError if a record was lost, repeated or came out of order."""
    with loaded(client, server, shape) as load:
        measured = measure_in_turn([(server, load)], cores, blocks=1, block_s=seconds, warmup_s=warmup_s)[0]
    if isinstance(measured, Exception):
        raise measured
    return measured


def measure_in_turn(
    loads: Sequence[tuple[Server, Load]], cores: Cores, *, blocks: int, block_s: float, warmup_s: float, seed: int = 0
) -> list[Measured | CountingError | OSError]:
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
    return [failures.get(number) or sums[number].measured(load, cores) for number, (_, load) in enumerate(loads)]


class _Sum:
    """What the blocks of one load came to."""

    def __init__(self) -> None:
        self._delivered = self._acknowledged = self._elapsed_ns = 0
        self._behind: list[float] = []
        self._used = Used(0, 0, 0, 0)

    def add_block(self, load: Load, server: Server, cores: Cores, seconds: float) -> None:
        delivered, acknowledged = load.delivered, load.acknowledged
        before = Used.now(server, cores)
        self._elapsed_ns += load.run(seconds)
        self._used = self._used.plus(Used.now(server, cores).since(before))
        self._delivered += load.delivered - delivered
        self._acknowledged += load.acknowledged - acknowledged
        self._behind.append(load.behind)

    def measured(self, load: Load, cores: Cores) -> Measured:
        elapsed_ns, used, shared = self._elapsed_ns, self._used, cores.shared
        behind = fmean(self._behind) / self._delivered * elapsed_ns if self._delivered else math.inf
        return Measured(
            deliveries_per_s=self._delivered / elapsed_ns * 1e9,
            publishes_per_s=self._acknowledged / elapsed_ns * 1e9,
            behind_ns=max(0.0, behind),
            server_cpu=used.server_ns / elapsed_ns,
            load_cpu=used.load_ns / elapsed_ns,
            others_cpu=max(0, used.server_core_ns - used.server_ns - used.load_ns * shared) / elapsed_ns,
            others_load_cpu=max(0, used.load_core_ns - used.load_ns - used.server_ns * shared) / elapsed_ns,
            delivered=load.delivered,
            acknowledged=load.acknowledged,
        )


@dataclass(frozen=True, slots=True)
class Used:
    """Processor time so far, ns: of the server, of this process, and of everything on their cores."""

    server_ns: int
    load_ns: int
    server_core_ns: int
    load_core_ns: int

    @classmethod
    def now(cls, server: Server, cores: Cores) -> Used:
        return cls(cpu_ns(server.pid), time.process_time_ns(), core_busy_ns(cores.server), core_busy_ns(cores.load))

    def plus(self, other: Used) -> Used:
        return Used(
            self.server_ns + other.server_ns,
            self.load_ns + other.load_ns,
            self.server_core_ns + other.server_core_ns,
            self.load_core_ns + other.load_core_ns,
        )

    def since(self, before: Used) -> Used:
        return Used(
            self.server_ns - before.server_ns,
            self.load_ns - before.load_ns,
            self.server_core_ns - before.server_core_ns,
            self.load_core_ns - before.load_core_ns,
        )


@contextmanager
def no_collections() -> Iterator[None]:
    """Keep this process's garbage collector from pausing the load."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
