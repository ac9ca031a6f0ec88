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

from benchmarks.fast_load.clients import Client, Role
from benchmarks.fast_load.closed_loop import Opened, connections
from benchmarks.fast_load.counting import READ_BYTES_MAX, Counter, CountingError
from benchmarks.rig.processes import Server
from benchmarks.throughput.beside_room import arrivals, percentile

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
    """Of one phase, ns from the intended send; the count beside them."""

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


class Honest:
    """Twenty pairs and a room of fifty, one publisher each."""

    def __init__(self, client: Client, opened: list[Opened]) -> None:
        self._streams: dict[int, _Stream] = {}
        self._readers: dict[int, _Reader] = {}
        self._chat: list[int] = []
        self._room: list[int] = []
        for one in opened[: PAIRS + 1]:
            self._streams[one.stream] = _Stream(one.socket, client.frames(one.stream, one.ready))
            acks = client.acknowledgements(one.stream, one.ready, one.socket.send)
            self._readers[one.socket.fileno()] = _Reader(one.socket, acks, None, [])
        for one in opened[PAIRS + 1 :]:
            due: deque[int] = deque()
            self._streams[one.stream].due.append(due)
            records = client.deliveries(one.stream, one.ready, one.socket.send)
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
        schedule = arrivals(SEED, PAIRS + 1, PER_S, seconds)
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
        return Latencies(
            chat_p50_ns=percentile(self._chat, 0.5),
            chat_p99_ns=percentile(self._chat, 0.99),
            room_p50_ns=percentile(self._room, 0.5),
            room_p99_ns=percentile(self._room, 0.99),
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
def honest(client: Client, server: Server) -> Iterator[Honest]:
    """Connect the honest clients, and let go of them on the way out."""
    members = [(stream, Role.PUBLISH) for stream in range(PAIRS + 1)]
    members += [(pair, Role.SUBSCRIBE) for pair in range(PAIRS)] + [(ROOM, Role.SUBSCRIBE)] * ROOM_SUBSCRIBERS
    with connections(client, server, members) as opened:
        one = Honest(client, opened)
        try:
            yield one
        finally:
            one.close()
