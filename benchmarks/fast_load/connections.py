"""Connections that have joined their streams, opened a hundred at a time and closed with a reset."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.fast_load.clients import ClientSide, JoinedStream, Role
from benchmarks.fast_load.counting import READ_BYTES_MAX, CountingError
from benchmarks.rig.processes import Server
from loadtests.driver.sockets import reset_on_close

CONNECT_S_MAX: Final = 20.0
_OPENING_AT_ONCE: Final = 100
"""Below every listen queue, and below the relay's bound on handshakes under way."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One connection: what it is about, and what the server said when it joined."""

    socket: socket.socket
    stream: int
    joined: JoinedStream


def open_connections(client: ClientSide, server: Server, members: Sequence[tuple[int, Role]]) -> list[Opened]:
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
        reset_on_close(one.socket)
        one.socket.close()


@contextmanager
def connections(client: ClientSide, server: Server, members: Sequence[tuple[int, Role]]) -> Iterator[list[Opened]]:
    """Open the connections of `members`, and close them on the way out."""
    opened = open_connections(client, server, members)
    try:
        yield opened
    finally:
        close_connections(opened)


def _open_batch(client: ClientSide, server: Server, members: Sequence[tuple[int, Role]]) -> list[Opened]:
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
            while (joined := client.ready(stream, role, received)) is None:
                received += _read_some(one)
            # From now on a read acknowledges what it takes, on the load's core. Left to itself the kernel waits 40 ms, and
            # then acknowledges thousands at one tick in an interrupt on the core that armed the timer: the server's.
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            one.setblocking(False)
            opened.append(Opened(one, stream, joined))
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
