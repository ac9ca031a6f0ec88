"""The baseline transport: the trio-websocket library, one task a connection that reads and one that writes.

Framing, pings and the close handshake are the library's; every message is awaited on its way out. What the outbox holds
for this client waits while a send does, under the same limits as elsewhere.
"""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Final

import trio
import trio_websocket
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from relay import framing
from relay.limits import CLOSE_S_MAX, HANDSHAKE_S_MAX, MESSAGE_BYTES_MAX, REST_S
from relay.peer import Peer, Stage
from relay.transports.base import AnySocket, Relay, bound_unsent, ending_signals, take_the_last
from relay.wire import SUBPROTOCOL

_PIECE_FRAMES: Final = 4
_PIECE_S: Final = 0.02
"""Between pieces of a flood: 200 small frames a second, of which the library takes some 30 us each."""
_plain: ContextVar[AnySocket] = ContextVar("the socket of the connection that a task serves")
"""The library hands its connections over without their sockets, but in the task that has them."""


class _Connection:
    """One WebSocket connection and what wakes its writer."""

    nursery: trio.Nursery

    def __init__(self, peer: Peer, socket: WebSocketConnection) -> None:
        self.peer = peer
        self.socket = socket
        self.plain = _plain.get()
        self.wake = trio.Event()
        self.sending = False


class _Library:
    """The relay behind the library's connections."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._hub = relay.hub
        self._turning = trio.Event()
        self._resting = trio.Event()

    def turn(self) -> None:
        """Have the core work off what came, and wake the writers of filled outboxes."""
        relay, hub = self._relay, self._hub
        if hub.turn():
            self._turning.set()
        hub.budget.caught_up.clear()  # Readers look for themselves.
        if hub.budget.resting:
            self._resting.set()
        fanout = hub.fanout
        dirty, fanout.dirty = fanout.dirty, []
        for box in dirty:
            box.dirty = False
            connection = box.owner
            if connection is None:
                continue
            if connection.sending:
                box.stand()
                if box.ended:
                    take_the_last(connection.plain)
                if box.overflowing:
                    hub.replay.fall_behind(connection.peer)
            connection.wake.set()
        ended, hub.ended = hub.ended, []
        for peer in ended:
            # The library answers the client's close by itself, so these are overdue: a send to one may wait for ever.
            if peer.box.owner is not None:
                peer.box.owner.nursery.cancel_scope.cancel()
        relay.turn_times.add(max(0, relay.clock() - hub.now_ns))

    async def turn_on(self) -> None:
        """Go on with fan-outs that take several slices."""
        while True:
            await self._turning.wait()
            self._turning = trio.Event()
            self._hub.now_ns = self._relay.clock()
            self.turn()

    async def wake_the_resting(self) -> None:
        """Have a turn in time for those whose rate was used up."""
        while True:
            await self._resting.wait()
            self._resting = trio.Event()
            await trio.sleep(REST_S)
            self._hub.now_ns = self._relay.clock()
            self.turn()

    async def drain_worker(self, fd: int) -> None:
        """Take the store's answers as they come."""
        while True:
            await trio.lowlevel.wait_readable(fd)
            self._hub.now_ns = self._relay.clock()
            self._relay.drain_workers()
            self.turn()

    async def tick(self) -> None:
        while True:
            await trio.sleep(1)
            self._relay.tick()
            self.turn()

    async def handle(self, request: WebSocketRequest) -> None:
        """Serve one connection: the library calls this when its HTTP request is there."""
        path = request.path.partition("?")[0]
        try:
            socket = await self._answer(request, path)
        except Exception:
            self._relay.rejected += 1
            raise
        try:
            await self._attend(path, socket)
        except Exception as error:
            self._hub.report(error)
            raise

    async def _attend(self, path: str, socket: WebSocketConnection) -> None:
        relay = self._relay
        connection = _Connection(relay.greet(path), socket)
        connection.peer.box.owner = connection
        try:
            async with trio.open_nursery() as nursery:
                connection.nursery = nursery
                nursery.start_soon(self._write, connection)
                await self._read(connection)
                nursery.cancel_scope.cancel()
        finally:
            relay.forget(connection.peer)

    async def _answer(self, request: WebSocketRequest, path: str) -> WebSocketConnection:
        """Accept a request, or refuse it and raise."""
        echo = self._relay.echo and path == "/echo"
        if path != "/" and not echo:
            await request.reject(404, body=b"this relay serves /\n")
        elif self._relay.draining or (not echo and SUBPROTOCOL not in request.proposed_subprotocols):
            await request.reject(400, body=b"offer the subprotocol " + SUBPROTOCOL.encode() + b"\n")
        else:
            return await request.accept(subprotocol=None if echo else SUBPROTOCOL)
        raise _RequestRejected

    async def _read(self, connection: _Connection) -> None:
        hub, peer = self._hub, connection.peer
        while True:
            try:
                message = await connection.socket.get_message()
            except ConnectionClosed:
                return
            hub.now_ns = peer.heard_ns = self._relay.clock()
            hub.counters.received_bytes += len(message)
            if peer.state < Stage.CLOSING:
                peer.receive([message])
                self.turn()
            while peer.box.choked or peer.behind:  # Read no more from a client that takes no answers, or asks too much.
                await trio.sleep(REST_S)

    async def _write(self, connection: _Connection) -> None:
        peer = connection.peer
        box = peer.box
        try:
            while True:
                await connection.wake.wait()
                connection.wake = trio.Event()
                connection.sending = True
                while (data := bytes(box.gather())) or box.standing is not None:
                    box.pending.clear()
                    await self._send(connection, data)
                    peer.progress_ns = self._relay.clock()
                connection.sending = False
                if peer.state < Stage.CLOSING:
                    self._hub.replay.drained(peer)
                    self.turn()
        except ConnectionClosed:
            return

    async def _send(self, connection: _Connection, frames: bytes) -> None:
        """Give the library each message of `frames`; pings, pongs and the close frame have calls of their own."""
        for opcode, payload in framing.split_all(frames):
            if opcode == framing.CLOSE:
                code = int.from_bytes(payload[:2], "big")
                await connection.socket.aclose(code, payload[2:].decode())
                return
            if opcode == framing.PING:
                connection.nursery.start_soon(self._ping, connection)
            elif opcode == framing.TEXT:
                await connection.socket.send_message(payload.decode())
            else:
                await connection.socket.send_message(payload)
            self._hub.counters.sent_bytes += len(payload)

    async def _ping(self, connection: _Connection) -> None:
        """Ask for a sign of life. The library waits for the pong, and tells nobody else of it."""
        with suppress(ConnectionClosed):
            await connection.socket.ping()
            connection.peer.heard_ns = self._relay.clock()


