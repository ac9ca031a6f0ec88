"""What a comparison found: tables, JSON, Markdown, and one result a turn for `relaymark report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.compare import ranking
from benchmarks.compare.ranking import LOAD_CPU_MAX, METRICS, OTHERS_MAX, disturbed, turns_of
from benchmarks.compare.session import ComparePlan, Measurements, Turn
from benchmarks.compare.workload import CONNECTIONS, DELIVERIES_PER_PUBLISH, describe
from benchmarks.peers.catalogue import Peer
from benchmarks.rig.processes import Cores
from benchmarks.rig.statistics import Estimate
from benchmarks.rig.tables import thousands
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.results import environment
from loadtests.results.files import write
from loadtests.results.schema import KindFigures, LedgerColumns, RelayFigures, Result, Summary, WorkerFigures
from loadtests.results.schema import MeasuredTarget as ResultTarget
from loadtests.results.validity import Facts, WorkerFacts, check

SCHEMA_VERSION: Final = 1
NONE: Final = "-"
CHECKED: Final = (
    "Saturation: every sealed record that arrives is compared, byte for byte and in its place, with the one published."
    " At the fixed load: every one is opened and entered in a ledger by its sender's counters (and by the relay's"
    " numbers, where it has them), counted from the intended send."
)

SERVER_CPU_MIN: Final = 0.85
"""Share of a core: a relay that used less at saturation was not what set the figure."""

Lines = list[list[str]]
TableWriter = Callable[[Sequence[Sequence[str]]], str]


class Comparison(Struct, frozen=True, kw_only=True):
    """All that is reported. `left_out`: by name, why a target was not measured."""

    targets: Mapping[str, Peer]
    versions: Mapping[str, str]
    left_out: Mapping[str, str]
    plan: ComparePlan
    cores: Cores
    measured: Measurements
    started_unix_ns: int
    command: tuple[str, ...]
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
        places = ranking.order(measured.turns)
        load = measured.publishes_per_s * DELIVERIES_PER_PUBLISH
        parts += [
            f"Order by throughput at saturation (= where it is not decided): {ranking.in_words(places)}",
            "Saturation, closed window",
            table(saturation_lines(comparison)),
            (
                f"At a fixed {load:,.0f} deliveries/s ({measured.publishes_per_s:,.0f} publishes/s), open loop,"
                " from the intended send"
            ),
            table(pace_lines(comparison)),
        ]
        if len(names) > 1:
            parts += [
                f"How many times the figure of {names[0]}, with 95% intervals over rounds",
                table(ratio_lines(comparison)),
            ]
        parts += ["What each promises for it", table(promise_lines(comparison)), CHECKED]
    parts += [f"{name} is left out: {why}" for name, why in comparison.left_out.items()]
    parts += [f"FAILED {why}" for why in measured.failures.values()]
    if doubtful := invalid(comparison):
        parts.append(
            f"INVALID: do not use the latencies of {', '.join(doubtful)}; most turns were not as asked for. Free the"
            " machine of other work."
        )
    if comparison.interrupted:
        parts.append("Interrupted: these are the turns until then.")
    return "\n\n".join(parts)


def _conditions(comparison: Comparison) -> str:
    cores, plan, machine = comparison.cores, comparison.plan, environment.machine()
    where = (
        "ONE CORE ONLY, shared by server and load: these figures compare with no others"
        if cores.shared
        else f"server on core {cores.server}, load on core {cores.load}"
    )
    return (
        f"{describe()}. {plan.rounds} rounds, seed {plan.seed}; {where}; {machine.cpu}, {machine.system},"
        f" Python {environment.python_version()}, commit {environment.commit(Path(__file__).parent) or 'unknown'}"
    )


def saturation_lines(comparison: Comparison) -> Lines:
    lines = [
        [
            *("target", "rank", "deliveries/s", "lowest..highest", "publishes/s", "CPU a delivery"),
            *("memory a connection", "lost", "wrong", "server CPU", "load CPU", ""),
        ]
    ]
    turns = comparison.measured.turns
    for place in ranking.order(turns):
        own = [turn.saturation for turn in turns_of(turns, place.target)]
        every = [turn.saturation for turn in turns if turn.target == place.target]
        rates = [one.deliveries_per_s for one in own]
        lines.append(
            [
                place.target,
                str(place.rank),
                thousands(median(rates)),
                f"{thousands(min(rates))}..{thousands(max(rates))}",
                thousands(median(one.publishes_per_s for one in own)),
                f"{median(one.cpu_ns_per_delivery for one in own) / 1e3:.2f} us",
                f"{comparison.measured.probes[place.target].bytes_per_connection / 1024:.1f} KiB",
                str(sum(one.lost for one in every)),
                str(sum(one.wrong for one in every)),
                f"{median(one.server_cpu for one in own):.0%}",
                f"{median(one.load_cpu for one in own):.0%}",
                _note(turns, place.target),
            ]
        )
    return lines


def _note(turns: Sequence[Turn], target: str) -> str:
    """Return what makes a target's figures doubtful, if anything does."""
    own = turns_of(turns, target)
    every = [turn for turn in turns if turn.target == target]
    notes = []
    load_cpu, server_cpu = (
        median(getattr(turn.saturation, name) for turn in own) for name in ("load_cpu", "server_cpu")
    )
    if server_cpu < SERVER_CPU_MIN:
        why = "the load is the limit" if load_cpu > LOAD_CPU_MAX else "neither it nor the load was busy all the time"
        notes.append(f"carries at least so much: {why}")
    count = sum(map(disturbed, every))
    if count:
        kept = "kept for want of others" if any(map(disturbed, own)) else "left out"
        notes.append(f"{count} of {len(every)} turns disturbed, {kept}")
    return "; ".join(notes)


