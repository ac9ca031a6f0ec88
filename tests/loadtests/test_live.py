"""What is shown of a run while it goes on."""

from __future__ import annotations

from loadtests.control.collector import Collector
from loadtests.control.facts import RunFacts
from loadtests.control.live import progress_of, snapshot_of
from loadtests.control.messages import Status, WorkerCounts, WorkerReport
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.results.environment import machine
from loadtests.sealing.records import Kind
from loadtests.settings import Settings

FACTS = RunFacts(target="x", machine=machine(), commit=None, command=["relaymark"])
SETTINGS = Settings(scenario="room", url="ws://127.0.0.1:9", participants=4, duration_s=5.0)


def counted(number: int) -> list[int]:
    counts = WorkerCounts().due
    counts[Kind.MESSAGE] = number
    return counts


def report(second: int, sent: int, delivered: int, cpu: float = 0.2) -> WorkerReport:
    histogram = Histogram()
    for _ in range(delivered):
        histogram.record(1_000_000)
    bases = {series_name("deliver", kind="message", basis=basis): histogram.to_wire() for basis in ("intended", "sent")}
    status = Status(attached=2, cpu=cpu, counts=WorkerCounts(due=counted(sent + 1), sent=counted(sent)))
    return WorkerReport(second=second, intervals=bases, fanout=[], clock_id=1, status=status)


def test_before_anything_came() -> None:
    snapshot = snapshot_of(None, "idle")
    assert (snapshot.running, snapshot.workers, snapshot.series) == (False, 0, {})
    live = progress_of(Collector(SETTINGS, FACTS, ["a"]), "joining")
    assert (live.elapsed_ns, live.connections, live.delivered_per_s) == (0, 0, 0.0)


def test_workers_are_added_up_over_the_last_whole_seconds() -> None:
    run = Collector(SETTINGS, FACTS, ["a", "b"])
    run.load_begins()
    for second in range(3):
        run.take_report("a", report(second, 10 * (second + 1), 20))
        run.take_report("b", report(second, 5 * (second + 1), 30, cpu=0.6))
    live = progress_of(run, "load")
    assert live.elapsed_ns > 0
    assert live.connections == 4
    assert (live.sent_per_s, live.delivered_per_s) == (15.0, 50.0), "the second that goes on is left out"
    assert live.latency["message"].count == 150
    snapshot = snapshot_of(run, "load")
    assert (snapshot.running, snapshot.workers, snapshot.worker_cpu_max) == (True, 2, 0.6)
    assert snapshot.kinds["message"].sent == 45
    assert snapshot.kinds["message"].ledger.sent == 0, "it is known only at the end"
    assert snapshot.started_unix_ns is not None
    assert snapshot.ended_unix_ns is None
    run.load_ends()
    assert snapshot_of(run, "drain").ended_unix_ns is not None


def test_events_have_their_time_on_the_wall_clock() -> None:
    run = Collector(SETTINGS, FACTS, ["a"])
    run.load_begins()
    run.event("a fault")
    ((text, at_unix_ns),) = snapshot_of(run, "load").events
    assert text == "a fault"
    assert 0 <= at_unix_ns - run.started_unix_ns < 1_000_000_000
