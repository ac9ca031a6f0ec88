"""The charts of several runs over each other: one line for each configuration, or for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loadtests.report.charts import COLOURS, Chart, ChartLine, TimeSlots, View, dash_of, micros, percentile_chart
from loadtests.report.comparison import RunGroup, main_track, merged
from loadtests.report.tables import Table
from loadtests.report.words import duration, main_kind, number
from loadtests.results.schema import Result, Track

POINTS_MAX: Final = 200
"""Points of a line: there are many lines."""


def percentiles(groups: Sequence[RunGroup], runs: Sequence[tuple[str, Result]]) -> Chart | None:
    """One line for each configuration, its valid runs merged; for repeats of one configuration one for each run."""
    if len(groups) == 1:
        curves = {label: merged(RunGroup(label=label, runs=(run,))) for label, run in runs}
    else:
        curves = {each.label: merged(each) for each in groups}
    kind = main_kind(runs[0][1]) or "record"
    return percentile_chart(
        "percentiles",
        "Latency by percentile",
        f"Deliveries of kind {kind}, from the intended send. Each step to the right is ten times rarer; lower is better."
        " The histograms of a configuration's runs are merged, never averaged.",
        {"": curves},
    )


def over_time(groups: Sequence[RunGroup], runs: Sequence[tuple[str, Result]]) -> list[Chart]:
    """Every run's p50 and p99 over time, and its deliveries; a configuration's runs share a colour."""
    lines = _run_lines(groups, runs)
    tracks = [(label, track) for label, run in runs for track in (main_track(run) or _NO_TRACK,)]
    seconds = [second for _, track in tracks for second in track.second]
    widths = [width for _, track in tracks for width in track.width_s]
    charts = []
    if seconds:
        buckets = TimeSlots(seconds, widths, POINTS_MAX)
        views = [
            View(
                name=name,
                data=[
                    buckets.x,
                    *(buckets.worst(track.second, getattr(track, column), micros) for _, track in tracks),
                ],
            )
            for name, column in (("p99", "p99_ns"), ("p50", "p50_ns"), ("max", "max_ns"))
        ]
        charts.append(
            Chart(
                id="bands",
                title="Latency over time",
                text=f"From the intended send, {buckets.said}, one line for each run. Lower is better.",
                x="second",
                y="us",
                log=True,
                lines=lines,
                views=views,
                table=Table(
                    caption="Latency over time: the best and the worst second of each run, by p99",
                    head=("run", "best second", "worst second"),
                    rows=[
                        [label, duration(min(track.p99_ns)), duration(max(track.p99_ns))]
                        for label, track in tracks
                        if track.p99_ns
                    ],
                ),
            )
        )
    rated = [run.rates for _, run in runs]
    every = [second for rates in rated for second in rates.second]
    if every:
        buckets = TimeSlots(every, [1] * len(every), POINTS_MAX)
        charts.append(
            Chart(
                id="delivered",
                title="Deliveries",
                text="Deliveries a second. Under an open load these lines lie on each other as long as all can carry it.",
                x="second",
                y="count",
                log=False,
                lines=lines,
                views=[
                    View(name="", data=[buckets.x, *(buckets.mean(rates.second, rates.delivered) for rates in rated)])
                ],
                table=Table(
                    caption="Deliveries a second: the least and the most of each run",
                    head=("run", "least", "most"),
                    rows=[
                        [label, number(min(run.rates.delivered)), number(max(run.rates.delivered))]
                        for label, run in runs
                        if run.rates.delivered
                    ],
                ),
            )
        )
    return charts


_NO_TRACK: Final = Track(second=[], width_s=[], count=[], p50_ns=[], p90_ns=[], p99_ns=[], max_ns=[])


def _run_lines(groups: Sequence[RunGroup], runs: Sequence[tuple[str, Result]]) -> list[ChartLine]:
    if len(groups) == 1:
        return [
            ChartLine(label=label, colour=index % COLOURS, dash=dash_of(index), width=1.5)
            for index, (label, _) in enumerate(runs)
        ]
    return [
        ChartLine(label=each.label, colour=index % COLOURS, dash=dash_of(index), width=1.5)
        for index, each in enumerate(groups)
        for _ in each.runs
    ]
