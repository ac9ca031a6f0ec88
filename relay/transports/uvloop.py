"""The comparison transport on asyncio: one protocol object a connection, on uvloop. It moves bytes for the same core.

uvloop's own writing is kept from buffering: above HIGH_WATER_BYTES the socket counts as one that does not accept, and the
outbox, with its lanes and limits, takes over.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import uvloop

from relay.limits import HANDSHAKE_S_MAX, REST_S
from relay.outbox import Outbox
from relay.peer import Peer, Stage
from relay.transports.base import Relay, bound_unsent, ending_signals, take_the_last
from relay.transports.handshake import Handshake

HIGH_WATER_BYTES: Final = 16_384


class _Loop:
    """The relay on one event loop: a turn follows the callbacks that received something."""

    def __init__(self, relay: Relay, loop: asyncio.AbstractEventLoop) -> None:
        self.relay = relay
        self.hub = relay.hub
        self.loop = loop
        self._scheduled = False
        self._wake: asyncio.TimerHandle | None = None

    def schedule(self) -> None:
        """Have a turn when this iteration's callbacks are through."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self.turn)

    def turn(self) -> None:
        self._scheduled = False
        relay, hub = self.relay, self.hub
        if hub.turn():
            self.schedule()
        fanout = hub.fanout
        while fanout.dirty:
            dirty, fanout.dirty = fanout.dirty, []
            for box in dirty:
                box.dirty = False
                if box.owner is not None:
                    self._flush(box)
        ended, hub.ended = hub.ended, []
        for peer in ended:
            connection = peer.box.owner
            if connection is not None and (peer.overdue or not connection.paused):
                connection.finish()
        budget = hub.budget
        if budget.caught_up:
            caught_up, budget.caught_up = budget.caught_up, []
            for waited in caught_up:
                if waited.box.owner is not None:
                    waited.box.owner.look_whether_to_read()
        if budget.resting and self._wake is None:
            self._wake = self.loop.call_later(REST_S, self.wake_the_resting)
        relay.turn_times.add(max(0, relay.clock() - hub.now_ns))

    def wake_the_resting(self) -> None:
        """Have a turn in time for those whose rate was used up."""
        self._wake = None
        self.hub.now_ns = self.relay.clock()
        self.turn()

    def _flush(self, box: Outbox) -> None:
        connection = box.owner
        if connection.paused:
            box.stand()
            if box.ended:
                take_the_last(connection.transport.get_extra_info("socket"))
            if box.overflowing:
                self.hub.replay.fall_behind(connection.peer)
            connection.look_whether_to_read()
            return
        data = box.gather()
        connection.transport.write(data)
        box.pending.clear()
        self.hub.counters.sent_bytes += len(data)

    def drain_workers(self) -> None:
        self.hub.now_ns = self.relay.clock()
        self.relay.drain_workers()
        self.turn()


class _Connection(asyncio.Protocol):
    """One socket: its handshake, then its peer."""

    __slots__ = ("_accepted_ns", "_handshake", "_on", "_reading", "_timeout", "paused", "peer", "transport")

    transport: Any

    def __init__(self, on: _Loop) -> None:
        self._on = on
        self._handshake: Handshake | None = Handshake(echo=on.relay.echo)
        self._timeout: asyncio.TimerHandle | None = None
        self.peer: Peer | None = None
        self.paused = False
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._accepted_ns = self._on.relay.clock()
        if not self._on.relay.has_descriptor_for(self.transport.get_extra_info("socket")):
            self.transport.abort()
            return
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        bound_unsent(self.transport.get_extra_info("socket"))
        self._timeout = self._on.loop.call_later(HANDSHAKE_S_MAX, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        on = self._on
        on.hub.now_ns = now_ns = on.relay.clock()
        if self.peer is None:
            data = self._greet(data)
            if not data or self.peer is None:
                return
        on.hub.counters.received_bytes += len(data)
        self.peer.heard_ns = now_ns
        self.peer.receive_data(data)
        if self.peer.behind:
            self.look_whether_to_read()
        on.schedule()

    def _greet(self, data: bytes) -> bytes:
        """Go on with the handshake; return the bytes behind it."""
        if self._handshake is None:
            return b""
        answer = self._handshake.feed(data)
        if answer is None:
            return b""
        self._handshake = None
        if self._timeout is not None:
            self._timeout.cancel()
        self.transport.write(answer.response)
        relay = self._on.relay
        if answer.path is None or relay.draining:
            relay.rejected += 1
            self.transport.close()
            return b""
        self.peer = relay.greet(answer.path, self._accepted_ns)
        self.peer.box.owner = self
        return answer.rest

    def pause_writing(self) -> None:
        self.paused = True
        if self.peer is not None:
            self.peer.progress_ns = self._on.hub.now_ns

    def resume_writing(self) -> None:
        self.paused = False
        peer = self.peer
        if peer is None or peer.box.owner is None:
            return
        on = self._on
        box = peer.box
        on.hub.now_ns = peer.progress_ns = on.relay.clock()
        while box.standing is not None and not self.paused:
            on.hub.counters.sent_bytes += self._write(box)
        self.look_whether_to_read()
        if box.standing is None and not self.paused:
            if peer.state == Stage.ENDED:
                self.finish()
            else:
                on.hub.replay.drained(peer)
                on.schedule()

    def _write(self, box: Outbox) -> int:
        data = box.gather()
        self.transport.write(data)
        box.pending.clear()
        return len(data)

    def look_whether_to_read(self) -> None:
        """Read from a client unless it does not take its answers, or what it sent waits for its share of work."""
        peer = self.peer
        reading = peer is None or not (peer.box.choked or peer.behind)
        if reading != self._reading:
            self._reading = reading
            if reading:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def finish(self) -> None:
        if self.peer is not None and self.peer.overdue:
            self.transport.abort()
        elif self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
        if self.peer is None:
            self._on.relay.rejected += self._handshake is not None
            return
        self._on.relay.forget(self.peer)


async def _serve(
    relay: Relay, listeners: list[socket.socket], context: ssl.SSLContext | None, ready: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in ending_signals():
        loop.add_signal_handler(number, stop.set)
    on = _Loop(relay, loop)
    for worker in relay.workers:
        loop.add_reader(worker.fileno(), on.drain_workers)
    servers = [
        await loop.create_server(
            lambda: _Connection(on),
            sock=listener,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S_MAX if context else None,
        )
        for listener in listeners
    ]
    relay.ready = True
    ready()
    ticking = asyncio.create_task(_tick(relay, on))
    await stop.wait()
    for server in servers:
        server.close()
    relay.go_away()
    on.turn()
    while not relay.may_close():
        await asyncio.sleep(0.01)
    relay.close_all()
    on.turn()
    while relay.peers and not relay.overdue():
        await asyncio.sleep(0.01)
    ticking.cancel()
    for worker in relay.workers:
        loop.remove_reader(worker.fileno())


async def _tick(relay: Relay, on: _Loop) -> None:
    while True:
        await asyncio.sleep(1)
        relay.tick()
        on.turn()


def run(
    relay: Relay, listeners: list[socket.socket], context: ssl.SSLContext | None, ready: Callable[[], None]
) -> None:
    """Serve until a signal that ends it, then drain."""
    gc.collect()
    gc.freeze()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(relay, listeners, context, ready))
    finally:
        gc.unfreeze()
