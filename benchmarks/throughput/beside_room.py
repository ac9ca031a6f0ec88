"""Latency of private chats with and without a big room beside them on the same server.

Private chats: pairs, each with an open-loop Poisson schedule, seen by this process. The room's subscribers belong to a
process of their own, of the idle scheduling class, that drains them in bulk on a timer: both share the load's core,
and the room's drain must not stand in the way of a private chat's arrival, or the figure would be the load's own
queueing. Three phases a round, on one server: without the room, with it, without it again; the first and the third
compared with each other tell what the figure's noise is.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import random
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Final, TypeAlias

from benchmarks.fast_load.clients import Client, Role
from benchmarks.fast_load.closed_loop import Opened, connections
from benchmarks.fast_load.counting import READ_BYTES_MAX, CountingError
from benchmarks.rig.processes import Cores, Server, core_busy_ns, cpu_ns, delayed_acks_total

ROOM_SUBSCRIBERS: Final = 5_000
ROOM_PER_S: Final = 20.0
PAIRS: Final = 50
PAIR_PER_S: Final = 20.0
_ROOM_STREAM: Final = PAIRS
WARMUP_S: Final = 0.5
DRAIN_EVERY_S: Final = 0.005
"""Well before the kernel's delayed acknowledgement (40 ms): see DELAYED_ACKS_MAX."""
DELAYED_ACKS_MAX: Final = 0.05
"""The share of the room's deliveries that may be acknowledged by a timer. On one machine that timer runs on the server's core,
thousands at a time, 1 to 2 ms at a stretch: with more of them the p99 is that of the load's kernel, not the relay's."""
_EVENTS_AT_ONCE: Final = 64
"""A larger poll keeps the kernel busy for long enough to delay the private chats' process."""
ARRIVE_S_MAX: Final = 10.0
_PR_SET_TIMERSLACK: Final = 29


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of one phase, ns: from the actual send, from the intended one, and how late sends were."""

    count: int
    p50_ns: int
    p99_ns: int
    intended_p99_ns: int
    lag_p50_ns: int
    lag_p99_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomLoad:
    """What the room's process did while the second phase ran."""

    published: int
    acknowledged: int
    delivered: int
    subscribers: int
    per_s: float
    lag_max_ns: int
    delayed_acks: int
    """TCP acknowledgements sent by a timer meanwhile, on this machine."""

    @property
    def late_share(self) -> float:
        """Delayed acknowledgements by delivery."""
        return self.delayed_acks / self.delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One round."""

    before: Latency
    beside: Latency
    after: Latency
    room: RoomLoad
    others_cpu: float
    """What other processes took of the server's core: with much of it, every p99 is theirs, and the ratio near 1."""

    @property
    def ratio(self) -> float:
        """The p99 beside the room, over the mean of the two without it."""
        return self.beside.p99_ns * 2 / (self.before.p99_ns + self.after.p99_ns)

    @property
    def noise(self) -> float:
        """The same measurement against itself: after over before."""
        return self.after.p99_ns / self.before.p99_ns


