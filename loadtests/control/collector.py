"""What comes from the workers of a run, put together at the master as it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic_ns, time_ns
from typing import Any, Final

from loadtests.accounting.settlement import SentLog, Settlement, Totals
from loadtests.control.facts import RunFacts
from loadtests.control.messages import Quiet, Settled, Status, WorkerReport, WorkerTime
from loadtests.control.relay_usage import RelayUsage
from loadtests.control.target_series import TargetSeries
from loadtests.dialects.find import find
from loadtests.measuring.clock import OffsetEstimator, one_way_error_ns
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.room_spread import SpreadMerger
from loadtests.measuring.series import parse_series_name
from loadtests.results import schema
from loadtests.results.validity import Finding
from loadtests.sealing.records import KIND_NAMES
from loadtests.settings import Settings
from loadtests.workload.catalogue import SCENARIOS


class WorkerLine:
    """One worker: its latest status, and its use of the machine over time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = Status()
        self.heard = False
        self.clock = 0
        self.clock_error_ns: int | None = None
        """The largest estimate during the load, so that it holds for every time that was taken."""
        self.by_master = OffsetEstimator()
        """The worker's clock less the master's, where they are compared with each other."""
        self.lag = Histogram()
        self.loop_lag = Histogram()
        self.columns = schema.Usage(name=name, role="worker")
        self.attempts: Mapping[str, Any] = {}
        self.due_before = self.sent_before = 0

    @property
    def due(self) -> int:
        return sum(self.status.counts.due)

    @property
    def sent(self) -> int:
        return sum(self.status.counts.sent)


