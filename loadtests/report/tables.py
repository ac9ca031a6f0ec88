"""The tables of a report as plain cells, for HTML and Markdown alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from loadtests.measuring.series import parse_series_name
from loadtests.report.words import NONE, WRONG_COLUMNS, duration, kinds_of, number, percent, size
from loadtests.results.schema import UNEXPECTED_COLUMNS, LedgerColumns, Result, Summary, ThresholdOutcome, Usage


class Wrong(str):
    """A cell that tells of a fault."""

    __slots__ = ()


class Table(Struct, frozen=True, kw_only=True):
    """Rows of text; the first cell of each names it. Empty `rows`: there is nothing to show."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})
    """Columns of words, which start at the left; figures end at the right."""


TITLES: Final[Mapping[str, str]] = {
    "ack": "acknowledgement",
    "join": "join",
    "resume": "resume",
    "seal": "sealing a record",
    "open": "opening a record",
    "lag": "schedule lag of the generator",
    "loop_lag": "loop lag of the generator",
    "echo": "echo, the floor of this rig",
    "fanout_first": "room, first recipient",
    "fanout_median": "room, median recipient",
    "fanout_last": "room, last recipient",
    "deliver": "delivery",
    "deliver_slow": "delivery to slow readers",
}
_TIMES: Final = ("count", "p50", "p90", "p99", "p99.9", "max")
_BASES: Final = {"intended": "intended send", "sent": "actual send"}


def times(summary: Summary) -> list[str]:
    """Return the cells of a series: its count, percentiles and maximum."""
    values = (summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns, summary.max_ns)
    return [number(summary.count), *(duration(value) if summary.count else NONE for value in values)]


def latencies(result: Result) -> Table:
    return Table(
        caption="Delivery times by kind, counted from the send that was due and from the one that was made",
        head=("kind", "from", *_TIMES),
        rows=[
            [kind, label, *times(result.series[name])]
            for kind in kinds_of(result)
            for basis, label in _BASES.items()
            for name in result.names("deliver", kind=kind, basis=basis)
        ],
        words=frozenset({0, 1}),
    )


def ledger(result: Result) -> Table:
    columns = [column for column in LedgerColumns.__struct_fields__ if column != "sent"]
    shown = [
        column
        for column in columns
        if column not in (*UNEXPECTED_COLUMNS, "superseded", "dropped")
        or any(getattr(kind.ledger, column) for kind in result.kinds.values())
    ]
    return Table(
        caption="Where every record went: sent once, then counted for each of its recipients",
        head=("kind", "sent", *(column.replace("_", " ") for column in shown)),
        rows=[
            [name, number(kind.ledger.sent), *ledger_cells(kind.ledger, shown)] for name, kind in result.kinds.items()
        ],
    )


def ledger_cells(entry: LedgerColumns, columns: Iterable[str]) -> list[str]:
    cells = []
    for column in columns:
        value = getattr(entry, column)
        cells.append(Wrong(number(value)) if value and column in WRONG_COLUMNS else number(value))
    return cells


def offered(result: Result) -> Table:
    """Return what was asked for and what was done, by kind."""
    return Table(
        caption="Offered and done by kind: what the schedule asked for, and what came of it",
        head=("kind", "due", "sent", "acknowledged", "refused", "sealed bytes each"),
        rows=[
            [
                name,
                number(kind.due),
                number(kind.sent),
                number(kind.acknowledged),
                Wrong(number(kind.refused)) if kind.refused else "0",
                size(kind.sealed_bytes / kind.sent) if kind.sent else NONE,
            ]
            for name, kind in result.kinds.items()
        ],
    )


def attempts(result: Result) -> Table:
    def cells(name: str) -> list[str]:
        tried = getattr(result, name)
        after = [NONE if at is None else duration(at) for at in (tried.p95_after_ns, tried.all_after_ns)]
        return [name, number(tried.tried), Wrong(number(tried.failed)) if tried.failed else "0", *after]

    return Table(
        caption="Joins and resumes: until 95% and all had succeeded, counted from the first attempt",
        head=("what", "tried", "failed", "95% after", "all after"),
        rows=[cells(name) for name in ("joins", "resumes") if getattr(result, name).tried],
    )


