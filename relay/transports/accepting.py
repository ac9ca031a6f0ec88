"""The pump's door: accepts connections, a bounded number of which have their handshakes under way at once.

Who sends nothing, or one byte now and then, costs a slot until time is up. So when the slots run out the oldest
handshake gives way to a new connection, unless it is so young that a slow link may be the reason; then the new one
waits in the listen queue.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

import trio

from relay.limits import HANDSHAKE_GRACE_S, HANDSHAKES_MAX
from relay.transports.base import Relay

RETRY_S: Final = 0.1
"""After the system refused to accept."""
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Greeter(Protocol):
    """What takes connections over."""

    async def greet(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Do the handshakes of one connection and take it over, or close it."""


class Door:
    """The handshakes under way, the oldest first."""

    def __init__(self, pump: Greeter, relay: Relay, nursery: trio.Nursery, *, clock: Callable[[], float]) -> None:
        self._pump = pump
        self._relay = relay
        self._nursery = nursery
        self._clock = clock
        self._under_way: dict[trio.CancelScope, float] = {}
        self._changed = trio.Event()

    async def accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        """Accept connections of a listener until cancelled."""
        while True:
            await self._make_room(HANDSHAKES_MAX)
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(listener)
                continue
            except OSError as error:
                # A connection that failed before it was accepted, or no descriptors: the others wait in the listen queue
                # until some are closed. accept(2), "Error handling".
                if error.errno in (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP):
                    raise
                if error.errno in _OUT_OF_DESCRIPTORS:
                    self._relay.accepts_refused += 1
                    self._let_oldest_give_way()
                await trio.sleep(RETRY_S)
                continue
            if not self._relay.has_descriptor_for(sock):
                sock.close()
                self._let_oldest_give_way()
                await trio.sleep(RETRY_S)
                continue
            scope = trio.CancelScope()
            self._under_way[scope] = self._clock()
            self._nursery.start_soon(self._greet, sock, context, scope)

    async def _greet(self, sock: socket.socket, context: ssl.SSLContext | None, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._pump.greet(sock, context)
        finally:
            self._under_way.pop(scope, None)
            self._changed.set()

    async def _make_room(self, most: int) -> None:
        while len(self._under_way) >= most:
            age_s = self._clock() - next(iter(self._under_way.values()))
            if age_s >= HANDSHAKE_GRACE_S:
                self._let_oldest_give_way()
                return
            self._changed = trio.Event()
            with trio.move_on_after(HANDSHAKE_GRACE_S - age_s):
                await self._changed.wait()

    def _let_oldest_give_way(self) -> None:
        for scope, began_s in self._under_way.items():
            if self._clock() - began_s >= HANDSHAKE_GRACE_S:
                del self._under_way[scope]
                self._relay.gave_way += 1
                scope.cancel()
            return