def percentile(values: list[int], share: float) -> int:
    """Return the value at `share` (0..1) of the sorted samples, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def arrivals(seed: int, pairs: int, per_s: float, seconds: float) -> list[tuple[int, int]]:
    """Return (offset in ns, pair) of every send, in order of time: a Poisson process a pair."""
    due = []
    for pair in range(pairs):
        source = random.Random(f"{seed}/{pair}")
        at_s = source.expovariate(per_s)
        while at_s < seconds:
            due.append((int(at_s * 1e9), pair))
            at_s += source.expovariate(per_s)
    return sorted(due)


_Order: TypeAlias = tuple[float, float]  # seconds, and publishes a second
_Ours: TypeAlias = "Connection[_Order, str | RoomLoad]"
_Theirs: TypeAlias = "Connection[str | RoomLoad, _Order]"


class PrivateChats:
    """Pairs that write to each other on a schedule, and when what arrived."""

    def __init__(self, client: Client, pairs: list[tuple[Opened, Opened]]) -> None:
        self._sockets: list[socket.socket] = []
        self._frames: list[list[bytes]] = []
        self._position = [0] * len(pairs)
        self._sent: list[deque[tuple[int, int]]] = [deque() for _ in pairs]
        self._readers = {}
        self._epoll = select.epoll()
        for pair, (publisher, subscriber) in enumerate(pairs):
            self._sockets.append(publisher.socket)
            self._frames.append(client.frames(publisher.stream, publisher.ready))
            acks = client.acknowledgements(publisher.stream, publisher.ready, publisher.socket.send)
            records = client.deliveries(subscriber.stream, subscriber.ready, subscriber.socket.send)
            self._readers[publisher.socket.fileno()] = (publisher.socket, acks, -1)
            self._readers[subscriber.socket.fileno()] = (subscriber.socket, records, pair)
        for descriptor in self._readers:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._buffer = bytearray(READ_BYTES_MAX)

    def close(self) -> None:
        self._epoll.close()

    def run(self, schedule: list[tuple[int, int]]) -> Latency:
        """Send on schedule; return when all has arrived. Raises CountingError if something does not."""
        latencies: list[int] = []
        from_intended: list[int] = []
        lags: list[int] = []
        start_ns = time.monotonic_ns() + 1_000_000
        give_up_ns = start_ns + schedule[-1][0] + int(ARRIVE_S_MAX * 1e9)
        position = 0
        while len(latencies) < len(schedule):
            now_ns = time.monotonic_ns()
            while position < len(schedule) and start_ns + schedule[position][0] <= now_ns:
                offset_ns, pair = schedule[position]
                position += 1
                now_ns = self._send(pair, start_ns + offset_ns)
                lags.append(now_ns - start_ns - offset_ns)
            if now_ns > give_up_ns:
                raise CountingError(f"{len(schedule) - len(latencies)} private messages did not arrive")
            next_ns = start_ns + schedule[position][0] if position < len(schedule) else now_ns + 10_000_000
            # select, not the epoll's own timeout: that one is in milliseconds.
            if select.select([self._epoll], [], [], max(0, next_ns - time.monotonic_ns()) / 1e9)[0]:
                self._receive(latencies, from_intended)
        return Latency(
            count=len(latencies),
            p50_ns=percentile(latencies, 0.5),
            p99_ns=percentile(latencies, 0.99),
            intended_p99_ns=percentile(from_intended, 0.99),
            lag_p50_ns=percentile(lags, 0.5),
            lag_p99_ns=percentile(lags, 0.99),
        )

    def _send(self, pair: int, intended_ns: int) -> int:
        frames = self._frames[pair]
        data = frames[self._position[pair]]
        self._position[pair] = (self._position[pair] + 1) % len(frames)
        now_ns = time.monotonic_ns()
        self._sent[pair].append((now_ns, intended_ns))
        if self._sockets[pair].send(data) != len(data):
            raise CountingError("a private message did not fit the socket")
        return now_ns

    def _receive(self, latencies: list[int], from_intended: list[int]) -> None:
        for descriptor, _ in self._epoll.poll(0):
            one, counter, pair = self._readers[descriptor]
            length = one.recv_into(self._buffer)
            now_ns = time.monotonic_ns()
            if not length:
                raise CountingError("the server closed a private chat")
            count = counter.feed(self._buffer, length)
            if pair >= 0:
                for _ in range(count):
                    sent_ns, intended_ns = self._sent[pair].popleft()
                    latencies.append(now_ns - sent_ns)
                    from_intended.append(now_ns - intended_ns)


def measure_beside(
    client: Client, server: Server, cores: Cores, *, seconds: float, subscribers: int, seed: int
) -> Beside:
    """Run one round of three phases of `seconds` each. Raises CountingError if anything was lost."""
    _no_timer_slack()
    started_ns, others_ns = time.monotonic_ns(), core_busy_ns(cores.server) - cpu_ns(server.pid)
    members = [(pair, role) for pair in range(PAIRS) for role in (Role.SUBSCRIBE, Role.PUBLISH)]
    with connections(client, server, members) as opened:
        chats = PrivateChats(client, [(opened[2 * pair + 1], opened[2 * pair]) for pair in range(PAIRS)])
        try:
            chats.run(arrivals(seed, PAIRS, PAIR_PER_S, WARMUP_S))
            before = chats.run(arrivals(seed + 1, PAIRS, PAIR_PER_S, seconds))
            with _room(client, server, subscribers) as room:
                room.send((seconds + 2 * WARMUP_S, ROOM_PER_S))
                chats.run(arrivals(seed, PAIRS, PAIR_PER_S, WARMUP_S))
                beside = chats.run(arrivals(seed + 1, PAIRS, PAIR_PER_S, seconds))
                load = _answer(room)
            chats.run(arrivals(seed, PAIRS, PAIR_PER_S, WARMUP_S))
            after = chats.run(arrivals(seed + 1, PAIRS, PAIR_PER_S, seconds))
        finally:
            chats.close()
    others_ns = core_busy_ns(cores.server) - cpu_ns(server.pid) - others_ns
    others_cpu = max(0, others_ns) / (time.monotonic_ns() - started_ns)
    return Beside(before=before, beside=beside, after=after, room=load, others_cpu=others_cpu)


def _no_timer_slack() -> None:
    """Ask for timers that are not put off by 50 us to be bundled. Source: PR_SET_TIMERSLACK(2const)."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1))


