"""The result of a run, as result.json holds it: one `Result`.

Percentiles are stored for reading; whoever merges or compares uses the histograms, which are stored whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from loadtests.measuring.histogram import PERCENTILES, Histogram
from loadtests.measuring.recorder import HistoryRow
from loadtests.measuring.series import parse_series_name
from loadtests.results.environment import Machine
from loadtests.results.exit_codes import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK, EXIT_THRESHOLD
from loadtests.results.validity import Finding, Verdict, verdict

SCHEMA_VERSION: Final = 1
"""Rises whenever a field changes its meaning or a needed one is added."""


class Summary(Struct, frozen=True, kw_only=True):
    """One series. Times in ns, 0 where `count` is 0; negative values are counted and stand in no percentile."""

    count: int
    min_ns: int
    mean_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    overflow: int
    negative: int
    negative_min_ns: int
    histogram: dict[str, Any]
    """`Histogram.to_wire()`."""

    @classmethod
    def of(cls, histogram: Histogram) -> Summary:
        p50, p90, p99, p999 = histogram.percentiles(PERCENTILES)
        return cls(
            count=histogram.count,
            min_ns=histogram.min_ns,
            mean_ns=histogram.mean_ns,
            p50_ns=p50,
            p90_ns=p90,
            p99_ns=p99,
            p999_ns=p999,
            max_ns=histogram.max_ns,
            overflow=histogram.overflow_count,
            negative=histogram.negative_count,
            negative_min_ns=histogram.negative_min_ns,
            histogram=histogram.to_wire(),
        )

    def to_histogram(self) -> Histogram:
        return Histogram.from_wire(self.histogram)


class LedgerColumns(Struct, frozen=True, kw_only=True):
    """Where every record of a kind went, summed over its recipients but for `sent`."""

    sent: int = 0
    expected: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    late: int = 0
    """Part of the delivered: more than ten seconds after it was sent, or after the drain's deadline."""
    boundary: int = 0
    """Sent while the recipient was joining or leaving: owed to nobody, counted apart."""
    superseded: int = 0
    """Ephemeral: replaced by a newer state before it was delivered."""
    dropped: int = 0
    """Ephemeral: never delivered, though no newer state took its place."""
    missed_away: int = 0
    """Sent while the recipient was away from a relay that does not resume; of states, from any relay."""
    under_way: int = 0
    """Missing, and under way when its sender's connection ended: nobody knows whether the relay had it."""


UNEXPECTED_COLUMNS: Final = ("boundary", "missed_away", "under_way")
"""Columns of what no relay owed: beside `expected`, and left out of a table where they are empty."""


class KindFigures(Struct, frozen=True, kw_only=True):
    """What was asked for and what was done, for one kind of record."""

    due: int = 0
    """Sends that the schedule asked for."""
    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    sealed_bytes: int = 0
    ledger: LedgerColumns = LedgerColumns()


class Attempts(Struct, frozen=True, kw_only=True):
    """Joins or resumes: how many were tried, how many failed, and how long until 95 % and all had succeeded."""

    tried: int = 0
    failed: int = 0
    p95_after_ns: int | None = None
    """From the first attempt; None where fewer succeeded."""
    all_after_ns: int | None = None


class RateColumns(Struct, frozen=True, kw_only=True):
    """Records a second over time, as columns: due by the schedule, sent, delivered to recipients."""

    second: list[int] = []
    due: list[int] = []
    sent: list[int] = []
    delivered: list[int] = []


class Track(Struct, frozen=True, kw_only=True):
    """One series over time, as columns, from merged histograms; `second` is where an interval of `width_s` begins."""

    second: list[int]
    width_s: list[int]
    count: list[int]
    p50_ns: list[int]
    p90_ns: list[int]
    p99_ns: list[int]
    max_ns: list[int]


class Usage(Struct, frozen=True, kw_only=True):
    """What one process used over time, as columns. CPU in shares of one core."""

    name: str
    role: str
    """relay or worker."""
    second: list[int] = []
    cpu: list[float] = []
    memory_bytes: list[int] = []
    connections: list[int] = []


class SeriesColumns(Struct, frozen=True, kw_only=True):
    """One metric of the target's own over time, as columns; of a counter, its rise a second."""

    second: list[int] = []
    value: list[float] = []


class WorkerFigures(Struct, frozen=True, kw_only=True):
    """One process of the generator."""

    name: str
    cpu: float
    """Mean over the load, of one core."""
    due: int
    sent: int
    received: int
    connections: int
    lag_p99_ns: int
    loop_lag_p99_ns: int
    clock_offset_ns: int | None = None
    """The relay's clock less this worker's; None where it could not be estimated."""
    clock_error_ns: int | None = None


class RelayFigures(Struct, frozen=True, kw_only=True):
    """What the relay used for the load; only of relays that the harness started."""

    cpu_ns: int
    memory_bytes_idle: int
    memory_bytes_max: int
    connections: int
    deliveries: int
    statistics: dict[str, float] = {}
    """Its own counters at the end, by the names of its metrics."""

    @property
    def cpu_ns_per_delivery(self) -> float | None:
        return self.cpu_ns / self.deliveries if self.deliveries else None

    @property
    def memory_bytes_per_connection(self) -> float | None:
        return (self.memory_bytes_max - self.memory_bytes_idle) / self.connections if self.connections else None


