"""The result of a run, as a pure function of what was collected and of what was known before."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Final

import msgspec

from loadtests.accounting.settlement import Totals
from loadtests.control.collector import Collector, WorkerLine, is_delivery
from loadtests.control.facts import RunFacts
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.series import parse_series_name, series_name
from loadtests.results import schema
from loadtests.results.environment import python_version, versions
from loadtests.results.thresholds import evaluate
from loadtests.results.validity import Facts, Finding, WorkerFacts, check

_S_NS: Final = 1_000_000_000
_CHAT: Final = series_name("deliver", kind="message", basis="intended")
_FAULTS_MAX: Final = 10
_EVENTS_MAX: Final = 20


def assemble(run: Collector, facts: RunFacts) -> schema.Result:
    """Return the result, its findings and the outcomes of its thresholds included."""
    settings = run.settings
    totals = _histograms(run, facts)
    ledger = run.ledger()
    kinds = run.kinds(ledger)
    result = schema.Result(
        relaymark=version("relaymark"),
        commit=facts.commit,
        python=python_version(),
        versions=versions(),
        machine=facts.machine,
        command=list(facts.command),
        scenario=settings.scenario,
        seed=settings.seed,
        run=settings.run,
        target=schema.MeasuredTarget(
            name=facts.target, url=settings.url, version=facts.version, promises=dict(facts.promises)
        ),
        options=dict(facts.options),
        started_unix_ns=run.started_unix_ns,
        duration_ns=max(run.load_to_ns - run.load_from_ns, 0) if run.load_from_ns else 0,
        interrupted=run.interrupted,
        series=schema.summaries(totals),
        kinds=kinds,
        joins=_attempts(run, "joins"),
        resumes=_attempts(run, "resumes"),
        rates=_rate_columns(run),
        history=schema.tracks(run.recorder.history()),
        usage=[
            *([run.relay.columns] if facts.relay is not None else []),
            *(line.columns for line in run.lines.values()),
        ],
        workers=[_worker(run, line) for line in run.lines.values()],
        target_series={name: columns for name, columns in run.series.columns.items() if columns.second},
        relay=run.relay.figures(sum(h.count for name, h in totals.items() if is_delivery(name))),
        clock_error_ns=run.clock_error_ns,
        calibration=schema.Summary.of(facts.calibration) if facts.calibration is not None else None,
        events=sorted(run.events, key=lambda event: event.at_ns),
        findings=[*run.findings, *_unsent(run), *check(_validity_facts(run, totals, ledger, kinds))],
        notes=[*facts.notes, *_notes(run, ledger)],
    )
    return msgspec.structs.replace(result, thresholds=[evaluate(threshold, result) for threshold in facts.thresholds])


def _histograms(run: Collector, facts: RunFacts) -> dict[str, Histogram]:
    spread = Recorder(keep_history=False)
    run.fanout.finish(spread, {plan.index: plan.members for plan in run.settings.workload().streams})
    spread.fold(0)
    totals = {**run.recorder.totals, **spread.totals}
    if facts.calibration is not None:
        totals[series_name("echo")] = facts.calibration
    return totals


def _validity_facts(
    run: Collector, totals: Mapping[str, Histogram], ledger: Totals, kinds: Mapping[str, schema.KindFigures]
) -> Facts:
    deliveries = {name: h for name, h in totals.items() if is_delivery(name) and h.count}
    measured = {parse_series_name(name)[1]["kind"] for name in deliveries}
    silent = tuple(name for name, kind in kinds.items() if kind.sent and kind.ledger.expected and name not in measured)
    return Facts(
        workers=tuple(
            WorkerFacts(
                name=line.name,
                cpu=line.status.load_cpu,
                due=line.due,
                sent=line.sent + line.status.counts.skipped,
            )
            for line in run.lines.values()
        ),
        lag_p99_ns=_percentile(totals, series_name("lag"), 99),
        loop_lag_p99_ns=_percentile(totals, series_name("loop_lag"), 99),
        clock_error_ns=run.clock_error_ns,
        one_way_p50_ns=min((h.percentile(50) for h in deliveries.values()), default=0),
        unreconciled=0 if ledger.reconciled else max(1, len(ledger.faults)),
        samples=sum(h.count for h in deliveries.values()),
        silent_kinds=silent,
        relay_cpu=run.relay.mean_cpu,
        ports_exhausted=run.total("ports_exhausted"),
        descriptors_exhausted=run.total("descriptors_exhausted"),
    )


def _unsent(run: Collector) -> Iterator[Finding]:
    unsent = run.total("unsent")
    if unsent:
        yield Finding("unsent", f"{unsent} records were due and could not be sent: see whether the relay still runs.")


def _notes(run: Collector, ledger: Totals) -> Iterator[str]:
    yield from ledger.faults[:_FAULTS_MAX]
    for count, what in (
        (ledger.gaps, "numbers were told to be gone by the relay itself"),
        (ledger.misnumbered, "records came under a number that another had before"),
        (ledger.phantoms, "numbers never came, though no record is missing: the relay gave them to none, or twice"),
    ):
        if count:
            yield f"{count} {what}"
    events: Counter[str] = Counter()
    for line in run.lines.values():
        events.update(line.status.counts.events)
    yield from (f"{count} x {what}" for what, count in events.most_common(_EVENTS_MAX))
    if unacknowledged := run.total("unacknowledged"):
        yield (
            f"{unacknowledged} records were never acknowledged, though the dialect's features say that the relay"
            " acknowledges: see what `relaymark dialect check --url` says"
        )
    if unopened := run.counted("unopened"):
        yield f"{unopened} payloads did not open"
    if skipped := run.counted("skipped"):
        yield f"{skipped} states were due while their sender was not connected, and were skipped"
    if run.clocks > 1 and not run.relay_tells_time:
        yield "the relay tells no time: the master compared the workers' clocks with its own, over Locust's channel"
    if run.recorder.late_intervals:
        yield f"{run.recorder.late_intervals} intervals came late: in the totals, not in the history"
    if missing := run.series.missing():
        yield f"the target's own metrics have no {', '.join(missing)}"
    yield from _beside_files(run, run.settings.workload().media_from_ns)


def _beside_files(run: Collector, from_ns: int) -> Iterator[str]:
    """Say what files beside it did to the chat, where the chat was alone before."""
    alone, beside = Histogram(), Histogram()
    for interval in run.recorder.intervals() if from_ns else ():
        if interval.name == _CHAT:
            begin_ns = interval.second * _S_NS
            if begin_ns >= from_ns:
                beside.merge(interval.histogram)
            elif begin_ns + interval.width_s * _S_NS <= from_ns:
                alone.merge(interval.histogram)
    if alone.count and beside.count:
        said = [f"p50 {h.percentile(50) / 1e6:.3g} ms, p99 {h.percentile(99) / 1e6:.3g} ms" for h in (alone, beside)]
        yield f"chat alone: {said[0]} ({alone.count}); beside files: {said[1]} ({beside.count})"


def _attempts(run: Collector, which: str) -> schema.Attempts:
    tried, first_ns = 0, None
    done: array[int] = array("q")
    for line in run.lines.values():
        attempts = line.attempts.get(which)
        if attempts and attempts["tried"]:
            tried += attempts["tried"]
            first_ns = attempts["first_ns"] if first_ns is None else min(first_ns, attempts["first_ns"])
            done.frombytes(attempts["done_ns"])
    if first_ns is None:
        return schema.Attempts()
    after = sorted(at_ns - first_ns for at_ns in done)
    most = -(-tried * 95 // 100)
    return schema.Attempts(
        tried=tried,
        failed=tried - len(after),
        p95_after_ns=after[most - 1] if len(after) >= most else None,
        all_after_ns=after[-1] if len(after) >= tried else None,
    )


def _rate_columns(run: Collector) -> schema.RateColumns:
    rows = sorted(run.rates.items())
    return schema.RateColumns(
        second=[second for second, _ in rows],
        due=[row[0] for _, row in rows],
        sent=[row[1] for _, row in rows],
        delivered=[row[2] for _, row in rows],
    )


def _worker(run: Collector, line: WorkerLine) -> schema.WorkerFigures:
    clock = run.clock_of(line)
    return schema.WorkerFigures(
        name=line.name,
        cpu=round(line.status.load_cpu, 4),
        due=line.due,
        sent=line.sent,
        received=line.status.counts.received,
        connections=line.status.participants,
        lag_p99_ns=line.lag.percentile(99),
        loop_lag_p99_ns=line.loop_lag.percentile(99),
        clock_offset_ns=None if clock is None else clock[0],
        clock_error_ns=line.clock_error_ns,
    )


def _percentile(totals: Mapping[str, Histogram], name: str, percent: float) -> int:
    histogram = totals.get(name)
    return histogram.percentile(percent) if histogram is not None else 0
