"""A run while it goes on: what the progress display and a scrape show of it."""

from __future__ import annotations

from time import monotonic_ns
from typing import Final

from loadtests.control.collector import Collector
from loadtests.control.exporter import Snapshot
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.report.terminal import Live
from loadtests.sealing.records import KIND_NAMES

RATE_SECONDS: Final = 5


def progress_of(run: Collector, phase: str) -> Live:
    """Return what the progress display shows."""
    due, sent, delivered = run.recent_rates(RATE_SECONDS)
    return Live(
        elapsed_ns=monotonic_ns() - run.load_from_ns if run.load_from_ns else 0,
        phase=phase,
        connections=run.total("attached"),
        due_per_s=due,
        sent_per_s=sent,
        delivered_per_s=delivered,
        latency=_latency(run.recorder.totals),
    )


def _latency(totals: dict[str, Histogram]) -> dict[str, Histogram]:
    found = {}
    for kind in KIND_NAMES:
        histogram = totals.get(series_name("deliver", kind=kind, basis="intended"))
        if histogram is not None and histogram.count:
            found[kind] = histogram
    return found


def snapshot_of(run: Collector | None, phase: str) -> Snapshot:
    """Return what a scrape shows."""
    if run is None:
        return Snapshot(series={}, kinds={}, running=False)
    began_ns, ended_ns = run.load_from_ns, run.load_to_ns
    return Snapshot(
        series=run.recorder.totals,
        kinds=run.kinds_so_far(),
        running=phase == "load",
        connections=run.total("attached"),
        workers=len(run.lines),
        worker_cpu_max=max((line.status.cpu for line in run.lines.values()), default=0.0),
        clock_error_ns=run.clock_error_ns,
        started_unix_ns=run.started_unix_ns if began_ns else None,
        ended_unix_ns=run.started_unix_ns + ended_ns - began_ns if ended_ns else None,
        events=[(event.text, run.started_unix_ns + event.at_ns) for event in run.events],
    )
