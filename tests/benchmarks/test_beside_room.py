"""The private chats' schedule, percentiles and ratios."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.throughput.beside_room import Beside, Latency, RoomLoad, arrivals, median_ratio, percentile


@given(st.lists(st.integers(0, 1000), min_size=1), st.floats(0, 1))
def test_a_percentile_is_the_smallest_sample_with_that_share_at_or_below(values: list[int], share: float) -> None:
    got = percentile(values, share)
    assert got in values
    assert sum(value <= got for value in values) >= share * len(values)
    assert sum(value < got for value in values) <= share * len(values)


def test_the_schedule_is_seeded_ordered_and_near_its_rate() -> None:
    due = arrivals(1, 50, 20.0, 5.0)
    assert due == arrivals(1, 50, 20.0, 5.0) == sorted(due)
    assert due != arrivals(2, 50, 20.0, 5.0)
    assert 4_500 < len(due) < 5_500
    assert {pair for _, pair in due} == set(range(50))
    assert all(0 <= offset_ns < 5_000_000_000 for offset_ns, _ in due)


def phase(p99_ns: int) -> Latency:
    return Latency(count=1, p50_ns=1, p99_ns=p99_ns, intended_p99_ns=p99_ns, lag_p50_ns=1, lag_p99_ns=1)


def test_the_ratio_is_over_the_mean_of_both_phases_without_the_room() -> None:
    room = RoomLoad(published=1, acknowledged=1, delivered=20, subscribers=20, per_s=20.0, lag_max_ns=0, delayed_acks=1)
    assert room.late_share == 0.05
    one = Beside(before=phase(100), beside=phase(400), after=phase(300), room=room, others_cpu=0.0)
    other = Beside(before=phase(100), beside=phase(100), after=phase(100), room=room, others_cpu=0.0)
    assert (one.ratio, one.noise) == (2.0, 3.0)
    assert median_ratio([one, other, other]) == pytest.approx(1.0)
