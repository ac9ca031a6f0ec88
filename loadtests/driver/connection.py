"""One stream socket of the event loop: what its owner may do with it, and what it is told.

Sends go straight to the socket, and wait in a queue only while that is full. TLS is an engine between two memory buffers.
"""

from __future__ import annotations

import select
import ssl
from collections import deque
from typing import Any, Final, Protocol

from loadtests.driver.sockets import reset_on_close

READ: Final = select.POLLIN | 0x2000  # EPOLLRDHUP: told of a peer that went away even while it is not read
WRITE: Final = select.POLLOUT


class Handler(Protocol):
    """What the loop tells the owner of a connection. None of these may block."""

    def connected(self, now_ns: int) -> None:
        """The byte stream is open, TLS included."""

    def received(self, data: bytes, now_ns: int) -> None:
        """`data` came, never empty; `now_ns` was taken right after reading it."""

    def closed(self, reason: str, now_ns: int) -> None:
        """Nothing comes any more, and sends do nothing. Not told after a `close()` or `abort()` of one's own."""


class Loop(Protocol):
    """What a connection asks of the event loop that serves it."""

    epoll: Any

    def fail(self, connection: Connection, reason: str) -> None: ...

    def drop(self, connection: Connection) -> None: ...


class Tls:
    """The TLS engine of one connection, between two memory buffers."""

    __slots__ = ("engine", "incoming", "outgoing")

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.engine = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name)


class Connection:
    """One stream socket. Sends go straight to the socket, and wait in a queue only while that is full."""

    __slots__ = (
        "_cork",
        "_deadline_ns",
        "_discarded",
        "_events",
        "_loop",
        "_piece_bytes",
        "_queue",
        "_socket",
        "_tls",
        "fd",
        "handler",
        "open",
    )

    def __init__(self, loop: Loop, handler: Handler, piece_bytes: int | None) -> None:
        self._loop = loop
        self._piece_bytes = piece_bytes
        self.handler = handler
        self.fd = -1
        self.open = False
        self._socket: Any = None
        self._queue: deque[bytes] = deque()
        self._cork: list[bytes] | None = None
        self._events = 0
        self._deadline_ns = 0
        self._discarded = False
        self._tls: Tls | None = None

    @property
    def blocked(self) -> bool:
        """The socket has not taken all that was sent."""
        return bool(self._queue)

    def send(self, data: bytes) -> None:
        """Send `data`, in order. What is sent while `received` runs leaves in one piece after it."""
        if not self.open:
            return
        if self._cork is not None:
            self._cork.append(data)
        else:
            self._write(data)

    def pause(self) -> None:
        """Stop reading: the socket's buffer fills, and then the peer's."""
        self._watch(self._events & ~READ)

    def resume(self) -> None:
        if self.open:
            self._watch(self._events | READ)

    def close(self) -> None:
        """Close in order. The handler is told nothing more."""
        self._discarded = True
        self._loop.drop(self)

    def abort(self) -> None:
        """Close with a reset, as a cut line looks to the peer. The handler is told nothing more."""
        self._discarded = True
        if self._socket is not None:
            reset_on_close(self._socket)
        self._loop.drop(self)

    # -- used by the loop ---------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.engine.write(data)
            data = self._tls.outgoing.read()
        self._write_raw(data)

    def _write_raw(self, data: bytes) -> None:
        if self._queue:
            self._queue.append(data)
            return
        if self._socket is None:
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._loop.fail(self, text_of(error))
            return
        if sent < len(data):
            self._queue.append(data[sent:])
            self._watch(self._events | WRITE)

    def _flush(self) -> None:
        data = b"".join(self._queue)
        self._queue.clear()
        self._write_raw(data)
        if not self._queue:
            self._watch(self._events & ~WRITE)

    def _watch(self, events: int) -> None:
        if events != self._events and self.fd >= 0:
            self._events = events
            self._loop.epoll.modify(self.fd, events)


def text_of(error: OSError) -> str:
    """Return what the system says, without the number."""
    return error.strerror or str(error)
