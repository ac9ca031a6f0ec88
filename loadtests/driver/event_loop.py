"""All sockets and timers of one worker process, served by a single greenlet.

A nested epoll, unknown to gevent but for its own descriptor, holds every socket. One greenlet waits on it through
gevent's loop, so Locust's own greenlets go on, and then takes turns:

    gevent loop --(epoll is readable)--> turn: read every ready socket, note when      -> inbox
                                               for at most half a millisecond: inbox   -> handler.received, .closed
                                               whenever one is due, between any of these -> callback(due_ns, now_ns)

Reading comes before understanding: when a room's two thousand copies come at once, each has the time at which it was
read, not the time at which those before it had been opened. The inbox is bounded; when it is full nothing is read, and
the lag of the loop, which is sampled by a timer among the sockets, shows it.

Time is `time.monotonic_ns()`. Due times are kept on one heap and looked at after every socket, so that a large batch
does not make a send late; a timerfd in the epoll wakes the loop for the next one.
"""

from __future__ import annotations

import errno
import os
import socket as socket_module
import ssl
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic_ns
from typing import Any, Final

import gevent
from gevent import monkey

from loadtests.driver.connection import READ, WRITE, Connection, Handler, Tls, text_of
from loadtests.driver.timerfd import TimerFd

# gevent removes epoll from `select` and replaces sockets; the loop needs the real ones.
_epoll: Final[Any] = monkey.get_original("select", "epoll")
_Socket: Final[Any] = monkey.get_original("socket", "socket")

RECV_BYTES: Final = 65_536
EVENTS_MAX: Final = 512
"""Sockets read in one turn."""
WORK_NS_MAX: Final = 500_000
"""How long a turn works on what was read before it looks for more: the grain of the arrival times under load."""
INBOX_BYTES_MAX: Final = 33_554_432
"""Read and not yet understood. Past this the sockets' own buffers fill, and then the relay's."""
CONNECTS_MAX: Final = 128
"""Connects under way at once: less than a usual listen queue, so that no SYN is dropped and repeated a second later."""
CONNECT_NS_MAX: Final = 15_000_000_000
"""For the TCP connection and the TLS handshake together."""
TICK_NS: Final = 5_000_000
"""How often the lag of the loop is sampled: at these times, busy or not."""
SOURCES_MAX: Final = 200
"""Loopback source addresses to go through when the ephemeral ports of one are used up."""
_NEVER: Final = 1 << 62
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h: choose the port at connect, when the whole tuple is known


