"""Latencies of a run: plain arrays on the hot path, folded once a second into log-linear histograms that merge exactly.

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

from array import array
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any, Final, TypeAlias

import msgspec
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

METRICS: Final[Mapping[str, str]] = {
    "deliver": "from the sender's stamp to the recipient; basis intended or sent",
    "deliver_slow": "as deliver, from the intended send, to recipients who read slowly on purpose",
    "ack": "from publishing to the relay's acknowledgement",
    "join": "from connecting to being subscribed",
    "resume": "from connecting again to having caught up",
    "seal": "sealing one record",
    "open": "opening one record",
    "lag": "how late the generator sent, against its schedule",
    "loop_lag": "how late the generator's loop ran",
    "fanout_first": "from the intended send to the first recipient in a room",
    "fanout_median": "from the intended send to the median recipient in a room",
    "fanout_last": "from the intended send to the last recipient in a room",
    "echo": "round trip to an echo server: the floor of this rig",
}
"""The metrics of a run and what each measures."""

LABELS: Final = frozenset({"kind", "basis", "size", "suite"})


def series_name(metric: str, **labels: str) -> str:
    """Return the canonical name, labels sorted: `deliver{basis=intended,kind=message}`. ValueError if not known."""
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; there are {', '.join(METRICS)}")
    for label, value in labels.items():
        if label not in LABELS:
            raise ValueError(f"unknown label {label!r}; there are {', '.join(sorted(LABELS))}")
        if not value or not all(character.isalnum() or character in "_-." for character in value):
            raise ValueError(f"label {label}={value!r}: letters, digits, '_', '-' and '.' only")
    if not labels:
        return metric
    return f"{metric}{{{','.join(f'{label}={labels[label]}' for label in sorted(labels))}}}"


def parse_series_name(name: str) -> tuple[str, dict[str, str]]:
    """Return (metric, labels) of a name that `series_name` made. ValueError if it did not."""
    metric, brace, rest = name.partition("{")
    labels: dict[str, str] = {}
    if brace:
        labels = dict(part.partition("=")[::2] for part in rest.removesuffix("}").split(","))
    if series_name(metric, **labels) != name:
        raise ValueError(f"{name!r} is not a series name")
    return metric, labels


def size_decade(size: int) -> str:
    """Return the label of a room's size: "1-9", "10-99", "100-999", ..."""
    low = 10 ** (len(str(max(size, 1))) - 1)
    return f"{low}-{10 * low - 1}"


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


def interval_width_s(second: int) -> int:
    """Return how many seconds one interval of the history spans at `second` of the run.

    One second in the first twenty minutes, ten until 200 minutes, then a hundred: a long run's history grows little.
    """
    if second < 1_200:
        return 1
    return 10 if second < 12_000 else 100


class HistoryRow(msgspec.Struct, frozen=True, order=True, gc=False):
    """One series in one interval, from merged histograms; `second` counts from the start of the run."""

    second: int
    width_s: int
    name: str
    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int


class Interval(msgspec.Struct, frozen=True):
    """The histogram behind a row of the history."""

    second: int
    width_s: int
    name: str
    histogram: Histogram


OPEN_SECONDS: Final = 5
"""How long an interval waits for workers that report late. What comes later still counts in the totals."""


