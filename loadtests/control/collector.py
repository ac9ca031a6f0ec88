"""Everything that a run's workers tell, put together at the master, and the result made of it."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Any, Final

import msgspec

from loadtests.accounting.settlement import SentLog, Settlement, Totals
from loadtests.measuring.clock import one_way_error_ns
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.room_spread import FanoutTally
from loadtests.measuring.series import parse_series_name, series_name
from loadtests.results import schema
from loadtests.results.environment import commit, machine, python_version, versions
from loadtests.results.thresholds import Threshold, evaluate
from loadtests.results.validity import Facts, Finding, WorkerFacts, check
from loadtests.sealing.records import KIND_NAMES
from loadtests.settings import Settings
from loadtests.target.reference_relay import ReferenceRelay
from loadtests.workload.catalogue import SCENARIOS
from loadtests.workload.traffic import Workload

_S_NS: Final = 1_000_000_000
_CHAT: Final = series_name("deliver", kind="message", basis="intended")
PROMISES: Final = {
    "durability": "as the store: memory loses all at a restart, sqlite commits before it acknowledges",
    "order": "numbered per stream, without a gap",
    "resume": "from any number that is still held",
}


class WorkerLine:
    """One worker: its latest status, and its use of the machine over time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status: dict[str, Any] = {}
        self.clock = 0
        self.clock_error_ns: int | None = None
        """The largest estimate during the load, so that it holds for every time that was taken."""
        self.lag = Histogram()
        self.loop_lag = Histogram()
        self.second: list[int] = []
        self.cpu: list[float] = []
        self.memory_bytes: list[int] = []
        self.connections: list[int] = []
        self.comings: dict[str, Any] = {}

    def tally(self, name: str) -> int:
        counted = self.status["tally"][name] if self.status else 0
        return sum(counted) if isinstance(counted, list) else int(counted)


