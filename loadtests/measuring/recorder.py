"""Records latencies in plain arrays on the hot path, and folds them once a second into histograms: now, and over time."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import parse_series_name


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
