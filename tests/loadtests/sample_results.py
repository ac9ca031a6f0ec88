"""Results to test with: every part filled, small and always the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadtests.measuring.recorder import Recorder
from loadtests.measuring.series import series_name
from loadtests.results.environment import Machine
from loadtests.results.schema import (
    Attempts,
    Event,
    KindFigures,
    LedgerColumns,
    MeasuredTarget,
    RateColumns,
    RelayFigures,
    Result,
    Summary,
    Usage,
    WorkerFigures,
    summaries,
    tracks,
)

KINDS = ("message", "receipt-delivered", "receipt-read", "typing", "tip", "media")
STARTED_NS = 1_760_000_000_000_000_000
SECOND_NS = 1_000_000_000
SECONDS = 3

MACHINE = Machine(
    system="Linux 6.12", architecture="x86_64", cpu="A processor", cpus=2, memory_bytes=2**34, fingerprint="0" * 16
)


def recorder() -> Recorder:
    """Three seconds of all series that a run can have."""
    random = np.random.default_rng(3)
    kept = Recorder(started_ns=STARTED_NS)
    names = [series_name("deliver", kind=kind, basis=basis) for kind in KINDS for basis in ("intended", "sent")]
    names += [series_name("ack", kind=kind) for kind in ("message", "tip", "media")]
    names += [series_name(metric) for metric in ("join", "resume", "lag", "loop_lag")]
    names += [series_name(metric, suite="sender-key") for metric in ("seal", "open")]
    names += [
        series_name(f"fanout_{which}", size=size)
        for which in ("first", "median", "last")
        for size in ("1-9", "10-99", "100-999")
    ]
    for second in range(SECONDS):
        for name in names:
            kept.series(name).extend(random.lognormal(14, 1, 40).astype(np.int64).tolist())
        kept.series(names[0]).append(-1_000)
        kept.fold(STARTED_NS + second * SECOND_NS)
    return kept


def result(**changes: Any) -> Result:
    """A run in which nothing is amiss, with `changes`."""
    kept = recorder()
    return Result(
        **{
            "relaymark": "0.1.0",
            "commit": "0123456789ab",
            "python": "CPython 3.13.1",
            "versions": {"locust": "2.40.0"},
            "machine": MACHINE,
            "command": ["relaymark", "run", "evening-peak", "--seed", "1"],
            "scenario": "evening-peak",
            "seed": 1,
            "run": "20251009T085320Z-evening-peak",
            "target": MeasuredTarget(name="reference", url="ws://127.0.0.1:1", promises={"durability": "none"}),
            "options": {"participants": 400, "rate": None, "suite": "sender-key"},
            "started_unix_ns": STARTED_NS,
            "duration_ns": SECONDS * SECOND_NS,
            "series": summaries(kept.totals),
            "kinds": {
                kind: KindFigures(
                    due=121,
                    sent=120,
                    acknowledged=120,
                    sealed_bytes=120 * 256,
                    ledger=LedgerColumns(sent=120, expected=125, delivered=120, boundary=5),
                )
                for kind in KINDS
            },
            "joins": Attempts(tried=120, p95_after_ns=SECOND_NS, all_after_ns=2 * SECOND_NS),
            "resumes": Attempts(tried=20, failed=1, p95_after_ns=SECOND_NS),
            "rates": RateColumns(second=[0, 1, 2], due=[100] * 3, sent=[99] * 3, delivered=[240] * 3),
            "history": tracks(kept.history()),
            "usage": [
                Usage(name="relay", role="relay", second=[0, 1], cpu=[0.5, 0.6], memory_bytes=[2**25, 2**26]),
                Usage(name="worker-0", role="worker", second=[0, 1], cpu=[0.7, 0.7], memory_bytes=[2**27, 2**27]),
            ],
            "workers": [
                WorkerFigures(
                    name="worker-0",
                    cpu=0.7,
                    due=600,
                    sent=600,
                    received=1_200,
                    connections=400,
                    lag_p99_ns=500_000,
                    loop_lag_p99_ns=900_000,
                    clock_offset_ns=0,
                    clock_error_ns=20_000,
                )
            ],
            "relay": RelayFigures(
                cpu_ns=2 * SECOND_NS,
                memory_bytes_idle=2**25,
                memory_bytes_max=2**26,
                connections=400,
                deliveries=1_200,
            ),
            "clock_error_ns": 20_000,
            "calibration": Summary.of(kept.totals["join"]),
            "events": [Event(at_ns=SECOND_NS, text="all connections cut")],
            **changes,
        }
    )
