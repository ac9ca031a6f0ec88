"""Rows of points on one logarithmic axis, drawn with HTML and CSS alone: they need no script, and print as they are."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from loadtests.measuring.series import series_name
from loadtests.report.charts import COLOURS
from loadtests.report.comparison import Compared, factor
from loadtests.report.tables import times
from loadtests.report.words import duration, kinds_of
from loadtests.results.schema import Result, Summary


class Range(Struct, frozen=True, kw_only=True):
    """A row of points on a shared logarithmic axis; all in ns, or all ratios."""

    label: str
    points: tuple[tuple[str, float], ...]
    colour: int = 0
    said: str = ""


def glance(result: Result) -> list[Range]:
    """Each kind's p50, p90, p99, p99.9 and max."""
    rows: list[Range] = []
    for kind in kinds_of(result):
        for name in result.names("deliver", kind=kind, basis="intended"):
            if result.series[name].count:
                rows.append(_range(kind, result.series[name], len(rows)))
    return rows


def _range(label: str, summary: Summary, colour: int) -> Range:
    points = (
        ("p50", summary.p50_ns),
        ("p90", summary.p90_ns),
        ("p99", summary.p99_ns),
        ("p99.9", summary.p999_ns),
        ("max", summary.max_ns),
    )
    cells = times(summary)
    return Range(
        label=label,
        points=tuple((name, max(value, 1)) for name, value in points),
        colour=colour % COLOURS,
        said=f"p50 {cells[1]}, p99 {cells[3]}, max {cells[5]}",
    )


def fanout(result: Result) -> list[Range]:
    """For each size of room the time to its first, median and last recipient, each with p50 and p99."""
    sizes: dict[int, str] = {}
    for name in result.names("fanout_first"):
        size_label = name.partition("size=")[2].removesuffix("}")
        sizes[int(size_label.partition("-")[0])] = size_label
    rows = []
    for low in sorted(sizes):
        for colour, which in enumerate(("first", "median", "last")):
            summary = result.series.get(series_name(f"fanout_{which}", size=sizes[low]))
            if summary is not None and summary.count:
                rows.append(_short(f"{sizes[low]} members, {which}", summary, colour))
    return rows


def sealing(result: Result) -> list[Range]:
    rows = []
    for colour, metric in enumerate(("seal", "open")):
        for name in result.names(metric):
            if result.series[name].count:
                suite = name.partition("suite=")[2].removesuffix("}")
                what = "sealing" if metric == "seal" else "opening"
                rows.append(_short(f"{what}, {suite}" if suite else what, result.series[name], colour))
    return rows


def _short(label: str, summary: Summary, colour: int) -> Range:
    return Range(
        label=label,
        points=(("p50", max(summary.p50_ns, 1)), ("p99", max(summary.p99_ns, 1))),
        colour=colour,
        said=f"p50 {duration(summary.p50_ns)}, p99 {duration(summary.p99_ns)}",
    )


def ratios(compared: Sequence[Compared]) -> list[Range]:
    """Return each decided or undecided figure as a point between the ends of its interval."""
    rows = []
    labels = list(dict.fromkeys(each.label for each in compared))
    for each in compared:
        low = each.ratio.value if each.ratio.low is None else each.ratio.low
        high = each.ratio.value if each.ratio.high is None else each.ratio.high
        name = f"{each.label}, {each.metric.name}" if len(labels) > 1 else each.metric.name
        rows.append(
            Range(
                label=name,
                points=(("low", low), ("ratio", each.ratio.value), ("high", high)),
                # The first configuration, against which these stand, has the first colour in the charts.
                colour=(labels.index(each.label) + 1) % COLOURS,
                said=factor(each.ratio),
            )
        )
    return rows
