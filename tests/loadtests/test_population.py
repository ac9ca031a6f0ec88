"""The participants of a worker, through the phases of a run; the relay and the clock are virtual."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from virtual_world import SECOND_NS, Lies, Loop, Relay, World

from loadtests.dialects.base import Features
from loadtests.driver.population import GC_THRESHOLD, SILENCE_NS, Population
from loadtests.sealing.records import Kind
from loadtests.settings import Settings

BARE = Features(numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True)
NUMBERED = Features(
    numbers=True, acknowledges=True, resumes=True, ephemeral=True, times=False, echoes=True, idempotent=True
)


class Stage(World):
    """A world of one worker that the tests move themselves."""

    def __init__(self, features: Features = BARE, scenario: str = "room", lies: Lies | None = None) -> None:
        super().__init__(features=features, lies=lies or Lies(), scenario=scenario, participants=4, rate=10.0)
        self.relay = Relay(self.features, self.lies, self.seed)
        self.loop = Loop(self.relay)
        settings = Settings(
            scenario=scenario, url="ws://127.0.0.1:9", participants=4, rate=10.0, duration_s=3.0, run="virtual"
        )
        self.population: Population = self._population(settings, 0)

    def enter(self) -> None:
        for index in range(self.participants):
            self.population.enter(index)
        self.loop.advance(self.loop.now_ns + SECOND_NS)

    def play(self) -> None:
        """Play the load to its end, and until everything is acknowledged."""
        self.population.begin(self.loop.now_ns, 1)
        self.loop.advance(self.loop.now_ns + 4 * SECOND_NS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage()
    for module in ("publisher", "recipient", "population"):
        monkeypatch.setattr(f"loadtests.driver.{module}.monotonic_ns", lambda: stage.loop.now_ns)
    yield stage
    stage.population.close()


def on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Let the clock be that of another stage."""
    for module in ("publisher", "recipient", "population"):
        monkeypatch.setattr(f"loadtests.driver.{module}.monotonic_ns", lambda: stage.loop.now_ns)
    return stage


def test_those_who_join_first_are_told_from_those_who_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = on(Stage(scenario="flash-crowd"), monkeypatch)
    stage.enter()
    presence = stage.population.context.presence
    late = sum(participant.late for participant in stage.population.participants.values())
    assert late == 2
    assert (presence.expected_first, presence.joined_first, presence.attached) == (2, 2, 2)
    stage.play()
    assert (presence.joined, presence.joined_first, presence.attached) == (4, 2, 4)
    assert presence.joins.tried == len(presence.joins.done_ns) == 4
    stage.population.close()


def test_it_stops_by_itself_when_the_load_is_over_and_is_silent_once_all_is_acknowledged(clock: Stage) -> None:
    clock.enter()
    assert not clock.population.phase.started
    clock.population.begin(clock.loop.now_ns, 3)
    assert clock.population.phase.clock == 3
    assert not clock.population.silent, "while it sends, something may always follow"
    clock.loop.advance(clock.loop.now_ns + 4 * SECOND_NS)
    assert not clock.population.phase.sending
    assert clock.population.silent
    counts = clock.population.context.counts
    assert counts.sent[Kind.MESSAGE] == counts.acknowledged[Kind.MESSAGE] == counts.due[Kind.MESSAGE] > 0


def test_what_comes_to_one_worker_late_is_not_skipped(clock: Stage) -> None:
    clock.enter()
    clock.population.begin(clock.loop.now_ns - 3 * SECOND_NS, 1)  # the whole load is past, and due at once
    clock.loop.advance(clock.loop.now_ns + SECOND_NS)
    counts = clock.population.context.counts
    assert counts.due[Kind.MESSAGE] == counts.sent[Kind.MESSAGE] > 0


