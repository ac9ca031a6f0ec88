"""The offset between a worker's clock and the relay's, with a bound on its error.

The four stamps of TIME (relay/PROTOCOL.md section 6) give for each exchange

    offset = ((received - sent) + (replied - arrived)) / 2        the relay's clock less ours
    error  = ((arrived - sent) - (replied - received)) / 2        half the way, without the relay's share

The offset is off by less than the error however unequal the two ways are, for the true delay of neither is negative. So
the exchange with the least error tells most: the estimate is its, for as long as it lies within the window. Meanwhile
the clocks may drift apart, so an exchange's error grows with its age.

Workers whose stamps come from the same clock need none of this: `clock_id` is equal for all processes of one boot.

Source: Mills, RFC 5905 section 8 (on-wire protocol) and section 10 (clock filter).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Final

WINDOW_NS: Final = 60_000_000_000
"""Exchanges older than this are forgotten: routes and temperatures change."""
WINDOW_MAX: Final = 1_024
"""Exchanges kept; more within the window push out the oldest."""
EXCHANGES_MIN: Final = 4
"""Fewer say too little: the first exchange of a connection is often delayed."""
DRIFT_PPM: Final = 100
"""How fast two clocks may run apart: twice the 50 ppm that ordinary crystals stay within."""


class OffsetEstimator:
    """Estimates one worker's offset from the exchanges that it feeds in. All stamps in ns.

    The offset is wanted at the arrival of the last exchange; `error_ns` bounds it there.
    """

    __slots__ = ("_exchanges", "_now_ns", "count", "rejected")

    def __init__(self) -> None:
        self._exchanges: deque[tuple[int, int, int]] = deque(maxlen=WINDOW_MAX)  # (arrived, twice offset, twice error)
        self._now_ns = 0
        self.count = 0
        """Exchanges taken, and ..."""
        self.rejected = 0
        """... those refused, because no clocks that run forward can have stamped them."""

    def add(self, sent_ns: int, received_ns: int, replied_ns: int, arrived_ns: int) -> None:
        """Take an exchange: sent and arrived by our clock, received and replied by the relay's."""
        twice_error = (arrived_ns - sent_ns) - (replied_ns - received_ns)
        if twice_error < 0 or replied_ns < received_ns:
            self.rejected += 1
            return
        self.count += 1
        self._now_ns = max(self._now_ns, arrived_ns)
        self._exchanges.append((arrived_ns, (received_ns - sent_ns) + (replied_ns - arrived_ns), twice_error))
        while self._now_ns - self._exchanges[0][0] > WINDOW_NS:
            self._exchanges.popleft()

    @property
    def valid(self) -> bool:
        """Whether there were enough exchanges to believe the estimate."""
        return self.count >= EXCHANGES_MIN

    @property
    def offset_ns(self) -> int:
        """The relay's clock less ours; 0 before the first exchange."""
        return self._best()[0]

    @property
    def error_ns(self) -> int:
        """The true offset lies within `offset_ns` plus or minus this; 0 before the first exchange, so ask `valid`."""
        return self._best()[1]

    def _best(self) -> tuple[int, int]:
        if not self._exchanges:
            return 0, 0
        error_ns, twice_offset = min((self._error_ns(exchange), exchange[1]) for exchange in self._exchanges)
        return twice_offset // 2, error_ns

    def _error_ns(self, exchange: tuple[int, int, int]) -> int:
        arrived_ns, _, twice_error = exchange
        drift_ns = (self._now_ns - arrived_ns) * DRIFT_PPM / 1e6
        # One more for the half that the integer offset may have lost.
        return ceil(twice_error / 2 + drift_ns) + 1


def one_way_error_ns(clocks: Iterable[tuple[int, int | None]]) -> int | None:
    """Return the bound on the error of a time between any two of `clocks`, given as (clock id, error or None).

    0 if all are one clock. None if there are several and one of them has no estimate. Otherwise the sum of the two
    largest, since a sender's and a recipient's offsets are both wrong by as much.
    """
    worst: dict[int, int | None] = {}
    for clock, error_ns in clocks:
        known = worst.get(clock, 0)
        worst[clock] = None if known is None or error_ns is None else max(known, error_ns)
    if len(worst) < 2:
        return 0
    errors = [error_ns for error_ns in worst.values() if error_ns is not None]
    return sum(sorted(errors)[-2:]) if len(errors) == len(worst) else None


def clock_id(shift_ns: int = 0) -> int:
    """Return 63 bits that are equal for all processes whose CLOCK_MONOTONIC is one clock, and which nothing else tells.

    That is one boot of one kernel and one time namespace (time_namespaces(7)). A clock that is shifted on purpose, to
    try out the estimation, is another clock. Where the kernel names no boot, every process has a clock of its own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/time").readlink())
    except OSError:
        boot, namespace = str(os.getpid()), os.uname().nodename
    text = f"{boot}|{namespace}|{shift_ns}"
    digest = blake2b(text.encode(), digest_size=8, person=b"relaymark.clock").digest()
    return int.from_bytes(digest, "big") >> 1
