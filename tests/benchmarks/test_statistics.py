"""Intervals of ratios of runs."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.rig.statistics import (
    Estimate,
    detectable,
    difference_of_pairs,
    of_groups,
    of_pairs,
    pairs_to_decide,
    spread,
)


def noisy(seed: int, count: int, ratio: float, noise: float, drift: float = 0.0) -> list[tuple[float, float]]:
    source = random.Random(seed)
    pairs = []
    for at in range(count):
        speed = math.exp(drift * at)
        pairs.append((speed * math.exp(source.gauss(0, noise)), ratio * speed * math.exp(source.gauss(0, noise))))
    return pairs


def test_equal_pairs_have_no_width() -> None:
    assert of_pairs([(2.0, 3.0)] * 5) == Estimate(value=1.5, low=1.5, high=1.5, count=5)


def test_the_same_pairs_give_the_same_interval() -> None:
    pairs = noisy(1, 8, 1.1, 0.02)
    assert of_pairs(pairs) == of_pairs(pairs)


def test_the_other_way_round_is_the_inverse() -> None:
    there = of_pairs(noisy(2, 9, 1.2, 0.05))
    back = there.inverse()
    assert back.value == pytest.approx(1 / there.value)
    assert back.low < back.value < back.high
    assert back.reach == pytest.approx(there.reach)


def test_one_wild_pair_does_not_move_the_estimate_far() -> None:
    pairs = noisy(3, 11, 1.0, 0.01)
    pairs[4] = (1.0, 9.0)
    assert of_pairs(pairs).value == pytest.approx(1.0, abs=0.02)


def test_drift_cancels_within_pairs() -> None:
    steady, drifting = (of_pairs(noisy(4, 10, 1.1, 0.01, drift)) for drift in (0.0, 0.3))
    assert drifting.value == pytest.approx(steady.value)
    assert drifting.low == pytest.approx(steady.low)


@pytest.mark.parametrize("count", [3, 4, 6, 12])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(count: int) -> None:
    sessions = [of_pairs(noisy(seed, count, 1.1, 0.03)) for seed in range(100)]
    held = sum(one.low <= 1.1 <= one.high for one in sessions)
    assert held >= 88  # 95 are promised, of many more sessions


@pytest.mark.parametrize("count", [4, 6, 12])
def test_the_interval_of_groups_holds_the_truth_as_often(count: int) -> None:
    held = 0
    for seed in range(100):
        pairs = noisy(seed, count, 1.1, 0.03)
        one = of_groups([base for base, _ in pairs], [head for _, head in pairs])
        held += one.low <= 1.1 <= one.high
    assert held >= 90


def test_a_planted_tenth_is_told_from_nothing() -> None:
    assert all(of_pairs(noisy(seed, 6, 1.1, 0.01)).low > 1.05 for seed in range(30))
    assert not any(of_pairs(noisy(seed, 6, 1.0, 0.01)).low > 1.05 for seed in range(30))


def test_groups_that_were_not_taken_together() -> None:
    base = [value for value, _ in noisy(5, 12, 1.0, 0.01)]
    head = [value * 1.2 for value, _ in noisy(6, 15, 1.0, 0.01)]
    interval = of_groups(base, head)
    assert interval.low < 1.2 < interval.high
    assert interval.low > 1.1
    assert interval.count == 12


def test_differences_keep_their_unit() -> None:
    interval = difference_of_pairs([(100.0, 130.0), (110.0, 141.0), (90.0, 121.0), (105.0, 134.0)])
    assert interval.low <= 30 <= interval.high
    assert difference_of_pairs([(1.0, -1.0)] * 3).value == -2.0


@pytest.mark.parametrize("call", [of_pairs, difference_of_pairs])
def test_too_few_pairs_are_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="2 pairs have no interval"):
        call([(1.0, 1.0)] * 2)


def test_figures_that_have_no_ratio_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        of_pairs([(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)])
    with pytest.raises(ValueError, match="above 0"):
        of_groups([1.0] * 4, [1.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="3 runs"):
        of_groups([1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0])


def test_more_pairs_and_less_noise_detect_less() -> None:
    assert 1.05 < detectable(0.02, 20, 1.05) < detectable(0.02, 6, 1.05) < detectable(0.04, 6, 1.05)


def test_what_is_detectable_is_detected_nine_times_in_ten() -> None:
    noise = spread(noisy(7, 400, 1.0, 0.02))
    ratio = detectable(noise, 10, 1.05)
    found = sum(of_pairs(noisy(seed, 10, ratio, 0.02)).low > 1.05 for seed in range(100))
    assert 84 <= found <= 99


def test_how_many_pairs_more_would_decide() -> None:
    wide = Estimate(value=1.0, low=0.9, high=1.1, count=6)
    assert pairs_to_decide(wide, 1.05) == math.ceil(6 * (math.log(1.1) / math.log(1.05)) ** 2) - 6
    assert pairs_to_decide(Estimate(value=1.0, low=0.99, high=1.01, count=6), 1.05) == 0
    assert pairs_to_decide(Estimate(value=1.05, low=0.9, high=1.2, count=6), 1.05) == math.inf
