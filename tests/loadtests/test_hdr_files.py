"""The standard files: read back by the hdrhistogram package, and pinned byte for byte."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.measuring.hdr_files import hgrm, hlog, to_hdr
from loadtests.measuring.histogram import VALUE_NS_MAX, Histogram
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.series import series_name

GOLDEN = Path(__file__).parent.parent / "golden"
STARTED_NS = 1_760_000_000_000_000_000


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_many(np.array(values, np.int64))
    return histogram


def sample() -> Histogram:
    return histogram_of(np.random.default_rng(5).lognormal(15, 1, 2_000).astype(np.int64).tolist())


def recorder() -> Recorder:
    kept = Recorder()
    for second in range(3):
        kept.series(series_name("deliver", kind="message", basis="intended")).extend([1_000_000 * (second + 1)] * 10)
        kept.series("ack").extend([500, 2**21, 2**30])
        kept.fold(second * 1_000_000_000)
    return kept


def read_log(path: Path) -> list[Any]:
    reader = HistogramLogReader(str(path), HdrHistogram(1, VALUE_NS_MAX, 3))
    try:
        return list(iter(reader.get_next_interval_histogram, None))
    finally:
        reader.close()


def test_the_log_is_the_golden_one() -> None:
    # Compressed bytes may differ between builds of zlib, so what is pinned is the text around them ...
    def around(log: bytes) -> list[bytes]:
        return [line.partition(b"HISTF")[0] for line in log.splitlines()]

    assert around(hlog(recorder().intervals(), STARTED_NS)) == around((GOLDEN / "latency.hlog").read_bytes())


def test_the_golden_log_reads_as_what_was_recorded() -> None:
    # ... and what the package reads from it.
    rows = read_log(GOLDEN / "latency.hlog")
    intervals = list(recorder().intervals())
    assert len(rows) == len(intervals) == 6
    for row, interval in zip(rows, intervals, strict=True):
        assert row.get_tag() == interval.name.replace(",", ";")
        assert row.get_start_time_stamp() == STARTED_NS / 1e6 + 1000 * interval.second
        assert row.get_end_time_stamp() - row.get_start_time_stamp() == 1000
        assert row.get_total_count() == interval.histogram.count
        for percent in (50, 99, 100):
            assert row.get_value_at_percentile(percent) == pytest.approx(
                interval.histogram.percentile(percent), rel=0.001
            )


def test_the_percentile_file_is_the_golden_one() -> None:
    assert hgrm(sample()).decode() == (GOLDEN / "latency.hgrm").read_text()


@pytest.mark.parametrize("values", [[5], [1, 1, 1], list(range(1, 500)), [10, 10**9]])
def test_the_percentile_file_has_the_package_s_rows(values: list[int]) -> None:
    compare_with_the_package(histogram_of(values))


def test_a_large_percentile_file_has_the_package_s_rows() -> None:
    compare_with_the_package(sample())


def compare_with_the_package(histogram: Histogram) -> None:
    out = BytesIO()
    to_hdr(histogram).output_percentile_distribution(out, 1_000_000)
    ours, theirs = (
        [line.split() for line in text.decode().splitlines()[2:] if not line.startswith("#")]
        for text in (hgrm(histogram), out.getvalue())
    )
    # All but the value is to be the same; theirs is the upper end of its counter, ours no more than the maximum.
    assert [row[1:] for row in ours] == [row[1:] for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert float(our[0]) == pytest.approx(float(their[0]), rel=0.001, abs=0.0011)


@settings(max_examples=30)
@given(st.lists(st.integers(0, VALUE_NS_MAX), min_size=1, max_size=50))
def test_the_package_reads_the_same_percentiles(values: list[int]) -> None:
    histogram = histogram_of(values)
    decoded = HdrHistogram.decode(to_hdr(histogram).encode())
    assert decoded.get_total_count() == histogram.count
    assert decoded.get_max_value() == pytest.approx(histogram.max_ns, rel=0.001)
    assert decoded.get_min_value() == pytest.approx(histogram.min_ns, rel=0.001)
    assert decoded.get_value_at_percentile(100) == pytest.approx(histogram.max_ns, rel=0.001)


def test_overflow_is_counted_at_the_top_and_negatives_are_left_out() -> None:
    hdr = to_hdr(histogram_of([-5, 10, 2**50]))
    assert hdr.get_total_count() == 2
    assert hdr.get_value_at_percentile(100) == VALUE_NS_MAX
    assert "1125899906.843" in hgrm(histogram_of([10, 2**50])).decode()


def test_an_empty_histogram_gives_a_heading_and_zeros() -> None:
    lines = hgrm(Histogram()).decode().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert [line[0] for line in lines[2:]] == ["#", "#", "#"]
    assert to_hdr(Histogram()).get_total_count() == 0
