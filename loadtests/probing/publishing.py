"""Many records from several publishers, at a bounded rate, with a bounded number under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from loadtests.probing.exchange import ANSWER_S_MAX, RECORD_BYTES, Exchange, Trouble
from loadtests.probing.line import Line, ProbeRecord

WINDOW: Final = 32
"""Records of one publisher under way at once: few enough for every relay's own limit."""


class Publishing:
    """Publishers, each with its line. `witness`: a reader by whose copies those are paced whom nothing is acknowledged."""

    def __init__(self, exchange: Exchange, publishers: list[Line], witness: Line) -> None:
        self.sent: list[ProbeRecord] = []
        self._exchange = exchange
        self._publishers = publishers
        self._witness = witness

    def acknowledged(self) -> set[int]:
        """Return the ids of what was acknowledged."""
        return {id_ for line in self._publishers for id_ in line.acknowledged}

    def _under_way(self) -> int:
        if self._exchange.features.acknowledges:
            return len(self.sent) - sum(len(line.acknowledged) for line in self._publishers)
        return len(self.sent) - len(self._witness.came)

    def send(self, total: int, *, size: int = RECORD_BYTES, wait_s: float = ANSWER_S_MAX) -> None:
        """Publish `total` records in all, each publisher's in bursts, and wait for the last. Raises Trouble."""
        count = len(self._publishers)
        burst = max(1, WINDOW // 4)
        rest = total
        while rest:
            for number, line in enumerate(self._publishers):
                records = [self._exchange.record(number, size) for _ in range(min(burst, rest))]
                rest -= len(records)
                self._publish(line, records)
            if not self._exchange.until(lambda: self._under_way() <= WINDOW * count // 2 or self._over(), wait_s):
                raise Trouble(f"{self._under_way()} records were under way for {wait_s:.0f} s without an answer.")
            self._check()
        self._exchange.until(lambda: self._under_way() <= 0 or self._over(), wait_s)
        self._check()

    def send_for(self, duration_s: float, *, rate: float, size: int, each_turn: Callable[[], None]) -> int:
        """Publish at `rate` a second for so long, by the first publisher; return how many were due."""
        began_s = time.monotonic()
        line = self._publishers[0]
        while (passed_s := time.monotonic() - began_s) < duration_s:
            if len(self.sent) < int(passed_s * rate) and self._under_way() < WINDOW:
                self._publish(line, [self._exchange.record(0, size)])
                self._exchange.turn(0)
            else:
                self._exchange.turn(0.002)
            each_turn()
            self._check()
        return int(duration_s * rate)

    def _publish(self, line: Line, records: list[ProbeRecord]) -> None:
        self.sent += records
        line.publish(*records)

    def _over(self) -> bool:
        return any(line.ended is not None for line in self._publishers)

    def _check(self) -> None:
        for line in self._publishers:
            if line.ended is not None:
                raise Trouble(f"A publisher's connection ended: {line.ended.rstrip('.')}.")
