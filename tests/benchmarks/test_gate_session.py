"""The order of runs, what pairs are made of them, and when a session ends."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from benchmarks.gate import session
from benchmarks.gate.decide import Word, overall
from benchmarks.gate.metrics import MetricName
from benchmarks.gate.runs import CountInstructions, GateRun, Side
from benchmarks.gate.session import QUICK, Collected, GatePlan, collect, count_pairs, disturbed, judge, pairs
from benchmarks.rig import instructions

RUN_S = 3.0
CALIBRATION = 2 * session.CALIBRATION_PAIRS


def made(side: Side, cpu: float, *, others: float = 0.0, calibration: bool = False) -> GateRun:
    figures: dict[MetricName, float] = {"cpu": cpu, "throughput": 1e6 / cpu, "p50": 100 * cpu, "p99": 300 * cpu}
    return GateRun(side=side, calibration=calibration, figures=figures, others=others)


class Bench:
    """A relay that costs what the test says, a clock that only runs move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, slower: float, noise: float, others: float = 0.0) -> None:
        self.now_s = 0.0
        self.said: list[str] = []
        self.order: list[tuple[Side, bool]] = []
        self._source = random.Random(noise + slower)
        self._slower, self._noise, self._others = slower, noise, others
        monkeypatch.setattr(session.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(instructions, "find", lambda: None)

    def pair(
        self, sides: tuple[Side, Side], *, seconds: float, calibration: bool = False, whole: bool = True
    ) -> tuple[GateRun, GateRun]:
        one, two = (self._run(side, calibration, whole) for side in sides)
        return one, two

    def _run(self, side: Side, calibration: bool, whole: bool) -> GateRun:
        self.now_s += RUN_S if whole else RUN_S / 3
        self.order.append((side, calibration))
        cost = (self._slower if side == "head" else 1.0) * (1 + self._source.gauss(0, self._noise))
        run = made(side, cost, others=self._others, calibration=calibration)
        return run if whole else replace(run, figures={"cpu": cost}, others=0.0)

    def collect(self, plan: GatePlan = QUICK, count: CountInstructions | None = None) -> Collected:
        return collect("main", plan, self.said.append, self.pair, count)


Make = Callable[..., Bench]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda **options: Bench(monkeypatch, **options)


def test_calibration_comes_first_then_rounds_of_abba(bench: Make) -> None:
    subject = bench(slower=1.0, noise=0.001)
    subject.collect()
    assert subject.order[:CALIBRATION] == [("base", True)] * CALIBRATION
    assert [side for side, _ in subject.order[CALIBRATION:]] == ["base", "head", "head", "base"] * 3
    assert any("A/A: cpu" in line and "find slow-downs from" in line for line in subject.said)


def test_equal_trees_pass_and_stop_at_once(bench: Make) -> None:
    subject = bench(slower=1.0, noise=0.003)
    collected = subject.collect()
    assert overall(judge(collected, QUICK.metrics)) is Word.PASS
    assert len(collected.runs) == CALIBRATION + 4 * QUICK.rounds


def test_a_regression_is_looked_at_twice_while_there_is_time(bench: Make) -> None:
    collected = bench(slower=1.2, noise=0.003).collect()
    assert overall(judge(collected, QUICK.metrics)) is Word.REGRESSION
    rounds = (len(collected.runs) - CALIBRATION) // 4
    assert rounds == QUICK.rounds
    # Both looks were made before the least number of rounds was reached.
    collected = bench(slower=1.2, noise=0.003).collect(replace(QUICK, rounds=1, budget_s=1000.0))
    assert (len(collected.runs) - CALIBRATION) // 4 > 1


def test_an_open_verdict_goes_on_until_the_time_is_up(bench: Make) -> None:
    subject = bench(slower=1.06, noise=0.08)
    collected = subject.collect()
    assert overall(judge(collected, QUICK.metrics)) is Word.INCONCLUSIVE
    assert QUICK.budget_s - 5 * RUN_S < subject.now_s <= QUICK.budget_s


def test_a_budget_that_is_too_small_ends_without_a_verdict(bench: Make) -> None:
    collected = bench(slower=2.0, noise=0.001).collect(replace(QUICK, budget_s=1.0))
    assert len(collected.runs) == CALIBRATION
    assert overall(judge(collected, QUICK.metrics)) is Word.INCONCLUSIVE


def test_where_whole_rounds_take_too_long_the_processor_time_is_measured_alone(bench: Make) -> None:
    subject = bench(slower=1.0, noise=0.003)
    # Calibration takes 20 s, a whole round 12 s, one for the processor time 4 s.
    collected = subject.collect(replace(QUICK, budget_s=34.0))
    words = {one.metric.name: one.word for one in judge(collected, QUICK.metrics)}
    assert words["cpu"] is Word.PASS
    assert words["p50"] is Word.INCONCLUSIVE
    assert subject.now_s == 32.0


def test_without_the_processor_time_there_are_only_whole_rounds(bench: Make) -> None:
    subject = bench(slower=1.0, noise=0.003)
    collected = subject.collect(replace(QUICK, budget_s=34.0, metrics=("p50",)))
    assert subject.now_s == 32.0
    assert all("p50" in one.figures for one in collected.runs if not one.calibration)


@pytest.mark.parametrize("noise", [0.005, 0.015, 0.03])
def test_in_ten_quick_gates_a_tenth_is_found_and_nothing_is_not(bench: Make, noise: float) -> None:
    words = {
        slower: [
            overall(judge(bench(slower=slower, noise=noise + seed / 1e6).collect(), ("cpu",))) for seed in range(10)
        ]
        for slower in (1.0, 1.1)
    }
    assert words[1.0].count(Word.REGRESSION) == 0
    if noise < 0.03:
        assert words[1.1].count(Word.REGRESSION) >= 9


def test_disturbed_runs_make_no_pairs_but_of_cpu(bench: Make) -> None:
    collected = bench(slower=1.0, noise=0.003, others=0.5).collect()
    decisions = {one.metric.name: one for one in judge(collected, QUICK.metrics)}
    assert decisions["cpu"].word is Word.PASS
    assert decisions["throughput"].cost is None
    assert disturbed(collected.runs) == len(collected.runs) - 2 * (session.CALIBRATION_PAIRS - session.WHOLE_PAIRS)
    assert overall(list(decisions.values())) is Word.PASS


def test_pairs_are_base_first_and_equal_neighbours_are_the_noise() -> None:
    runs = [made(side, cpu) for cpu, side in enumerate(("base", "head", "head", "base") * 2, start=1)]
    assert pairs(runs, "cpu") == ([(1, 2), (4, 3), (5, 6), (8, 7)], [])
    compared, same = pairs(runs, "p50")
    assert compared == [(100, 200), (400, 300), (500, 600), (800, 700)]
    assert same == [(200, 300), (400, 500), (600, 700)]


def test_calibration_runs_pair_among_themselves() -> None:
    runs = [made("base", cpu, calibration=True) for cpu in (1, 2, 3, 4)]
    runs += [made("base", 5), made("head", 6)]
    assert pairs(runs, "cpu") == ([(5, 6)], [(1, 2), (3, 4)])


def test_a_disturbed_run_takes_its_neighbour_with_it() -> None:
    runs = [made("base", 1.0), made("head", 2.0, others=0.9), made("head", 3.0), made("base", 4.0)]
    assert pairs(runs, "p50") == ([(400.0, 300.0)], [])


def test_counts_pair_with_the_next_of_their_own_tree() -> None:
    assert count_pairs([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)]) == [(1.0, 3.0), (4.0, 6.0)]


