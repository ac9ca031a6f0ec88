"""The default transport: one trio task that serves every open connection from a poller of its own.

Slow things (accepting, handshakes, timers, drain) are ordinary trio tasks with timeouts. An open connection owns no task:
the pump waits, through trio, until its epoll has something, and then serves all that is ready with non-blocking calls.
Trio's price for a wake-up is paid once for a batch. While there is traffic the pump stays in its own loop and visits
trio every CHECKPOINT_NS.

    turn:  read every ready socket -> the core -> commit, fan-out slice -> write every filled outbox
"""

from __future__ import annotations

import gc
import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import trio

from relay.limits import CLOSE_S_MAX, HANDSHAKE_S_MAX, RECV_BYTES, REST_S
from relay.outbox import Outbox
from relay.peer import Peer, Stage
from relay.transports.accepting import Door
from relay.transports.base import Relay, bound_unsent, ending_signals, take_the_last
from relay.transports.handshake import Handshake
from relay.transports.tls import TlsSocket

CHECKPOINT_NS: Final = 2_000_000
"""How long trio's own tasks (handshakes, timers) may wait for the pump under load."""
EVENTS_MAX: Final = 256
"""Sockets read in one turn: what they sent is committed and fanned out before the next are read."""
LINGER_S: Final = 0.001
"""With nothing to do, the pump waits this long in its own poller before it goes back to trio: under load the next bytes
are microseconds away, and a trip through trio costs some 50 us."""
IDLE_COLLECTION: Final = 5_000
"""New objects that make the garbage collector worth running when the pump has nothing to do. It never runs by itself:
what serves connections leaves no cycles, and a collection of a large relay takes milliseconds."""

_NONE: Final[list[tuple[int, int]]] = []
READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT


class _Connection:
    """A socket with its peer. `recv` and `send` are the socket's own, or TLS's."""

    __slots__ = ("box", "fd", "finishing", "peer", "reading", "recv", "send", "sock", "tls", "writing")

    def __init__(self, sock: socket.socket, tls: TlsSocket | None, peer: Peer) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = tls
        self.recv = sock.recv if tls is None else tls.recv
        self.send: Any = sock.send if tls is None else tls.send
        self.peer = peer
        self.box = peer.box
        self.reading = True
        self.writing = False
        self.finishing = False


