"""The load's own parts: recording a latency, drawing a schedule."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice

import numpy as np

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.series import series_name
from loadtests.workload.arrivals import Bursts, Poisson, arrivals

SAMPLES = 1024
_HOUR_NS = 3_600 * 10**9


def _latencies() -> list[int]:
    source = random.Random(6)
    return [int(source.lognormvariate(13, 1)) for _ in range(SAMPLES)]


def record_one() -> Callable[[], object]:
    """One value at a time, straight into a histogram."""
    histogram, values = Histogram(), _latencies()

    def record() -> None:
        for value in values:
            histogram.record(value)

    return record


def record_many() -> Callable[[], object]:
    histogram, values = Histogram(), np.array(_latencies(), dtype=np.int64)
    return lambda: histogram.record_many(values)


def record_folded() -> Callable[[], object]:
    """As a worker does it: appended to an array, folded into the histograms by the thousand."""
    recorder, values = Recorder(keep_history=False), _latencies()
    append = recorder.series(series_name("deliver", kind="message", basis="intended")).append

    def record() -> None:
        for value in values:
            append(value)
        recorder.fold(1)

    return record


def schedule_poisson() -> Callable[[], object]:
    return lambda: _draw(Poisson(100.0))


def schedule_bursts() -> Callable[[], object]:
    return lambda: _draw(Bursts(100.0))


def _draw(process: Poisson | Bursts) -> int:
    drawn = arrivals(process, seed=1, scenario="micro", participant=1, duration_ns=_HOUR_NS)
    count = sum(1 for _ in islice(drawn, SAMPLES))
    assert count == SAMPLES
    return count