class _Paced:
    """The bytes of one client, of small frames only a few at a time: the library takes what it gets in one go.

    It answers pings, and takes pongs and fragments, by itself; none of it comes to the core that would charge it.
    """

    def __init__(self, receive: Callable[[int | None], Awaitable[bytes | bytearray]]) -> None:
        self._receive = receive
        self._data: bytes | bytearray = b""
        self._begun = False  # the request's head is over
        self._payload_bytes = 0  # of the frame that the last piece ended in, still to come

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what there is, or the first few small frames of it."""
        if self._data:
            await trio.sleep(_PIECE_S)
        else:
            self._data = await self._receive(max_bytes)
        if not self._begun:
            # What comes behind the head in the same segment is one read, and no flood.
            self._begun = b"\r\n\r\n" in self._data
            piece, self._data = self._data, b""
            return piece
        while self._data and not (end := self._piece()):
            more = await self._receive(max_bytes)  # for the rest of a header
            if not more:
                end = len(self._data)
                break
            self._data += more
        piece, self._data = self._data[: end if self._data else 0], self._data[end if self._data else 0 :]
        return piece

    def _piece(self) -> int:
        """Return where the next piece ends; 0 if all there is is a part of a header."""
        data, position = self._data, self._payload_bytes
        small = 0
        while small < _PIECE_FRAMES and len(data) - position >= 2:
            length, header = data[position + 1] & 0x7F, 6
            if length >= 126:
                width = 2 if length == 126 else 8
                if len(data) - position < 2 + width:
                    break
                length, header = int.from_bytes(data[position + 2 : position + 2 + width], "big"), 6 + width
            else:
                small += 1
            position += header + length
        end = min(position, len(data))
        self._payload_bytes = position - end
        return end


class _WebSocketServer(trio_websocket.WebSocketServer):
    """The library's server, in which what one client does wrong ends its connection and not the relay."""

    relay: Relay

    async def _handle_connection(self, stream: trio.abc.Stream) -> None:
        # Some of it leaves the library as exceptions of its parts. Faults of our own were reported before they got here.
        with suppress(Exception):
            plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            assert isinstance(plain, trio.SocketStream)
            if self.relay.has_descriptor_for(plain.socket):
                bound_unsent(plain.socket)
                _plain.set(plain.socket)
                stream.receive_some = _Paced(stream.receive_some).receive_some  # type: ignore[method-assign] # see there
                await super()._handle_connection(stream)
        await trio.aclose_forcefully(stream)


class _RequestRejected(Exception):
    """Ends a connection whose request was refused; the library would wait for the client to go."""


async def _serve(
    relay: Relay, listeners: list[socket.socket], context: ssl.SSLContext | None, ready: Callable[[], None]
) -> None:
    library = _Library(relay)
    async with trio.open_nursery() as nursery:
        for worker in relay.workers:
            nursery.start_soon(library.drain_worker, worker.fileno())
        nursery.start_soon(library.turn_on)
        nursery.start_soon(library.wake_the_resting)
        nursery.start_soon(library.tick)
        streams: list[trio.SSLListener[trio.SocketStream] | trio.SocketListener] = []
        for listener in listeners:
            listener.setblocking(False)
            plain = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            streams.append(trio.SSLListener(plain, context) if context else plain)
        async with trio.open_nursery() as accepting:
            server = _WebSocketServer(
                library.handle,
                streams,
                handler_nursery=nursery,
                message_queue_size=1,
                max_message_size=MESSAGE_BYTES_MAX,
                connect_timeout=HANDSHAKE_S_MAX,
                disconnect_timeout=CLOSE_S_MAX,
            )
            server.relay = relay
            await accepting.start(server.run)
            with trio.open_signal_receiver(*ending_signals()) as signals:
                relay.ready = True
                ready()
                async for _ in signals:
                    break
            accepting.cancel_scope.cancel()
        relay.go_away()
        library.turn()
        while not relay.may_close():
            await trio.sleep(0.01)
        relay.close_all()
        library.turn()
        while relay.peers and not relay.overdue():
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


def run(
    relay: Relay, listeners: list[socket.socket], context: ssl.SSLContext | None, ready: Callable[[], None]
) -> None:
    """Serve until a signal that ends it, then drain."""
    gc.collect()
    gc.freeze()
    trio.run(_serve, relay, listeners, context, ready)
