"""Histograms in the formats of the HdrHistogram family: .hgrm (percentiles) and .hlog (one histogram an interval).

The encoding is the `hdrhistogram` package's, so that any tool that reads these formats reads ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from io import StringIO
from math import log2
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from loadtests.measuring.histogram import BUCKETS, SIGNIFICANT_DIGITS, SUB_BUCKETS, VALUE_NS_MAX, Histogram
from loadtests.measuring.recorder import Interval

_NS_PER_MS: Final = 1_000_000
_TICKS_PER_HALVING: Final = 5


def to_hdr(histogram: Histogram) -> Any:
    """Return an `hdrh.histogram.HdrHistogram` with the same counters, values in ns.

    Its format has no place for negative values, which are left out, nor for overflow, which is counted as the largest
    value that it can hold.
    """
    hdr = HdrHistogram(1, VALUE_NS_MAX, SIGNIFICANT_DIGITS)
    indexes, counts = histogram.counters()
    if histogram.count:
        counters = np.frombuffer(hdr.counts, np.int64)
        counters[indexes] = counts
        hdr.total_count = sum(counts)
        hdr.min_value = min(histogram.min_ns, VALUE_NS_MAX)
        hdr.max_value = min(histogram.max_ns, VALUE_NS_MAX)
        if histogram.overflow_count:
            hdr.record_value(VALUE_NS_MAX, histogram.overflow_count)
    return hdr


def hgrm(histogram: Histogram) -> bytes:
    """Return the percentile distribution as text, values in milliseconds; for an empty histogram only the heading.

    Written here, since the package walks over every counter in Python, 0.2 s a series; the steps are the package's
    (`PercentileIterator`, five to each halving of what is left to 100 %), and a test compares the two.
    """
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"]
    points = histogram.points()
    level = 0.0
    for value_ns, seen in points:
        reached = 100.0 * seen / histogram.count
        while reached >= level:
            rest = 1 - level / 100
            lines.append(f"{value_ns / _NS_PER_MS:12.3f} {level / 100:.12f} {seen:10d} {1 / rest:14.2f}\n")
            level += 100.0 / (_TICKS_PER_HALVING * 2 ** (log2(1 / rest) + 1))
            if seen == histogram.count:
                lines.append(f"{value_ns / _NS_PER_MS:12.3f} {1:.12f} {seen:10d}\n")
                break
    mean_ms, deviation_ms = histogram.mean_ns / _NS_PER_MS, _deviation_ns(points, histogram.mean_ns) / _NS_PER_MS
    lines += [
        f"#[Mean    = {mean_ms:12.3f}, StdDeviation   = {deviation_ms:12.3f}]\n",
        f"#[Max     = {histogram.max_ns / _NS_PER_MS:12.3f}, TotalCount     = {histogram.count:12d}]\n",
        f"#[Buckets = {BUCKETS:12d}, SubBuckets     = {SUB_BUCKETS:12d}]\n",
    ]
    return "".join(lines).encode()


def _deviation_ns(points: list[tuple[int, int]], mean_ns: int) -> float:
    if not points:
        return 0.0
    values, seen = np.array(points, np.float64).T
    counts = np.diff(seen, prepend=0)
    return float(np.sqrt(np.average((values - mean_ns) ** 2, weights=counts)))


def hlog(intervals: Iterable[Interval], started_unix_ns: int) -> bytes:
    """Return a histogram log, format 1.2: every interval of every series, the series as its tag, values in ns.

    A comma ends a tag in this format, so the ones in series names become semicolons.
    """
    started_s = started_unix_ns / 1e9
    out = StringIO()
    writer = HistogramLogWriter(out)
    writer.output_log_format_version()
    when = datetime.fromtimestamp(started_s, UTC).isoformat(sep=" ", timespec="milliseconds")
    writer.output_comment(f"[StartTime: {started_s:.3f} (seconds since epoch), {when}]")
    writer.output_comment("[Maximum in milliseconds, histograms in nanoseconds]")
    writer.output_legend()
    for interval in intervals:
        out.write(f"Tag={interval.name.replace(',', ';')},")
        writer.output_interval_histogram(
            to_hdr(interval.histogram), interval.second, interval.second + interval.width_s, _NS_PER_MS
        )
    return out.getvalue().encode()
