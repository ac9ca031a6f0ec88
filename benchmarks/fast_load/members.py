"""Members of streams, a connection each: sockets here, what is said on them by the dialects."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from msgspec.structs import replace

from loadtests.dialects.base import Attach, Closed, Dialect, Event, Failed, Ready, Refused, Reply, Subscribed
from loadtests.dialects.find import find
from loadtests.driver.sockets import reset_on_close
from loadtests.sealing.envelope import Keyring
from loadtests.settings import Settings
from relay.capability import Right

RECV_BYTES: Final = 65_536
AT_ONCE: Final = 64
"""Handshakes under way: below every listen queue, and below the relay's bound."""
JOIN_S_MAX: Final = 60.0
_CAPABILITY_S: Final = 86_400


class LoadError(Exception):
    """The measurement cannot go on: a relay refused, closed, or did not answer."""


class Member:
    """One connection. `stream` is the index in the workload; sends never block, what does not fit waits."""

    __slots__ = ("attach", "dialect", "joined", "position", "socket", "stream", "waiting")

    def __init__(self, settings: Settings, attach: Attach) -> None:
        self.attach = attach
        self.stream = attach.stream
        self.dialect = _dialect(settings, attach)
        self.joined: Subscribed | None = None
        self.position = 0
        """How many records a subscriber got, or a publisher sent."""
        self.waiting = b""
        self.socket = socket.create_connection(settings.address.numeric(), JOIN_S_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.send(self.dialect.opening())

    def send(self, data: bytes) -> None:
        """Send what fits now, and keep the rest for the next call."""
        data = self.waiting + data if self.waiting else data
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise LoadError(f"a connection broke: {error.strerror}") from None
        self.waiting = data[sent:]

    def read(self) -> bytes:
        """Return what has arrived. Raises LoadError at the end of the connection."""
        try:
            data = self.socket.recv(RECV_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LoadError(f"a connection broke: {error.strerror}") from None
        if not data:
            raise LoadError("the relay closed a connection")
        return data

    def other(self, event: Event) -> None:
        """Deal with what is neither a delivery nor an acknowledgement. Raises LoadError for what ends it."""
        if isinstance(event, Reply):
            self.send(event.data)
        elif isinstance(event, Ready):
            self.send(self.dialect.subscribe(self.attach))
        elif isinstance(event, Subscribed):
            self.joined = event
        elif isinstance(event, Failed):
            raise LoadError(event.text)
        elif isinstance(event, Closed):
            raise LoadError(f"the relay closed a connection: {event.code} {event.reason}")
        elif isinstance(event, Refused):
            raise LoadError(f"the relay refused to {event.what}: code {event.code}")

    def close(self) -> None:
        """Close with a reset: sockets in TIME_WAIT would use up the ports of the next measurement."""
        with suppress(OSError):
            reset_on_close(self.socket)
        self.socket.close()


def _dialect(settings: Settings, attach: Attach) -> Dialect:
    made, place = find(settings.dialect), settings.place()
    return made(replace(place, attach=attach) if made.features.one_stream else place)


def attach_of(keys: Keyring, stream: int, right: Right) -> Attach:
    """Return what a subscriber or a publisher of a stream shows; equal for all of a stream's."""
    expires_s = int(time.time()) + _CAPABILITY_S
    capability = keys.capability(stream, int(right), int(right), expires_s=expires_s)
    return Attach(stream=stream, name=keys.stream_name(stream), use=int(right), capability=capability)


@contextmanager
def joined(settings: Settings, attaches: Sequence[Attach]) -> Iterator[list[Member]]:
    """Connect and join, in this order, to the relay that `settings` name; close all on the way out. Raises LoadError."""
    members: list[Member] = []
    try:
        for start in range(0, len(attaches), AT_ONCE):
            _join(settings, attaches[start : start + AT_ONCE], members)
        yield members
    finally:
        for member in members:
            member.close()


def _join(settings: Settings, attaches: Sequence[Attach], members: list[Member]) -> None:
    deadline = time.monotonic() + JOIN_S_MAX
    under_way: dict[int, Member] = {}
    with select.epoll() as epoll:
        for attach in attaches:
            try:
                member = Member(settings, attach)
            except OSError as error:
                raise LoadError(f"cannot connect: {error.strerror or error}") from None
            members.append(member)
            under_way[member.socket.fileno()] = member
            epoll.register(member.socket, select.EPOLLIN)
        while under_way:
            if time.monotonic() > deadline:
                raise LoadError(f"{len(under_way)} connections did not join within {JOIN_S_MAX:.0f} s")
            for descriptor, _ in epoll.poll(1.0):
                member = under_way[descriptor]
                for event in member.dialect.receive(member.read()):
                    member.other(event)
                if member.joined is not None:
                    epoll.unregister(descriptor)
                    del under_way[descriptor]
