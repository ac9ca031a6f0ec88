"""The charts of a report: columns of numbers for page.js, and for each chart a sentence and a table that say the same.

Times are in µs with four significant digits, which is finer than a screen; None leaves a gap. No percentile is
averaged: where several seconds share a point, it shows the worst of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, Final

from msgspec import Struct

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.report.tables import Table
from loadtests.report.words import NONE, duration, kinds_of, main_kind, number, percent, size
from loadtests.results.schema import RateColumns, Result, SeriesColumns, Track, Usage
from loadtests.results.validity import CPU_MAX

POINTS_MAX: Final = 600
"""Points of a line: two a pixel on a phone, one on a desk."""
_STEPS_PER_DECADE: Final = 24
_TABLE_ROWS_MAX: Final = 12
_READ: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
COLOURS: Final = 8
"""Colours of the palette in page.css."""
_SOLID: Final = 4
"""Colours for solid lines; the others, which colour-blind people would take for these, are dashed."""

Column = list[float | None] | list[int | None]


class View(Struct, frozen=True, kw_only=True):
    """What a chart shows at a time: one kind of record, say. `data` begins with the column of x."""

    name: str
    data: list[Any]


class ChartLine(Struct, frozen=True, kw_only=True):
    """One line. Lines with equal labels are switched together."""

    label: str
    colour: int
    dash: int = 0
    """0 solid, 1 dashed, 2 dotted."""
    width: float = 2
    alpha: float = 1
    """Colour of the line, or of what it fills."""
    fill_to: int | None = None
    """Index of the line down to which the space is filled."""


class Chart(Struct, frozen=True, kw_only=True):
    id: str
    title: str
    text: str
    """What it shows, also for those who do not see it."""
    x: str
    """percentile, or second."""
    y: str
    """us, count, share or bytes."""
    log: bool
    lines: list[ChartLine]
    views: list[View]
    marks: list[tuple[float, str]] = []
    """Events: second and text."""
    bound: float | None = None
    table: Table


def dash_of(index: int) -> int:
    """Return how the line with this index is dashed; the first twelve differ for everybody."""
    return min(index // _SOLID, 2)


# -- over percentiles --------------------------------------------------------------------------------


def _grid(count: int) -> list[float]:
    """Return 1 / (1 - percentile) in equal steps of its logarithm, up to one in `count`."""
    grid, step = [1.0], 0
    while grid[-1] < count:
        step += 1
        grid.append(min(float(f"{10 ** (step / _STEPS_PER_DECADE):.4g}"), float(count)))
    return grid


def _curve(histogram: Histogram, grid: Sequence[float]) -> list[float | None]:
    reached = [x for x in grid if x <= histogram.count]
    values = histogram.percentiles([100 * (1 - 1 / x) if x < histogram.count else 100 for x in reached])
    return [micros(value) for value in values] + [None] * (len(grid) - len(reached))


def micros(value_ns: int) -> float | None:
    """None instead of 0, which a logarithmic axis does not have."""
    return float(f"{value_ns / 1e3:.4g}") if value_ns > 0 else None


def percentile_chart(
    id: str,  # noqa: A002 - the name of the attribute that it becomes
    title: str,
    text: str,
    views: Mapping[str, Mapping[str, Histogram]],
    dashed: frozenset[str] = frozenset(),
) -> Chart | None:
    """Return latency by percentile: for each view its histograms by label. None without data."""
    full = {name: curves for name, curves in views.items() if any(histogram.count for histogram in curves.values())}
    if not full:
        return None
    labels = list(dict.fromkeys(label for curves in full.values() for label in curves))
    shown = []
    for name, curves in full.items():
        grid = _grid(max(histogram.count for histogram in curves.values()))
        shown.append(View(name=name, data=[grid, *(_curve(curves.get(label, Histogram()), grid) for label in labels)]))
    several = len(full) > 1
    rows = [
        [f"{name}, {label}" if several else label, *_percentile_cells(histogram)]
        for name, curves in full.items()
        for label, histogram in curves.items()
    ]
    return Chart(
        id=id,
        title=title,
        text=text,
        x="percentile",
        y="us",
        log=True,
        lines=[
            ChartLine(label=label, colour=index % COLOURS, dash=1 if label in dashed else dash_of(index))
            for index, label in enumerate(labels)
        ],
        views=shown,
        table=Table(caption=title, head=("line", *(f"p{p:g}" for p in _READ), "max"), rows=rows),
    )


def _percentile_cells(histogram: Histogram) -> list[str]:
    if not histogram.count:
        return [NONE] * (len(_READ) + 1)
    return [duration(value) for value in (*histogram.percentiles(_READ), histogram.max_ns)]


def delivery_percentiles(result: Result) -> Chart | None:
    """The HdrHistogram view: the further right, the rarer."""
    views = {
        kind: {
            "from intended send": result.histogram("deliver", kind=kind, basis="intended"),
            "from actual send": result.histogram("deliver", kind=kind, basis="sent"),
        }
        for kind in _main_first(result)
    }
    return percentile_chart(
        "percentiles",
        "Latency by percentile",
        "How long the slowest deliveries took: each step to the right is ten times rarer. Where the two lines part, the"
        " generator was late itself, and only the line from the intended send tells what a user would have seen.",
        views,
        dashed=frozenset({"from actual send"}),
    )


def kind_percentiles(result: Result) -> Chart | None:
    return percentile_chart(
        "kinds",
        "The kinds beside each other",
        "Latency by percentile of every kind, from the intended send.",
        {"": {kind: result.histogram("deliver", kind=kind, basis="intended") for kind in kinds_of(result)}},
    )


def connection_percentiles(result: Result) -> Chart | None:
    names = {"join": "join", "resume": "resume", "ack": "acknowledgement"}
    found = {label: result.histogram(metric) for metric, label in names.items()}
    return percentile_chart(
        "connections",
        "Joins, resumes and acknowledgements",
        "Times by percentile: from connecting to subscribed, from connecting again to caught up, and from publishing to"
        " the relay's acknowledgement.",
        {"": {label: histogram for label, histogram in found.items() if histogram.count}},
    )


def lag_percentiles(result: Result) -> Chart | None:
    names = {"schedule lag": "lag", "loop lag": "loop_lag"}
    found = {label: result.histogram(metric) for label, metric in names.items()}
    if result.calibration is not None:
        found["echo, the rig's floor"] = result.calibration.to_histogram()
    return percentile_chart(
        "lag",
        "The generator's own lateness",
        "How late the generator sent against its schedule, how long its loop was held up, and what a round trip to an"
        " echo server on this rig takes. Latencies near these figures say little about the relay.",
        {"": {label: histogram for label, histogram in found.items() if histogram.count}},
    )


# -- over time ---------------------------------------------------------------------------------------


class TimeSlots:
    """Seconds of a run, several to a point where there are many."""

    def __init__(self, seconds: Sequence[int], widths: Sequence[int], points_max: int) -> None:
        last = max((second + width for second, width in zip(seconds, widths, strict=True)), default=0)
        self.step = max(ceil(last / points_max), max(widths, default=1), 1)
        self.x = list(range(0, last, self.step))

    def worst(self, seconds: Sequence[int], values: Sequence[int], show: Callable[[int], Any]) -> list[Any]:
        found: list[int | None] = [None] * len(self.x)
        for second, value in zip(seconds, values, strict=True):
            index = second // self.step
            if index < len(found):
                known = found[index]
                found[index] = value if known is None else max(known, value)
        return [None if value is None else show(value) for value in found]

    def mean(self, seconds: Sequence[int], values: Sequence[float]) -> list[float | None]:
        sums: list[float] = [0] * len(self.x)
        counts = [0] * len(self.x)
        for second, value in zip(seconds, values, strict=True):
            index = second // self.step
            if 0 <= index < len(sums):
                sums[index] += value
                counts[index] += 1
        return [float(f"{total / count:.4g}") if count else None for total, count in zip(sums, counts, strict=True)]

    @property
    def said(self) -> str:
        return "each second" if self.step == 1 else f"the worst second of every {self.step}"


def _some(x: Sequence[int]) -> list[int]:
    """Return indexes of a few rows, spread over the run."""
    step = max(1, ceil(len(x) / _TABLE_ROWS_MAX))
    return list(range(0, len(x), step))


_BANDS: Final = ("max", "p99", "p90", "p50")


def bands(result: Result) -> Chart | None:
    """Latency over time: a band from each percentile to the next, for one kind at a time."""
    tracks = {
        kind: result.history.get(series_name("deliver", kind=kind, basis="intended")) for kind in _main_first(result)
    }
    kept = {kind: track for kind, track in tracks.items() if track is not None and track.second}
    if not kept:
        return None
    views, first, said = [], None, ""
    for kind, track in kept.items():
        buckets = TimeSlots(track.second, track.width_s, POINTS_MAX)
        columns = [
            buckets.worst(track.second, values, micros)
            for values in (track.max_ns, track.p99_ns, track.p90_ns, track.p50_ns)
        ]
        views.append(View(name=kind, data=[buckets.x, *columns]))
        first, said = first or (kind, track), said or buckets.said
    assert first is not None
    kind, track = first
    title = "Latency over time"
    return Chart(
        id="bands",
        title=title,
        text=f"From the intended send, {said}: the line is p50, and the bands reach up to p90, to p99 and to the slowest."
        " A gap is a time in which nothing arrived.",
        x="second",
        y="us",
        log=True,
        lines=[
            ChartLine(label="max", colour=0, width=0.5, alpha=0.15, fill_to=1),
            ChartLine(label="p99", colour=0, width=1, alpha=0.3, fill_to=2),
            ChartLine(label="p90", colour=0, width=1, alpha=0.5, fill_to=3),
            ChartLine(label="p50", colour=0, width=2.5),
        ],
        views=views,
        marks=_marks(result),
        table=_time_table(f"{title}, {kind}", track),
    )


def _time_table(caption: str, track: Track) -> Table:
    return Table(
        caption=f"{caption}: some of the seconds",
        head=("second", "count", "p50", "p90", "p99", "max"),
        rows=[
            [
                number(track.second[index]),
                number(track.count[index]),
                *(duration(values[index]) for values in (track.p50_ns, track.p90_ns, track.p99_ns, track.max_ns)),
            ]
            for index in _some(track.second)
        ],
    )


def _marks(result: Result) -> list[tuple[float, str]]:
    return [(round(event.at_ns / 1e9, 1), event.text[:60]) for event in result.events]


def throughput(result: Result) -> list[Chart]:
    """What was due and what was sent; and the deliveries that came of it, on a scale of their own."""
    rates = result.rates
    if not rates.second:
        return []
    return [
        _rates_chart(
            "offered",
            "Offered against sent",
            "Records a second that the schedule asked for, and that were sent. The lines must lie on each other: a"
            " generator that falls behind measures another load than the one asked for.",
            rates,
            {"due": rates.due, "sent": rates.sent},
            result,
        ),
        _rates_chart(
            "delivered",
            "Deliveries",
            "Records a second that reached a recipient: one that is sent to a room counts once for each of its members.",
            rates,
            {"delivered": rates.delivered},
            result,
        ),
    ]


def _rates_chart(
    id: str,  # noqa: A002
    title: str,
    text: str,
    rates: RateColumns,
    columns: Mapping[str, Sequence[int]],
    result: Result,
) -> Chart:
    buckets = TimeSlots(rates.second, [1] * len(rates.second), POINTS_MAX)
    return Chart(
        id=id,
        title=title,
        text=text,
        x="second",
        y="count",
        log=False,
        lines=[
            # A broad pale line stays visible behind a thin one that lies on it.
            ChartLine(label=label, colour=4, width=7, alpha=0.45)
            if label == "due"
            else ChartLine(label=label, colour=0)
            for label in columns
        ],
        views=[View(name="", data=[buckets.x, *(buckets.mean(rates.second, values) for values in columns.values())])],
        marks=_marks(result),
        table=Table(
            caption=f"{title}: some of the seconds",
            head=("second", *columns),
            rows=[
                [number(rates.second[index]), *(number(values[index]) for values in columns.values())]
                for index in _some(rates.second)
            ],
        ),
    )


def usage(result: Result) -> list[Chart]:
    """CPU and memory of the relay and of the generator's workers."""
    cpu = _usage_chart(
        "cpu",
        "CPU",
        f"Shares of one core. A worker above the dotted line ({CPU_MAX:.0%} on average) measures its own queues, and the"
        " run is invalid; a relay near 100% is at its limit.",
        "share",
        result.usage,
        lambda each: each.cpu,
        percent,
        CPU_MAX,
    )
    memory = _usage_chart(
        "memory",
        "Memory",
        "Resident memory of the processes. The relay's should level off: what keeps rising will run out.",
        "bytes",
        result.usage,
        lambda each: each.memory_bytes,
        size,
        None,
    )
    return [chart for chart in (cpu, memory) if chart is not None]