class MeasuredTarget(Struct, frozen=True, kw_only=True):
    """What was measured. `promises`: durability, order, resume, in words, for the table beside the figures."""

    name: str
    url: str = ""
    version: str = ""
    promises: dict[str, str] = {}


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened in the run: a fault that was injected, a relay that died, the end of the load."""

    at_ns: int
    """From the start of the run."""
    text: str


class ThresholdOutcome(Struct, frozen=True, kw_only=True):
    """A threshold and what became of it. `observed` in ns, a count, or a rate a second; None: there is no data."""

    threshold: str
    ok: bool
    observed: float | None
    text: str


class Result(Struct, frozen=True, kw_only=True):
    """One run. The schema is versioned: see SCHEMA_VERSION."""

    schema_version: int = SCHEMA_VERSION
    relaymark: str
    commit: str | None
    python: str
    versions: dict[str, str] = {}
    machine: Machine
    command: list[str]
    scenario: str
    seed: int
    run: str
    target: MeasuredTarget
    options: dict[str, str | int | float | bool | None] = {}
    """Participants, rate, duration, workers, suite, and what else the command set."""
    started_unix_ns: int
    duration_ns: int
    """Length of the load, the drain after it left out."""
    interrupted: bool = False

    series: dict[str, Summary] = {}
    """By `series_name`."""
    kinds: dict[str, KindFigures] = {}
    joins: Attempts = Attempts()
    resumes: Attempts = Attempts()
    rates: RateColumns = RateColumns()
    history: dict[str, Track] = {}
    usage: list[Usage] = []
    target_series: dict[str, SeriesColumns] = {}
    """By the name of the metric, those that were asked for."""
    workers: list[WorkerFigures] = []
    relay: RelayFigures | None = None
    clock_error_ns: int | None = 0
    """Error of every one-way time; 0 where one clock stamps both ends, None where it is not known."""
    calibration: Summary | None = None
    """Round trips to an echo server on this rig: what the generator itself costs."""
    events: list[Event] = []
    findings: list[Finding] = []
    thresholds: list[ThresholdOutcome] = []
    notes: list[str] = []
    """What a reader must know that is no fault: a fallback that was taken, intervals that came late."""

    @property
    def verdict(self) -> Verdict:
        return verdict(self.findings)

    @property
    def exit_code(self) -> int:
        """Interrupted before invalid before a failed threshold: the first of them that holds explains the others."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.findings:
            return EXIT_INVALID
        return EXIT_OK if all(outcome.ok for outcome in self.thresholds) else EXIT_THRESHOLD

    def names(self, metric: str, **labels: str) -> list[str]:
        """Return the series of `metric` that have all of `labels`."""
        found = []
        for name in self.series:
            its_metric, its_labels = parse_series_name(name)
            if its_metric == metric and labels.items() <= its_labels.items():
                found.append(name)
        return found

    def histogram(self, metric: str, **labels: str) -> Histogram:
        """Return the merged histogram of the series of `metric` that have all of `labels`; empty if none has.

        Deliveries are counted once for each basis, so give `basis` for them.
        """
        merged = Histogram()
        for name in self.names(metric, **labels):
            merged.merge(self.series[name].to_histogram())
        return merged


def summaries(totals: Mapping[str, Histogram]) -> dict[str, Summary]:
    """Return `Recorder.totals` as a result holds them."""
    return {name: Summary.of(totals[name]) for name in sorted(totals)}


def tracks(rows: Iterable[HistoryRow]) -> dict[str, Track]:
    """Return `Recorder.history()` as a result holds it."""
    grouped: dict[str, list[HistoryRow]] = {}
    for row in rows:
        grouped.setdefault(row.name, []).append(row)
    return {
        name: Track(
            second=[row.second for row in its_rows],
            width_s=[row.width_s for row in its_rows],
            count=[row.count for row in its_rows],
            p50_ns=[row.p50_ns for row in its_rows],
            p90_ns=[row.p90_ns for row in its_rows],
            p99_ns=[row.p99_ns for row in its_rows],
            max_ns=[row.max_ns for row in its_rows],
        )
        for name, its_rows in sorted(grouped.items())
    }


def _load(result: Result) -> str:
    """Return what decides on the load besides scenario and seed."""
    said = [(name, result.options.get(name)) for name in ("participants", "rate", "duration_s")]
    return ", ".join(f"{name.removesuffix('_s')} {value}" for name, value in said if value is not None)


def differences(results: Sequence[Result]) -> list[str]:
    """Return why `results` cannot be compared with each other as measurements, one sentence each; empty if they can."""
    problems = []
    for label, values in (
        ("on different machines", {result.machine.fingerprint for result in results}),
        ("of different scenarios", {result.scenario for result in results}),
        ("with different seeds", {str(result.seed) for result in results}),
        ("under different loads", {_load(result) for result in results}),
    ):
        if len(values) > 1:
            problems.append(f"The runs were {label} ({'; '.join(sorted(values))}): repeat them under equal conditions.")
    return problems


__all__ = [
    "SCHEMA_VERSION",
    "Attempts",
    "Event",
    "KindFigures",
    "LedgerColumns",
    "ThresholdOutcome",
    "RateColumns",
    "RelayFigures",
    "SeriesColumns",
    "Result",
    "Summary",
    "MeasuredTarget",
    "Track",
    "Usage",
    "WorkerFigures",
]
