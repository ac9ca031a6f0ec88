"""Compares a worker's clock with the relay's, by the four-stamp exchange on a connection of its own."""

from __future__ import annotations

from time import monotonic_ns
from typing import Final

from loadtests.dialects.base import Dialect, Failed, Ready, Reply, Timed
from loadtests.driver.connection import Connection
from loadtests.driver.context import Context
from loadtests.measuring.clock import OffsetEstimator

PROBE_NS: Final = 100_000_000
"""How often the clock is compared with the relay's: the estimate takes the best of many."""
FIRST_PROBES: Final = 10
FIRST_PROBE_NS: Final = 20_000_000
"""The first come faster: there is to be an estimate when the load begins."""
PROBE_AGAIN_NS: Final = 1_000_000_000


class ClockProbe:
    """The estimate of this worker's offset."""

    _dialect: Dialect  # of the present connection

    def __init__(self, context: Context) -> None:
        self._context = context
        self._connection: Connection | None = None
        self._asking = False
        self.estimate = OffsetEstimator()

    def start(self) -> None:
        if self._context.features.tells_time:
            self._dialect = self._context.dialect()
            self._connection = self._context.connect(self)

    def connected(self, now_ns: int) -> None:
        self._send(self._dialect.opening())

    def received(self, data: bytes, now_ns: int) -> None:
        for event in self._dialect.receive(data):
            if isinstance(event, Timed):
                arrived_ns = now_ns + self._context.phase.shift_ns
                self.estimate.add(event.sent_ns, event.received_ns, event.replied_ns, arrived_ns)
            elif isinstance(event, Reply):
                self._send(event.data)
            elif isinstance(event, Ready) and not self._asking:
                self._asking = True
                self._ask(0, now_ns)
            elif isinstance(event, Failed):
                self._context.counts.count("clock: " + event.text)

    def closed(self, reason: str, now_ns: int) -> None:
        self._connection = None
        self._context.loop.at(now_ns + PROBE_AGAIN_NS, lambda due_ns, now_ns: self.start())

    def _ask(self, _due_ns: int, now_ns: int) -> None:
        self._asking = self._connection is not None and self._connection.open
        if self._asking:
            self._send(self._dialect.time(monotonic_ns() + self._context.phase.shift_ns))
            pause_ns = FIRST_PROBE_NS if self.estimate.count < FIRST_PROBES else PROBE_NS
            self._context.loop.at(now_ns + pause_ns, self._ask)

    def _send(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.send(data)
