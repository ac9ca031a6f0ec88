"""The honest clients beside an attack: private chats and a room, written to on a schedule, and when what arrived."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from benchmarks.fast_load.clients import ClientSide, Role
from benchmarks.fast_load.connections import Opened, connections
from benchmarks.fast_load.counting import READ_BYTES_MAX, Counter, CountingError
from benchmarks.rig.processes import Server
from loadtests.measuring.histogram import Histogram
from loadtests.workload.arrivals import Poisson, arrivals

PAIRS: Final = 20
ROOM: Final = PAIRS
"""The room's stream number, behind those of the pairs."""
ROOM_SUBSCRIBERS: Final = 50
PER_S: Final = 10.0
"""Publishes a second of each pair and of the room."""
SEED: Final = 11
ARRIVE_S_MAX: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Latencies of one phase, ns from the intended send; the count beside them."""

    chat_p50_ns: int
    chat_p99_ns: int
    room_p50_ns: int
    room_p99_ns: int
    count: int


@dataclass(slots=True)
class _Reader:
    socket: socket.socket
    counter: Counter
    due: deque[int] | None
    latencies: list[int]


@dataclass(slots=True)
class _Stream:
    publisher: socket.socket
    frames: list[bytes]
    due: list[deque[int]] = field(default_factory=list)
    position: int = 0


def _schedule(seconds: float) -> list[tuple[int, int]]:
    """Return (offset in ns, stream) of every send, in order of time: a Poisson process a stream."""
    duration_ns = int(seconds * 1e9)
    return sorted(
        (offset_ns, stream)
        for stream in range(PAIRS + 1)
        for offset_ns in arrivals(
            Poisson(PER_S), seed=SEED, scenario="honest", participant=stream, duration_ns=duration_ns
        )
    )


class Honest:
    """Twenty pairs and a room of fifty, one publisher each."""

    def __init__(self, client: ClientSide, opened: list[Opened]) -> None:
        self._streams: dict[int, _Stream] = {}
        self._readers: dict[int, _Reader] = {}
        self._chat: list[int] = []
        self._room: list[int] = []
        for one in opened[: PAIRS + 1]:
            self._streams[one.stream] = _Stream(one.socket, client.frames(one.stream, one.joined))
            acks = client.acknowledgements(one.stream, one.joined, one.socket.send)
            self._readers[one.socket.fileno()] = _Reader(one.socket, acks, None, [])
        for one in opened[PAIRS + 1 :]:
            due: deque[int] = deque()
            self._streams[one.stream].due.append(due)
            records = client.deliveries(one.stream, one.joined, one.socket.send)
            latencies = self._room if one.stream == ROOM else self._chat
            self._readers[one.socket.fileno()] = _Reader(one.socket, records, due, latencies)
        self._epoll = select.epoll()
        for descriptor in self._readers:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._buffer = bytearray(READ_BYTES_MAX)

    def close(self) -> None:
        self._epoll.close()

    def run(self, seconds: float) -> Latencies:
        """Write for so long, and return when all has arrived. Raises CountingError if something does not."""
        self._chat.clear()
        self._room.clear()
        schedule = _schedule(seconds)
        expected = sum(len(self._streams[stream].due) for _, stream in schedule)
        start_ns = time.monotonic_ns() + 1_000_000
        give_up_ns = start_ns + schedule[-1][0] + int(ARRIVE_S_MAX * 1e9)
        position = 0
        while len(self._chat) + len(self._room) < expected:
            now_ns = time.monotonic_ns()
            while position < len(schedule) and start_ns + schedule[position][0] <= now_ns:
                offset_ns, stream = schedule[position]
                position += 1
                self._send(self._streams[stream], start_ns + offset_ns)
            if now_ns > give_up_ns:
                raise CountingError(f"{expected - len(self._chat) - len(self._room)} honest records did not arrive")
            next_ns = start_ns + schedule[position][0] if position < len(schedule) else now_ns + 10_000_000
            if select.select([self._epoll], [], [], max(0, next_ns - time.monotonic_ns()) / 1e9)[0]:
                self._receive()
        chat, room = Histogram(), Histogram()
        chat.record_many(np.array(self._chat))
        room.record_many(np.array(self._room))
        chat_p50_ns, chat_p99_ns = chat.percentiles([50, 99])
        room_p50_ns, room_p99_ns = room.percentiles([50, 99])
        return Latencies(
            chat_p50_ns=chat_p50_ns,
            chat_p99_ns=chat_p99_ns,
            room_p50_ns=room_p50_ns,
            room_p99_ns=room_p99_ns,
            count=expected,
        )

    @staticmethod
    def _send(stream: _Stream, intended_ns: int) -> None:
        data = stream.frames[stream.position]
        stream.position += 1
        for due in stream.due:
            due.append(intended_ns)
        if stream.publisher.send(data) != len(data):
            raise CountingError("an honest record did not fit the socket")

    def _receive(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            reader = self._readers[descriptor]
            length = reader.socket.recv_into(self._buffer)
            now_ns = time.monotonic_ns()
            if not length:
                raise CountingError("the relay closed an honest connection")
            count = reader.counter.feed(self._buffer, length)
            if reader.due is not None:
                for _ in range(count):
                    reader.latencies.append(now_ns - reader.due.popleft())


@contextmanager
def honest(client: ClientSide, server: Server) -> Iterator[Honest]:
    """Connect the honest clients, and let go of them on the way out."""
    members = [(stream, Role.PUBLISH) for stream in range(PAIRS + 1)]
    members += [(pair, Role.SUBSCRIBE) for pair in range(PAIRS)] + [(ROOM, Role.SUBSCRIBE)] * ROOM_SUBSCRIBERS
    with connections(client, server, members) as opened:
        one = Honest(client, opened)
        try:
            yield one
        finally:
            one.close()
