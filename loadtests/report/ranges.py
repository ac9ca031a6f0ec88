"""Rows of points on one logarithmic axis, drawn with HTML and CSS alone: they need no script, and print as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10

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


def draw(title: str, rows: Sequence[Range], legend: str, *, ratio: bool = False) -> str:
    """Return the rows as a figure of HTML, empty where there is nothing to show."""
    values = [value for row in rows for _, value in row.points]
    if not values:
        return ""
    low, high = floor(log10(min(values)) * 2) / 2, ceil(log10(max(values)) * 2) / 2
    if ratio:
        reach = max(abs(log10(value)) for value in values) * 1.15 or 0.1
        low, high = -reach, reach
    elif high - low < 1:
        high = low + 1

    def at(value: float) -> str:
        return f"{100 * (log10(value) - low) / (high - low):.2f}%"

    ticks = _ratio_ticks(high) if ratio else _time_ticks(low, high)
    grid = "".join(
        f'<i class="{"one" if ratio and tick == 1 else "grid"}" style="left:{at(tick)}"></i>' for tick in ticks
    )
    items = []
    for row in rows:
        first, last = row.points[0][1], row.points[-1][1]
        thick = next((value for name, value in row.points if name == "p99"), None)
        dot = next((value for name, value in row.points if name == "ratio"), first)
        marks = f'<i class="thin" style="left:{at(first)};width:calc({at(last)} - {at(first)})"></i>'
        if thick is not None:
            marks += f'<i class="thick" style="left:{at(first)};width:calc({at(thick)} - {at(first)})"></i>'
        if last != thick and not ratio:
            marks += f'<i class="tick" style="left:{at(last)}"></i>'
        marks += f'<i class="dot" style="left:{at(dot)}"></i>'
        items.append(
            f'<li style="--c:var(--s{row.colour})"><span class="label">{escape(row.label)}</span>'
            f'<span class="track" aria-hidden="true">{grid}{marks}</span><span class="said">{escape(row.said)}</span></li>'
        )
    labels = "".join(
        f'<span{_edge((log10(tick) - low) / (high - low))} style="left:{at(tick)}">'
        f"{escape(f'{tick:g}' if ratio else _round(tick))}</span>"
        for tick in ticks
    )
    axis = f'<li class="axis" aria-hidden="true"><span class="label"></span><span class="track">{labels}</span></li>'
    return (
        f"<figure><figcaption><h3>{escape(title)}</h3><p>Logarithmic axis; {escape(legend)}.</p></figcaption>"
        f'<ul class="ranges">{"".join(items)}{axis}</ul></figure>'
    )


def _edge(share: float) -> str:
    """Keep the label of a tick near an end inside of the axis."""
    return " class=start" if share < 0.03 else " class=end" if share > 0.97 else ""


def _round(tick_ns: float) -> str:
    """Return a power of ten without the digits that `duration` adds: 1 ms, not 1.00 ms."""
    return duration(tick_ns).replace(".00", "").replace(".0", "")


def _time_ticks(low: float, high: float) -> list[float]:
    """Return round times between two logarithms; where there would be one power of ten, its parts too."""
    factors = (1, 2, 5) if high - low < 2 else (1,)
    ticks = [factor * 10.0**power for power in range(floor(low), floor(high) + 1) for factor in factors]
    return [tick for tick in ticks if low <= log10(tick) <= high]


def _ratio_ticks(reach: float) -> list[float]:
    """Return round ratios within `reach`, which is the logarithm of the largest."""
    if reach < 0.3:
        steps: Iterable[float] = (0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2)
    elif reach < 1.5:
        steps = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
    else:
        stride = 1 + floor(reach / 3)  # no more labels than a phone has room for
        most = floor(reach) // stride * stride
        steps = (10.0**power for power in range(-most, most + 1, stride))
    return [step for step in steps if abs(log10(step)) <= reach]