class Tool:
    name = "fake"

    def fresh(self) -> Tool:
        return self


def test_instructions_are_counted_pair_by_pair(monkeypatch: pytest.MonkeyPatch, bench: Make) -> None:
    subject = bench(slower=1.0, noise=0.002)
    monkeypatch.setattr(instructions, "find", Tool)
    collected = subject.collect(count=lambda side, tool, *, swapped: 1000.0 if side == "base" else 1100.0)
    assert collected.tool == "fake"
    assert collected.counts == [(1000.0, 1100.0)] * session.COUNT_PAIRS
    words = {one.metric.name: one.word for one in judge(collected, QUICK.metrics)}
    assert words["instructions"] is Word.REGRESSION
    assert words["cpu"] is Word.PASS


def test_a_tool_that_does_not_count_is_given_up(monkeypatch: pytest.MonkeyPatch, bench: Make) -> None:
    def fails(side: Side, tool: object, *, swapped: bool) -> float:
        raise instructions.ToolError("may not trace")

    subject = bench(slower=1.0, noise=0.002)
    monkeypatch.setattr(instructions, "find", Tool)
    collected = subject.collect(count=fails)
    assert collected.tool is None
    assert "instructions are not counted: may not trace" in subject.said
    assert overall(judge(collected, QUICK.metrics)) is Word.PASS


def test_only_instructions_need_no_runs(monkeypatch: pytest.MonkeyPatch, bench: Make) -> None:
    subject = bench(slower=1.0, noise=0.002)
    monkeypatch.setattr(instructions, "find", Tool)
    plan = replace(QUICK, metrics=("instructions",))
    collected = subject.collect(plan, count=lambda side, tool, *, swapped: 1000.0)
    assert collected.runs == []
    assert overall(judge(collected, ("instructions",))) is Word.PASS


def test_only_cpu_needs_no_whole_runs(bench: Make) -> None:
    collected = bench(slower=1.0, noise=0.002).collect(replace(QUICK, metrics=("cpu",)))
    assert {name for one in collected.runs for name in one.figures} == {"cpu"}
    assert overall(judge(collected, ("cpu",))) is Word.PASS


def test_an_invalid_run_counts_for_the_processor_time_alone() -> None:
    runs = [made("base", 1.0), replace(made("head", 2.0), valid=False)]
    assert pairs(runs, "p50") == ([], [])
    assert pairs(runs, "cpu") == ([(1.0, 2.0)], [])
    assert disturbed(runs) == 1
