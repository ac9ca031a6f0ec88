"""Locust's own statistics, fed with whole histograms once a second, and true below a millisecond.

Locust rounds response times to whole milliseconds and takes them one at a time; a relay is faster than that, and a
delivery must not cost an event.
"""

from __future__ import annotations

import time
from typing import Any

from locust import stats as locust_stats

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import parse_series_name

_SHOWN = ("deliver", "ack", "join", "resume")
"""Series that Locust's page and tables show; deliveries count from the intended send."""


def bucket_ms(response_time_ms: float) -> float:
    """Return a response time to two significant digits, at any size: 0.123 -> 0.12, 147 -> 150."""
    return float(f"{response_time_ms:.2g}")


def install() -> None:
    """Replace Locust's bucketing, as its documentation provides for."""
    locust_stats.bucket_response_time = bucket_ms  # type: ignore[assignment]  # declared as whole, used as any number


def feed(request_stats: Any, name: str, histogram: Histogram) -> None:
    """Add what came in the last second in a series to Locust's `RequestStats`."""
    metric, labels = parse_series_name(name)
    if metric in _SHOWN and labels.get("basis") != "sent" and histogram.count:
        _add(request_stats.entries[labels.get("kind", metric), metric], histogram)
        _add(request_stats.total, histogram)


def _add(entry: Any, histogram: Histogram) -> None:
    now = time.time()
    if entry.use_response_times_cache and entry.last_request_timestamp and int(now) > int(entry.last_request_timestamp):
        entry._cache_response_times(int(now) - 1)
    seen = 0
    for upper_ns, cumulated in histogram.points():
        key = bucket_ms(upper_ns / 1e6)
        entry.response_times[key] = entry.response_times.get(key, 0) + cumulated - seen
        seen = cumulated
    low_ms, high_ms = histogram.min_ns / 1e6, histogram.max_ns / 1e6
    entry.num_requests += histogram.count
    entry.num_reqs_per_sec[int(now)] += histogram.count
    entry.last_request_timestamp = now
    entry.total_response_time += histogram.sum_ns / 1e6
    entry.min_response_time = low_ms if entry.min_response_time is None else min(entry.min_response_time, low_ms)
    entry.max_response_time = max(entry.max_response_time, high_ms)
