"""How many times as large: the ratio of two configurations, with an interval and what that interval means.

Several runs of each: the run is the unit. The logarithms of the runs' figures go into a t interval with unequal
variances and the smaller group's degrees of freedom, which is on the safe side and needs no resampling: with three
rounds there are only ten different bootstrap samples of a group.

One run of each: the seconds of the two runs are paired, as both follow one schedule, and the median of their ratios is
bootstrapped in blocks of five seconds, because neighbouring seconds are alike. That interval tells how steady the ratio
was within these two runs. It cannot tell how another pair of runs would turn out.

Source: Student's t table; Künsch, The jackknife and the bootstrap for general stationary observations (1989).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from statistics import fmean, variance
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

Unit: TypeAlias = Literal["runs", "seconds", "none"]

T_975: Final = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""The 97.5th percentile of Student's t with 1, 2, 3, ... degrees of freedom. Beyond the table its last value is used."""
BLOCK_SECONDS: Final = 5
SECONDS_MIN: Final = 20
"""Four blocks. Below that, a bootstrap interval means nothing."""
RESAMPLES: Final = 2_000


class EstimatedRatio(Struct, frozen=True, kw_only=True):
    """`value` is other over base; 95% intervals, None where there are too few data for one."""

    value: float
    low: float | None = None
    high: float | None = None
    unit: Unit = "none"

    @property
    def decided(self) -> int:
        """-1 if the other's is lower, 1 if it is higher, 0 if the interval leaves that open or there is none.

        Three digits decide, as many as are shown: equal schedules give figures so alike that a hair's breadth would win.
        """
        if self.low is None or self.high is None:
            return 0
        low, high = (float(f"{bound:.3g}") for bound in (self.low, self.high))
        return -1 if high < 1 else int(low > 1)


def of_runs(base: Sequence[float], other: Sequence[float]) -> EstimatedRatio | None:
    """Compare the figures of several runs, by their geometric means. None where one is 0 or missing."""
    if not base or not other or min(*base, *other) <= 0:
        return None
    base_logs, other_logs = [log(value) for value in base], [log(value) for value in other]
    middle = fmean(other_logs) - fmean(base_logs)
    fewest = min(len(base), len(other))
    if fewest < 2:
        return EstimatedRatio(value=exp(middle))
    error = sqrt(variance(base_logs) / len(base) + variance(other_logs) / len(other))
    reach = T_975[min(fewest - 1, len(T_975)) - 1] * error
    return EstimatedRatio(value=exp(middle), low=exp(middle - reach), high=exp(middle + reach), unit="runs")


def of_seconds(base: Mapping[int, float], other: Mapping[int, float]) -> EstimatedRatio | None:
    """Compare two runs second by second. None where they share no second."""
    shared = sorted(second for second in base.keys() & other.keys() if base[second] > 0 and other[second] > 0)
    if not shared:
        return None
    logs = np.array([log(other[second] / base[second]) for second in shared])
    middle = exp(float(np.median(logs)))
    if logs.size < SECONDS_MIN:
        return EstimatedRatio(value=middle)
    random = np.random.default_rng(logs.size)  # reports of equal runs are equal
    blocks = -(-logs.size // BLOCK_SECONDS)
    starts = random.integers(0, logs.size - BLOCK_SECONDS + 1, (RESAMPLES, blocks))
    indexes = (starts[:, :, None] + np.arange(BLOCK_SECONDS)).reshape(RESAMPLES, -1)[:, : logs.size]
    low, high = np.percentile(np.median(logs[indexes], axis=1), (2.5, 97.5))
    return EstimatedRatio(value=middle, low=exp(float(low)), high=exp(float(high)), unit="seconds")
