"""Histograms merge exactly and read true percentiles; the recorder loses no sample and bounds its memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.measuring.histogram import COUNTERS_MAX, VALUE_NS_MAX, Histogram
from loadtests.measuring.recorder import OPEN_SECONDS, HistoryRow, Recorder, interval_width_s
from loadtests.measuring.series import METRICS, parse_series_name, series_name, size_decade

SECOND_NS = 1_000_000_000

durations = st.one_of(
    st.integers(0, 5_000),
    st.integers(0, VALUE_NS_MAX),
    st.integers(0, 43).map(lambda bits: (1 << bits) - 1),
    st.integers(0, 42).map(lambda bits: 1 << bits),
)
anything = st.one_of(durations, st.integers(-(2**62), 2**62))


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_many(np.array(values, np.int64))
    return histogram


@settings(max_examples=100)
@given(st.lists(st.lists(anything, max_size=40), max_size=5))
def test_merged_histograms_equal_the_histogram_of_the_union(parts: list[list[int]]) -> None:
    merged = Histogram()
    for part in parts:
        merged.merge(histogram_of(part))
    assert merged == histogram_of([value for part in parts for value in part])


@settings(max_examples=100)
@given(st.lists(anything, max_size=40))
def test_record_one_by_one_equals_record_many(values: list[int]) -> None:
    one_by_one = Histogram()
    for value in values:
        one_by_one.record(value)
    assert one_by_one == histogram_of(values)


@settings(max_examples=150)
@given(
    st.lists(durations.filter(lambda value: value <= VALUE_NS_MAX), min_size=1, max_size=200),
    st.sampled_from([0.0, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 100.0]),
)
def test_percentiles_keep_three_digits_of_the_exact_order_statistic(values: list[int], percent: float) -> None:
    exact = int(np.percentile(np.array(values, np.int64), percent, method="inverted_cdf"))
    read = histogram_of(values).percentile(percent)
    assert exact <= read <= exact + exact // 1024


def test_percentiles_of_a_large_sample_keep_three_digits() -> None:
    values = np.random.default_rng(7).lognormal(15, 1.5, 200_000).astype(np.int64)
    histogram = Histogram()
    histogram.record_many(values)
    for percent in (50.0, 90.0, 99.0, 99.9, 99.99):
        exact = int(np.percentile(values, percent, method="inverted_cdf"))
        assert abs(histogram.percentile(percent) - exact) <= exact / 1000
    assert [histogram.min_ns, histogram.max_ns] == [int(values.min()), int(values.max())]
    assert histogram.mean_ns == int(values.sum()) // values.size


@given(durations.filter(lambda value: value <= VALUE_NS_MAX))
def test_a_counter_is_no_wider_than_a_1024th_of_its_value(value: int) -> None:
    ((index,), (count,)) = histogram_of([value]).counters()
    assert count == 1
    assert 0 <= index < COUNTERS_MAX
    ((upper, _),) = histogram_of([value]).points()
    assert upper == value  # a single value is known exactly: it is the maximum


def test_nearest_rank_is_not_shifted_by_binary_fractions() -> None:
    assert histogram_of(list(range(1, 1001))).percentile(99.9) == 999
    assert histogram_of(list(range(1, 1001))).percentile(50) == 500


def test_what_does_not_fit_is_kept_and_counted() -> None:
    histogram = histogram_of([-5, -9, 10, 20, VALUE_NS_MAX + 1, 2**62])
    assert (histogram.negative_count, histogram.negative_min_ns) == (2, -9)
    assert (histogram.count, histogram.overflow_count) == (4, 2)
    assert histogram.percentile(50) == 20
    assert histogram.percentile(99) == histogram.max_ns == 2**62
    assert histogram.sum_ns == 30 + VALUE_NS_MAX + 1 + 2**62
    assert histogram.points()[-1] == (2**62, 4)


def test_sums_past_64_bits_stay_exact() -> None:
    assert histogram_of([2**62, 2**62, 2**62]).sum_ns == 3 * 2**62


def test_an_empty_histogram_reads_zero() -> None:
    empty = Histogram()
    assert (empty.count, empty.percentile(99), empty.mean_ns, empty.points()) == (0, 0, 0, [])
    assert empty.cumulative([0, 1]) == [0, 0]
    only_negative = histogram_of([-1])
    assert (only_negative.count, only_negative.negative_count, only_negative.percentile(50)) == (0, 1, 0)


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
def test_a_percentile_outside_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        histogram_of([1]).percentile(percent)


@settings(max_examples=100)
@given(st.lists(anything, max_size=60), st.lists(durations, max_size=8))
def test_cumulative_counts_follow_the_values(values: list[int], bounds: list[int]) -> None:
    bounds.sort()
    read = histogram_of(values).cumulative(bounds)
    for bound, count in zip(bounds, read, strict=True):
        certain = sum(0 <= value <= bound for value in values if value <= VALUE_NS_MAX)
        possible = sum(0 <= value <= bound + bound // 1024 for value in values if value <= VALUE_NS_MAX)
        assert certain <= count <= possible
    assert read == sorted(read)


@settings(max_examples=100)
@given(st.lists(anything, max_size=60))
def test_the_wire_form_round_trips_through_json(values: list[int]) -> None:
    histogram = histogram_of(values)
    assert Histogram.from_wire(json.loads(json.dumps(histogram.to_wire()))) == histogram


def test_the_wire_form_is_sparse() -> None:
    assert len(json.dumps(histogram_of([5, 10**9]).to_wire())) < 200


@pytest.mark.parametrize(
    "change",
    [
        {"count": 9},
        {"gaps": [1]},
        {"gaps": [3, 0]},
        {"gaps": [-1, 5]},
        {"gaps": [1, COUNTERS_MAX]},
        {"gaps": "abc"},
        {"gaps": [[1, 2]]},
        {"counts": [1, 0]},
        {"counts": [1, -1]},
        {"counts": [2**70, 1]},
        {"min_ns": None},
        {"min_ns": 4},
        {"min_ns": 6},
        {"min_ns": -1},
        {"max_ns": 5},
    ],
)
def test_a_malformed_wire_form_is_refused(change: dict[str, object]) -> None:
    wire = histogram_of([5, 10**6]).to_wire() | change
    with pytest.raises(ValueError):
        Histogram.from_wire(wire)


def test_a_wire_form_with_a_part_missing_is_refused() -> None:
    wire = histogram_of([5]).to_wire()
    for key in wire:
        with pytest.raises(ValueError, match="not a histogram"):
            Histogram.from_wire({name: value for name, value in wire.items() if name != key})


# -- names -------------------------------------------------------------------------------------------


def test_series_names_are_canonical() -> None:
    assert series_name("deliver", kind="message", basis="intended") == "deliver{basis=intended,kind=message}"
    assert series_name("ack") == "ack"
    for name in ("deliver{basis=intended,kind=message}", *METRICS):
        metric, labels = parse_series_name(name)
        assert series_name(metric, **labels) == name


@pytest.mark.parametrize(
    "name", ["", "x", "ack{", "ack{}", "ack{kind}", "ack{kind=a,basis=b}", "ack{kind=a}x", "ack{k=v}"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        parse_series_name(name)
    with pytest.raises(ValueError):
        Recorder().series(name)


@pytest.mark.parametrize(
    ("size", "decade"), [(0, "1-9"), (1, "1-9"), (9, "1-9"), (10, "10-99"), (99, "10-99"), (2000, "1000-9999")]
)
def test_rooms_are_grouped_by_decade_of_size(size: int, decade: str) -> None:
    assert size_decade(size) == decade


# -- recorder ----------------------------------------------------------------------------------------


def test_folding_empties_the_same_buffer_and_adds_to_the_totals() -> None:
    recorder = Recorder(started_ns=100 * SECOND_NS)
    ack = recorder.series("ack")
    recorder.series("join")
    ack.extend([1, 2, 3])
    first = recorder.fold(100 * SECOND_NS)
    assert list(first) == ["ack"], "empty series are left out"
    assert first["ack"].count == 3
    assert len(ack) == 0
    assert recorder.series("ack") is ack
    ack.append(4)
    assert recorder.fold(101 * SECOND_NS)["ack"].count == 1
    assert recorder.totals["ack"] == histogram_of([1, 2, 3, 4])
    assert [(row.second, row.count, row.max_ns) for row in recorder.history()] == [(0, 3, 3), (1, 1, 4)]


def test_a_fold_is_not_changed_by_later_ones() -> None:
    recorder = Recorder()
    recorder.series("ack").append(1)
    first = recorder.fold(0)["ack"]
    recorder.series("ack").append(2)
    recorder.fold(0)
    assert first == histogram_of([1])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 10**9)), max_size=60))
def test_a_master_sees_what_one_recorder_would_have_seen(samples: list[tuple[int, int, int]]) -> None:
    samples.sort(key=lambda sample: sample[1])
    alone, master = Recorder(), Recorder()
    workers = [Recorder(keep_history=False) for _ in range(3)]
    for second in range(13):
        for worker, at, value in samples:
            if at == second:
                alone.series("ack").append(value)
                workers[worker].series("ack").append(value)
        alone.fold(second * SECOND_NS)
        for worker_recorder in workers:
            folded = worker_recorder.fold(second * SECOND_NS)
            master.merge_interval(second, {name: histogram.to_wire() for name, histogram in folded.items()})
    assert master.totals == alone.totals
    assert master.history() == alone.history()
    assert list(master.intervals()) == list(alone.intervals())


def test_percentiles_over_time_come_from_merged_histograms() -> None:
    master = Recorder()
    master.merge_interval(3, {"ack": histogram_of([10] * 99).to_wire()})
    master.merge_interval(3, {"ack": histogram_of([1000]).to_wire()})
    assert master.history() == [HistoryRow(3, 1, "ack", 100, 10, 10, 10, 1000)]


def test_a_late_interval_counts_in_the_totals_and_is_reported() -> None:
    master = Recorder()
    wire = {"ack": histogram_of([10]).to_wire()}
    master.merge_interval(0, wire)
    master.merge_interval(OPEN_SECONDS, wire)
    master.merge_interval(0, wire)
    assert master.totals["ack"].count == 3
    assert master.late_intervals == 1
    assert [row.second for row in master.history()] == [0, OPEN_SECONDS]


def test_a_master_refuses_what_is_not_an_interval() -> None:
    for name, wire in (("no such metric", histogram_of([1]).to_wire()), ("ack", {"count": 1})):
        master = Recorder()
        with pytest.raises(ValueError):
            master.merge_interval(0, {name: wire})
        assert master.totals == {}


def test_the_history_of_a_long_run_stays_small() -> None:
    recorder = Recorder()
    for second in range(14_000):
        recorder.series("ack").append(second)
        recorder.fold(second * SECOND_NS)
    rows = recorder.history()
    assert len(rows) == 1_200 + 10_800 // 10 + 20
    assert sum(row.count for row in rows) == 14_000
    assert [row.second for row in rows] == sorted({row.second for row in rows})
    assert sum(interval.histogram.count for interval in recorder.intervals()) == 14_000
    assert {interval_width_s(second) for second in (0, 1_199, 1_200, 12_000)} == {1, 10, 100}


def test_recent_is_the_last_seconds_of_one_series() -> None:
    recorder = Recorder()
    for second in range(20):
        recorder.series("ack").append(second)
        recorder.series("join").append(1)
        recorder.fold(second * SECOND_NS)
    recent = recorder.recent("ack")
    assert recent.max_ns == 19
    assert recent.count == OPEN_SECONDS
    assert recorder.recent("resume").count == 0


def test_a_worker_without_history_keeps_only_totals() -> None:
    recorder = Recorder(keep_history=False)
    for second in range(30):
        recorder.series("ack").append(second)
        recorder.fold(second * SECOND_NS)
    assert recorder.totals["ack"].count == 30
    assert recorder.history() == []
    assert list(recorder.intervals()) == []