class Collector:
    """What the master knows of a run so far."""

    def __init__(self, settings: Settings, facts: RunFacts, workers: Sequence[str]) -> None:
        """`workers`: the ids of the workers, in their order."""
        self.settings = settings
        self.recorder = Recorder()
        self.lines = {name: WorkerLine(f"worker-{number}") for number, name in enumerate(workers, 1)}
        self.relay = RelayUsage(facts.relay)
        self.series = TargetSeries(facts.series, facts.relay.statistics if facts.relay is not None else dict)
        self.fanout = SpreadMerger()
        self.sent_log: SentLog | None = None
        self.settlement: Settlement | None = None
        self.rates: dict[int, list[int]] = {}
        """Due, sent and delivered by second."""
        self.started_unix_ns = time_ns()
        self.load_from_ns = 0
        self.load_to_ns = 0
        self.events: list[schema.Event] = []
        self.findings: list[Finding] = []
        self.interrupted = False
        self.relay_tells_time = find(settings.dialect).features.tells_time
        """The workers compare their clocks with the relay's; otherwise the master compares them with its own."""
        self._clocks: dict[int, int] = {}
        self._cut_is_marked = False

    # -- what comes ----------------------------------------------------------------------------------

    def take_report(self, worker: str, report: WorkerReport) -> None:
        line = self.lines[worker]
        intervals = {name: wire for name, wire in report.intervals.items() if wire["count"] or wire["negative"]}
        self.recorder.merge_interval(report.second, intervals)
        for name, kept in (("lag", line.lag), ("loop_lag", line.loop_lag)):
            if name in intervals:
                kept.merge(Histogram.from_wire(intervals[name]))
        self.fanout.add(report.fanout)
        line.status = status = report.status
        line.heard = True
        line.clock = self._clocks.setdefault(report.clock_id, len(self._clocks) + 1)
        if status.counts.cuts:
            self._mark_cut()
        self._note_error(line)
        if self.load_from_ns:
            self._add_second(line, report.second, intervals)

    def take_time(self, worker: str, told: WorkerTime, now_ns: int) -> None:
        line = self.lines[worker]
        line.by_master.add(told.sent_ns, told.received_ns, told.replied_ns, now_ns)
        self._note_error(line)

    def clock_of(self, line: WorkerLine) -> tuple[int, int] | None:
        """Return the common clock less the worker's, and the error of that; None while they are not known."""
        if not self.relay_tells_time:
            return (-line.by_master.offset_ns, line.by_master.error_ns) if line.by_master.valid else None
        offset_ns, error_ns = line.status.offset_ns, line.status.clock_error_ns
        return None if offset_ns is None or error_ns is None else (offset_ns, error_ns)

    def _note_error(self, line: WorkerLine) -> None:
        known = self.clock_of(line)
        if not self.load_from_ns or line.clock_error_ns is None:
            line.clock_error_ns = known[1] if known is not None else None
        elif not self.load_to_ns and known is not None:
            line.clock_error_ns = max(line.clock_error_ns, known[1])

    def _add_second(self, line: WorkerLine, second: int, intervals: Mapping[str, Mapping[str, Any]]) -> None:
        line.columns.second.append(second)
        line.columns.cpu.append(round(line.status.cpu, 4))
        line.columns.memory_bytes.append(line.status.rss_bytes)
        line.columns.connections.append(line.status.connections)
        delivered = sum(int(wire["count"]) for name, wire in intervals.items() if is_delivery(name))
        row = self.rates.setdefault(second, [0, 0, 0])
        for column, value in enumerate((line.due - line.due_before, line.sent - line.sent_before, delivered)):
            row[column] += value
        line.due_before, line.sent_before = line.due, line.sent

    def take_quiet(self, quiet: Quiet) -> None:
        log = SentLog.from_wire(quiet.sent)
        if self.sent_log is None:
            self.sent_log = log
        else:
            self.sent_log.merge(log)

    def take_settled(self, worker: str, settled: Settled) -> None:
        settlement = Settlement.from_wire(settled.settlement)
        self.lines[worker].attempts = settled.attempts
        if self.settlement is None:
            self.settlement = settlement
        else:
            self.settlement.merge(settlement)

    # -- the phases ----------------------------------------------------------------------------------

    def load_begins(self) -> None:
        """Everybody is there; the word to start goes out."""
        self.relay.load_begins()
        self.starts_now()
        for line, shift_ms in zip(self.lines.values(), self.settings.clock_shift_ms, strict=False):
            if shift_ms:
                self.event(f"the clock of {line.name} is off by {shift_ms:g} ms")

    def starts_now(self) -> None:
        """Set the zero of all times of the run."""
        self.load_from_ns, self.started_unix_ns = monotonic_ns(), time_ns()

    def samples_begin(self) -> None:
        """Begin to read the relay's own metrics."""
        self.series.start(self.load_from_ns)

    def sample_relay(self) -> None:
        """Note what the relay uses now; call about once a second."""
        if not self.load_from_ns:
            self.relay.while_joining()
        elif not self.load_to_ns:
            self.relay.while_loaded(self.load_from_ns, self.connections)

    def load_ends(self) -> None:
        if self.load_from_ns and not self.load_to_ns:
            self.series.stop()
            self.relay.load_ends(self.load_from_ns, self.connections)
            self.load_to_ns = monotonic_ns()

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

    # -- sums over the workers -----------------------------------------------------------------------

    def total(self, name: str) -> int:
        """Return the sum of a figure of the workers' statuses."""
        return sum(int(getattr(line.status, name)) for line in self.lines.values())

    def counted(self, name: str) -> int:
        """Return the sum of a count of the workers."""
        return sum(int(getattr(line.status.counts, name)) for line in self.lines.values())

    @property
    def connections(self) -> int:
        return self.total("connections")

    @property
    def everyone_reported(self) -> bool:
        return all(line.heard for line in self.lines.values())

    def recent_rates(self, seconds: int) -> tuple[float, float, float]:
        """Return due, sent and delivered a second over the last whole seconds."""
        rows = [self.rates[second] for second in sorted(self.rates)[-seconds - 1 : -1]]
        due, sent, delivered = (sum(column) / len(rows) for column in zip(*rows, strict=True)) if rows else (0.0,) * 3
        return due, sent, delivered

    def ledger(self) -> Totals:
        """Return what became of everything; of nothing, before it is settled."""
        return (self.settlement or Settlement()).totals(self.sent_log or SentLog())

    def kinds_so_far(self) -> dict[str, schema.KindFigures]:
        """Return what was due and sent by kind; the ledger is known only at the end."""
        return self.kinds(self.ledger() if self.settlement is not None else Settlement().totals(SentLog()))

    def kinds(self, ledger: Totals) -> dict[str, schema.KindFigures]:
        """Return what was due, sent and settled by kind."""
        kinds = {}
        for index, name in enumerate(KIND_NAMES):
            counted = {
                column: sum(getattr(line.status.counts, column)[index] for line in self.lines.values())
                for column in _BY_KIND
            }
            settled = ledger.kinds.get(name)
            if settled is None and not any(counted.values()):
                continue
            columns = schema.LedgerColumns()
            if settled is not None:
                columns = schema.LedgerColumns(
                    **{column: getattr(settled, column) for column in schema.LedgerColumns.__struct_fields__}
                )
            kinds[name] = schema.KindFigures(**counted, ledger=columns)
        return kinds

    def offsets_ns(self) -> list[tuple[int, int]]:
        """Return for each clock the best estimate of the common clock (the relay's, or ours) less it, by clock."""
        best: dict[int, tuple[int, int]] = {}
        for line in self.lines.values():
            known = self.clock_of(line)
            if known is not None:
                offset_ns, error_ns = known
                if line.clock not in best or error_ns < best[line.clock][0]:
                    best[line.clock] = (error_ns, offset_ns)
        return sorted((clock, offset_ns) for clock, (_, offset_ns) in best.items())

    @property
    def clocks(self) -> int:
        return len(self._clocks)

    @property
    def clock_error_ns(self) -> int | None:
        """Error of a one-way time between any two workers; 0 where all share one clock, None if it is not known."""
        return one_way_error_ns((line.clock, line.clock_error_ns) for line in self.lines.values())


_BY_KIND: Final = ("due", "sent", "acknowledged", "refused", "sealed_bytes")


def is_delivery(name: str) -> bool:
    """Return whether a series is one of deliveries; each is counted once, from the actual send."""
    metric, labels = parse_series_name(name)
    return metric == "deliver" and labels["basis"] == "sent"
