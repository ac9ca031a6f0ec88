"""Log-linear histograms of durations, which merge exactly.

Layout: HdrHistogram's with a unit of 1 ns and three significant digits. A value below 2048 ns has a counter of its own;
above, each power of two is cut into 1024 equal parts, so a counter is never wider than 1/1024 of its value.

    value (ns)      bucket b                    index
    0 .. 2047       0                           value
    2^k .. 2^(k+1)  k - 10                      1024 * b + (value >> b)

What does not fit is kept: values past an hour and more (2^42 ns) rank above all others and are counted apart, and
negative ones, which only a clock error can produce, are counted apart and stand in no percentile.

Source: Gil Tene, HdrHistogram; the index is that of its `countsArrayIndex`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.int64]

SIGNIFICANT_DIGITS: Final = 3
_HALF_BITS: Final = 10
_HALF: Final = 1 << _HALF_BITS
"""1024 counters a power of two: the least power of two that resolves three significant digits."""
SUB_BUCKETS: Final = 2 * _HALF
_MASK: Final = SUB_BUCKETS - 1
BUCKETS: Final = 32
VALUE_NS_MAX: Final = (1 << (_HALF_BITS + BUCKETS)) - 1
"""4,398 s. Larger values are counted as overflow, with the exact maximum kept."""
COUNTERS_MAX: Final = (BUCKETS + 1) * _HALF
_INT64_MAX: Final = 2**63 - 1

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
"""Those that results and tables show."""


def _index(value_ns: int) -> int:
    bucket = (value_ns | _MASK).bit_length() - (_HALF_BITS + 1)
    return (bucket << _HALF_BITS) + (value_ns >> bucket)


def _lowest(index: int) -> int:
    bucket = max((index >> _HALF_BITS) - 1, 0)
    return (index - (bucket << _HALF_BITS)) << bucket


def _highest(index: int) -> int:
    return _lowest(index + 1) - 1


class Histogram:
    """Counts of durations in ns, to three significant digits; merging loses nothing.

    `count` leaves the negative values out; `min_ns`, `max_ns` and `sum_ns` are exact, 0 while `count` is 0.
    """

    __slots__ = (
        "_counts",
        "count",
        "max_ns",
        "min_ns",
        "negative_count",
        "negative_min_ns",
        "overflow_count",
        "sum_ns",
    )

    def __init__(self) -> None:
        self._counts: Values = np.zeros(0, np.int64)
        self.count = 0
        self.min_ns = 0
        self.max_ns = 0
        self.sum_ns = 0
        self.overflow_count = 0
        self.negative_count = 0
        self.negative_min_ns = 0

    def record(self, value_ns: int) -> None:
        """Count one value. For many, `record_many` is some hundred times cheaper a value."""
        self.record_many(np.array([value_ns], np.int64))

    def record_many(self, values: Values) -> None:
        """Count int64 durations in ns, in any order."""
        if not values.size:
            return
        low = int(values.min())
        if low < 0:
            negative = values < 0
            self.negative_count += int(np.count_nonzero(negative))
            self.negative_min_ns = min(self.negative_min_ns, low)
            values = values[~negative]
            if not values.size:
                return
            low = int(values.min())
        high = int(values.max())
        # The sum is exact, so that the order of merging cannot show; int64 suffices for all but absurd values.
        total = int(values.sum()) if high <= _INT64_MAX // values.size else sum(values.tolist())
        self._widen(values.size, low, high, total)
        if high > VALUE_NS_MAX:
            fits = values <= VALUE_NS_MAX
            self.overflow_count += values.size - int(np.count_nonzero(fits))
            values = values[fits]
            if not values.size:
                return
            high = int(values.max())
        # frexp gives the bit length, exact below 2^53.
        buckets = np.frexp((values | _MASK).astype(np.float64))[1].astype(np.int64) - (_HALF_BITS + 1)
        # Counters below the smallest value are not even looked at: most of the array is theirs.
        first = _index(low)
        counts = np.bincount((buckets << _HALF_BITS) + (values >> buckets) - first)
        self._reserve(first + counts.size)
        self._counts[first : first + counts.size] += counts

    def merge(self, other: Histogram) -> None:
        """Add the other's counts; the same as having recorded its values here."""
        if other.count:
            self._widen(other.count, other.min_ns, other.max_ns, other.sum_ns)
            self._reserve(other._counts.size)
            first = _index(min(other.min_ns, VALUE_NS_MAX))
            self._counts[first : other._counts.size] += other._counts[first:]
        self.overflow_count += other.overflow_count
        self.negative_count += other.negative_count
        self.negative_min_ns = min(self.negative_min_ns, other.negative_min_ns)

    def _widen(self, count: int, low: int, high: int, total: int) -> None:
        self.min_ns = min(self.min_ns, low) if self.count else low
        self.max_ns = max(self.max_ns, high)
        self.sum_ns += total
        self.count += count

    def _reserve(self, counters: int) -> None:
        if counters > self._counts.size:
            # Whole buckets, so that a slowly rising maximum does not copy each time.
            grown = np.zeros(-(-counters // _HALF) * _HALF, np.int64)
            grown[: self._counts.size] = self._counts
            self._counts = grown

    @property
    def mean_ns(self) -> int:
        return self.sum_ns // self.count if self.count else 0

    def percentile(self, percent: float) -> int:
        """Return the value in ns that `percent` of the values do not exceed: nearest rank, its counter's upper end.

        Never more than `max_ns`, never less than `min_ns`; 0 while nothing was counted, so look at `count` first.
        """
        return self.percentiles((percent,))[0]

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """Return `percentile` of each, for the price of one."""
        if not all(0 <= percent <= 100 for percent in percents):
            raise ValueError(f"percentiles lie between 0 and 100, not {percents}")
        if not self.count:
            return [0] * len(percents)
        cumulated = np.cumsum(self._counts)
        # The least rank counts as at least `percent`; the subtrahend keeps 99.9 % of 1000 at 999 in binary fractions.
        ranks = [max(1, ceil(percent * self.count / 100 - 1e-9)) for percent in percents]
        indexes = np.searchsorted(cumulated, ranks).tolist()
        return [
            self.max_ns if index >= self._counts.size else max(self.min_ns, min(self.max_ns, _highest(index)))
            for index in indexes
        ]

    def cumulative(self, bounds_ns: Sequence[int]) -> list[int]:
        """Return for each bound how many values are not above it, as `le` of Prometheus asks.

        Values that share the bound's own counter, within 1/1024 of it, are taken as not above.
        """
        if not self._counts.size:
            return [0] * len(bounds_ns)
        cumulated = np.cumsum(self._counts)
        last = self._counts.size - 1
        return [0 if bound < 0 else int(cumulated[min(_index(bound), last)]) for bound in bounds_ns]

    def counters(self) -> tuple[list[int], list[int]]:
        """Return (indexes, counts) of the counters that are not zero, in ascending order; overflow left out."""
        indexes = self._used()
        return indexes.tolist(), self._counts[indexes].tolist()

    def _used(self) -> Values:
        first = _index(min(self.min_ns, VALUE_NS_MAX))
        # Looking for the non-zero among booleans is several times faster than among integers.
        return np.flatnonzero(self._counts[first:] != 0) + first

    def points(self) -> list[tuple[int, int]]:
        """Return (upper end in ns, cumulated count) of each counter that is not zero: the whole distribution."""
        rows: list[tuple[int, int]] = []
        seen = 0
        for index, count in zip(*self.counters(), strict=True):
            seen += count
            rows.append((min(_highest(index), self.max_ns), seen))
        if self.overflow_count:
            rows.append((self.max_ns, seen + self.overflow_count))
        return rows

    def to_wire(self) -> dict[str, Any]:
        """Return a sparse form for JSON or MessagePack: `gaps` are the distances between used counters."""
        indexes = self._used()
        return {
            "count": self.count,
            "min_ns": self.min_ns,
            "max_ns": self.max_ns,
            "sum_ns": self.sum_ns,
            "overflow": self.overflow_count,
            "negative": self.negative_count,
            "negative_min_ns": self.negative_min_ns,
            "gaps": np.diff(indexes, prepend=0).tolist(),
            "counts": self._counts[indexes].tolist(),
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Histogram:
        """Return the histogram that `to_wire` described. ValueError if it cannot be one."""
        histogram = cls()
        try:
            scalars = [int(wire[key]) for key in _SCALARS]
            gaps = np.array(wire["gaps"], np.int64)
            counts = np.array(wire["counts"], np.int64)
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a histogram: {error!r}") from None
        (
            histogram.count,
            histogram.min_ns,
            histogram.max_ns,
            histogram.sum_ns,
            histogram.overflow_count,
            histogram.negative_count,
            histogram.negative_min_ns,
        ) = scalars
        if gaps.ndim != 1 or gaps.shape != counts.shape:
            raise ValueError("not a histogram: gaps and counts differ in length")
        indexes = np.cumsum(gaps)
        if indexes.size:
            if indexes[0] < 0 or indexes[-1] >= COUNTERS_MAX or (np.diff(indexes) <= 0).any() or (counts <= 0).any():
                raise ValueError("not a histogram: counters out of range or out of order")
            last = COUNTERS_MAX if histogram.overflow_count else _index(max(0, histogram.max_ns))
            if indexes[0] != _index(max(0, histogram.min_ns)) or indexes[-1] > last:
                raise ValueError("not a histogram: values beyond its minimum or maximum")
            histogram._reserve(int(indexes[-1]) + 1)
            histogram._counts[indexes] = counts
        if histogram.count != int(counts.sum()) + histogram.overflow_count:
            raise ValueError("not a histogram: the counters do not add up to the count")
        return histogram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.to_wire() == other.to_wire()

    __hash__ = None  # type: ignore[assignment]  # mutable, and the standard way to say so

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}, p50 {self.percentile(50)} ns, max {self.max_ns} ns>"


_SCALARS: Final = ("count", "min_ns", "max_ns", "sum_ns", "overflow", "negative", "negative_min_ns")
