"""Private chats on a schedule: pairs that write to each other in an open loop, and when what arrived.

Each pair has a Poisson schedule that is a function of the seed. Messages are counted, not opened.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.fast_load.clients import ClientSide, Role
from benchmarks.fast_load.connections import Opened, connections
from benchmarks.fast_load.counting import READ_BYTES_MAX, CountingError
from benchmarks.rig.processes import Server
from loadtests.measuring.histogram import Histogram
from loadtests.workload.arrivals import Poisson, arrivals

PAIRS: Final = 50
PAIR_PER_S: Final = 20.0
ARRIVE_S_MAX: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency in one phase, ns: from the actual send, from the intended one, and how late sends were."""

    count: int
    p50_ns: int
    p99_ns: int
    intended_p99_ns: int
    lag_p50_ns: int
    lag_p99_ns: int


def schedule(seed: int, seconds: float) -> list[tuple[int, int]]:
    """Return (offset in ns, pair) of every send, in order of time: a Poisson process a pair."""
    duration_ns = int(seconds * 1e9)
    return sorted(
        (offset_ns, pair)
        for pair in range(PAIRS)
        for offset_ns in arrivals(
            Poisson(PAIR_PER_S), seed=seed, scenario="private chats", participant=pair, duration_ns=duration_ns
        )
    )


class PrivateChats:
    """Pairs that write to each other on a schedule, and when what arrived."""

    def __init__(self, client: ClientSide, pairs: list[tuple[Opened, Opened]]) -> None:
        self._sockets: list[socket.socket] = []
        self._frames: list[list[bytes]] = []
        self._position = [0] * len(pairs)
        self._sent: list[deque[tuple[int, int]]] = [deque() for _ in pairs]
        self._readers = {}
        self._epoll = select.epoll()
        for pair, (publisher, subscriber) in enumerate(pairs):
            self._sockets.append(publisher.socket)
            self._frames.append(client.frames(publisher.stream, publisher.joined))
            acks = client.acknowledgements(publisher.stream, publisher.joined, publisher.socket.send)
            records = client.deliveries(subscriber.stream, subscriber.joined, subscriber.socket.send)
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
        p50_ns, p99_ns = _percentiles(latencies)
        lag_p50_ns, lag_p99_ns = _percentiles(lags)
        return Latency(
            count=len(latencies),
            p50_ns=p50_ns,
            p99_ns=p99_ns,
            intended_p99_ns=_percentiles(from_intended)[1],
            lag_p50_ns=lag_p50_ns,
            lag_p99_ns=lag_p99_ns,
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


def _percentiles(values: list[int]) -> tuple[int, int]:
    """Return the median and the 99th percentile."""
    histogram = Histogram()
    histogram.record_many(np.array(values, np.int64))
    p50_ns, p99_ns = histogram.percentiles((50, 99))
    return p50_ns, p99_ns


@contextmanager
def private_chats(client: ClientSide, server: Server) -> Iterator[PrivateChats]:
    """Connect the pairs, a stream each from 0 on; close on the way out."""
    members = [(pair, role) for pair in range(PAIRS) for role in (Role.SUBSCRIBE, Role.PUBLISH)]
    with connections(client, server, members) as opened:
        chats = PrivateChats(client, [(opened[2 * pair + 1], opened[2 * pair]) for pair in range(PAIRS)])
        try:
            yield chats
        finally:
            chats.close()
