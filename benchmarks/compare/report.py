"""What a comparison found: tables, JSON and Markdown. The runs themselves are results, which `relaymark report` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.compare import ranking
from benchmarks.compare.measurements import ComparePlan, Measurements
from benchmarks.compare.ranking import FIGURES, LOAD_CPU_MAX, THROUGHPUT, Turn, turns_of
from benchmarks.fast_load.window_work import describe
from benchmarks.rig.processes import Cores
from benchmarks.rig.statistics import Estimate
from benchmarks.rig.tables import thousands
from loadtests.measuring.histogram import Histogram
from loadtests.report.words import ledger_total
from loadtests.results import environment
from loadtests.results.schema import (
    UNEXPECTED_COLUMNS,
    KindFigures,
    LedgerColumns,
    Result,
    Summary,
    ThresholdOutcome,
)
from loadtests.results.thresholds import Threshold, evaluate
from loadtests.target.target import Target
from loadtests.workload.catalogue import SCENARIOS

SCHEMA_VERSION: Final = 2
NONE: Final = "-"
SERVER_CPU_MIN: Final = 0.85
"""Share of a core: a relay that used less at saturation was not what set the figure."""
COUNTING_ONLY: Final = (
    "Counting only: nothing is opened, every sealed record that arrives is compared, byte for byte and in its place,"
    " with the one published. Latency at saturation means nothing, and none is shown."
)

Lines = list[list[str]]
TableWriter = Callable[[Sequence[Sequence[str]]], str]


class Comparison(Struct, frozen=True, kw_only=True):
    """All that is reported. `left_out`: by name, why a target was not measured."""

    targets: Mapping[str, Target]
    left_out: Mapping[str, str]
    plan: ComparePlan
    cores: Cores
    measured: Measurements
    thresholds: Sequence[Threshold]
    started_unix_ns: int
    command: Sequence[str]
    interrupted: bool

    @property
    def names(self) -> list[str]:
        """The targets that have turns, in the order in which they were named."""
        seen = {turn.target for turn in self.measured.turns}
        return [name for name in self.targets if name in seen]


def text(comparison: Comparison, table: TableWriter) -> str:
    """Return everything that a reader needs, with tables by `table`."""
    measured, names = comparison.measured, comparison.names
    parts = [_conditions(comparison)]
    if names:
        parts += ["Runs of the scenario, from the intended send", table(run_lines(comparison))]
        if len(names) > 1:
            parts += [
                f"How many times the figure of {names[0]}, with 95% intervals over rounds",
                table(ratio_lines(comparison)),
            ]
        if standings := ranking.order(measured.turns):
            parts += [
                f"Closed window, as much as each carries: {describe()}",
                table(window_lines(comparison)),
                f"Order by throughput (= where it is not decided): {ranking.in_words(standings)}",
                COUNTING_ONLY,
            ]
        parts += ["What each promises for it", table(promise_lines(comparison))]
    parts += [f"{name} is left out: {why}" for name, why in comparison.left_out.items()]
    parts += [f"FAILED {why}" for why in measured.failures.values()]
    parts += [
        f"{name}: {outcome.text}" for name, outcomes in threshold_outcomes(comparison).items() for outcome in outcomes
    ]
    if doubtful := invalid(comparison):
        parts.append(
            f"INVALID: do not use the latencies of {', '.join(doubtful)}; most of their runs are invalid. Free the machine"
            " of other work, or lower --rate."
        )
    if comparison.interrupted:
        parts.append("Interrupted: these are the turns until then.")
    return "\n\n".join(parts)


def _conditions(comparison: Comparison) -> str:
    cores, plan, machine = comparison.cores, comparison.plan, environment.machine()
    where = (
        "ONE CORE ONLY, shared by server and load: these figures compare with no others"
        if cores.shared
        else f"servers that are started here on core {cores.server}, load on core {cores.load}"
    )
    return (
        f"{plan.scenario}: {SCENARIOS[plan.scenario].about}. {plan.participants} participants,"
        f" {comparison.measured.rate:.3g} chat messages a second, {plan.rounds} rounds of {plan.run_s:g} s, seed {plan.seed};"
        f" {where}; {machine.cpu}, {machine.system}, {environment.python_version()},"
        f" commit {environment.commit(Path(__file__).parent) or 'unknown'}"
    )


def run_lines(comparison: Comparison) -> Lines:
    """Return the table of the runs: a heading and a line a target."""
    turns = comparison.measured.turns
    ledger = {name: _ledger_of([turn.result for turn in turns if turn.target == name]) for name in comparison.names}
    # What no relay owed has a column only where there is some of it.
    beside = [column for column in UNEXPECTED_COLUMNS if any(getattr(one, column) for one in ledger.values())]
    lines = [
        [
            *("target", "p50", "p99", "p99.9", "CPU a delivery", "owed", "lost", "other faults"),
            *(column.replace("_", " ") for column in beside),
            *("late sends p99", "load CPU", ""),
        ]
    ]
    for name in comparison.names:
        own = turns_of(turns, name, FIGURES[0])
        total = ledger[name]
        cpus = [cpu for turn in own if (cpu := _cpu_ns(turn)) is not None]
        lines.append(
            [
                name,
                *(f"{value / 1e6:.2f} ms" for value in ranking.merged(turns, name).percentiles((50, 99, 99.9))),
                f"{median(cpus) / 1e3:.1f} us" if cpus else NONE,
                *(str(total.expected), str(total.lost), str(total.duplicated + total.reordered + total.late)),
                *(str(getattr(total, column)) for column in beside),
                f"{_merged([turn.result.histogram('lag') for turn in own]).percentile(99) / 1e6:.2f} ms",
                f"{median(max(worker.cpu for worker in turn.result.workers) for turn in own):.0%}",
                _note_of_runs(turns, name),
            ]
        )
    return lines


def _ledger_of(results: Sequence[Result]) -> LedgerColumns:
    return _sum_of([ledger_total(result) for result in results])


def _cpu_ns(turn: Turn) -> float | None:
    return turn.result.relay.cpu_ns_per_delivery if turn.result.relay else None


def _note_of_runs(turns: Sequence[Turn], target: str) -> str:
    """Return why a target's latencies are not to be believed, if there is a reason, and what was not answered."""
    every = [turn for turn in turns if turn.target == target]
    notes = []
    found = [turn.result.findings for turn in every if turn.result.findings]
    if found:
        codes = dict.fromkeys(finding.code for findings in found for finding in findings)
        notes.append(f"INVALID in {len(found)} of {len(every)} runs: {', '.join(codes)}")
    disturbed = sum((turn.others_cpu or 0.0) > ranking.OTHERS_MAX for turn in every)
    if disturbed:
        notes.append(f"{disturbed} of {len(every)} runs disturbed")
    return "; ".join(notes)