def _usage_chart(
    id: str,  # noqa: A002
    title: str,
    text: str,
    unit: str,
    usages: Sequence[Usage],
    column: Callable[[Usage], Sequence[float]],
    show: Callable[[float], str],
    bound: float | None,
) -> Chart | None:
    kept = [each for each in usages if column(each)]
    if not kept:
        return None
    every = sorted({second for each in kept for second in each.second})
    buckets = TimeSlots(every, [1] * len(every), POINTS_MAX)
    by_second = [dict(zip(each.second, column(each), strict=True)) for each in kept]
    return Chart(
        id=id,
        title=title,
        text=text,
        x="second",
        y=unit,
        log=False,
        lines=[
            ChartLine(
                label=each.name,
                colour=colour,
                dash=dash_of(colour),
                width=2.5 if each.role == "relay" else 1.5,
            )
            for index, each in enumerate(kept)
            for colour in (2 if each.role == "relay" else (0, 1, 3, 4, 5, 6, 7)[index % 7],)
        ],
        views=[View(name="", data=[buckets.x, *(buckets.mean(each.second, column(each)) for each in kept)])],
        bound=bound,
        table=Table(
            caption=f"{title}: some of the seconds",
            head=("second", *(each.name for each in kept)),
            rows=[
                [number(every[index]), *(_cell(values, every[index], show) for values in by_second)]
                for index in _some(every)
            ],
        ),
    )


