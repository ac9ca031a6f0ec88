"""From pairs of runs to a word, pure.

    limit        1 + what is allowed, or the reach of the A/A interval if that is more
    regression   the whole interval is above the limit
    pass         the whole interval is below the limit, and the limit is at most 1 + twice what is allowed
    open         neither: more rounds may tell, and `more_pairs` says about how many

All ratios here are costs: above 1 is worse, also for throughput. A/A pairs are adjacent runs of one tree: what they
differ by is this machine's noise, and a difference that it could explain is no regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import isinf, pi, sqrt
from typing import Final, TypeAlias

from msgspec import Struct

from benchmarks.gate.metrics import GateMetric
from benchmarks.rig.statistics import (
    GROUPS_MIN,
    PAIRS_MIN,
    RESAMPLED_MIN,
    Estimate,
    detectable,
    of_groups,
    of_pairs,
    pairs_to_decide,
    spread,
)

NOISE_MAX: Final = 2.0
"""The limit may be stretched by noise to this many times what is allowed; beyond, nothing passes."""

Pairs: TypeAlias = Sequence[tuple[float, float]]


class Word(Enum):
    PASS = "pass"  # noqa: S105  (the word, no password)
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"


class Decision(Struct, frozen=True, kw_only=True):
    """One metric. `base` and `head` are medians over the runs; `cost` and `same` are None with too few pairs."""

    metric: GateMetric
    base: float
    head: float
    cost: Estimate | None
    same: Estimate | None
    limit: float
    detectable: float | None
    """The smallest true cost that this many pairs find in 9 of 10 sessions; None with too few A/A pairs."""
    word: Word
    more_pairs: int | None
    """About how many pairs more would decide; None if decided, or if no number of them is likely to."""


def decide(metric: GateMetric, base: Sequence[float], head: Sequence[float], pairs: Pairs, same: Pairs) -> Decision:
    """Judge one metric from its pairs (base, head) and its A/A pairs."""
    cost = _cost(metric, of_pairs(pairs)) if len(pairs) >= PAIRS_MIN else None
    return _decision(metric, base, head, cost, same, len(pairs))


def decide_groups(metric: GateMetric, base: Sequence[float], head: Sequence[float], same: Pairs) -> Decision:
    """Judge one metric of two sessions that were not taken together."""
    count = min(len(base), len(head))
    cost = _cost(metric, of_groups(base, head)) if count >= GROUPS_MIN else None
    # Medians of two groups scatter more than the centre of as many pairs.
    return _decision(metric, base, head, cost, same, count, scatter=sqrt(pi / 2))


def _cost(metric: GateMetric, interval: Estimate) -> Estimate:
    return interval if metric.better == "lower" else interval.inverse()


def _decision(
    metric: GateMetric,
    base: Sequence[float],
    head: Sequence[float],
    cost: Estimate | None,
    same: Pairs,
    count: int,
    scatter: float = 1.0,
) -> Decision:
    allowed = 1 + metric.allowed
    noise = of_pairs(same) if len(same) >= PAIRS_MIN else None
    limit = max(allowed, noise.reach) if noise else allowed
    word, more = Word.INCONCLUSIVE, None
    if cost is None or noise is None:
        more = max(1, RESAMPLED_MIN - count)
    else:
        if cost.low > limit:
            word = Word.REGRESSION
        elif cost.high < limit <= 1 + NOISE_MAX * metric.allowed:
            word = Word.PASS
        else:
            # More rounds narrow both intervals, so the limit comes down to what is allowed.
            wanted = pairs_to_decide(cost, allowed)
            more = None if isinf(wanted) else max(1, int(wanted))
    return Decision(
        metric=metric,
        base=_median(base),
        head=_median(head),
        cost=cost,
        same=noise,
        limit=limit,
        detectable=detectable(scatter * spread(same), count, limit) if noise is not None and count >= 2 else None,
        word=word,
        more_pairs=more,
    )


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def overall(decisions: Sequence[Decision]) -> Word:
    """One regression is a regression; a pass needs every needed metric to pass."""
    if any(one.word is Word.REGRESSION for one in decisions):
        return Word.REGRESSION
    wanted = needed(decisions)
    return Word.PASS if wanted and all(one.word is Word.PASS for one in wanted) else Word.INCONCLUSIVE


def needed(decisions: Sequence[Decision]) -> list[Decision]:
    """Return those that a pass hangs on."""
    return [one for one in decisions if one.metric.needed] or list(decisions)


def more_rounds(decisions: Sequence[Decision]) -> int | None:
    """Return about how many rounds (of two pairs) more would decide; None if that cannot be foreseen."""
    still_open = [one for one in needed(decisions) if one.word is Word.INCONCLUSIVE]
    if not still_open or any(one.more_pairs is None for one in still_open):
        return None
    return max(-(-(one.more_pairs or 0) // 2) for one in still_open)
