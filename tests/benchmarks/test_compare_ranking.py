"""The order has ties where the interval is not clear of 1, and disturbed turns are left out by what disturbed them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.compare.pace import Pace
from benchmarks.compare.ranking import METRICS, in_words, merged, order, pairs, ratio, turns_of
from benchmarks.compare.saturate import Saturation
from benchmarks.compare.session import Turn
from loadtests.accounting.ledger import Ledger
from loadtests.measuring.histogram import Histogram

THROUGHPUT = METRICS[0]


def turn(target: str, number: int, rate: float, *, others: float = 0.0, latency_ns: int = 1_000_000) -> Turn:
    deliver = Histogram()
    deliver.record(latency_ns)
    ledger = Ledger()
    log = ledger.sent_log()
    paced = Pace(
        deliver=deliver,
        deliver_sent=deliver,
        ack=deliver,
        lag=deliver,
        totals=ledger.settle(log.finals()).totals(log),
        due=1,
        sent=1,
        acknowledged=1,
        sealed_bytes=256,
        elapsed_ns=10**9,
        cpu_ns_per_delivery=5_000.0,
        server_ns=10**8,
        server_cpu=0.1,
        load_cpu=0.1,
        others_cpu=0.0,
    )
    saturation = Saturation(
        deliveries_per_s=rate,
        publishes_per_s=rate / 10,
        cpu_ns_per_delivery=1e9 / rate,
        server_cpu=1.0,
        load_cpu=0.5,
        others_cpu=others,
        delivered=1000,
        lost=0,
        wrong=0,
    )
    return Turn(target=target, round=number, started_unix_ns=0, pace=paced, saturation=saturation)


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
    assert turns_of([*calm, turn("a", 3, 10, others=0.5)], "a") == calm
    all_of_them = [*calm[:2], turn("a", 3, 10, others=0.5)]
    assert turns_of(all_of_them, "a") == all_of_them


def test_pairs_are_of_one_round_and_undisturbed() -> None:
    found = [*turns(a=[10, 20, 30, 40], b=[1, 2, 3]), turn("b", 3, 999, others=0.5), turn("b", 9, 5)]
    assert pairs(found, "a", "b", THROUGHPUT.figure) == [(10, 1), (20, 2), (30, 3)]


def test_the_ratio_says_how_many_times_the_base() -> None:
    interval = ratio(turns(a=[100, 110, 120], b=[200, 220, 240]), THROUGHPUT, "a", "b").interval
    assert interval is not None
    assert interval.value == pytest.approx(2)
    assert interval.low <= 2 <= interval.high


def test_histograms_of_rounds_are_merged() -> None:
    found = [turn("a", 0, 1, latency_ns=1_000_000), turn("a", 1, 1, latency_ns=9_000_000)]
    assert merged(found, "a").count == 2
    assert merged(found, "a").max_ns == 9_000_000
