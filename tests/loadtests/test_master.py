"""The phases of a run at the master, with workers that the test plays."""

from __future__ import annotations

import time
from typing import Any

import gevent
import msgspec
import pytest

from loadtests.accounting.ledger import Ledger
from loadtests.control import master as master_module
from loadtests.control.assemble import assemble
from loadtests.control.collector import Collector
from loadtests.control.facts import RunFacts
from loadtests.control.master import Master
from loadtests.control.messages import (
    CompareClocks,
    Drain,
    Go,
    Quiet,
    Settled,
    Status,
    Stop,
    TellTime,
    ToWorker,
    WorkerCounts,
    WorkerReport,
    WorkerTime,
    encode,
    read_by_master,
    read_by_worker,
)
from loadtests.control.target_series import TargetSeries
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.results.environment import machine
from loadtests.results.exit_codes import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK
from loadtests.results.schema import Result
from loadtests.results.thresholds import parse
from loadtests.settings import Settings

DELIVERED = series_name("deliver", kind="message", basis="sent")
INTENDED = series_name("deliver", kind="message", basis="intended")
FACTS = RunFacts(target="x", machine=machine(), commit=None, command=["relaymark"])


class FakeWorkers:
    """Two workers with two participants each, one message sent to all four."""

    def __init__(self, *, clocks: tuple[int, int] = (5, 5), settles: bool = True) -> None:
        self.sent: list[tuple[type[ToWorker], str | None]] = []
        self.facts = FACTS
        self.offsets: list[Any] = []
        self.told_to_cut: list[bool] = []
        self.clock_error_ns = 40
        self.ledgers = {name: Ledger() for name in ("a", "b")}
        self.clocks = dict(zip(("a", "b"), clocks, strict=True))
        self.settles = settles
        self.joined = 2
        self.cuts = 0
        self.unacknowledged = 0
        self.dead: set[str] = set()
        self.results: list[Result] = []
        self.master = Master(send=self.send, alive=lambda name: name not in self.dead, on_done=self.results.append)
        self.accounts = []
        self.counter = 0

    def start(self, **changes: Any) -> None:
        settings = Settings(scenario="room", url="ws://127.0.0.1:9", participants=4, duration_s=1.0, drain_s=0.1)
        self.master.start(msgspec.structs.replace(settings, **changes), self.facts, ["a", "b"])
        for name in ("a", "b"):
            self.report(name)

    def send(self, message: ToWorker, worker: str | None) -> None:
        message = read_by_worker(encode(message))
        self.sent.append((type(message), worker))
        if isinstance(message, Go):
            self.offsets.append(message.offsets_ns)
            self.deliver(worker or "")
        elif isinstance(message, TellTime):
            assert worker is not None
            there_ns = time.monotonic_ns() + 1_000_000 * self.clocks[worker]
            self.answer(worker, WorkerTime(sent_ns=message.sent_ns, received_ns=there_ns, replied_ns=there_ns))
        elif isinstance(message, Stop):
            self.told_to_cut.append(message.cut)
            for name in self.ledgers.keys() - self.dead:
                self.answer(name, Quiet(sent=self.ledgers[name].sent_log().to_wire()))
        elif isinstance(message, Drain) and self.settles:
            for name in self.ledgers.keys() - self.dead:
                gevent.spawn(self.settle, name, message.finals)

    def answer(self, name: str, message: Any) -> None:
        self.master.on_message(name, read_by_master(encode(message)))

    def deliver(self, name: str) -> None:
        if name == "a":
            self.counter = self.ledgers["a"].sent(0, 0, 1)
        histogram = Histogram()
        histogram.record(1_000_000)
        histogram.record(2_000_000)
        for recipient in (0, 2) if name == "a" else (1, 3):
            account = self.ledgers[name].account(recipient, 0)
            account.joined(7, 0, None, from_start=True)
            self.accounts.append((account, recipient))
        self.report(name, {DELIVERED: histogram.to_wire(), INTENDED: histogram.to_wire()})

    def settle(self, name: str, finals: Any) -> None:
        from loadtests.accounting.settlement import Finals
        from loadtests.sealing.records import Stamp

        for account, recipient in self.accounts:
            if recipient % 2 == (name == "b"):
                account.record(1, Stamp(1, 0, 1, 0, 1, 0, 0, 0), 5)
                account.finished(1)
        settlement = self.ledgers[name].settle(Finals.from_wire(finals)).to_wire()
        joins = {"tried": 2, "first_ns": -100, "done_ns": b"\x00" * 16}
        none = {"tried": 0, "first_ns": 0, "done_ns": b""}
        self.answer(name, Settled(settlement=settlement, attempts={"joins": joins, "resumes": none}))

    def report(self, name: str, intervals: dict[str, Any] | None = None) -> None:
        clock = self.clocks[name]
        counted = [0, int(name == "a"), 0, 0, 0, 0, 0]
        status = Status(
            participants=2,
            joined=self.joined,
            attached=self.joined,
            expected_first=2,
            joined_first=self.joined,
            cpu=0.1,
            load_cpu=0.1,
            rss_bytes=1,
            offset_ns=clock * 100,
            clock_error_ns=self.clock_error_ns,
            connections=2,
            unacknowledged=self.unacknowledged,
            counts=WorkerCounts(due=counted, sent=counted, received=2, cuts=self.cuts),
        )
        self.answer(name, WorkerReport(second=0, intervals=intervals or {}, fanout=[], clock_id=clock, status=status))

    def finish(self) -> Result:
        assert self.master.done.wait(10), "the run does not end"
        (result,) = self.results
        return result


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEAD_S", "GRACE_S", "LATE_S", "WORKER_S_MAX"):
        monkeypatch.setattr(master_module, name, 0.05)
    monkeypatch.setattr(master_module, "POLL_S", 0.001)
    monkeypatch.setattr(master_module, "SAMPLE_S", 0.01)