def test_it_leaves_at_once_where_numbers_tell_what_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = on(Stage(NUMBERED), monkeypatch)
    stage.enter()
    stage.play()
    finals = stage.population.end_sending().finals()
    assert not stage.population.gone
    stage.population.drain(finals)
    assert all(participant.leaving for participant in stage.population.participants.values())
    stage.loop.advance(stage.loop.now_ns + SECOND_NS)
    assert stage.population.gone
    stage.population.close()


def test_elsewhere_it_stays_until_the_final_counters_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every third delivery is a second late: who unsubscribed at once would miss the last ones.
    stage = on(Stage(lies=Lies(delays=3, delay_ns=SECOND_NS)), monkeypatch)
    stage.enter()
    stage.population.begin(stage.loop.now_ns, 1)
    stage.loop.advance(stage.loop.now_ns + 3 * SECOND_NS + 100_000_000)
    log = stage.population.end_sending()
    stage.population.drain(log.finals())
    assert not any(participant.leaving for participant in stage.population.participants.values())
    assert stage.loop.advance_until(lambda: stage.population.gone, 5 * SECOND_NS)
    stage.population.settle(log.finals())
    totals = stage.population.context.ledger.settle(log.finals()).totals(log)
    assert (totals.lost, totals.faults) == (0, [])
    stage.population.close()


def test_it_leaves_in_the_end_though_something_never_came(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = on(Stage(lies=Lies(drops=5)), monkeypatch)
    stage.enter()
    stage.play()
    log = stage.population.end_sending()
    stage.population.drain(log.finals())
    assert not stage.loop.advance_until(lambda: stage.population.gone, 5 * SECOND_NS)
    stage.population.count_the_rest_as_late()
    assert stage.loop.advance_until(lambda: stage.population.gone, SECOND_NS)
    stage.population.settle(log.finals())
    assert stage.population.context.ledger.settle(log.finals()).totals(log).lost == stage.relay.told["drops"] > 0
    stage.population.close()


def test_who_cannot_know_whether_more_comes_waits_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing comes before all are cut; afterwards nobody knows whether the relay still has some of it for them.
    stage = on(Stage(lies=Lies(delays=1)), monkeypatch)
    stage.enter()
    stage.play()
    log = stage.population.end_sending()
    for participant in stage.population.participants.values():
        for link in participant.links:
            link.cut(stage.loop.now_ns)
    stage.loop.advance(stage.loop.now_ns + SECOND_NS)
    began_ns = stage.loop.now_ns
    stage.population.drain(log.finals())
    assert stage.loop.advance_until(lambda: stage.population.gone, 5 * SECOND_NS)
    assert SILENCE_NS <= stage.loop.now_ns - began_ns <= SILENCE_NS + SECOND_NS // 5
    stage.population.close()


def test_a_participant_that_locust_stops_leaves_before_the_others(clock: Stage) -> None:
    clock.enter()
    clock.population.leave(3)
    clock.loop.advance(clock.loop.now_ns + SECOND_NS)
    assert [each.gone for each in clock.population.participants.values()] == [False, False, False, True]
    clock.population.leave(17)  # it never came here


def test_its_status_and_attempts_are_what_happened(clock: Stage) -> None:
    clock.enter()
    clock.play()
    status = clock.population.status()
    assert (status["participants"], status["joined"], status["attached"], status["unsent"]) == (4, 4, 4, 0)
    assert status["offset_ns"] is None
    assert status["counts"]["sent"][Kind.MESSAGE] > 0
    attempts = clock.population.attempts()
    assert attempts["joins"]["tried"] == 4
    assert attempts["joins"]["first_ns"] < 0, "they joined before the load began"
    assert attempts["resumes"]["tried"] == 0


def test_collections_are_rare_during_the_load_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = on(Stage(), monkeypatch)
    stage.enter()
    before = gc.get_threshold()
    stage.population.begin(stage.loop.now_ns, 1)
    assert gc.get_threshold()[0] == GC_THRESHOLD
    assert gc.get_freeze_count() > 0
    stage.population.close()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
