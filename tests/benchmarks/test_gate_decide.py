"""From pairs to a word."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.gate.decide import Decision, Word, decide, decide_groups, more_rounds, overall
from benchmarks.gate.metrics import METRICS, NAMES, metric


def pairs(ratio: float, noise: float, count: int = 12, seed: int = 1) -> list[tuple[float, float]]:
    source = random.Random(seed)
    return [(math.exp(source.gauss(0, noise)), ratio * math.exp(source.gauss(0, noise))) for _ in range(count)]


def judge(name: str, ratio: float, noise: float = 0.005, same_noise: float | None = None) -> Decision:
    made = pairs(ratio, noise)
    same = pairs(1.0, noise if same_noise is None else same_noise, seed=2)
    chosen = next(one for one in METRICS if one.name == name)
    return decide(chosen, [base for base, _ in made], [head for _, head in made], made, same)


def test_names_are_the_metrics() -> None:
    assert NAMES == ("cpu", "throughput", "p50", "p99", "instructions")
    assert metric("p99").needed is False


def test_a_clear_slow_down_is_a_regression() -> None:
    decision = judge("cpu", 1.10)
    assert decision.word is Word.REGRESSION
    assert decision.more_pairs is None
    assert decision.cost is not None
    assert decision.cost.low > decision.limit == pytest.approx(1.05)


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.02])
def test_no_clear_slow_down_passes(ratio: float) -> None:
    assert judge("cpu", ratio).word is Word.PASS


def test_less_throughput_is_worse_and_more_is_not() -> None:
    assert judge("throughput", 0.85).word is Word.REGRESSION
    assert judge("throughput", 1.2).word is Word.PASS
    cost = judge("throughput", 0.8).cost
    assert cost is not None
    assert cost.value == pytest.approx(1.25, rel=0.02)


def test_what_the_noise_could_explain_is_no_regression() -> None:
    quiet, noisy = judge("cpu", 1.08), judge("cpu", 1.08, same_noise=0.15)
    assert quiet.word is Word.REGRESSION
    assert noisy.word is Word.INCONCLUSIVE
    assert noisy.limit > 1.08


def test_a_machine_that_is_too_noisy_passes_nothing() -> None:
    decision = judge("cpu", 1.0, same_noise=0.4)
    assert decision.limit > 1.10
    assert decision.word is Word.INCONCLUSIVE


def test_an_open_metric_says_how_many_pairs_more() -> None:
    decision = judge("cpu", 1.03, noise=0.04)
    assert decision.word is Word.INCONCLUSIVE
    assert decision.more_pairs is not None
    assert decision.more_pairs > 0


def test_without_enough_pairs_nothing_is_decided() -> None:
    decision = decide(metric("cpu"), [], [], [], [])
    assert (decision.word, decision.cost, decision.same, decision.base) == (Word.INCONCLUSIVE, None, None, 0.0)


def test_without_noise_known_nothing_is_decided() -> None:
    made = pairs(1.5, 0.001)
    assert decide(metric("cpu"), [1.0], [1.5], made, []).word is Word.INCONCLUSIVE


def test_one_regression_decides_all() -> None:
    assert overall([judge("cpu", 1.0), judge("p50", 1.5)]) is Word.REGRESSION


def test_a_regression_of_p99_counts_though_it_need_not_pass() -> None:
    passing = [judge(name, 1.0) for name in ("cpu", "p50")]
    assert overall([*passing, judge("p99", 1.0, same_noise=0.9)]) is Word.PASS
    assert overall([*passing, judge("p99", 2.0)]) is Word.REGRESSION


def test_one_open_needed_metric_leaves_all_open() -> None:
    decisions = [judge("cpu", 1.0), judge("instructions", 1.0, same_noise=0.6)]
    assert overall(decisions) is Word.INCONCLUSIVE
    assert overall([]) is Word.INCONCLUSIVE


def test_where_only_others_are_asked_for_they_are_needed() -> None:
    assert overall([judge("p50", 1.0), judge("p99", 1.0)]) is Word.PASS
    assert overall([judge("p50", 1.0), judge("p99", 1.0, same_noise=0.9)]) is Word.INCONCLUSIVE


def test_rounds_are_two_pairs() -> None:
    decision = judge("cpu", 1.03, noise=0.04)
    assert decision.more_pairs is not None
    assert more_rounds([decision, judge("p50", 1.0)]) == -(-decision.more_pairs // 2)
    assert more_rounds([judge("cpu", 1.0)]) is None


def test_groups_of_two_sessions() -> None:
    base, head = [value for value, _ in pairs(1.0, 0.005)], [value for value, _ in pairs(1.0, 0.005, seed=3)]
    same = pairs(1.0, 0.005, seed=2)
    assert decide_groups(metric("cpu"), base, head, same).word is Word.PASS
    assert decide_groups(metric("cpu"), base, [value * 1.2 for value in head], same).word is Word.REGRESSION
    assert decide_groups(metric("throughput"), base, [value / 1.2 for value in head], same).word is Word.REGRESSION
