"""Turns to test with: a run and a closed window, as a target would have made them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.compare.ranking import Turn
from benchmarks.fast_load.saturate import Saturation
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.results.schema import KindFigures, LedgerColumns, MeasuredTarget, RelayFigures, Result, Summary
from loadtests.results.validity import Finding
from tests.loadtests.sample_results import result

FINDING = Finding("generator-cpu", "The generator was busy.")


def saturation(rate: float, *, others: float = 0.0) -> Saturation:
    return Saturation(
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


def run_of(target: str, latencies_ns: Sequence[int], *, lost: int = 0, findings: Sequence[Finding] = ()) -> Result:
    deliver, lag = Histogram(), Histogram()
    deliver.record_many(np.array(latencies_ns, np.int64))
    lag.record(100_000)
    count = len(latencies_ns)
    return result(
        scenario="mix",
        run=f"{target}-{latencies_ns[0]}",
        target=MeasuredTarget(name=target, url="ws://127.0.0.1:1", promises={"durability": "none"}),
        series={
            series_name("deliver", kind="message", basis="intended"): Summary.of(deliver),
            series_name("lag"): Summary.of(lag),
        },
        kinds={
            "message": KindFigures(
                due=1, sent=1, ledger=LedgerColumns(sent=1, expected=count + lost, delivered=count, lost=lost)
            )
        },
        relay=RelayFigures(
            cpu_ns=5_000 * count, memory_bytes_idle=1, memory_bytes_max=2, connections=1, deliveries=count
        ),
        findings=list(findings),
        thresholds=[],
        history={},
    )


def turn(
    target: str,
    number: int,
    rate: float | None,
    *,
    others: float = 0.0,
    latency_ns: int = 1_000_000,
    findings: Sequence[Finding] = (),
) -> Turn:
    """A turn in which each of ten deliveries took `latency_ns`; `rate` None: without a closed window."""
    return Turn(
        target=target,
        round=number,
        result=run_of(target, [latency_ns] * 10, findings=findings),
        others_cpu=others,
        saturation=None if rate is None else saturation(rate, others=others),
    )
