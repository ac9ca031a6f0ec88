"""A worker turns the master's messages into phases of its population, and tells what comes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from loadtests.accounting.settlement import Finals
from loadtests.control import worker as worker_module
from loadtests.control.messages import (
    CompareClocks,
    Drain,
    Go,
    Quiet,
    Settled,
    Stop,
    TellTime,
    ToMaster,
    WorkerReport,
    WorkerTime,
    encode,
    read_by_master,
)
from loadtests.control.worker import LoadWorker
from loadtests.settings import Settings

# Nothing listens there: what is told is then what the worker itself does.
SETTINGS = Settings(scenario="room", url="ws://127.0.0.1:9", participants=5, duration_s=1.0, drain_s=0.05)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REPORT_S", "LATE_S"):
        monkeypatch.setattr(worker_module, name, 0.01)


class Told:
    def __init__(self, ordinal: int = 1, workers: int = 2) -> None:
        self.messages: list[ToMaster] = []
        self.worker = LoadWorker(
            SETTINGS, ordinal=ordinal, workers=workers, send=self.take, on_fold=lambda name, histogram: None
        )

    def take(self, message: ToMaster) -> None:
        self.messages.append(read_by_master(encode(message)))

    def wait_for(self, kind: type[Any]) -> Any:
        for _ in range(1000):
            for message in self.messages:
                if isinstance(message, kind):
                    return message
            gevent.sleep(0.005)
        raise AssertionError(f"no {kind.__name__} came")


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    made.worker.open()
    yield made
    made.worker.close()


def test_participants_are_dealt_to_the_workers_in_turn() -> None:
    first, second = Told(ordinal=0).worker, Told(ordinal=1).worker
    assert [first.user_starts() for _ in range(4)] == [0, 2, 4, None]
    assert [second.user_starts() for _ in range(3)] == [1, 3, None]


def test_it_reports_while_people_join(told: Told) -> None:
    told.worker.user_starts()
    told.messages.clear()
    report = told.wait_for(WorkerReport)
    assert (report.second, report.status.participants, report.status.joined) == (0, 1, 0)


def test_it_tells_the_time_on_its_own_clock(told: Told) -> None:
    told.worker.population.phase.shift_ns = 5_000_000_000
    before_ns = time.monotonic_ns()
    told.worker.on_message(TellTime(sent_ns=7))
    answer = told.wait_for(WorkerTime)
    assert answer.sent_ns == 7
    assert before_ns <= answer.received_ns - 5_000_000_000 <= answer.replied_ns - 5_000_000_000 <= time.monotonic_ns()


def test_a_load_that_is_cut_short_is_settled(told: Told) -> None:
    told.worker.user_starts()
    told.worker.on_message(Go(lead_ns=1_000_000, clock=3, offsets_ns=[(3, 40), (4, 50)]))
    told.worker.on_message(CompareClocks(offsets_ns=[(3, 40), (4, 60)]))
    assert told.worker.population.phase.clock == 3
    assert told.worker.population.phase.correction_ns(4) == 20
    told.worker.on_message(Stop(cut=True))
    assert told.wait_for(Quiet).sent == []
    told.worker.on_message(Drain(finals=Finals({}).to_wire()))
    settled = told.wait_for(Settled)
    assert settled.attempts["joins"]["tried"] == 1
    assert told.messages.index(settled) > 0
    assert isinstance(told.messages[-2], WorkerReport), "the last report comes before the settlement"


def test_a_second_stop_changes_nothing(told: Told) -> None:
    told.worker.on_message(Stop(cut=True))
    told.worker.on_message(Stop(cut=True))
    told.wait_for(Quiet)
    gevent.sleep(0.05)
    assert sum(isinstance(message, Quiet) for message in told.messages) == 1
