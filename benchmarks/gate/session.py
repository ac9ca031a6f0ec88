"""The measuring: instructions first, then A/A, then rounds in the order ABBA until the verdict stands or time is up.

Where the budget does not suffice for whole rounds, rounds measure the processor time alone, without which there is no
verdict.

Of the runs, adjacent ones make pairs: base with head for the verdict, and one side with itself (within the A/A runs,
and where ABBA puts equal ones next to each other) for the noise. A run that other processes disturbed stays in the
record, but no pair of its throughput or latency is made: whether it counts is decided by what others took of the cores,
never by its figures. Processor time in lock step, by turns of milliseconds, stands disturbance and is always used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from msgspec import Struct

from benchmarks.gate.decide import Decision, Word, decide, overall
from benchmarks.gate.metrics import METRICS, MetricName
from benchmarks.gate.runs import CountInstructions, GateRun, MakePair, Side
from benchmarks.rig import instructions
from benchmarks.rig.processes import uninterrupted
from benchmarks.rig.say import Say
from benchmarks.rig.statistics import PAIRS_MIN, detectable, of_pairs, spread

ROUND: Final[tuple[tuple[Side, Side], ...]] = (("base", "head"), ("head", "base"))
ROUNDS_MIN: Final = 3
"""Six pairs: with fewer the interval is little more than their range."""
CALIBRATION_PAIRS: Final = 6
WHOLE_PAIRS: Final = 2
"""So many measure everything, the others processor time alone, which is quick. Rounds add A/A pairs of the other figures."""
COUNT_PAIRS: Final = 5
COUNT_SHARE: Final = 0.4
"""Share of the budget that instructions may take."""
OTHERS_MAX: Final = 0.10
"""Share of a core, in the mean of a run. Beyond, the run is disturbed: queues and batches are another's doing then."""
STEADY: Final[tuple[MetricName, ...]] = ("cpu",)
"""Measured in both of a pair at the same time, by turns: what disturbs does so to both."""
CONFIRMED: Final = 2
"""Looks in a row that must say regression while time is left: who looks after every round finds more by chance."""

Pairs: TypeAlias = list[tuple[float, float]]


class GatePlan(Struct, frozen=True, kw_only=True):
    """How long and how often: `rounds` before a verdict, more of them while it is open, none once `budget_s` is used up."""

    rounds: int
    seconds: float
    budget_s: float
    metrics: tuple[MetricName, ...]


QUICK: Final = GatePlan(rounds=3, seconds=0.8, budget_s=110.0, metrics=tuple(one.name for one in METRICS))
FULL: Final = GatePlan(rounds=6, seconds=1.5, budget_s=600.0, metrics=QUICK.metrics)


class Collected(Struct, kw_only=True):
    """All runs in the order in which they were made; `counts` are instructions a delivery, one pair a process pair."""

    runs: list[GateRun]
    counts: Pairs
    tool: str | None = None


def collect(
    base: str, plan: GatePlan, say: Say, make_pair: MakePair, count: CountInstructions | None = None
) -> Collected:
    """Measure both sides; `base` is what the one is called. Raises RunError."""
    collected = Collected(runs=[], counts=[])
    deadline = time.monotonic() + plan.budget_s
    if count is not None and "instructions" in plan.metrics:
        _count(collected, count, plan.budget_s * COUNT_SHARE, say)
    timed = [name for name in plan.metrics if name != "instructions"]
    if not timed:
        return collected
    whole = set(timed) != set(STEADY)
    say(f"A/A: {CALIBRATION_PAIRS} pairs of {base} with itself")
    round_s = {True: 0.0, False: 0.0}  # of whole rounds, and of those for the processor time alone
    for at in range(CALIBRATION_PAIRS):
        whole_now = whole and at < WHOLE_PAIRS
        started = time.monotonic()
        collected.runs += make_pair(("base", "base"), seconds=plan.seconds, calibration=True, whole=whole_now)
        round_s[whole_now] = max(round_s[whole_now], (time.monotonic() - started) * len(ROUND))
    _say_noise(collected, plan, say)
    rounds = regressions = 0
    while True:
        left_s = deadline - time.monotonic()
        # What a verdict needs comes first: rounds for the processor time alone are three times as quick.
        owed_s = max(0, plan.rounds - rounds - 1) * round_s[False] if "cpu" in timed else 0.0
        whole_now = whole and round_s[True] + owed_s < left_s
        if not whole_now and (round_s[False] >= left_s or "cpu" not in timed):
            break
        started = time.monotonic()
        for sides in ROUND:
            collected.runs += make_pair(sides, seconds=plan.seconds, whole=whole_now)
        round_s[whole_now] = time.monotonic() - started
        rounds += 1
        decisions = judge(collected, plan.metrics)
        say(f"round {rounds}: {_line(decisions)}; {disturbed(collected.runs)} runs disturbed so far")
        word = overall(decisions)
        regressions = regressions + 1 if word is Word.REGRESSION else 0
        if rounds >= plan.rounds and (word is Word.PASS or regressions >= CONFIRMED):
            break
    return collected