def pace_lines(comparison: Comparison) -> Lines:
    lines = [
        [
            "target",
            "p50",
            "p99",
            "p99.9",
            "CPU a delivery",
            "owed",
            "lost",
            "other faults",
            "late sends p99",
            "load CPU",
            "",
        ]
    ]
    turns = comparison.measured.turns
    for name in comparison.names:
        own = [turn.pace for turn in turns_of(turns, name)]
        every = [turn.pace for turn in turns if turn.target == name]
        ledgers = [ledger_of(one) for one in every]
        faults = sum(one.duplicated + one.reordered + one.late for one in ledgers)
        lines.append(
            [
                name,
                *(f"{value / 1e6:.2f} ms" for value in ranking.merged(turns, name).percentiles((50, 99, 99.9))),
                f"{median(one.cpu_ns_per_delivery for one in own) / 1e3:.1f} us",
                str(sum(one.expected for one in ledgers)),
                str(sum(one.lost for one in ledgers)),
                str(faults + sum(not one.totals.reconciled for one in every)),
                f"{_merged([one.lag for one in own]).percentile(99) / 1e6:.2f} ms",
                f"{median(one.load_cpu for one in own):.0%}",
                _pace_note(turns_of(turns, name)),
            ]
        )
    return lines


def _pace_note(turns: Sequence[Turn]) -> str:
    """Return why a target's latencies are not to be believed, if there is a reason, and what was not answered."""
    found = [check(_facts(turn)) for turn in turns]
    notes = []
    if any(found):
        codes = dict.fromkeys(finding.code for findings in found for finding in findings)
        notes.append(f"INVALID in {sum(map(bool, found))} of {len(turns)} turns: {', '.join(codes)}")
    unanswered = sum(turn.pace.sent - turn.pace.acknowledged for turn in turns)
    if unanswered:
        notes.append(f"{unanswered} publishes got no answer")
    return "; ".join(notes)


def invalid(comparison: Comparison) -> list[str]:
    """Return the targets most of whose turns at the fixed load were invalid: their latencies show the load's faults."""
    counting = {name: turns_of(comparison.measured.turns, name) for name in comparison.names}
    return [name for name, turns in counting.items() if median(bool(check(_facts(turn))) for turn in turns) > 0.5]


def ratio_lines(comparison: Comparison) -> Lines:
    base, *others = comparison.names
    lines = [["target", *(metric.name for metric in METRICS)]]
    for name in others:
        ratios = (ranking.ratio(comparison.measured.turns, metric, base, name).interval for metric in METRICS)
        lines.append([name, *(_interval(one) for one in ratios)])
    return lines


def _interval(interval: Estimate | None) -> str:
    return NONE if interval is None else f"{interval.value:.2f} ({interval.low:.2f}..{interval.high:.2f})"


def promise_lines(comparison: Comparison) -> Lines:
    columns = list(next(iter(comparison.targets.values())).promises)
    return [
        ["target", "version", *columns],
        *(
            [name, comparison.versions.get(name) or NONE, *(comparison.targets[name].promises[one] for one in columns)]
            for name in comparison.names
        ),
    ]


def ledger_of(paced: Any) -> LedgerColumns:
    """Return a pacing's ledger, summed over the kinds."""
    kinds = paced.totals.kinds.values()
    return LedgerColumns(
        **{field: sum(getattr(kind, field, 0) for kind in kinds) for field in LedgerColumns.__struct_fields__}
    )


def _merged(histograms: Sequence[Histogram]) -> Histogram:
    total = Histogram()
    for one in histograms:
        total.merge(one)
    return total


# -- files -------------------------------------------------------------------------------------------


