"""Durations counted in powers of two: one index and one addition each, turned into a histogram when somebody asks."""

from __future__ import annotations

from typing import Final

LOW_EXPONENT: Final = 14
"""16 us: shorter ones are counted together."""
HIGH_EXPONENT: Final = 34
"""17 s."""


class Buckets:
    """`counts[i]` durations were below 2**i ns and not below 2**(i-1)."""

    __slots__ = ("counts", "sum_ns")

    def __init__(self) -> None:
        self.counts = [0] * 65
        self.sum_ns = 0

    def add(self, duration_ns: int) -> None:
        self.counts[duration_ns.bit_length()] += 1
        self.sum_ns += duration_ns

    def cumulative(self) -> list[tuple[float, int]]:
        """Return (upper bound in seconds, count up to it) for every power of two from 16 us to 17 s."""
        total = sum(self.counts[:LOW_EXPONENT])
        rows = []
        for exponent in range(LOW_EXPONENT, HIGH_EXPONENT + 1):
            total += self.counts[exponent]
            rows.append(((1 << exponent) / 1e9, total))
        return rows

    def count(self) -> int:
        return sum(self.counts)