class Recorder:
    """Named series of durations. A worker appends and folds; a master merges the intervals of its workers.

        append = recorder.series(series_name("ack", kind="message")).append
        append(duration_ns)                         # the hot path: one C call
        sent = recorder.fold(now_ns)                # once a second, on the same thread
        master.merge_interval(second, {name: histogram.to_wire() for name, histogram in sent.items()})

    `totals` holds every series so far; `history()`, `intervals()` and `recent()` tell of it over time, unless
    `keep_history` is false: a worker that reports to a master need not keep what the master keeps.
    """

    def __init__(self, started_ns: int = 0, *, keep_history: bool = True) -> None:
        self.totals: dict[str, Histogram] = {}
        self.late_intervals = 0
        """Intervals that came when their second was already closed: in the totals, not in the history."""
        self.started_ns = started_ns
        self._keep_history = keep_history
        self._buffers: dict[str, array[int]] = {}
        self._open: dict[tuple[int, str], Histogram] = {}
        self._open_from = 0
        self._newest = 0
        self._rows: list[HistoryRow] = []
        self._kept: list[tuple[int, int, str, dict[str, Any]]] = []

    def series(self, name: str) -> array[int]:
        """Return the buffer of a series; append ns to it. It stays the same object for the recorder's life."""
        buffer = self._buffers.get(name)
        if buffer is None:
            parse_series_name(name)
            buffer = self._buffers[name] = array("q")
        return buffer

    def fold(self, now_ns: int) -> dict[str, Histogram]:
        """Empty the buffers into `totals` and the history; return what came since the last fold, empty series left out.

        `now_ns` is on the clock of `started_ns`, and gives the second of the run.
        """
        folded: dict[str, Histogram] = {}
        for name, buffer in self._buffers.items():
            if not buffer:
                continue
            values = np.array(buffer, np.int64)  # a copy: an array cannot shrink while numpy looks at it
            del buffer[: values.size]
            histogram = folded[name] = Histogram()
            histogram.record_many(values)
        self._take(self.second(now_ns), folded)
        return folded

    def second(self, now_ns: int) -> int:
        """Return the second of the run, 0 for anything before its start."""
        return max(0, (now_ns - self.started_ns) // 1_000_000_000)

    def merge_interval(self, second: int, intervals: Mapping[str, Mapping[str, Any]]) -> None:
        """Take what a worker folded in `second` of the run, as name -> `to_wire()`. ValueError if malformed."""
        merged = {name: Histogram.from_wire(wire) for name, wire in intervals.items()}
        for name in merged:
            parse_series_name(name)
        self._take(second, merged)

    def _take(self, second: int, intervals: Mapping[str, Histogram]) -> None:
        start = second - second % interval_width_s(second)
        late = start < self._open_from
        for name, histogram in intervals.items():
            self._add(self.totals, name, histogram)
            if late:
                self.late_intervals += 1
            elif self._keep_history:
                self._add(self._open, (start, name), histogram)
        self._newest = max(self._newest, second)
        self._close(self._newest + 1 - OPEN_SECONDS)

    @staticmethod
    def _add(where: dict[Any, Histogram], key: object, histogram: Histogram) -> None:
        known = where.get(key)
        if known is None:
            known = where[key] = Histogram()
        known.merge(histogram)

    def _close(self, until: int) -> None:
        """Turn open intervals that end at or before `until` into rows."""
        closing = sorted(key for key in self._open if key[0] + interval_width_s(key[0]) <= until)
        for start, name in closing:
            histogram = self._open.pop((start, name))
            width = interval_width_s(start)
            self._open_from = max(self._open_from, start + width)
            self._rows.append(_row(start, width, name, histogram))
            self._kept.append((start, width, name, _packed(histogram)))

    def recent(self, name: str) -> Histogram:
        """Return the series over the intervals that are still open, some five seconds: for a live display."""
        merged = Histogram()
        for (_, series), histogram in self._open.items():
            if series == name:
                merged.merge(histogram)
        return merged

    def history(self) -> list[HistoryRow]:
        """Return all rows in order of time, then of name; an interval without values has none."""
        pending = [_row(start, interval_width_s(start), name, self._open[start, name]) for start, name in self._open]
        return sorted(self._rows + pending)

    def intervals(self) -> Iterator[Interval]:
        """Yield the histogram behind each row of `history()`, in its order."""
        rows: list[tuple[int, int, str, Histogram | dict[str, Any]]] = [*self._kept]
        rows += [(start, interval_width_s(start), name, open_) for (start, name), open_ in self._open.items()]
        for second, width, name, kept in sorted(rows, key=lambda row: row[:3]):
            yield Interval(second, width, name, kept if isinstance(kept, Histogram) else Histogram.from_wire(kept))


def _row(start: int, width: int, name: str, histogram: Histogram) -> HistoryRow:
    p50, p90, p99 = histogram.percentiles((50, 90, 99))
    return HistoryRow(start, width, name, histogram.count, p50, p90, p99, histogram.max_ns)


def _packed(histogram: Histogram) -> dict[str, Any]:
    """Keep a closed interval at some ten bytes a used counter, a twentieth of the dense form."""
    wire = histogram.to_wire()
    wire["gaps"] = array("H", wire["gaps"])
    wire["counts"] = array("q", wire["counts"])
    return wire


__all__ = [
    "BUCKETS",
    "COUNTERS_MAX",
    "LABELS",
    "METRICS",
    "OPEN_SECONDS",
    "PERCENTILES",
    "SIGNIFICANT_DIGITS",
    "SUB_BUCKETS",
    "VALUE_NS_MAX",
    "Histogram",
    "HistoryRow",
    "Interval",
    "Recorder",
    "Values",
    "interval_width_s",
    "parse_series_name",
    "series_name",
    "size_decade",
]
