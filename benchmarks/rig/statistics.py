"""Ratios of repeated runs with bootstrap intervals, pure. The run is the unit, never a sample within it.

Runs of two trees are taken in adjacent pairs, so that what drifts over minutes (clock speed, neighbours on the host)
cancels within a pair. The estimate is the Hodges-Lehmann median of the pairs' log ratios: as good as a mean on clean
runs, and unmoved by a few disturbed ones. Pairs are resampled; the percentiles are widened for few pairs, since the
plain ones are too narrow there. Below six pairs no resampling reaches 95%, and Student's t takes its place.

Source: Hesterberg, What Teachers Should Know About the Bootstrap (2015), "expanded percentile interval".
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, inf, log, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from loadtests.report.ratios import T_975

RESAMPLES: Final = 4_000
PAIRS_MIN: Final = 3
"""Fewer have no interval: two pairs have three different bootstrap samples."""
GROUPS_MIN: Final = 4
"""Two groups of three are apart by chance in a tenth of all sessions: no interval of theirs reaches 95%."""
RESAMPLED_MIN: Final = 6
"""The range of five pairs holds their median in 94 of 100 sessions, that of six in 97."""
_NORMAL: Final = NormalDist()
_Z_975: Final = _NORMAL.inv_cdf(0.975)
_Z_POWER: Final = _NORMAL.inv_cdf(0.95)
"""For nine of ten; the rest makes up for an interval that varies in width itself."""
_RESAMPLED_AT_ONCE: Final = 2_000_000


class Estimate(Struct, frozen=True, kw_only=True):
    """A ratio or a difference with its 95% interval; `count` is how many pairs (or runs of the smaller group) it rests on."""

    value: float
    low: float
    high: float
    count: int

    @property
    def reach(self) -> float:
        """The end of a ratio's interval that is farther from 1, as a factor above 1."""
        return exp(max(abs(log(self.low)), abs(log(self.high))))

    def inverse(self) -> Estimate:
        """Return the interval of the ratio the other way round."""
        return Estimate(value=1 / self.value, low=1 / self.high, high=1 / self.low, count=self.count)


def of_pairs(pairs: Sequence[tuple[float, float]], *, seed: int = 1) -> Estimate:
    """Return second over first. Raises ValueError with fewer than 3 pairs or a figure that is not above 0."""
    if len(pairs) < PAIRS_MIN:
        raise ValueError(f"{len(pairs)} pairs have no interval, {PAIRS_MIN} are needed")
    if min(min(pair) for pair in pairs) <= 0:
        raise ValueError("figures must be above 0")
    middle, low, high = _centre([log(second / first) for first, second in pairs], seed)
    return Estimate(value=exp(middle), low=exp(low), high=exp(high), count=len(pairs))


def difference_of_pairs(pairs: Sequence[tuple[float, float]], *, seed: int = 1) -> Estimate:
    """Return second minus first. Raises ValueError with fewer than 3 pairs."""
    if len(pairs) < PAIRS_MIN:
        raise ValueError(f"{len(pairs)} pairs have no interval, {PAIRS_MIN} are needed")
    middle, low, high = _centre([second - first for first, second in pairs], seed)
    return Estimate(value=middle, low=low, high=high, count=len(pairs))


def _centre(differences: Sequence[float], seed: int) -> tuple[float, float, float]:
    """Return the Hodges-Lehmann median and its interval."""
    values = np.array(differences)
    count = len(values)
    if count < RESAMPLED_MIN:
        middle, reach = fmean(differences), _t_975(count - 1) * stdev(differences) / sqrt(count)
        return middle, middle - reach, middle + reach
    random = np.random.default_rng([seed, count])
    rows = max(1, _RESAMPLED_AT_ONCE // (count * (count + 1) // 2))
    middles = np.concatenate(
        [
            _hodges_lehmann(random.choice(values, (min(rows, RESAMPLES - done), count)))
            for done in range(0, RESAMPLES, rows)
        ]
    )
    return _widened(float(_hodges_lehmann(values[None])[0]), middles, count)


def of_groups(base: Sequence[float], head: Sequence[float], *, seed: int = 1) -> Estimate:
    """Return the ratio of medians of two groups that were not taken together.

    Raises ValueError with fewer than 4 runs in one of them or a figure that is not above 0.
    """
    count = min(len(base), len(head))
    if count < GROUPS_MIN:
        raise ValueError(f"{count} runs have no interval, {GROUPS_MIN} are needed")
    if min(*base, *head) <= 0:
        raise ValueError("figures must be above 0")
    random = np.random.default_rng([seed, count])
    logs = [np.log(np.array(group)) for group in (base, head)]
    first, second = (np.median(random.choice(group, (RESAMPLES, len(group))), axis=1) for group in logs)
    middle, low, high = _widened(float(np.median(logs[1]) - np.median(logs[0])), second - first, count)
    return Estimate(value=exp(middle), low=exp(low), high=exp(high), count=count)


def _hodges_lehmann(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = np.triu_indices(rows.shape[1])
    middles: NDArray[np.float64] = np.median((rows[:, first] + rows[:, second]) / 2, axis=1)
    return middles


def _widened(middle: float, resampled: NDArray[np.float64], count: int) -> tuple[float, float, float]:
    tail = 100 * _NORMAL.cdf(-sqrt(count / (count - 1)) * _t_975(count - 1))
    low, high = np.percentile(resampled, (tail, 100 - tail))
    # A resampled percentile may end on the wrong side of the estimate when there are few pairs.
    return middle, min(middle, float(low)), max(middle, float(high))


def _t_975(freedom: int) -> float:
    return T_975[freedom - 1] if freedom <= len(T_975) else _Z_975 * (1 + 1 / freedom)


def spread(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the standard deviation of the pairs' log ratios: the noise of one pair."""
    return stdev(log(second / first) for first, second in pairs)


def detectable(noise: float, pairs: int, limit: float) -> float:
    """Return the smallest true ratio whose interval lies beyond `limit` in 9 of 10 sessions of so many pairs."""
    return limit * exp((_t_975(pairs - 1) + _Z_POWER) * noise / sqrt(pairs))


def pairs_to_decide(interval: Estimate, limit: float) -> float:
    """Return how many further pairs would bring `limit` outside of the interval, if the estimate stays; may be inf."""
    distance = abs(log(limit / interval.value))
    half = log(interval.high / interval.value) if interval.value < limit else log(interval.value / interval.low)
    if distance < half / 20:
        return inf
    return max(0, ceil(interval.count * (half / distance) ** 2) - interval.count)