def target_series(result: Result) -> list[Chart]:
    """The target's own metrics that were asked for, each on a scale of its own and on the time axis of the load's."""
    return [
        _series_chart(index, name, columns, result)
        for index, (name, columns) in enumerate(result.target_series.items())
    ]


def _series_chart(index: int, name: str, columns: SeriesColumns, result: Result) -> Chart:
    slots = TimeSlots(columns.second, [1] * len(columns.second), POINTS_MAX)
    what = "rise a second" if name.endswith("_total") else "value"
    return Chart(
        id=f"theirs-{index}",
        title=name,
        text=f"The {what} of a metric of the target's own, as it tells it.",
        x="second",
        y="count",
        log=False,
        lines=[ChartLine(label=name, colour=2)],
        views=[View(name="", data=[slots.x, slots.mean(columns.second, columns.value)])],
        marks=_marks(result),
        table=Table(
            caption=f"{name}: some of the seconds",
            head=("second", what),
            rows=[[number(columns.second[at]), f"{columns.value[at]:.6g}"] for at in _some(columns.second)],
        ),
    )


def _cell(values: Mapping[int, float], second: int, show: Callable[[float], str]) -> str:
    return show(values[second]) if second in values else NONE


def _main_first(result: Result) -> list[str]:
    main, kinds = main_kind(result), kinds_of(result)
    return [main, *(kind for kind in kinds if kind != main)] if main else kinds