class Gathering:
    """What the master knows of a run."""

    def __init__(
        self, settings: Settings, *, target: str, relay: ReferenceRelay | None, workers: Sequence[str]
    ) -> None:
        """`workers`: the ids of the workers, in their order."""
        self.settings = settings
        self._target = target
        self._relay = relay
        self.recorder = Recorder()
        self.lines = {name: WorkerLine(f"worker-{number}") for number, name in enumerate(workers, 1)}
        self.fanout = FanoutTally()
        self.sent_log: SentLog | None = None
        self._settlement: Settlement | None = None
        self.settled = 0
        self._clocks: dict[int, int] = {}
        self._rates: dict[int, list[int]] = {}
        self._last_counts: dict[str, tuple[int, int]] = {}
        self._relay_use = schema.Usage(name="relay", role="relay")
        self._relay_from: tuple[int, int, int] | None = None
        self._relay_to: tuple[int, int] | None = None
        self._relay_memory = [0, 0]
        self.relay_cpu: float | None = None
        self._relay_statistics: dict[str, float] = {}
        self.started_unix_ns = time_ns()
        self.load_from_ns = 0
        self.load_to_ns = 0
        self.events: list[schema.Event] = []
        self._cut_is_marked = False
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.calibration: Histogram | None = None
        self.interrupted = False
        self.machine = machine()

    # -- what comes ----------------------------------------------------------------------------------

    def take_report(self, worker: str, data: Mapping[str, Any]) -> None:
        line = self.lines.get(worker)
        if line is None:
            return
        second = int(data["second"])
        intervals = {name: wire for name, wire in data["intervals"].items() if wire["count"] or wire["negative"]}
        self.recorder.merge_interval(second, intervals)
        for name, kept in (("lag", line.lag), ("loop_lag", line.loop_lag)):
            if name in intervals:
                kept.merge(Histogram.from_wire(intervals[name]))
        self.fanout.add(data["fanout"])
        line.status = status = data["status"]
        line.clock = self._clocks.setdefault(data["clock_id"], len(self._clocks) + 1)
        if line.tally("cuts"):
            self._mark_cut()
        error_ns = status["clock_error_ns"]
        if not self.load_from_ns or line.clock_error_ns is None:
            line.clock_error_ns = error_ns
        elif not self.load_to_ns and error_ns is not None:
            line.clock_error_ns = max(line.clock_error_ns, error_ns)
        if self.load_from_ns:
            line.second.append(second)
            line.cpu.append(round(status["cpu"], 4))
            line.memory_bytes.append(status["rss_bytes"])
            line.connections.append(status["connections"])
            due, sent = line.tally("due"), line.tally("sent")
            due_then, sent_then = self._last_counts.get(worker, (0, 0))
            self._last_counts[worker] = (due, sent)
            delivered = sum(wire["count"] for name, wire in intervals.items() if _is_delivery(name))
            row = self._rates.setdefault(second, [0, 0, 0])
            for column, value in enumerate((due - due_then, sent - sent_then, delivered)):
                row[column] += value

    def take_sent(self, data: Mapping[str, Any]) -> None:
        log = SentLog.from_wire(data["sent"])
        if self.sent_log is None:
            self.sent_log = log
        else:
            self.sent_log.merge(log)

    def take_settled(self, worker: str, data: Mapping[str, Any]) -> None:
        settlement = Settlement.from_wire(data["settlement"])
        self.lines[worker].comings = data["comings"]
        self.settled += 1
        if self._settlement is None:
            self._settlement = settlement
        else:
            self._settlement.merge(settlement)

    def sample_relay(self) -> None:
        """Note what the relay uses now; call about once a second."""
        usage = self._relay.usage() if self._relay is not None else None
        if usage is None:
            return
        self._relay_memory[1] = max(self._relay_memory[1], usage.rss_bytes)
        if not self.load_from_ns:
            self._relay_from = (usage.at_ns, usage.cpu_ns, 0)
            return
        if self._relay_from is not None and not self.load_to_ns:
            then_ns, cpu_then_ns = self._relay_to or self._relay_from[:2]
            self.relay_cpu = (usage.cpu_ns - cpu_then_ns) / max(usage.at_ns - then_ns, 1)
            self._relay_use.second.append((usage.at_ns - self.load_from_ns) // _S_NS)
            self._relay_use.cpu.append(round(self.relay_cpu, 4))
            self._relay_use.memory_bytes.append(usage.rss_bytes)
            self._relay_use.connections.append(sum(line.status.get("connections", 0) for line in self.lines.values()))
            self._relay_to = (usage.at_ns, usage.cpu_ns)

    def note_idle_relay(self) -> None:
        """Call before anybody connects."""
        usage = self._relay.usage() if self._relay is not None else None
        if usage is not None:
            self._relay_memory = [usage.rss_bytes, usage.rss_bytes]

    def load_begins(self) -> None:
        self.sample_relay()
        self.starts_now()
        for line, shift_ms in zip(self.lines.values(), self.settings.clock_shift_ms, strict=False):
            if shift_ms:
                self.event(f"the clock of {line.name} is off by {shift_ms:g} ms")

    def starts_now(self) -> None:
        """Set the zero of all times of the run."""
        self.load_from_ns, self.started_unix_ns = monotonic_ns(), time_ns()

    def load_ends(self) -> None:
        if not self.load_to_ns:
            self.sample_relay()
            self.load_to_ns = monotonic_ns()
            if self._relay is not None:
                self._relay_statistics = self._relay.statistics()

    def event(self, text: str) -> None:
        at_ns = monotonic_ns() - self.load_from_ns if self.load_from_ns else 0
        self.events.append(schema.Event(at_ns=at_ns, text=text))

    def _mark_cut(self) -> None:
        """Mark the fault that the scenario injects, once; the reports come up to a second later than it."""
        if not self._cut_is_marked:
            self._cut_is_marked = True
            scenario = SCENARIOS[self.settings.scenario]
            at_ns = int(scenario.cut_at * self.settings.duration_s * 1e9)
            self.events.append(schema.Event(at_ns=at_ns, text=f"{scenario.cut_share:.0%} of the connections cut"))

    # -- what follows from it ------------------------------------------------------------------------

    def total(self, name: str) -> int:
        """Return the sum of a figure of the workers' statuses."""
        return sum(int(line.status.get(name, 0)) for line in self.lines.values())

    @property
    def everyone_reported(self) -> bool:
        return all(line.status for line in self.lines.values())

    def recent_rates(self, seconds: int) -> tuple[float, float, float]:
        """Return due, sent and delivered a second over the last whole seconds."""
        rows = [self._rates[second] for second in sorted(self._rates)[-seconds - 1 : -1]]
        due, sent, delivered = (sum(column) / len(rows) for column in zip(*rows, strict=True)) if rows else (0.0,) * 3
        return due, sent, delivered

    def kinds_so_far(self) -> dict[str, schema.Kind]:
        """Return what was due and sent by kind; the ledger is known only at the end."""
        return self._kinds(self._totals() if self._settlement is not None else Settlement().totals(SentLog()))

    def offsets_ns(self) -> dict[int, int]:
        """Return for each clock the best estimate of relay minus clock."""
        best: dict[int, tuple[int, int]] = {}
        for line in self.lines.values():
            offset_ns, error_ns = line.status.get("offset_ns"), line.status.get("clock_error_ns")
            if offset_ns is not None and error_ns is not None:
                known = best.get(line.clock)
                if known is None or error_ns < known[0]:
                    best[line.clock] = (error_ns, offset_ns)
        return {clock: offset_ns for clock, (_, offset_ns) in best.items()}

    @property
    def clocks(self) -> int:
        return len(self._clocks)

    @property
    def clock_error_ns(self) -> int | None:
        """Of a one-way time between any two workers; 0 where all share one clock, None if it is not known."""
        return one_way_error_ns((line.clock, line.clock_error_ns) for line in self.lines.values())

    def result(
        self, thresholds: Sequence[Threshold], command: Sequence[str], options: Mapping[str, Any]
    ) -> schema.Result:
        """Return the result, its findings and thresholds included."""
        settings = self.settings
        workload = Workload(
            settings.scenario,
            seed=settings.seed,
            participants=settings.participants,
            rate=settings.rate,
            duration_s=settings.duration_s,
        )
        tally = Recorder(keep_history=False)
        self.fanout.finish(tally, {plan.index: plan.members for plan in workload.streams})
        tally.fold(0)
        totals = {**self.recorder.totals, **tally.totals}
        if self.calibration is not None:
            totals[series_name("echo")] = self.calibration
        ledger = self._totals()
        kinds = self._kinds(ledger)
        duration_ns = max(self.load_to_ns - self.load_from_ns, 0) if self.load_from_ns else 0
        self._add_notes(ledger)
        self._compare_with_files(workload.media_from_ns)
        findings = [*self.findings, *check(self._facts(totals, ledger, kinds))]
        result = schema.Result(
            relaymark=version("relaymark"),
            commit=commit(Path(__file__).parent),
            python=python_version(),
            versions=versions(),
            machine=self.machine,
            command=list(command),
            scenario=settings.scenario,
            seed=settings.seed,
            run=settings.run,
            target=schema.Target(
                name=self._target, url=settings.url, promises=PROMISES if self._relay is not None else {}
            ),
            options=dict(options),
            started_unix_ns=self.started_unix_ns,
            duration_ns=duration_ns,
            interrupted=self.interrupted,
            series=schema.summaries(totals),
            kinds=kinds,
            joins=self._attempts("joins"),
            resumes=self._attempts("resumes"),
            rates=self._rates_columns(),
            history=schema.tracks(self.recorder.history()),
            usage=self._usage(),
            workers=[self._worker(line) for line in self.lines.values()],
            relay=self._relay_part(totals),
            clock_error_ns=self.clock_error_ns,
            calibration=schema.Summary.of(self.calibration) if self.calibration is not None else None,
            events=sorted(self.events, key=lambda event: event.at_ns),
            findings=findings,
            notes=self.notes,
        )
        outcomes = [evaluate(threshold, result) for threshold in thresholds]
        return msgspec.structs.replace(result, thresholds=outcomes)

    def _totals(self) -> Totals:
        settlement = self._settlement or Settlement()
        return settlement.totals(self.sent_log or SentLog())

    def _kinds(self, ledger: Totals) -> dict[str, schema.Kind]:
        kinds = {}
        for index, name in enumerate(KIND_NAMES):
            counted = {
                column: sum(line.status["tally"][column][index] for line in self.lines.values() if line.status)
                for column in ("due", "sent", "acknowledged", "refused", "sealed_bytes")
            }
            settled = ledger.kinds.get(name)
            if settled is None and not any(counted.values()):
                continue
            columns = schema.Ledger()
            if settled is not None:
                columns = schema.Ledger(**{field: getattr(settled, field) for field in schema.Ledger.__struct_fields__})
            kinds[name] = schema.Kind(**counted, ledger=columns)
        return kinds

    def _facts(self, totals: Mapping[str, Histogram], ledger: Totals, kinds: Mapping[str, schema.Kind]) -> Facts:
        deliveries = {name: h for name, h in totals.items() if _is_delivery(name) and h.count}
        measured = {parse_series_name(name)[1]["kind"] for name in deliveries}
        silent = tuple(
            name for name, kind in kinds.items() if kind.sent and kind.ledger.expected and name not in measured
        )
        return Facts(
            workers=tuple(
                WorkerFacts(
                    name=line.name,
                    cpu=line.status.get("load_cpu", 0.0),
                    due=line.tally("due"),
                    sent=line.tally("sent") + line.tally("skipped"),
                )
                for line in self.lines.values()
            ),
            lag_p99_ns=_percentile(totals, series_name("lag"), 99),
            loop_lag_p99_ns=_percentile(totals, series_name("loop_lag"), 99),
            clock_error_ns=self.clock_error_ns,
            one_way_p50_ns=min((h.percentile(50) for h in deliveries.values()), default=0),
            unreconciled=0 if ledger.reconciled else max(1, len(ledger.faults)),
            samples=sum(h.count for h in deliveries.values()),
            silent_kinds=silent,
            relay_cpu=self.mean_relay_cpu,
            ports_exhausted=self.total("ports_exhausted"),
            descriptors_exhausted=self.total("descriptors_exhausted"),
        )

    def _add_notes(self, ledger: Totals) -> None:
        self.notes.extend(ledger.faults[:10])
        for count, what in (
            (ledger.gaps, "numbers were told to be gone by the relay itself"),
            (ledger.misnumbered, "records came under a number that another had before"),
            (ledger.phantoms, "numbers never came, though no record is missing: the relay gave them to none, or twice"),
        ):
            if count:
                self.notes.append(f"{count} {what}")
        counted: Counter[str] = Counter()
        for line in self.lines.values():
            if line.status:
                counted.update(line.status["tally"]["events"])
        self.notes.extend(f"{count} x {what}" for what, count in counted.most_common(20))
        unopened = sum(line.tally("unopened") for line in self.lines.values())
        if unopened:
            self.notes.append(f"{unopened} payloads did not open")
        skipped = sum(line.tally("skipped") for line in self.lines.values())
        if skipped:
            self.notes.append(f"{skipped} states were due while their sender was not connected, and were skipped")
        unsent = self.total("unsent")
        if unsent:
            self.findings.append(
                Finding("unsent", f"{unsent} records were due and could not be sent: see whether the relay still runs.")
            )
        if self.recorder.late_intervals:
            self.notes.append(f"{self.recorder.late_intervals} intervals came late: in the totals, not in the history")

    def _compare_with_files(self, from_ns: int) -> None:
        """Note what files beside it did to the chat, where the chat was alone before."""
        alone, beside = Histogram(), Histogram()
        for interval in self.recorder.intervals() if from_ns else ():
            if interval.name == _CHAT:
                begin_ns = interval.second * _S_NS
                if begin_ns >= from_ns:
                    beside.merge(interval.histogram)
                elif begin_ns + interval.width_s * _S_NS <= from_ns:
                    alone.merge(interval.histogram)
        if alone.count and beside.count:
            said = [
                f"p50 {h.percentile(50) / 1e6:.3g} ms, p99 {h.percentile(99) / 1e6:.3g} ms" for h in (alone, beside)
            ]
            self.notes.append(f"chat alone: {said[0]} ({alone.count}); beside files: {said[1]} ({beside.count})")

    def _attempts(self, which: str) -> schema.Attempts:
        tried, first_ns = 0, None
        done: array[int] = array("q")
        for line in self.lines.values():
            comings = line.comings.get(which)
            if comings and comings["tried"]:
                tried += comings["tried"]
                first_ns = comings["first_ns"] if first_ns is None else min(first_ns, comings["first_ns"])
                done.frombytes(comings["done_ns"])
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

    def _rates_columns(self) -> schema.Rates:
        rows = sorted(self._rates.items())
        return schema.Rates(
            second=[second for second, _ in rows],
            due=[row[0] for _, row in rows],
            sent=[row[1] for _, row in rows],
            delivered=[row[2] for _, row in rows],
        )

    def _usage(self) -> list[schema.Usage]:
        found = [
            schema.Usage(
                name=line.name,
                role="worker",
                second=line.second,
                cpu=line.cpu,
                memory_bytes=line.memory_bytes,
                connections=line.connections,
            )
            for line in self.lines.values()
        ]
        return [self._relay_use, *found] if self._relay is not None else found

    def _worker(self, line: WorkerLine) -> schema.Worker:
        return schema.Worker(
            name=line.name,
            cpu=round(line.status.get("load_cpu", 0.0), 4),
            due=line.tally("due"),
            sent=line.tally("sent"),
            received=line.tally("received"),
            connections=line.status.get("participants", 0),
            lag_p99_ns=line.lag.percentile(99),
            loop_lag_p99_ns=line.loop_lag.percentile(99),
            clock_offset_ns=line.status.get("offset_ns"),
            clock_error_ns=line.clock_error_ns,
        )

    @property
    def mean_relay_cpu(self) -> float | None:
        """Over the load, of one core."""
        if self._relay_from is None or self._relay_to is None:
            return None
        return (self._relay_to[1] - self._relay_from[1]) / max(self._relay_to[0] - self._relay_from[0], 1)

    def _relay_part(self, totals: Mapping[str, Histogram]) -> schema.Relay | None:
        if self._relay_from is None or self._relay_to is None:
            return None
        return schema.Relay(
            cpu_ns=self._relay_to[1] - self._relay_from[1],
            memory_bytes_idle=self._relay_memory[0],
            memory_bytes_max=self._relay_memory[1],
            connections=max(self._relay_use.connections, default=0),
            deliveries=sum(h.count for name, h in totals.items() if _is_delivery(name)),
            statistics=self._relay_statistics,
        )


def _is_delivery(name: str) -> bool:
    metric, labels = parse_series_name(name)
    return metric == "deliver" and labels["basis"] == "sent"


def _percentile(totals: Mapping[str, Histogram], name: str, percent: float) -> int:
    histogram = totals.get(name)
    return histogram.percentile(percent) if histogram is not None else 0


def command_line() -> list[str]:
    """Return the command that repeats this run."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