@contextmanager
def _room(client: Client, server: Server, subscribers: int) -> Iterator[_Ours]:
    """Start the room's process; its connections are open when this yields, and closed with it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_room_process, args=(theirs, type(client), server, subscribers), daemon=True)
    process.start()
    theirs.close()
    try:
        opened = ours.recv() if ours.poll(120.0) else "did not connect in time"
        if opened != "connected":
            raise CountingError(f"the room: {opened}")
        yield ours
    except EOFError:
        raise CountingError("the room's process ended") from None
    finally:
        ours.close()
        process.terminate()
        process.join(5.0)
        if process.is_alive():
            process.kill()
            process.join()


def _answer(room: _Ours) -> RoomLoad:
    answer = room.recv() if room.poll(60.0) else "did not end in time"
    if not isinstance(answer, RoomLoad):
        raise CountingError(f"the room: {answer}")
    return answer


def _room_process(parent: _Theirs, client: type[Client], server: Server, subscribers: int) -> None:
    try:
        talk = client()
        members = [(_ROOM_STREAM, Role.SUBSCRIBE)] * subscribers + [(_ROOM_STREAM, Role.PUBLISH)]
        with connections(talk, server, members) as opened:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            parent.send("connected")
            seconds, per_s = parent.recv()
            parent.send(_run_room(talk, opened, seconds, per_s))
            parent.poll(60.0)  # the connections stay open until we are ended
    except (CountingError, OSError, EOFError) as error:
        parent.send(f"{type(error).__name__}: {error}")


def _run_room(client: Client, opened: list[Opened], seconds: float, per_s: float) -> RoomLoad:
    *subscribers, publisher = opened
    acks = client.acknowledgements(_ROOM_STREAM, publisher.ready, publisher.socket.send)
    frames = client.frames(_ROOM_STREAM, publisher.ready)
    buffer = bytearray(READ_BYTES_MAX)
    feeds = {
        one.socket.fileno(): (one.socket, client.deliveries(_ROOM_STREAM, one.ready, one.socket.send).feed)
        for one in subscribers
    }
    feeds[publisher.socket.fileno()] = (publisher.socket, acks.feed)
    with select.epoll() as epoll:
        for descriptor in feeds:
            epoll.register(descriptor, select.EPOLLIN)
        start, delayed_acks = time.monotonic(), delayed_acks_total()
        planned = int(seconds * per_s)
        published = received = lag_max_ns = 0
        due_all = planned * (len(subscribers) + 1)
        give_up = start + seconds + ARRIVE_S_MAX
        while received < due_all and time.monotonic() < give_up:
            time.sleep(DRAIN_EVERY_S)
            while events := epoll.poll(0, _EVENTS_AT_ONCE):
                for descriptor, _ in events:
                    one, feed = feeds[descriptor]
                    length = one.recv_into(buffer)
                    if not length:
                        raise CountingError("the server closed a member of the room")
                    received += feed(buffer, length)
                if published < planned and time.monotonic() - start >= published / per_s:
                    break
            if published < planned and (late_s := time.monotonic() - start - published / per_s) >= 0:
                publisher.socket.send(frames[published % len(frames)])
                published += 1
                lag_max_ns = max(lag_max_ns, int(late_s * 1e9))
                last = time.monotonic()
    if received != due_all:
        raise CountingError(f"{due_all - received} of {due_all} records and acknowledgements did not arrive")
    return RoomLoad(
        published=published,
        acknowledged=acks.total,
        delivered=received - acks.total,
        subscribers=len(subscribers),
        per_s=(published - 1) / (last - start),
        lag_max_ns=lag_max_ns,
        delayed_acks=delayed_acks_total() - delayed_acks,
    )


def median_ratio(rounds: list[Beside]) -> float:
    """Return the median over the rounds of the p99's ratio."""
    return median(one.ratio for one in rounds)