@pytest.fixture
def short_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load ends at once: its length is not what these tests are about."""

    def load(self: Master, run: Any) -> None:
        self._watch(run)

    monkeypatch.setattr(Master, "_load", load)


@pytest.mark.usefixtures("short_load")
def test_a_run_goes_through_its_phases_and_adds_up() -> None:
    workers = FakeWorkers()
    workers.start()
    result = workers.finish()
    kinds = [kind for kind, _ in workers.sent]
    assert kinds == [Go, Go, Stop, Drain]
    assert result.exit_code == EXIT_OK
    assert result.findings == []
    ledger = result.kinds["message"].ledger
    assert (ledger.sent, ledger.expected, ledger.delivered, ledger.lost) == (1, 4, 4, 0)
    assert result.histogram("deliver", basis="sent").count == 4
    assert (result.joins.tried, result.joins.failed, result.joins.all_after_ns) == (4, 0, 100)
    assert result.clock_error_ns == 0
    assert [worker.name for worker in result.workers] == ["worker-1", "worker-2"]


@pytest.mark.usefixtures("short_load")
def test_what_was_never_acknowledged_is_told() -> None:
    workers = FakeWorkers()
    workers.unacknowledged = 3
    workers.start()
    result = workers.finish()
    assert [note for note in result.notes if note.startswith("6 records were never acknowledged")]


@pytest.mark.usefixtures("short_load")
def test_injected_faults_are_marked_once_and_when_they_were() -> None:
    workers = FakeWorkers()
    workers.cuts = 1
    workers.start(scenario="reconnect-storm", clock_shift_ms=(0.0, -2.5))
    result = workers.finish()
    assert [(event.at_ns, event.text) for event in result.events[1:]] == [(400_000_000, "100% of the connections cut")]
    assert result.events[0].text == "the clock of worker-2 is off by -2.5 ms"
    assert len(result.events) == 2


@pytest.mark.usefixtures("short_load")
def test_workers_with_several_clocks_are_told_each_others_offsets() -> None:
    workers = FakeWorkers(clocks=(5, 9))
    workers.start()
    result = workers.finish()
    assert workers.offsets == [[(1, 500), (2, 900)]] * 2
    assert (CompareClocks, None) in workers.sent
    assert result.clock_error_ns == 80


@pytest.mark.usefixtures("short_load")
def test_where_the_relay_tells_no_time_the_workers_clocks_are_compared_with_the_masters() -> None:
    workers = FakeWorkers(clocks=(5, 9))
    workers.start(dialect="nats")
    result = workers.finish()
    (offsets, _) = workers.offsets
    told = dict(offsets)
    error_ns = result.clock_error_ns
    assert error_ns is not None
    assert 0 < error_ns < 1_000_000_000
    assert abs(told[1] - told[2] - 4_000_000) <= error_ns, "the second is 4 ms ahead"
    assert any("tells no time" in note for note in result.notes)


@pytest.mark.usefixtures("short_load")
def test_one_clock_for_all_is_compared_with_nothing() -> None:
    workers = FakeWorkers()
    workers.start(dialect="nats")
    assert workers.finish().clock_error_ns == 0
    assert TellTime not in [kind for kind, _ in workers.sent]


def test_the_clock_error_is_the_largest_of_the_load() -> None:
    workers = FakeWorkers(clocks=(5, 9))
    workers.clock_error_ns, workers.joined = 900, 1  # while they join, nothing is timed
    workers.start(duration_s=1000.0)
    workers.clock_error_ns, workers.joined = 50, 2
    for name in ("a", "b"):
        workers.report(name)
    while workers.master.phase != "load":
        gevent.sleep(0.001)
    workers.clock_error_ns = 30
    workers.report("a")
    workers.report("b")
    workers.master.stop()
    assert workers.finish().clock_error_ns == 100


def test_what_files_do_to_the_chat_is_told() -> None:
    settings = Settings(scenario="media", url="ws://127.0.0.1:9", participants=2, duration_s=4.0)
    run = Collector(settings, FACTS, [])
    for second, value_ns in enumerate((1_000_000, 1_000_000, 7_000_000, 7_000_000)):
        histogram = Histogram()
        histogram.record(value_ns)
        run.recorder.merge_interval(second, {INTENDED: histogram.to_wire()})
    (note,) = assemble(run, FACTS).notes
    assert note == "chat alone: p50 1 ms, p99 1 ms (2); beside files: p50 7 ms, p99 7 ms (2)"


def test_a_threshold_on_the_floor_of_the_rig_has_its_data() -> None:
    workers = FakeWorkers()
    calibration = Histogram()
    calibration.record(2_000)
    workers.facts = msgspec.structs.replace(FACTS, calibration=calibration, thresholds=[parse("echo: max<1us")])
    workers.start(duration_s=0.01)
    (outcome,) = workers.finish().thresholds
    assert (outcome.ok, outcome.observed) == (False, 2_000)


def test_chosen_metrics_of_the_relays_own_are_kept_over_time() -> None:
    class Telling:
        def exit_code(self) -> None:
            return None

        def usage(self) -> None:
            return None

        def statistics(self) -> dict[str, float]:
            return {"relay_open": 7.0}

    workers = FakeWorkers()
    workers.facts = msgspec.structs.replace(FACTS, relay=Telling(), series=["relay_open", "relay_odd"])
    workers.start(duration_s=0.05)
    result = workers.finish()
    assert list(result.target_series) == ["relay_open"]
    assert (result.target_series["relay_open"].second[0], result.target_series["relay_open"].value[0]) == (0, 7.0)
    assert "the target's own metrics have no relay_odd" in result.notes


def test_counters_are_kept_as_their_rise_a_second() -> None:
    series = TargetSeries(["a_total", "b"], dict)
    series.add(1_000_000_000, {"a_total": 100.0, "b": 5.0})
    series.add(3_000_000_000, {"a_total": 140.0, "b": 4.0})
    series.add(4_000_000_000, {"a_total": 3.0})
    assert (series.columns["a_total"].second, series.columns["a_total"].value) == ([3, 4], [20.0, 0.0])
    assert (series.columns["b"].second, series.columns["b"].value) == ([1, 3], [5.0, 4.0])
    assert series.missing() == []


def test_the_load_does_not_begin_before_everyone_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_module, "JOIN_S_MAX", 0.1)
    monkeypatch.setattr(master_module, "JOIN_S_PER_PARTICIPANT", 0.0)
    workers = FakeWorkers()
    workers.joined = 1
    workers.start()
    result = workers.finish()
    assert Go not in [kind for kind, _ in workers.sent]
    assert "joins" in {finding.code for finding in result.findings}
    assert result.exit_code == EXIT_INVALID


def test_an_interrupted_run_is_drained_and_says_so() -> None:
    workers = FakeWorkers()
    workers.start(duration_s=1000.0)
    while workers.master.phase != "load":
        gevent.sleep(0.001)
    workers.master.stop(interrupted=True)
    result = workers.finish()
    assert result.exit_code == EXIT_INTERRUPTED
    assert [kind for kind, _ in workers.sent][-2:] == [Stop, Drain]
    assert workers.told_to_cut == [True]
    assert result.kinds["message"].ledger.delivered == 4


def test_a_load_that_is_over_is_not_cut_short_for_workers_that_are_late_with_it() -> None:
    workers = FakeWorkers()
    workers.start(duration_s=0.01)
    assert workers.finish().exit_code == EXIT_OK
    assert workers.told_to_cut == [False]


def below_zero(value: Any, path: str = "") -> list[str]:
    """Return where a result has a negative number."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, part in parts for found in below_zero(part, f"{path}/{key}")]
    return [path] if isinstance(value, int | float) and value < 0 else []


