"""The order has ties where the interval is not clear of 1, and disturbed turns are left out by what disturbed them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.compare.ranking import FIGURES, THROUGHPUT, Turn, in_words, merged, order, pairs, ratio, turns_of
from tests.benchmarks.compare_turns import FINDING, turn

P50 = FIGURES[0]


def turns(**rates: Sequence[float]) -> list[Turn]:
    return [
        turn(target, number, rate)
        for number in range(max(map(len, rates.values())))
        for target, its_rates in rates.items()
        for rate in its_rates[number : number + 1]
    ]


def test_the_order_is_by_throughput_and_ties_stand_as_they_were_named() -> None:
    found = turns(
        slow=[100, 110, 105, 103, 104],
        a=[1000, 1100, 1050, 1040, 1010],
        middle=[500, 520, 540, 530, 505],
        b=[1010, 1090, 1060, 1030, 1020],
    )
    assert in_words(order(found)) == "a = b > middle > slow"
    assert [place.rank for place in order(found)] == [1, 1, 3, 4]


def test_drift_that_both_share_does_not_hide_who_is_faster() -> None:
    found = turns(first=[1000, 500, 2000, 700, 1500], second=[800, 400, 1600, 560, 1200])
    assert in_words(order(found)) == "first > second"


def test_a_steady_but_small_difference_is_no_order() -> None:
    found = turns(first=[1000] * 5, second=[980] * 5)
    assert in_words(order(found)) == "first = second"


def test_too_few_rounds_decide_nothing() -> None:
    found = turns(first=[1000, 1000], second=[100, 100])
    assert in_words(order(found)) == "first = second"
    assert ratio(found, THROUGHPUT, "first", "second").interval is None


def test_disturbed_turns_are_left_out_while_enough_remain() -> None:
    calm = [turn("a", number, 1000) for number in range(3)]
    assert turns_of([*calm, turn("a", 3, 10, others=0.5)], "a", THROUGHPUT) == calm
    all_of_them = [*calm[:2], turn("a", 3, 10, others=0.5)]
    assert turns_of(all_of_them, "a", THROUGHPUT) == all_of_them


def test_pairs_are_of_one_round_and_undisturbed() -> None:
    found = [*turns(a=[10, 20, 30, 40], b=[1, 2, 3]), turn("b", 3, 999, others=0.5), turn("b", 9, 5)]
    assert pairs(found, "a", "b", THROUGHPUT) == [(10, 1), (20, 2), (30, 3)]


def test_the_ratio_says_how_many_times_the_base() -> None:
    interval = ratio(turns(a=[100, 110, 120], b=[200, 220, 240]), THROUGHPUT, "a", "b").interval
    assert interval is not None
    assert interval.value == pytest.approx(2)
    assert interval.low <= 2 <= interval.high


def test_histograms_of_rounds_are_merged() -> None:
    found = [turn("a", 0, 1, latency_ns=1_000_000), turn("a", 1, 1, latency_ns=9_000_000)]
    assert merged(found, "a").count == 20
    assert merged(found, "a").max_ns == 9_000_000


def test_a_run_that_is_invalid_counts_for_no_latency_while_enough_remain() -> None:
    valid = [turn("a", number, 1000) for number in range(3)]
    doubtful = turn("a", 3, 1000, findings=[FINDING])
    assert turns_of([*valid, doubtful], "a", P50) == valid
    assert len(turns_of([*valid, doubtful], "a", THROUGHPUT)) == 4, "the window had its own time"


def test_a_relay_without_a_closed_window_has_no_rank_but_latencies() -> None:
    found = [*turns(a=[100, 110, 120]), *(turn("far", number, None, latency_ns=2_000_000) for number in range(3))]
    assert [standing.target for standing in order(found)] == ["a"]
    interval = ratio(found, P50, "a", "far").interval
    assert interval is not None
    assert interval.value == pytest.approx(2, rel=0.01)
    assert ratio(found, THROUGHPUT, "a", "far").interval is None
