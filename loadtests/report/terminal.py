"""What a run shows in a terminal: progress while it goes on, tables at its end. Plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live as Display
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import parse_series_name
from loadtests.results.schema import UNEXPECTED_COLUMNS, Attempts, LedgerColumns, Result, Summary, Usage

PLAIN_EVERY_NS: Final = 5_000_000_000
"""A line every five seconds where lines stay."""
UNKNOWN: Final = "-"
_WIDTH_MAX: Final = 200
"""Wider than any of the tables."""


class Live(Struct, frozen=True, kw_only=True):
    """A run at one moment, merged over its workers. Rates are a second, over the last seconds."""

    elapsed_ns: int
    phase: str
    """Connecting, load, drain."""
    connections: int
    due_per_s: float
    sent_per_s: float
    delivered_per_s: float
    latency: Mapping[str, Histogram]
    """From the intended send, by kind, so far."""


class Progress:
    """Shows a run while it goes on; a context manager. `update` may be called as often as wanted."""

    def __init__(self, console: Console, *, scenario: str, duration_ns: int) -> None:
        self._console = console
        self._scenario = scenario
        self._duration_ns = duration_ns
        self._display = (
            Display(console=console, auto_refresh=False, transient=True)
            if console.is_terminal and not console.is_dumb_terminal
            else None
        )
        self._next_line_ns = 0

    def __enter__(self) -> Self:
        if self._display:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._display:
            self._display.stop()

    def update(self, live: Live) -> None:
        if self._display:
            self._display.update(self._table(live), refresh=True)
        elif live.elapsed_ns >= self._next_line_ns:
            self._next_line_ns = live.elapsed_ns + PLAIN_EVERY_NS
            self._console.print(Text(self._line(live)), soft_wrap=True)

    def _left(self, live: Live) -> str:
        left_ns = max(0, self._duration_ns - live.elapsed_ns)
        return f"{left_ns / 1e9:.0f} s left" if left_ns else live.phase

    def _table(self, live: Live) -> RenderableType:
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(self._scenario, style="bold"),
            ProgressBar(total=self._duration_ns, completed=min(live.elapsed_ns, self._duration_ns), width=30),
            self._left(live),
            f"{live.phase}, {_number(live.connections)} connections",
        )
        rates = Text(
            f"due {_number(live.due_per_s)}/s   sent {_number(live.sent_per_s)}/s"
            f"   delivered {_number(live.delivered_per_s)}/s"
        )
        table = _table("so far", "count", "p50", "p99", "max")
        for kind, histogram in live.latency.items():
            p50, p99 = histogram.percentiles((50, 99))
            table.add_row(kind, _number(histogram.count), *_times(histogram.count, p50, p99, histogram.max_ns))
        return Group(head, rates, table)

    def _line(self, live: Live) -> str:
        kinds = []
        for kind, histogram in live.latency.items():
            p50, p99 = _times(histogram.count, *histogram.percentiles((50, 99)))
            kinds.append(f"{kind} p50 {p50} p99 {p99}")
        return ", ".join(
            [
                f"{live.elapsed_ns / 1e9:.0f} s ({self._left(live)})",
                f"{_number(live.connections)} connections",
                f"due {_number(live.due_per_s)}/s",
                f"sent {_number(live.sent_per_s)}/s",
                f"delivered {_number(live.delivered_per_s)}/s",
                *kinds,
            ]
        )


def render_final(result: Result, console: Console, run_dir: Path | None = None) -> None:
    """Print the whole result: verdict, latencies, ledger, joins, costs, resources, thresholds, and where it is kept."""
    for part in _parts(result, run_dir):
        # Figures are never cut: where they are wider than the terminal, it breaks the lines.
        if isinstance(part, Text):
            console.print(part, soft_wrap=True)
        else:
            console.print(_Uncut(part), crop=False)
        console.print()


class _Uncut:
    """A table at its own width, whatever the terminal's."""

    def __init__(self, table: RenderableType) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._table, options.update_width(_WIDTH_MAX))


def _parts(result: Result, run_dir: Path | None) -> Iterable[RenderableType]:
    yield _heading(result)
    yield _latencies(result)
    yield _ledger(result)
    other = _others(result)
    if other.row_count:
        yield other
    if result.joins.tried or result.resumes.tried:
        yield _attempts(result)
    yield _resources(result)
    yield _lines(result, run_dir)


def _heading(result: Result) -> Text:
    text = Text()
    text.append(f"{result.scenario}", style="bold")
    text.append(f" against {result.target.name}, {result.duration_ns / 1e9:.1f} s, seed {result.seed}: ")
    if result.interrupted:
        text.append("INTERRUPTED, ", style="bold yellow")
    if result.findings:
        text.append("INVALID", style="bold red")
        text.append(". Do not use these figures:")
        for finding in result.findings:
            text.append(f"\n  {finding.code}: {finding.sentence}")
    else:
        text.append("VALID", style="bold green")
    return text


def _latencies(result: Result) -> Table:
    table = _table("delivery", "from", "count", "p50", "p90", "p99", "p99.9", "max")
    for kind in _kinds(result):
        for basis, label in (("intended", "intended"), ("sent", "actual")):
            for name in result.names("deliver", kind=kind, basis=basis):
                table.add_row(kind, label, *_summary(result.series[name]))
    return table


def _kinds(result: Result) -> list[str]:
    """Return the kinds in the order in which the run counted them, then any that only have latencies."""
    measured = (parse_series_name(name)[1].get("kind", "unknown") for name in result.names("deliver"))
    return list(dict.fromkeys([*result.kinds, *measured]))