@pytest.mark.usefixtures("short_load")
@pytest.mark.parametrize("lost", ["a", "b"], ids=["with what it sent", "with what it received"])
def test_a_worker_that_is_lost_makes_the_run_invalid_and_is_not_waited_for(lost: str) -> None:
    workers = FakeWorkers()
    workers.start()
    while workers.master.phase == "joining":
        gevent.sleep(0)
    workers.dead.add(lost)
    result = workers.finish()
    assert "worker-lost" in {finding.code for finding in result.findings}
    assert result.exit_code == EXIT_INVALID
    assert below_zero(msgspec.to_builtins(result)) == []


@pytest.mark.usefixtures("short_load")
def test_workers_that_never_settle_are_given_up() -> None:
    workers = FakeWorkers(settles=False)
    workers.start()
    result = workers.finish()
    assert [finding.code for finding in result.findings].count("worker-lost") == 2


def test_a_relay_that_ends_ends_the_run() -> None:
    class Ended:
        def exit_code(self) -> int | None:
            return -9 if workers.master.phase == "load" else None

        def usage(self) -> None:
            return None

        def statistics(self) -> dict[str, float]:
            return {}

    workers = FakeWorkers()
    workers.facts = msgspec.structs.replace(FACTS, relay=Ended())
    workers.start(duration_s=1000.0)
    result = workers.finish()
    assert [finding.code for finding in result.findings] == ["relay-ended"]
    assert "code -9" in result.findings[0].sentence
    assert any("code -9" in event.text for event in result.events)


@pytest.mark.usefixtures("short_load")
def test_the_result_is_a_function_of_what_was_collected() -> None:
    workers = FakeWorkers()
    workers.start()
    result = workers.finish()
    assert workers.master.collector is not None
    assert msgspec.json.encode(assemble(workers.master.collector, FACTS)) == msgspec.json.encode(result)


@pytest.mark.usefixtures("short_load")
def test_runs_follow_each_other_and_share_nothing() -> None:
    first = FakeWorkers()
    first.start()
    first.finish()
    second = FakeWorkers()
    second.master, second.results = first.master, first.results
    first.master._send = second.send
    first.results.clear()
    second.start()
    result = second.finish()
    assert result.kinds["message"].ledger.delivered == 4
    assert result.joins.tried == 4
