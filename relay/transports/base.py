"""What all transports share: the relay behind them, its clock and randomness, and its way down.

A transport accepts connections, gives their bytes to a Peer, calls the hub's `turn`, writes what outboxes gathered, and
lets go of peers that ended. Everything else is decided in the core.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from relay.buckets import Buckets
from relay.hub import Hub
from relay.limits import (
    CHALLENGE_BYTES,
    DESCRIPTORS_RESERVED,
    DRAIN_S,
    EXPIRY_SWEEP_S,
    INCOMPLETE_BYTES_MAX,
    RETAIN_S,
    STREAMS_MAX,
    UNSENT_BYTES_MAX,
)
from relay.peer import Echo, Peer
from relay.retention import PACE, RetentionClock
from relay.session import Rates, Session
from relay.store import Store
from relay.store.worker import Worker
from relay.stream import inline
from relay.transports.journal import Journal
from relay.wheel import Wheel

NS_PER_S: Final = 1_000_000_000
_TCP_NOTSENT_LOWAT: Final = 25
"""Linux; the socket module has a name for it from Python 3.12 on."""
GOAWAY_SPREAD_S: Final = 5.0
"""Clients are told to come back at a random time within this, so that they do not come back all at once."""
CLOSING_SHARE: Final = 0.6
"""The part of the drain deadline after which clients are closed even if the store has not settled."""


def ending_signals() -> list[signal.Signals]:
    """Return the signals that drain a relay: SIGTERM, SIGINT, and SIGHUP unless it was started to outlive its terminal."""
    outlives = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup(1)
    return [signal.SIGTERM, signal.SIGINT, *([] if outlives else [signal.SIGHUP])]


STEP_NS_MIN: Final = 1_000_000
"""Smaller differences between the clocks are noise of reading them."""


class Clock:
    """Time in ns that never steps: the wall clock at start, and the monotonic clock from there. Timers go by it."""

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        return time.monotonic_ns() + self._offset_ns


class AnySocket(Protocol):
    """A socket, of whatever library."""

    def fileno(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def bound_unsent(sock: AnySocket, bytes_max: int = UNSENT_BYTES_MAX) -> None:
    """Have the kernel take about so many bytes that it cannot send yet, and then refuse. tcp(7), TCP_NOTSENT_LOWAT."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, bytes_max)


def take_the_last(sock: AnySocket) -> None:
    """Have the kernel take everything: a client that reads again finds the close frame behind what it was sent."""
    bound_unsent(sock, 2**31 - 1)