def _ledger(result: Result) -> Table:
    columns = [field for field in LedgerColumns.__struct_fields__ if field != "sent"]
    # A column of zeros that only some scenarios fill is left out; losses are shown always.
    shown = [
        column
        for column in columns
        if column not in (*UNEXPECTED_COLUMNS, "superseded", "dropped")
        or any(getattr(kind.ledger, column) for kind in result.kinds.values())
    ]
    table = _table("ledger", "sent", *(column.replace("_", " ") for column in shown))
    for name, kind in result.kinds.items():
        cells = [Text(_number(kind.ledger.sent))]
        for column in shown:
            value = getattr(kind.ledger, column)
            wrong = value and column in ("lost", "duplicated", "reordered", "late")
            cells.append(Text(_number(value), style="bold red" if wrong else ""))
        table.add_row(name, *cells)
    return table


def _others(result: Result) -> Table:
    """Everything that is not a delivery, one row a series."""
    table = _table("other times", "count", "p50", "p90", "p99", "p99.9", "max")
    for metric, title in _TITLES.items():
        for name in result.names(metric):
            labels = ", ".join(parse_series_name(name)[1].values())
            table.add_row(f"{title}, {labels}" if labels else title, *_summary(result.series[name]))
    if result.calibration:
        table.add_row("echo, the floor of this rig", *_summary(result.calibration))
    return table


_TITLES: Final = {
    "deliver_slow": "delivery to slow readers",
    "ack": "acknowledgement",
    "join": "join",
    "resume": "resume",
    "fanout_first": "room, first recipient",
    "fanout_median": "room, median recipient",
    "fanout_last": "room, last recipient",
    "seal": "sealing",
    "open": "opening",
    "lag": "generator, schedule lag",
    "loop_lag": "generator, loop lag",
}


def _attempts(result: Result) -> Table:
    table = _table("connections", "tried", "failed", "95% after", "all after")

    def row(name: str, attempts: Attempts) -> None:
        if attempts.tried:
            times = [UNKNOWN if at is None else duration(at) for at in (attempts.p95_after_ns, attempts.all_after_ns)]
            failed = Text(_number(attempts.failed), style="bold red" if attempts.failed else "")
            table.add_row(name, _number(attempts.tried), failed, *times)

    row("joins", result.joins)
    row("resumes", result.resumes)
    return table


def _resources(result: Result) -> Table:
    table = _table("process", "CPU mean", "CPU max", "memory max")
    for usage in result.usage:
        table.add_row(Text(usage.name), *_usage(usage))
    return table


def _usage(usage: Usage) -> list[str]:
    cpu = [f"{sum(usage.cpu) / len(usage.cpu):.0%}", f"{max(usage.cpu):.0%}"] if usage.cpu else [UNKNOWN, UNKNOWN]
    return [*cpu, f"{max(usage.memory_bytes) / 2**20:.0f} MiB" if usage.memory_bytes else UNKNOWN]


def _lines(result: Result, run_dir: Path | None) -> Text:
    text = Text()
    if result.relay and result.relay.cpu_ns_per_delivery is not None:
        text.append(f"relay: {duration(result.relay.cpu_ns_per_delivery)} CPU a delivery")
        if result.relay.memory_bytes_per_connection is not None:
            text.append(f", {result.relay.memory_bytes_per_connection / 1024:.1f} KiB a connection")
        text.append("\n")
    if result.target.promises:
        said = "; ".join(f"{name}: {promise}" for name, promise in result.target.promises.items())
        text.append(f"{' '.join(filter(None, (result.target.name, result.target.version)))} promises {said}\n")
    if result.clock_error_ns is None:
        text.append("clock error: unknown\n")
    elif result.clock_error_ns == 0:
        text.append("clock error: none, one clock stamps both ends\n")
    else:
        text.append(f"clock error: at most {duration(result.clock_error_ns)} on every one-way time\n")
    negative = sum(summary.negative for summary in result.series.values())
    if negative:
        text.append(f"negative samples: {_number(negative)}, in no percentile\n")
    for outcome in result.thresholds:
        text.append("ok    " if outcome.ok else "FAIL  ", style="bold green" if outcome.ok else "bold red")
        text.append(f"{outcome.text}\n")
    for note in result.notes:
        text.append(f"note: {note}\n")
    if run_dir is not None:
        text.append(f"results: {run_dir}\n")
    text.rstrip()
    return text


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    for other in others:
        table.add_column(other, justify="left" if other == "from" else "right", no_wrap=True)
    return table


def _summary(summary: Summary) -> list[str]:
    times = (summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns, summary.max_ns)
    return [_number(summary.count), *_times(summary.count, *times)]


def _times(count: int, *values_ns: int) -> list[str]:
    return [duration(value_ns) if count else UNKNOWN for value_ns in values_ns]


def duration(value_ns: float) -> str:
    """Return a time to three significant digits in the unit that suits it: 950 ns, 12.3 us, 4.56 ms, 1.20 s."""
    for unit, scale in (("ns", 1.0), ("us", 1e3), ("ms", 1e6)):
        # Compared after rounding, so that 999.6 us is not shown as 1000 us.
        if abs(float(f"{value_ns / scale:.3g}")) < 1000:
            return f"{_three_digits(value_ns / scale)} {unit}"
    return f"{_three_digits(value_ns / 1e9)} s"


def _three_digits(value: float) -> str:
    rounded = float(f"{value:.3g}")
    size = abs(rounded)
    if size >= 100 or rounded == int(rounded) == 0:
        return f"{value:.0f}"
    return f"{rounded:.1f}" if size >= 10 else f"{rounded:.2f}"


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")