def content(comparison: Comparison) -> bytes:
    """Return the comparison as JSON: conditions, order, ratios, and every turn."""
    measured = comparison.measured
    names = comparison.names
    found = {
        "schema_version": SCHEMA_VERSION,
        "relaymark": version("relaymark"),
        "commit": environment.commit(Path(__file__).parent),
        "machine": environment.machine(),
        "python": environment.python_version(),
        "command": comparison.command,
        "started_unix_ns": comparison.started_unix_ns,
        "interrupted": comparison.interrupted,
        "work": describe(),
        "checked": CHECKED,
        "plan": comparison.plan,
        "publishes_per_s": measured.publishes_per_s,
        "targets": {
            name: {"version": comparison.versions.get(name), "promises": dict(comparison.targets[name].promises)}
            for name in comparison.targets
        },
        "left_out": dict(comparison.left_out),
        "failures": measured.failures,
        "order": ranking.order(measured.turns),
        "ratios": [ranking.ratio(measured.turns, metric, names[0], name) for name in names[1:] for metric in METRICS],
        "probes": [
            {**msgspec.structs.asdict(probe), "bytes_per_connection": probe.bytes_per_connection}
            for probe in measured.probes.values()
        ],
        "turns": [
            {
                "target": turn.target,
                "round": turn.round,
                "disturbed": disturbed(turn),
                "saturation": turn.saturation,
                "pace": {
                    "p50_ns": turn.pace.deliver.percentile(50),
                    "p99_ns": turn.pace.deliver.percentile(99),
                    "p999_ns": turn.pace.deliver.percentile(99.9),
                    "cpu_ns_per_delivery": turn.pace.cpu_ns_per_delivery,
                    "server_cpu": turn.pace.server_cpu,
                    "load_cpu": turn.pace.load_cpu,
                    "others_cpu": turn.pace.others_cpu,
                    "ledger": ledger_of(turn.pace),
                    "reconciled": turn.pace.totals.reconciled,
                },
            }
            for turn in measured.turns
        ],
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def result_of(comparison: Comparison, turn: Turn) -> Result:
    """Return the pacing of one turn as a run, so that reports can lay targets over each other."""
    target, paced, plan = comparison.targets[turn.target], turn.pace, comparison.plan
    probe = comparison.measured.probes[turn.target]
    series = {
        series_name("deliver", kind="message", basis="intended"): paced.deliver,
        series_name("deliver", kind="message", basis="sent"): paced.deliver_sent,
        series_name("ack", kind="message"): paced.ack,
        series_name("lag"): paced.lag,
    }
    ledger = ledger_of(paced)
    delivered = round(paced.server_ns / paced.cpu_ns_per_delivery) if paced.cpu_ns_per_delivery else paced.deliver.count
    return Result(
        relaymark=version("relaymark"),
        commit=environment.commit(Path(__file__).parent),
        python=environment.python_version(),
        versions=environment.versions(),
        machine=environment.machine(),
        command=list(comparison.command),
        scenario="compare",
        seed=plan.seed,
        run=f"{comparison.started_unix_ns:x}-{turn.round}-{turn.target}",
        target=ResultTarget(
            name=turn.target, version=comparison.versions.get(turn.target, ""), promises=dict(target.promises)
        ),
        options={"round": turn.round, "publishes_per_s": round(comparison.measured.publishes_per_s, 3)},
        started_unix_ns=turn.started_unix_ns,
        duration_ns=paced.elapsed_ns,
        series={name: Summary.of(histogram) for name, histogram in sorted(series.items()) if histogram.count},
        kinds={
            "message": KindFigures(
                due=paced.due,
                sent=paced.sent,
                acknowledged=paced.acknowledged,
                sealed_bytes=paced.sealed_bytes,
                ledger=ledger,
            )
        },
        workers=[
            WorkerFigures(
                name="load",
                cpu=paced.load_cpu,
                due=paced.due,
                sent=paced.sent,
                received=ledger.delivered,
                connections=CONNECTIONS,
                lag_p99_ns=paced.lag.percentile(99),
                loop_lag_p99_ns=0,
            )
        ],
        relay=RelayFigures(
            cpu_ns=paced.server_ns,
            memory_bytes_idle=probe.idle_bytes,
            memory_bytes_max=probe.held_bytes,
            connections=probe.held,
            deliveries=delivered,
        ),
        findings=check(_facts(turn)),
        notes=[
            f"At saturation, in the same turn: {turn.saturation.deliveries_per_s:,.0f} deliveries a second.",
            *([f"Other processes used more than {OTHERS_MAX:.0%} of the relay's core."] if disturbed(turn) else []),
        ],
    )


def _facts(turn: Turn) -> Facts:
    paced = turn.pace
    return Facts(
        workers=(WorkerFacts(name="load", cpu=paced.load_cpu, due=paced.due, sent=paced.sent),),
        lag_p99_ns=paced.lag.percentile(99),
        loop_lag_p99_ns=0,
        clock_error_ns=0,
        one_way_p50_ns=paced.deliver.percentile(50),
        unreconciled=len(paced.totals.faults),
        samples=paced.deliver.count,
        relay_cpu=paced.server_cpu,
    )


def write_results(comparison: Comparison, directory: Path) -> list[Result]:
    """Write one result a turn below `directory`, and return them. Raises ResultsError."""
    results = []
    for turn in comparison.measured.turns:
        result = result_of(comparison, turn)
        place = directory / f"{turn.round:02d}-{turn.target}"
        place.mkdir()
        write(place, result)
        results.append(result)
    return results