def series(result: Result, caption: str, *metrics: str) -> Table:
    """Return a row for each series of `metrics`."""
    rows = []
    for metric in metrics:
        for name in result.names(metric):
            labels = ", ".join(parse_series_name(name)[1].values())
            rows.append([f"{TITLES[metric]}, {labels}" if labels else TITLES[metric], *times(result.series[name])])
    if "echo" in metrics and result.calibration is not None:
        rows.append([TITLES["echo"], *times(result.calibration)])
    return Table(caption=caption, head=("what", *_TIMES), rows=rows)


def processes(result: Result) -> Table:
    return Table(
        caption="Processes: CPU in shares of one core",
        head=("process", "CPU mean", "CPU max", "memory max", "connections max"),
        rows=[_process(usage) for usage in result.usage],
    )


def _process(usage: Usage) -> list[str]:
    return [
        usage.name,
        percent(sum(usage.cpu) / len(usage.cpu)) if usage.cpu else NONE,
        percent(max(usage.cpu)) if usage.cpu else NONE,
        size(max(usage.memory_bytes)) if usage.memory_bytes else NONE,
        number(max(usage.connections)) if usage.connections else NONE,
    ]


def relay_costs(result: Result) -> Table:
    relay = result.relay
    rows = []
    if relay is not None:
        if relay.cpu_ns_per_delivery is not None:
            rows.append(["CPU a delivery", duration(relay.cpu_ns_per_delivery)])
        if relay.memory_bytes_per_connection is not None:
            rows.append(["memory a connection", size(relay.memory_bytes_per_connection)])
        rows.append(["CPU for the load", duration(relay.cpu_ns)])
        rows.append(["memory, idle and at most", f"{size(relay.memory_bytes_idle)}, {size(relay.memory_bytes_max)}"])
        rows.append(["deliveries", number(relay.deliveries)])
    return Table(caption="What the load cost the relay", head=("what", "figure"), rows=rows)


def workers(result: Result) -> Table:
    return Table(
        caption="The generator's workers",
        head=("worker", "CPU", "due", "sent", "received", "connections", "lag p99", "loop lag p99", "clock error"),
        rows=[
            [
                worker.name,
                percent(worker.cpu),
                number(worker.due),
                number(worker.sent),
                number(worker.received),
                number(worker.connections),
                duration(worker.lag_p99_ns),
                duration(worker.loop_lag_p99_ns),
                NONE if worker.clock_error_ns is None else duration(worker.clock_error_ns),
            ]
            for worker in result.workers
        ],
    )


def thresholds(result: Result) -> Table:
    return Table(
        caption="Thresholds",
        head=("threshold", "outcome"),
        rows=[[outcome.threshold, _outcome(outcome)] for outcome in result.thresholds],
        words=frozenset({0, 1}),
    )


def _outcome(outcome: ThresholdOutcome) -> str:
    text = outcome.text.removeprefix(f"{outcome.threshold}: ")
    return text if outcome.ok else Wrong(text)


def counters(result: Result) -> Table:
    """Return the relay's own counters; those that stayed 0 are left out."""
    statistics = result.relay.statistics if result.relay else {}
    return Table(
        caption="The relay's own counters at the end of the load; those at 0 are left out",
        head=("metric", "value"),
        rows=[[name, f"{value:,.6g}".replace(",", " ")] for name, value in sorted(statistics.items()) if value],
    )


def environment(result: Result) -> Table:
    machine = result.machine
    rows = [
        ["target", " ".join(part for part in (result.target.name, result.target.version) if part)],
        ["processor", f"{machine.cpu}, {machine.cpus} cores to use, {machine.architecture}"],
        ["memory", size(machine.memory_bytes)],
        ["system", f"{machine.system}, machine {machine.fingerprint}"],
        ["relaymark", f"{result.relaymark}, commit {result.commit or 'unknown'}"],
        ["Python", result.python],
        ["libraries", ", ".join(f"{name} {version}" for name, version in sorted(result.versions.items()))],
        ["run", f"{result.run}, seed {result.seed}"],
        ["options", ", ".join(f"{name} {value}" for name, value in result.options.items() if value is not None)],
        *([f"promises: {name}", text] for name, text in result.target.promises.items()),
    ]
    return Table(
        caption="Where and with what the run took place",
        head=("what", "value"),
        rows=[row for row in rows if row[1]],
        words=frozenset({0, 1}),
    )