class Pump:
    """Serves a relay's connections until cancelled."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._hub = relay.hub
        self._clock = relay.clock
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._more = False
        self._carried = _NONE  # sockets that are ready, and for which a turn had no work left
        self._resting = trio.Event()
        # Tasks other than the pump's have a way to wake it.
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, READ)
        for worker in relay.workers:
            self._epoll.register(worker.fileno(), READ)

    async def run(self) -> None:
        """Wait, serve, repeat."""
        clock = self._clock
        poll = self._epoll.poll
        turn = self._turn
        hub = self._hub
        add_time = self._relay.turn_times.add
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            due_ns = clock() + CHECKPOINT_NS
            events = poll(0, EVENTS_MAX)
            while events or self._more:
                turn(events)
                now_ns = clock()
                add_time(now_ns - hub.now_ns)
                if now_ns >= due_ns:
                    await trio.lowlevel.checkpoint()
                    due_ns = clock() + CHECKPOINT_NS
                events = self._carried or poll(0, EVENTS_MAX)
                if not events and not self._more:
                    events = poll(LINGER_S, EVENTS_MAX)
            if gc.get_count()[0] > IDLE_COLLECTION:
                gc.collect(1)

    def _turn(self, events: list[tuple[int, int]]) -> None:
        hub = self._hub
        hub.now_ns = now_ns = self._clock()
        budget = hub.budget
        connections = self._connections
        received = 0
        self._carried = _NONE
        ready = iter(events)
        for fd, mask in ready:
            if budget.left <= 0:
                self._carried = [(fd, mask), *ready]
                break
            connection = connections.get(fd)
            if connection is None:
                self._signalled(fd)
                continue
            if mask & WRITE and connection.writing:
                self._writable(connection)
            if mask & ~WRITE and (connection.reading or mask & ~(READ | WRITE)):
                try:
                    data = connection.recv(RECV_BYTES)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError:
                    data = b""
                if not data:
                    self._lose(connection)
                    continue
                received += len(data)
                peer = connection.peer
                peer.heard_ns = now_ns
                peer.receive_data(data)
                if peer.behind:
                    self._look_whether_to_read(connection)
        hub.counters.received_bytes += received
        self._work_off()

    def _work_off(self) -> None:
        """Have the core do what came, and send what it says."""
        hub = self._hub
        self._more = hub.turn()
        if hub.fanout.dirty:
            self._flush_all()
        if hub.ended:
            self._finish_ended()
        if hub.budget.caught_up or hub.budget.waiting:
            self._look_who_waits()

    def _look_who_waits(self) -> None:
        budget = self._hub.budget
        caught_up, budget.caught_up = budget.caught_up, []
        for peer in caught_up:
            if peer.box.owner is not None:
                self._look_whether_to_read(peer.box.owner)
        if budget.resting:
            self._resting.set()

    def flush(self) -> None:
        """Serve what a task other than the pump's pushed."""
        self._work_off()
        if self._more:  # The pump may be asleep until its poller has something.
            os.eventfd_write(self._wake_fd, 1)

    def _signalled(self, fd: int) -> None:
        if fd == self._wake_fd:
            os.eventfd_read(fd)
        else:
            self._relay.drain_workers()

    # -- writing -------------------------------------------------------------------------------------

    def _flush_all(self) -> None:
        fanout = self._hub.fanout
        sent_bytes = 0
        while fanout.dirty:
            dirty, fanout.dirty = fanout.dirty, []
            for box in dirty:
                box.dirty = False
                connection = box.owner
                if connection is None:
                    continue
                if connection.writing:
                    self._queue(connection, box)
                    continue
                data = box.gather()
                try:
                    sent = connection.send(data)
                except (BlockingIOError, InterruptedError):
                    sent = 0
                except OSError:
                    self._lose(connection)
                    continue
                sent_bytes += sent
                if sent == len(data):
                    box.pending.clear()
                    if connection.tls is not None and connection.tls.unsent:
                        self._stand(connection)
                else:
                    box.wrote(sent)
                    self._stand(connection)
        self._hub.counters.sent_bytes += sent_bytes

    def _queue(self, connection: _Connection, box: Outbox) -> None:
        box.stand()
        if box.ended:
            take_the_last(connection.sock)
        if box.overflowing:
            self._hub.replay.fall_behind(connection.peer)
        if connection.reading and box.choked:
            self._look_whether_to_read(connection)

    def _stand(self, connection: _Connection) -> None:
        connection.peer.progress_ns = self._hub.now_ns
        connection.writing = True
        if connection.box.overflowing:
            self._hub.replay.fall_behind(connection.peer)
        self._watch(connection)

    def _writable(self, connection: _Connection) -> None:
        box = connection.box
        if connection.tls is not None and not self._flush_tls(connection, connection.tls):
            return
        data = box.gather()
        try:
            sent = connection.send(data) if data else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._lose(connection)
            return
        self._hub.counters.sent_bytes += sent
        if sent:
            connection.peer.progress_ns = self._hub.now_ns
        if sent == len(data):
            box.pending.clear()
        else:
            box.wrote(sent)
        if not connection.reading:
            self._look_whether_to_read(connection)
        if box.standing is None and (connection.tls is None or not connection.tls.unsent):
            connection.writing = False
            self._watch(connection)
            if connection.peer.state == Stage.ENDED:
                self._finish(connection)
            else:
                self._hub.replay.drained(connection.peer)

    def _flush_tls(self, connection: _Connection, tls: TlsSocket) -> bool:
        """Send ciphertext that waits; return whether all of it went and the connection is still there."""
        waiting = len(tls.unsent)
        try:
            flushed = tls.flush()
        except OSError:
            self._lose(connection)
            return False
        if len(tls.unsent) < waiting:
            connection.peer.progress_ns = self._hub.now_ns
        return flushed

    def _look_whether_to_read(self, connection: _Connection) -> None:
        """Read from a client unless it does not take its answers, or what it sent waits for its share of work."""
        reading = not (connection.box.choked or connection.peer.behind)
        if reading != connection.reading:
            connection.reading = reading
            self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        mask = (READ if connection.reading else 0) | (WRITE if connection.writing else 0)
        self._epoll.modify(connection.fd, mask)

    # -- coming and going ----------------------------------------------------------------------------

    def adopt(self, sock: socket.socket, tls: TlsSocket | None, peer: Peer, rest: bytes) -> None:
        """Take over an open connection, and the bytes that came behind its handshake."""
        connection = _Connection(sock, tls, peer)
        peer.box.owner = connection
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, READ)
        if rest:
            peer.receive_data(rest)
            self._look_whether_to_read(connection)
            self.flush()

    def _finish_ended(self) -> None:
        ended, self._hub.ended = self._hub.ended, []
        for peer in ended:
            connection = peer.box.owner
            if connection is not None and (peer.overdue or not connection.writing):
                self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        """Everything is sent: say so, and let go when the client does; closing at once could reset what is under way."""
        if connection.finishing or connection.peer.overdue:
            self._lose(connection)
            return
        connection.finishing = True
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._lose(connection)

    def _lose(self, connection: _Connection) -> None:
        if self._connections.pop(connection.fd, None) is None:
            return
        connection.box.owner = None
        self._epoll.unregister(connection.fd)
        connection.sock.close()
        self._relay.forget(connection.peer)

    def close(self) -> None:
        """Let go of every connection and of the poller."""
        for connection in list(self._connections.values()):
            self._lose(connection)
        self._epoll.close()
        os.close(self._wake_fd)

    async def wake_the_resting(self) -> None:
        """Have a turn in time for those whose rate was used up."""
        while True:
            await self._resting.wait()
            self._resting = trio.Event()
            await trio.sleep(REST_S)
            self._hub.now_ns = self._clock()
            self.flush()

    async def greet(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Do the handshakes of one connection, and adopt it. Ends within HANDSHAKE_S_MAX."""
        sock.setblocking(False)
        adopted = False
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bound_unsent(sock)
            with trio.move_on_after(HANDSHAKE_S_MAX):
                adopted = await self._greet(sock, context)
        except OSError:
            pass
        finally:
            if not adopted:
                self._relay.rejected += 1
                sock.close()

    async def _greet(self, sock: socket.socket, context: ssl.SSLContext | None) -> bool:
        accepted_ns = self._clock()
        tls = None
        if context is not None:
            tls = TlsSocket(sock, context)
            while not tls.handshake():
                await (trio.lowlevel.wait_writable if tls.unsent else trio.lowlevel.wait_readable)(sock)
        recv = sock.recv if tls is None else tls.recv
        handshake = Handshake(echo=self._relay.echo)
        answer = None
        while answer is None:
            try:
                data = recv(RECV_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
                continue
            if not data:
                return False
            answer = handshake.feed(data)
        response = answer.response
        while response:
            try:
                response = response[(sock.send if tls is None else tls.send)(response) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)
        if answer.path is None or self._relay.draining:
            sock.shutdown(socket.SHUT_WR)
            with trio.move_on_after(CLOSE_S_MAX):
                await trio.lowlevel.wait_readable(sock)
            return False
        self.adopt(sock, tls, self._relay.greet(answer.path, accepted_ns), answer.rest)
        return True


async def serve(
    relay: Relay,
    listeners: list[socket.socket],
    context: ssl.SSLContext | None,
    ready: Callable[[], None],
    stop: trio.Event,
) -> None:
    """Serve until `stop` is set, then drain: GOAWAY, commit, close, end."""
    pump = Pump(relay)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(_tick, relay, pump)
            nursery.start_soon(pump.wake_the_resting)
            async with trio.open_nursery() as accepting:
                door = Door(pump, relay, nursery, clock=trio.current_time)
                for listener in listeners:
                    listener.setblocking(False)
                    accepting.start_soon(door.accept, listener, context)
                relay.ready = True
                ready()
                await stop.wait()
                accepting.cancel_scope.cancel()
            for listener in listeners:
                listener.close()
            await _drain(relay, pump)
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()
        gc.unfreeze()
        pump.close()


async def _tick(relay: Relay, pump: Pump) -> None:
    while True:
        await trio.sleep(1)
        relay.tick()
        pump.flush()


async def _drain(relay: Relay, pump: Pump) -> None:
    relay.go_away()
    pump.flush()
    while not relay.may_close():
        await trio.sleep(0.01)
    relay.close_all()
    pump.flush()
    while relay.peers and not relay.overdue():
        await trio.sleep(0.01)


def run(
    relay: Relay, listeners: list[socket.socket], context: ssl.SSLContext | None, ready: Callable[[], None]
) -> None:
    """Serve until a signal that ends it, then drain."""

    async def main() -> None:
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(*ending_signals()) as signals:
                nursery.start_soon(serve, relay, listeners, context, ready, stop)
                async for _ in signals:
                    break
                stop.set()

    trio.run(main)