def _say_noise(collected: Collected, plan: GatePlan, say: Say) -> None:
    """Say what A/A found, before the first round: the noise, and what so many rounds can find."""
    for metric in METRICS:
        same = pairs(collected.runs, metric.name)[1] if metric.name in plan.metrics else []
        if len(same) >= PAIRS_MIN:
            limit = max(1 + metric.allowed, of_pairs(same).reach)
            least = detectable(spread(same), len(ROUND) * plan.rounds, limit)
            say(
                f"A/A: {metric.name} of two equal runs differs by {spread(same):.1%} (standard deviation); "
                f"{plan.rounds} rounds find slow-downs from {least - 1:.0%} on"
            )


def _count(collected: Collected, count: CountInstructions, budget_s: float, say: Say) -> None:
    tool = instructions.find()
    if tool is None:
        say("instructions are not counted: neither perf (with a counter) nor valgrind is here")
        return
    collected.tool = tool.name
    say(f"instructions: {COUNT_PAIRS} relays of each side under {tool.name}")
    # Both at once: what a neighbour does changes no count.
    deadline = time.monotonic() + budget_s
    with ThreadPoolExecutor(2) as pool:
        try:
            while len(collected.counts) < COUNT_PAIRS and time.monotonic() < deadline:
                first = pool.submit(count, "base", tool.fresh(), swapped=False)
                second = pool.submit(count, "head", tool.fresh(), swapped=True)
                collected.counts.append((first.result(), second.result()))
        except KeyboardInterrupt:
            say("interrupted; the relays that are being counted end first")
            with uninterrupted():
                pool.shutdown()
            raise
        except instructions.ToolError as error:
            say(f"instructions are not counted: {error}")
            collected.counts, collected.tool = [], None


def pairs(runs: Sequence[GateRun], name: MetricName) -> tuple[Pairs, Pairs]:
    """Return the pairs (base, head) and the A/A pairs of one metric, of undisturbed runs."""
    compared: Pairs = []
    same: Pairs = []
    calibration = [one for one in runs if one.calibration]
    rounds = [one for one in runs if not one.calibration]
    same += _both([(calibration[at], calibration[at + 1]) for at in range(0, len(calibration) - 1, 2)], name)
    for at in range(len(rounds) - 1):
        first, second = rounds[at], rounds[at + 1]
        if first.side == second.side:
            if name in STEADY:
                continue  # measured with their own neighbour, not with each other
            same += _both([(first, second)], name)
        elif at % 2 == 0:  # ABBA: pairs begin at even places
            compared += _both([(first, second) if first.side == "base" else (second, first)], name)
    return compared, same


def usable(one: GateRun, name: MetricName) -> bool:
    """Whether a run has this figure, and it counts."""
    return name in one.figures and (name in STEADY or _sound(one))


def _sound(one: GateRun) -> bool:
    return one.valid and one.others <= OTHERS_MAX


def _both(chosen: Sequence[tuple[GateRun, GateRun]], name: MetricName) -> Pairs:
    return [(one.figures[name], two.figures[name]) for one, two in chosen if usable(one, name) and usable(two, name)]


def count_pairs(counts: Pairs) -> Pairs:
    """Return the A/A pairs of instructions: each process with the next one of its tree."""
    return [(counts[at][at % 2], counts[at + 1][at % 2]) for at in range(len(counts) - 1)]


def judge(collected: Collected, metrics: Sequence[MetricName]) -> list[Decision]:
    """Decide every metric that was asked for and measured."""
    decisions = []
    for metric in METRICS:
        if metric.name not in metrics:
            continue
        if metric.name == "instructions":
            if collected.counts:
                base, head = ([pair[side] for pair in collected.counts] for side in (0, 1))
                decisions.append(decide(metric, base, head, collected.counts, count_pairs(collected.counts)))
            continue
        compared, same = pairs(collected.runs, metric.name)
        base, head = ([pair[side] for pair in compared] for side in (0, 1))
        decisions.append(decide(metric, base, head, compared, same))
    return decisions


def disturbed(runs: Sequence[GateRun]) -> int:
    """Return how many runs other processes disturbed, or are invalid."""
    return sum(not _sound(one) for one in runs)


def _line(decisions: Sequence[Decision]) -> str:
    return ", ".join(
        f"{one.metric.name} {one.cost.value:.3f} [{one.cost.low:.3f}, {one.cost.high:.3f}] {one.word.value}"
        if one.cost
        else f"{one.metric.name} too few pairs"
        for one in decisions
    )