class EventLoop:
    """The sockets and timers of a worker. Start it inside gevent; all calls must come from the same thread."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        on_tick: Callable[[int], None] | None = None,
        connects_max: int = CONNECTS_MAX,
    ) -> None:
        """`on_tick` is given the lag of the loop (ns) every 5 ms; `tls` and `server_name` hold for all connections."""
        self.epoll: Any = _epoll()
        self._tls = tls
        self._server_name = server_name
        self._on_tick = on_tick
        self._connects_max = connects_max
        self._connections: dict[int, Connection] = {}
        self._waiting: deque[tuple[Connection, tuple[str, int]]] = deque()
        self._connecting = 0
        self._inbox: deque[tuple[Connection, bytes | str, int]] = deque()
        self._inbox_bytes = 0
        self._closing: list[Any] = []
        self._heap: list[tuple[int, int, Callable[[int, int], None]]] = []
        self._pushed = 0
        self._due_ns = self._armed_ns = _NEVER
        self._timer = TimerFd()
        self._ticker = TimerFd()
        self._tick_ns = 0
        self._in_turn = False
        self._running = False
        self._greenlet: Any = None
        self._source = 0
        self.descriptors_exhausted = 0
        self.ports_exhausted = 0
        self.turns = 0
        self.epoll.register(self._timer.fd, READ)
        self.epoll.register(self._ticker.fd, READ)

    def __len__(self) -> int:
        """Connections that have a socket."""
        return len(self._connections)

    # -- for participants ----------------------------------------------------------------------------------

    def connect(self, handler: Handler, address: tuple[str, int], *, piece_bytes: int | None = None) -> Connection:
        """Open a connection as soon as fewer than the allowed number are under way; `address` is a numeric one.

        With `piece_bytes` at most so much is read at once, and then nothing until the handler has it and resumes.
        """
        connection = Connection(self, handler, piece_bytes)
        self._waiting.append((connection, address))
        self.at(0, self._connect_next)
        return connection

    def at(self, due_ns: int, callback: Callable[[int, int], None]) -> None:
        """Call `callback(due_ns, now_ns)` at `due_ns`, or soon after this returns if that is past."""
        self._pushed += 1
        heappush(self._heap, (due_ns, self._pushed, callback))
        self._due_ns = self._heap[0][0]
        if not self._in_turn:
            self._arm()

    def start(self) -> None:
        self._running = True
        if self._on_tick is not None:
            self._tick_ns = monotonic_ns() + TICK_NS
            self._ticker.arm(self._tick_ns, TICK_NS)
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Close every socket; no handler is told."""
        self._running = False
        for connection in list(self._connections.values()):
            self.drop(connection)
        self._waiting.clear()
        self._inbox.clear()
        self._heap.clear()
        self._due_ns = _NEVER
        self._close_dropped()
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None
        self._timer.close()
        self._ticker.close()
        self.epoll.close()

    # -- the loop ------------------------------------------------------------------------------------

    def _run(self) -> None:
        hub = gevent.get_hub()
        watcher = hub.loop.io(self.epoll.fileno(), 1)
        try:
            while self._running:
                if self._inbox:
                    gevent.sleep(0)
                else:
                    hub.wait(watcher)
                self.turn()
        finally:
            watcher.close()

    @property
    def busy(self) -> bool:
        """Something was read that no handler has got yet."""
        return bool(self._inbox)

    def turn(self) -> None:
        """Serve what is ready now, without waiting."""
        self._in_turn = True
        self.turns += 1
        if self._inbox_bytes < INBOX_BYTES_MAX:
            self._gather()
        self._work()
        self._close_dropped()
        self._in_turn = False
        self._arm()

    def _gather(self) -> None:
        """Read every socket that is ready."""
        connections = self._connections
        for fd, events in self.epoll.poll(0, EVENTS_MAX):
            connection = connections.get(fd)
            if connection is not None:
                if connection.open:
                    if events & WRITE:
                        connection._flush()
                    if events & ~WRITE:
                        self._read(connection)
                else:
                    self._advance(connection)
            elif fd == self._ticker.fd:
                self._tick()
            elif fd == self._timer.fd:
                self._timer.expirations()
                self._armed_ns = _NEVER
            now_ns = monotonic_ns()
            if now_ns >= self._due_ns:
                self._run_due(now_ns)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection._socket.recv(connection._piece_bytes or RECV_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(connection, text_of(error))
            return
        if data:
            if connection._piece_bytes is not None:
                connection.pause()
            self._inbox.append((connection, data, monotonic_ns()))
            self._inbox_bytes += len(data)
        else:
            self.fail(connection, "closed by the peer")

    def _work(self) -> None:
        """Hand out what was read, for a while."""
        inbox = self._inbox
        end_ns = monotonic_ns() + WORK_NS_MAX
        while inbox:
            connection, data, now_ns = inbox.popleft()
            if isinstance(data, str):
                if not connection._discarded:
                    connection.handler.closed(data, now_ns)
            else:
                self._inbox_bytes -= len(data)
                if not connection._discarded:
                    self._hand_out(connection, data, now_ns)
            now_ns = monotonic_ns()
            if now_ns >= self._due_ns:
                self._run_due(now_ns)
            if now_ns > end_ns:
                return

    def _hand_out(self, connection: Connection, data: bytes, now_ns: int) -> None:
        if connection._tls is not None:
            plain = self._decrypt(connection, connection._tls, data)
            if plain is None:
                # The handler learns nothing of a piece of a TLS record, so the rest is not its to ask for.
                if connection._piece_bytes is not None:
                    connection.resume()
                return
            if not plain:
                self.fail(connection, "closed by the peer")
                return
            data = plain
        cork: list[bytes] = []
        connection._cork = cork
        connection.handler.received(data, now_ns)
        connection._cork = None
        if cork and connection.open:
            connection._write(cork[0] if len(cork) == 1 else b"".join(cork))

    def _decrypt(self, connection: Connection, tls: Tls, data: bytes) -> bytes | None:
        """Return what came, b"" at the end of the TLS stream, or None if it is not a whole record yet."""
        parts = []
        tls.incoming.write(data)
        try:
            while part := tls.engine.read(RECV_BYTES):
                parts.append(part)
        except ssl.SSLWantReadError:
            # Session tickets and key updates make bytes for the peer while we read.
            if tls.outgoing.pending:
                connection._write_raw(tls.outgoing.read())
            return b"".join(parts) or None
        except ssl.SSLError as error:
            self.fail(connection, text_of(error))
            return None
        return b"".join(parts)

    def _run_due(self, now_ns: int) -> None:
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            due_ns, _, callback = heappop(heap)
            callback(due_ns, now_ns)
            now_ns = monotonic_ns()
        self._due_ns = heap[0][0] if heap else _NEVER

    def _arm(self) -> None:
        if self._due_ns < self._armed_ns:
            self._armed_ns = self._due_ns
            self._timer.arm(self._due_ns)

    def _tick(self) -> None:
        # In this order: the process may lose its core in between, and the timer goes on meanwhile.
        expirations = self._ticker.expirations()
        now_ns = monotonic_ns()
        for _ in range(expirations):
            if self._on_tick is not None:
                self._on_tick(now_ns - self._tick_ns)
            self._tick_ns += TICK_NS

    # -- opening and closing -------------------------------------------------------------------------

    def _connect_next(self, _due_ns: int = 0, _now_ns: int = 0) -> None:
        while self._waiting and self._connecting < self._connects_max:
            connection, address = self._waiting.popleft()
            self._connecting += 1
            connection._deadline_ns = monotonic_ns() + CONNECT_NS_MAX
            self._open(connection, address)

    def _open(self, connection: Connection, address: tuple[str, int]) -> None:
        family = socket_module.AF_INET6 if ":" in address[0] else socket_module.AF_INET
        while True:
            try:
                sock = _Socket(family, socket_module.SOCK_STREAM)
            except OSError as error:
                self.descriptors_exhausted += error.errno in (errno.EMFILE, errno.ENFILE)
                self._fail_to_connect(connection, text_of(error))
                return
            sock.setblocking(False)
            sock.setsockopt(socket_module.IPPROTO_TCP, socket_module.TCP_NODELAY, 1)
            if connection._piece_bytes is not None:
                sock.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_RCVBUF, connection._piece_bytes)
            if self._source:
                sock.setsockopt(socket_module.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((f"127.0.0.{self._source + 1}", 0))
            code = sock.connect_ex(address)
            if code in (0, errno.EINPROGRESS):
                break
            sock.close()
            if code == errno.EADDRNOTAVAIL and address[0].startswith("127.") and self._source < SOURCES_MAX:
                self._source += 1
                continue
            self.ports_exhausted += code == errno.EADDRNOTAVAIL
            self._fail_to_connect(connection, os.strerror(code))
            return
        connection._socket = sock
        connection.fd = sock.fileno()
        connection._events = WRITE
        self._connections[connection.fd] = connection
        self.epoll.register(connection.fd, WRITE)
        self.at(connection._deadline_ns, lambda due_ns, now_ns: self._give_up(connection))

    def _give_up(self, connection: Connection) -> None:
        if not connection.open and connection._socket is not None:
            self.fail(connection, "no connection in time")

    def _fail_to_connect(self, connection: Connection, reason: str) -> None:
        self._connecting -= 1
        self._inbox.append((connection, reason, monotonic_ns()))
        self.at(0, self._connect_next)

    def _advance(self, connection: Connection) -> None:
        """Go on with a connection that is not open yet: TCP first, then TLS."""
        if connection._tls is None:
            code = connection._socket.getsockopt(socket_module.SOL_SOCKET, socket_module.SO_ERROR)
            if code:
                self.fail(connection, os.strerror(code))
                return
            if self._tls is not None:
                connection._tls = Tls(self._tls, self._server_name)
        if connection._tls is not None and not self._shake_hands(connection, connection._tls):
            return
        connection.open = True
        self._connecting -= 1
        self.at(0, self._connect_next)
        # A handler may close or pause the connection here, so its events are set first.
        connection._watch((connection._events & WRITE if connection._queue else 0) | READ)
        connection.handler.connected(monotonic_ns())

    def _shake_hands(self, connection: Connection, tls: Tls) -> bool:
        try:
            data = connection._socket.recv(RECV_BYTES)
            if not data:
                self.fail(connection, "closed by the peer in the TLS handshake")
                return False
            tls.incoming.write(data)
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(connection, text_of(error))
            return False
        try:
            tls.engine.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        except (ssl.SSLError, ssl.CertificateError) as error:
            self.fail(connection, text_of(error))
            return False
        if tls.outgoing.pending:
            connection._write_raw(tls.outgoing.read())
        connection._watch(READ | (WRITE if connection._queue else 0))
        return done and connection.fd >= 0

    def fail(self, connection: Connection, reason: str) -> None:
        """Drop `connection`; its handler is told after all that was read."""
        if connection._socket is not None:
            self.drop(connection)
            self._inbox.append((connection, reason, monotonic_ns()))
            if not self._in_turn:
                self.at(0, _nothing)

    def drop(self, connection: Connection) -> None:
        """Forget `connection` without telling its handler."""
        if connection._socket is None:
            self._waiting = deque(item for item in self._waiting if item[0] is not connection)
            return
        if not connection.open:
            self._connecting -= 1
            self.at(0, self._connect_next)
        self.epoll.unregister(connection.fd)
        del self._connections[connection.fd]
        # The number may be given to a new socket only after this turn: events for the old one may still be listed.
        self._closing.append(connection._socket)
        connection._socket = None
        connection.fd = -1
        connection.open = False
        connection._queue.clear()
        if not self._in_turn:
            self._close_dropped()

    def _close_dropped(self) -> None:
        for sock in self._closing:
            sock.close()
        self._closing.clear()


def _nothing(_due_ns: int, _now_ns: int) -> None:
    """Only makes the loop take a turn."""