def invalid(comparison: Comparison) -> list[str]:
    """Return the targets most of whose runs were invalid: their latencies show the load's faults."""
    turns = comparison.measured.turns
    return [
        name
        for name in comparison.names
        if median(bool(turn.result.findings) for turn in turns if turn.target == name) > 0.5
    ]


def window_lines(comparison: Comparison) -> Lines:
    """Return the table of the closed window: a heading and a line a target, in the order of their ranks."""
    lines = [
        [
            *("target", "rank", "deliveries/s", "lowest..highest", "publishes/s", "CPU a delivery"),
            *("memory a connection", "lost", "wrong", "server CPU", "load CPU", ""),
        ]
    ]
    turns = comparison.measured.turns
    for standing in ranking.order(turns):
        own = [turn.saturation for turn in turns_of(turns, standing.target, THROUGHPUT) if turn.saturation]
        every = [turn.saturation for turn in turns if turn.target == standing.target and turn.saturation]
        rates = [one.deliveries_per_s for one in own]
        probe = comparison.measured.probes.get(standing.target)
        lines.append(
            [
                standing.target,
                str(standing.rank),
                thousands(median(rates)),
                f"{thousands(min(rates))}..{thousands(max(rates))}",
                thousands(median(one.publishes_per_s for one in own)),
                f"{median(one.cpu_ns_per_delivery for one in own) / 1e3:.2f} us",
                f"{probe.bytes_per_connection / 1024:.1f} KiB" if probe else NONE,
                str(sum(one.lost for one in every)),
                str(sum(one.wrong for one in every)),
                f"{median(one.server_cpu for one in own):.0%}",
                f"{median(one.load_cpu for one in own):.0%}",
                _note_of_window(turns, standing.target),
            ]
        )
    return lines


def _note_of_window(turns: Sequence[Turn], target: str) -> str:
    """Return what makes the closed window's figures of a target doubtful, if anything does."""
    own = [turn.saturation for turn in turns_of(turns, target, THROUGHPUT) if turn.saturation]
    every = [turn for turn in turns if turn.target == target]
    notes = []
    if median(one.server_cpu for one in own) < SERVER_CPU_MIN:
        busy = median(one.load_cpu for one in own) > LOAD_CPU_MAX
        why = "the load is the limit" if busy else "neither it nor the load was busy all the time"
        notes.append(f"carries at least so much: {why}")
    count = sum(not turn.sound_saturation for turn in every)
    if count:
        kept = "kept for want of others" if len(own) == len(every) else "left out"
        notes.append(f"{count} of {len(every)} turns disturbed, {kept}")
    return "; ".join(notes)


