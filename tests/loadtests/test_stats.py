"""Locust's own statistics: fed with histograms, and true below a millisecond."""

from __future__ import annotations

import os

import pytest

# Locust replaces sockets and threads of the whole process when it is imported, which other tests could not bear; and
# the processes that they start must not inherit this.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"
try:
    from locust import stats as locust_own
    from locust.stats import RequestStats

    from loadtests.locust_glue import stats as locust_stats
finally:
    del os.environ["LOCUST_SKIP_MONKEY_PATCH"]

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name


@pytest.mark.parametrize(
    ("value_ms", "bucket"),
    [(0.1234, 0.12), (0.0049, 0.0049), (1.26, 1.3), (147.0, 150.0), (58_760.0, 59_000.0), (0, 0)],
)
def test_times_keep_two_digits_at_any_size(value_ms: float, bucket: float) -> None:
    assert locust_stats.bucket_ms(value_ms) == bucket


def test_whole_histograms_give_true_percentiles_below_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locust_own, "bucket_response_time", locust_own.bucket_response_time)
    locust_stats.install()
    stats = RequestStats()
    histogram = Histogram()
    for value_us in range(100, 200):
        histogram.record(value_us * 1000)
    locust_stats.feed(stats, series_name("deliver", kind="message", basis="intended"), histogram)
    locust_stats.feed(stats, series_name("deliver", kind="message", basis="sent"), histogram)
    locust_stats.feed(stats, series_name("loop_lag"), histogram)
    entry = stats.entries["message", "deliver"]
    assert (entry.num_requests, stats.total.num_requests) == (100, 100)
    assert entry.get_response_time_percentile(0.5) == pytest.approx(0.15, rel=0.02)
    assert entry.min_response_time == pytest.approx(0.1)
    assert entry.max_response_time == pytest.approx(0.199)
    assert entry.avg_response_time == pytest.approx(0.1495)
    assert len(stats.entries) == 1


def test_what_a_worker_reports_can_be_merged_by_the_master() -> None:
    worker, master = RequestStats(use_response_times_cache=False), RequestStats()
    histogram = Histogram()
    histogram.record(250_000)
    locust_stats.feed(worker, series_name("ack", kind="message"), histogram)
    (report,) = worker.serialize_stats()
    entry = locust_own.StatsEntry.unserialize(report, master)
    master.entries["message", "ack"].extend(entry)
    assert master.entries["message", "ack"].get_response_time_percentile(0.5) == 0.25