def describe(error: Exception) -> str:
    """Return where a fault came from: never its text, which may hold a key or a name."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"fault {type(error).__name__} at {where}; the connection was closed"


class Relay:
    """Hub, store and peers of one process."""

    def __init__(
        self,
        store: Store,
        *,
        rates: Rates | None = None,
        echo: bool = False,
        allow_suite_0: bool = False,
        retain_s: float = RETAIN_S,
        drain_s: float = DRAIN_S,
        streams_max: int = STREAMS_MAX,
        incomplete_bytes_max: int = INCOMPLETE_BYTES_MAX,
        clock: Callable[[], int] | None = None,
        wall: Callable[[], int] | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.store = store
        self.rates = rates or Rates()
        self.echo = echo
        self.retain_s = retain_s
        self.drain_s = drain_s
        self.clock = clock or Clock()
        self._wall = wall or (self.clock if clock else time.time_ns)
        self.log = log
        self.workers = [] if store.instant else [Worker("read"), Worker("write")]
        read, write = (worker.submit for worker in self.workers) if self.workers else (inline, inline)
        self.hub = Hub(
            store,
            new_epoch=lambda: int.from_bytes(os.urandom(8), "big"),
            read=read,
            write=write,
            suites=range(0 if allow_suite_0 else 1, 128),
            streams_max=streams_max,
            incomplete_bytes_max=incomplete_bytes_max,
            report=lambda error: log(describe(error)),
        )
        self.hub.now_ns = self.clock()
        self.peers: set[Peer] = set()
        self.accepted = 0
        self.rejected = 0
        self.gave_way = 0  # handshakes
        self.scrapes_gave_way = 0
        self.accepts_refused = 0  # by the system
        self.ready = False
        self.draining = False
        self.journal = Journal(log)
        self._watch()
        self.turn_times = Buckets()
        self.loop_lag_ns = 0
        self._ticked_ns = self.hub.now_ns
        self._wheel = Wheel(self.hub.now_ns / NS_PER_S)
        self._swept_ns = self.hub.now_ns - int(EXPIRY_SWEEP_S * NS_PER_S)
        self._retention = RetentionClock(store.swept_ns)

    def _watch(self) -> None:
        counters, watch = self.hub.counters, self.journal.watch
        watch("times no connection could be accepted: raise `ulimit -n`, or serve fewer", lambda: self.accepts_refused)
        watch("requests for metrics that took long gave way to new ones", lambda: self.scrapes_gave_way)
        watch("handshakes that took long gave way to new connections", lambda: self.gave_way)
        watch("clients were closed since they did not take their records", lambda: counters.slow_closed)
        watch("batches were refused by the store", lambda: counters.commit_failures)
        watch("reads were refused by the store", lambda: counters.read_failures)
        stored = self.store.statistics
        watch("runs were refused since their stream, the store or its disk is full", lambda: stored().full)
        watch(
            "stored rows were found damaged, and are gaps to clients: restore a backup, or let age forget them",
            lambda: stored().damaged,
        )

    @property
    def is_ready(self) -> bool:
        """Whether new clients are served: not while it goes down, nor while the store has lost its files."""
        return self.ready and self.store.fault is None

    def has_descriptor_for(self, sock: AnySocket) -> bool:
        """Whether an accepted socket leaves the reserve alone: the system gives the lowest descriptors first."""
        if sock.fileno() < resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_RESERVED:
            return True
        self.accepts_refused += 1
        return False

    def greet(self, path: str, accepted_ns: int | None = None) -> Peer:
        """Return the peer for a connection whose WebSocket handshake is done; its time for HELLO began at accept."""
        self.hub.now_ns = self.clock()
        peer = Echo(self.hub) if path == "/echo" else Session(self.hub, os.urandom(CHALLENGE_BYTES), self.rates)
        if accepted_ns is not None:
            peer.opened_ns = accepted_ns
        self.accepted += 1
        self.peers.add(peer)
        self._wheel.schedule(peer, 1.0)
        return peer

    def forget(self, peer: Peer) -> None:
        """The connection is gone."""
        peer.lost()
        self.peers.discard(peer)

    def tick(self) -> None:
        """Once a second: time limits, what the store could not read, retention."""
        now_ns = self.hub.now_ns = self.clock()
        self._follow_the_wall_clock()
        self.loop_lag_ns = max(0, now_ns - self._ticked_ns - NS_PER_S)
        self._ticked_ns = now_ns
        self.journal.look(now_ns)
        self.hub.tick(self._tell_notices)
        for member in self._wheel.advance(now_ns / NS_PER_S):
            if member in self.peers:
                self._wheel.schedule(member, member.tick())
        if now_ns - self._swept_ns >= EXPIRY_SWEEP_S * NS_PER_S:
            self._sweep(now_ns - self._swept_ns)
            self._swept_ns = now_ns

    def _tell_notices(self) -> None:
        for notice in self.store.notices():
            self.log(notice)

    def _follow_the_wall_clock(self) -> None:
        # The thread may lose its core between the two readings, which makes the difference larger.
        step_ns = min(-self.clock() + self._wall() for _ in range(3))
        changed_ns = step_ns - self.hub.step_ns
        if abs(changed_ns) >= STEP_NS_MIN:
            self.hub.step_ns = step_ns
            if abs(changed_ns) >= NS_PER_S:
                word = "forward" if changed_ns > 0 else "back"
                self.log(f"the clock was set {word} by {abs(changed_ns) / NS_PER_S:.0f} s: expiry and stamps follow")

    def _sweep(self, elapsed_ns: int) -> None:
        was_behind = self._retention.behind_ns > 0
        believed_ns = self._retention.believe(self.hub.wall_ns, elapsed_ns)
        behind_ns = self._retention.behind_ns
        if behind_ns and not was_behind:
            self.log(
                f"the clock is {behind_ns / NS_PER_S / 86_400:.1f} days ahead of the last sweep of old records: they are "
                f"deleted at {PACE} times the pace, for {behind_ns / NS_PER_S / 3600 / PACE:.1f} hours; if it is wrong, set it"
            )
        self.hub.expire(believed_ns - int(self.retain_s * NS_PER_S), believed_ns, int(EXPIRY_SWEEP_S * NS_PER_S))

    def drain_workers(self) -> None:
        """Take the store's answers."""
        for worker in self.workers:
            worker.drain()

    # -- going down: go_away, then `may_close` until true, then close_all, then `empty` or the deadline ----------

    def go_away(self) -> None:
        """Be not ready, and tell every client when to come back."""
        self.ready = False
        self.draining = True
        self._drain_began_ns = self.hub.now_ns = self.clock()
        for peer in self.peers:
            peer.go_away(random.randrange(int(GOAWAY_SPREAD_S * 1000)))

    def may_close(self) -> bool:
        """Whether every durable record that was taken is committed, or time is up."""
        return self.hub.settled or self._drained_for_s() > self.drain_s * CLOSING_SHARE

    def close_all(self) -> None:
        """Close every connection with DRAINING."""
        self.hub.now_ns = self.clock()
        for peer in list(self.peers):
            peer.drain()

    def overdue(self) -> bool:
        return self._drained_for_s() > self.drain_s

    def _drained_for_s(self) -> float:
        return (self.clock() - self._drain_began_ns) / NS_PER_S

    def close(self) -> None:
        """Let the store finish and close it."""
        for worker in self.workers:
            worker.close(self.drain_s)
        self.store.close()