def ratio_lines(comparison: Comparison) -> Lines:
    """Return the table of ratios to the first target."""
    base, *others = comparison.names
    lines = [["target", *(figure.name for figure in FIGURES)]]
    for name in others:
        ratios = (ranking.ratio(comparison.measured.turns, figure, base, name).interval for figure in FIGURES)
        lines.append([name, *(_interval(one) for one in ratios)])
    return lines


def _interval(interval: Estimate | None) -> str:
    return NONE if interval is None else f"{interval.value:.2f} ({interval.low:.2f}..{interval.high:.2f})"


def promise_lines(comparison: Comparison) -> Lines:
    """Return the table of versions and promises."""
    promises = {name: comparison.targets[name].promises.words() for name in comparison.names}
    columns = list(next(iter(promises.values())))
    return [
        ["target", "version", *columns],
        *(
            [name, comparison.measured.versions.get(name) or NONE, *(promises[name][one] for one in columns)]
            for name in comparison.names
        ),
    ]


def _merged(histograms: Sequence[Histogram]) -> Histogram:
    total = Histogram()
    for one in histograms:
        total.merge(one)
    return total


# -- thresholds ----------------------------------------------------------------------------------------------


def threshold_outcomes(comparison: Comparison) -> dict[str, list[ThresholdOutcome]]:
    """Return what became of every threshold by target, read from all its rounds that count."""
    found = {}
    for name in comparison.names if comparison.thresholds else ():
        result = together([turn.result for turn in turns_of(comparison.measured.turns, name, FIGURES[0])])
        found[name] = [evaluate(threshold, result) for threshold in comparison.thresholds]
    return found


def together(results: Sequence[Result]) -> Result:
    """Return the first result with the histograms, counts and time of all: percentiles are of the merged histograms."""
    names = dict.fromkeys(name for result in results for name in result.series)
    kinds = dict.fromkeys(kind for result in results for kind in result.kinds)
    return msgspec.structs.replace(
        results[0],
        series={
            name: Summary.of(_merged([r.series[name].to_histogram() for r in results if name in r.series]))
            for name in names
        },
        kinds={
            kind: KindFigures(ledger=_sum_of([r.kinds[kind].ledger for r in results if kind in r.kinds]))
            for kind in kinds
        },
        duration_ns=sum(result.duration_ns for result in results),
    )


def _sum_of(ledgers: Sequence[LedgerColumns]) -> LedgerColumns:
    columns = LedgerColumns.__struct_fields__
    return LedgerColumns(**{column: sum(getattr(one, column) for one in ledgers) for column in columns})


# -- the file --------------------------------------------------------------------------------------------------


def content(comparison: Comparison) -> bytes:
    """Return the comparison as JSON: conditions, order, ratios, and every turn; the runs' figures are in their results."""
    measured, names = comparison.measured, comparison.names
    found = {
        "schema_version": SCHEMA_VERSION,
        "relaymark": version("relaymark"),
        "commit": environment.commit(Path(__file__).parent),
        "machine": environment.machine(),
        "python": environment.python_version(),
        "command": comparison.command,
        "started_unix_ns": comparison.started_unix_ns,
        "interrupted": comparison.interrupted,
        "plan": msgspec.structs.replace(comparison.plan, reached=None),  # may hold secrets
        "rate": measured.rate,
        "closed_window": {"work": describe(), "checked": COUNTING_ONLY},
        "targets": {
            name: {"version": measured.versions.get(name), "promises": target.promises}
            for name, target in comparison.targets.items()
        },
        "left_out": dict(comparison.left_out),
        "failures": measured.failures,
        "order": ranking.order(measured.turns),
        "ratios": [ranking.ratio(measured.turns, figure, names[0], name) for name in names[1:] for figure in FIGURES],
        "thresholds": threshold_outcomes(comparison),
        "probes": [
            {**msgspec.structs.asdict(probe), "bytes_per_connection": probe.bytes_per_connection}
            for probe in measured.probes.values()
        ],
        "turns": [
            {
                "target": turn.target,
                "round": turn.round,
                "run": turn.result.run,
                "valid": not turn.result.findings,
                "others_cpu": turn.others_cpu,
                "figures": {figure.name: figure.figure(turn) for figure in FIGURES},
                "ledger": ledger_total(turn.result),
                "saturation": turn.saturation,
            }
            for turn in measured.turns
        ],
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
