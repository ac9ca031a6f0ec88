"""Several runs beside each other: which belong together, which configuration is better, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.report.ratios import EstimatedRatio, of_runs, of_seconds
from loadtests.report.tables import Table, Wrong, ledger_cells
from loadtests.report.words import (
    NONE,
    WRONG_COLUMNS,
    duration,
    ledger_total,
    main_histogram,
    main_kind,
    number,
    size,
    verdict_of,
)
from loadtests.results.schema import Result, Track, differences

_OWN_OPTIONS: Final = frozenset({"out", "run", "json", "metrics", "quiet", "round", "linger"})
"""Options that change nothing about what is measured."""


class RunGroup(Struct, frozen=True, kw_only=True):
    """Runs of one configuration, in the order in which they were given."""

    label: str
    runs: tuple[Result, ...]

    @property
    def usable(self) -> tuple[Result, ...]:
        """The valid and complete ones: the others say nothing about the target, or not about all of the schedule."""
        return tuple(run for run in self.runs if not run.findings and not run.interrupted)

    @property
    def wrong(self) -> int:
        """Records that the ledgers of the usable runs show as lost, duplicated, reordered or late."""
        return sum(getattr(ledger_total(run), column) for run in self.usable for column in WRONG_COLUMNS)


class ComparedFigure(Struct, frozen=True, kw_only=True):
    """One figure of a run that can be compared. `over_time` names the column of the history, if it has one."""

    name: str
    better: Literal["lower", "higher"]
    said: str
    """How the better one is called."""
    value: Callable[[Result], float | None]
    show: Callable[[float], str]
    over_time: Literal["p50_ns", "p99_ns"] | None = None


class Compared(Struct, frozen=True, kw_only=True):
    """A configuration against the first one, in one figure."""

    label: str
    base: str
    metric: ComparedFigure
    ratio: EstimatedRatio

    @property
    def better(self) -> str | None:
        """The label of the better one; None: not decided."""
        if not self.ratio.decided:
            return None
        lower = self.label if self.ratio.decided < 0 else self.base
        higher = self.base if self.ratio.decided < 0 else self.label
        return lower if self.metric.better == "lower" else higher


def group(results: Sequence[Result]) -> list[RunGroup]:
    """Put runs of one configuration together; a label names what tells it from the others."""
    traits = [_traits(result) for result in results]
    used = ["target"]
    for trait in dict.fromkeys(name for each in traits for name in each):
        # A trait that only repeats what the label says already would make it longer and no clearer.
        seen: dict[tuple[str, ...], set[str]] = {}
        for each in traits:
            seen.setdefault(tuple(each.get(name, "") for name in used), set()).add(each.get(trait, ""))
        if any(len(values) > 1 for values in seen.values()):
            used.append(trait)
    grouped: dict[str, list[Result]] = {}
    for result, each in zip(results, traits, strict=True):
        said = [f"{name} {each.get(name) or NONE}" for name in used[1:]]
        grouped.setdefault(", ".join([each["target"], *said]), []).append(result)
    return [RunGroup(label=label, runs=tuple(runs)) for label, runs in grouped.items()]


def _traits(result: Result) -> dict[str, str]:
    options = {
        name.removesuffix("_s").replace("_", " "): f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in result.options.items()
        if value is not None and name not in _OWN_OPTIONS
    }
    return {
        "target": result.target.name,
        "version": result.target.version,
        "scenario": result.scenario,
        "seed": str(result.seed),
        **options,
        "commit": _short(result.commit or ""),
        "machine": result.machine.fingerprint,
        "Python": result.python,
    }


def _short(commit: str) -> str:
    name, dash, changed = commit.partition("-")
    return name[:7] + dash + changed


def _percentile(percent: float) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        histogram = main_histogram(result)
        return histogram.percentile(percent) if histogram.count else None

    return value


def _cpu(result: Result) -> float | None:
    return result.relay.cpu_ns_per_delivery if result.relay else None


def _memory(result: Result) -> float | None:
    return result.relay.memory_bytes_per_connection if result.relay else None


def _delivered(result: Result) -> float | None:
    delivered = ledger_total(result).delivered
    return delivered / (result.duration_ns / 1e9) if delivered and result.duration_ns else None


METRICS: Final = (
    ComparedFigure(name="p50", better="lower", said="faster", value=_percentile(50), show=duration, over_time="p50_ns"),
    ComparedFigure(name="p99", better="lower", said="faster", value=_percentile(99), show=duration, over_time="p99_ns"),
    ComparedFigure(name="p99.9", better="lower", said="faster", value=_percentile(99.9), show=duration),
    ComparedFigure(name="CPU a delivery", better="lower", said="cheaper", value=_cpu, show=duration),
    ComparedFigure(name="memory a connection", better="lower", said="smaller", value=_memory, show=size),
    ComparedFigure(name="deliveries a second", better="higher", said="ahead", value=_delivered, show=number),
)


def verdicts(groups: Sequence[RunGroup]) -> list[Compared]:
    """Compare every configuration with the first, in every figure that both have; valid runs only.

    Empty where there is only one configuration, or where the runs cannot be compared (see `obstacles`).
    """
    if len(groups) < 2 or obstacles(groups):
        return []
    base = groups[0]
    return [
        Compared(label=other.label, base=base.label, metric=metric, ratio=ratio)
        for other in groups[1:]
        for metric in METRICS
        if (ratio := _ratio(metric, base, other)) is not None
    ]


def _ratio(metric: ComparedFigure, base: RunGroup, other: RunGroup) -> EstimatedRatio | None:
    if len(base.usable) == len(other.usable) == 1 and metric.over_time is not None:
        seconds = [_by_second(each.usable[0], metric.over_time) for each in (base, other)]
        return of_seconds(*seconds)
    values = [[value for run in each.usable if (value := metric.value(run)) is not None] for each in (base, other)]
    return of_runs(*values)


def _by_second(result: Result, column: str) -> Mapping[int, float]:
    track = main_track(result)
    return dict(zip(track.second, getattr(track, column), strict=True)) if track else {}


def main_track(result: Result) -> Track | None:
    """Return the history of the kind that stands for the run, from the intended send."""
    kind = main_kind(result)
    return result.history.get(series_name("deliver", kind=kind, basis="intended")) if kind else None


def obstacles(groups: Sequence[RunGroup]) -> list[str]:
    """Return why no verdict is possible, one sentence each; empty if one is."""
    usable = [run for each in groups for run in each.usable]
    found = differences(usable)
    if len(groups) > 1 and sum(bool(each.usable) for each in groups) < 2:
        found.append("Fewer than two configurations have a valid, complete run: see each run's verdict.")
    return found


def sentences(groups: Sequence[RunGroup]) -> list[str]:
    """Return which configuration is better and by how much, and how far that may be believed."""
    if len(groups) == 1:
        return [_spread(groups[0])]
    found = [f"No verdict. {problem}" for problem in obstacles(groups)]
    compared = verdicts(groups)
    for other in groups[1:]:
        decided = [verdict for verdict in compared if verdict.label == other.label]
        if decided:
            found.append(_sentence(decided))
    for each in groups:
        if each.wrong:
            found.append(
                f"{each.label}: {number(each.wrong)} records lost, duplicated, reordered or late. Speed is no excuse."
            )
        left_out = len(each.runs) - len(each.usable)
        if left_out:
            found.append(
                f"{each.label}: {left_out} of {len(each.runs)} runs were invalid or interrupted and are left out."
            )
    return found


def _sentence(compared: Sequence[Compared]) -> str:
    said = [
        f"{verdict.metric.name} is {factor(verdict.ratio)}, so {verdict.better} is {verdict.metric.said}"
        for verdict in compared
        if verdict.better is not None
    ]
    undecided = [each for each in compared if each.better is None]
    for text, names in (
        ("no difference is shown in", [each.metric.name for each in undecided if each.ratio.unit != "none"]),
        ("too few data to decide on", [each.metric.name for each in undecided if each.ratio.unit == "none"]),
    ):
        if names:
            said.append(f"{text} {', '.join(names)}")
    return f"{compared[0].label} against {compared[0].base}: {'; '.join(said)}."


def factor(ratio: EstimatedRatio) -> str:
    """Return a ratio with its interval: 1.62 times as large (1.5 to 1.75)."""
    text = f"{ratio.value:.3g} times as large"
    return text if ratio.low is None or ratio.high is None else f"{text} ({ratio.low:.3g} to {ratio.high:.3g})"


def meaning(groups: Sequence[RunGroup]) -> str:
    """Return what the intervals mean for these groups."""
    units = {verdict.ratio.unit for verdict in verdicts(groups)}
    if "runs" in units:
        fewest = min(len(each.usable) for each in groups if each.usable)
        return (
            f"Intervals are 95% t intervals over whole runs, at least {fewest} of each configuration: they tell what other"
            " runs on this machine would show. Among twenty such comparisons, one is expected to be wrong."
        )
    if "seconds" in units:
        return (
            "There is one valid run of each, so p50 and p99 are compared second by second (the typical second's ratio, with"
            " a 95% block-bootstrap interval). That tells how steady the difference was within these runs, not how another"
            " pair would turn out: for that, give several rounds of each. Figures without an interval decide nothing."
        )
    return "There are too few data for intervals, so nothing is decided: give several rounds of each configuration."


def _spread(only: RunGroup) -> str:
    if len(only.usable) < 2:
        return "All runs are of one configuration, and fewer than two are valid: there is nothing to compare."
    parts = []
    for metric in METRICS:
        values = [value for run in only.usable if (value := metric.value(run)) is not None]
        if len(values) > 1:
            parts.append(f"{metric.name} {metric.show(min(values))} to {metric.show(max(values))}")
    return (
        f"All runs are of one configuration, so their spread is this rig's noise: {'; '.join(parts)}."
        " A difference between configurations that is smaller shows nothing."
    )


def merged(each: RunGroup) -> Histogram:
    """Return the deliveries of the main kind of all valid runs, or of all if none is valid."""
    total = Histogram()
    for run in each.usable or each.runs:
        total.merge(main_histogram(run))
    return total


def figures(groups: Sequence[RunGroup]) -> Table:
    """Return the figures of every run."""
    rows = []
    for each in groups:
        for run in each.runs:
            values = (metric.value(run) for metric in METRICS)
            cells = [
                NONE if value is None else metric.show(value) for metric, value in zip(METRICS, values, strict=True)
            ]
            verdict = verdict_of(run)
            word = Wrong(verdict.word.lower()) if verdict.tone != "good" else verdict.word.lower()
            rows.append([each.label, run.run, word, *cells])
    return Table(
        caption="Every run, its verdict and its figures",
        head=("configuration", "run", "verdict", *(metric.name for metric in METRICS)),
        rows=rows,
        words=frozenset({0, 1, 2}),
    )


def ratio_table(groups: Sequence[RunGroup]) -> Table:
    compared = verdicts(groups)
    base = groups[0].label
    return Table(
        caption=f"Every configuration against {base}: how many times its figure",
        head=("configuration", "figure", "ratio", "95% interval", "better"),
        rows=[
            [
                verdict.label,
                verdict.metric.name,
                f"{verdict.ratio.value:.3g}",
                NONE if verdict.ratio.low is None else f"{verdict.ratio.low:.3g} to {verdict.ratio.high:.3g}",
                verdict.better or "not decided",
            ]
            for verdict in compared
        ],
        words=frozenset({0, 1, 4}),
    )


def ledgers(groups: Sequence[RunGroup]) -> Table:
    columns = ("expected", "delivered", "lost", "duplicated", "reordered", "late", "boundary")
    return Table(
        caption="The ledgers of all runs, summed over the kinds",
        head=("configuration", "run", "sent", *columns),
        rows=[
            [each.label, run.run, number(total.sent), *ledger_cells(total, columns)]
            for each in groups
            for run in each.runs
            for total in (ledger_total(run),)
        ],
        words=frozenset({0, 1}),
    )


def promises(groups: Sequence[RunGroup]) -> Table:
    """Return what each target promises: a relay that promises less may be faster for it."""
    names = list(dict.fromkeys(name for each in groups for name in each.runs[0].target.promises))
    return Table(
        caption="What each target promises: one that promises less may well be faster",
        head=("configuration", *names),
        rows=[[each.label, *(each.runs[0].target.promises.get(name, NONE) for name in names)] for each in groups]
        if names
        else [],
        words=frozenset(range(len(names) + 1)),
    )
