"""A participant against a scripted relay: no socket, and no clock but the loop's due times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Any

import pytest

from loadtests.dialects.base import (
    Attach,
    Closed,
    Event,
    GoingAway,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.reference import Reference
from loadtests.driver.link import RETRY_NS_MIN, Link
from loadtests.driver.participant import Participant
from loadtests.driver.population import Population
from loadtests.driver.publisher import Due
from loadtests.measuring.series import series_name
from loadtests.sealing.records import EPHEMERAL_FLAG, Kind
from loadtests.settings import Settings
from relay.errors import Code
from relay.limits import PUBLISH_WINDOW

STREAM = 0
EPOCH = 7


class FakeConnection:
    def __init__(self, piece_bytes: int | None) -> None:
        self.piece_bytes = piece_bytes
        self.sent: list[bytes] = []
        self.state = "open"
        self.paused = False

    def send(self, data: bytes) -> None:
        if data:
            self.sent.append(data)

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"

    def resume(self) -> None:
        self.paused = False


class FakeLoop:
    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000
        self.connections: list[FakeConnection] = []
        self._heap: list[tuple[int, int, Callable[[int, int], None]]] = []

    def connect(self, handler: Any, address: object, *, piece_bytes: int | None = None) -> FakeConnection:
        self.connections.append(FakeConnection(piece_bytes))
        return self.connections[-1]

    def at(self, due_ns: int, callback: Callable[[int, int], None]) -> None:
        heappush(self._heap, (due_ns, len(self._heap) + id(callback), callback))

    def advance(self, to_ns: int) -> None:
        while self._heap and self._heap[0][0] <= to_ns:
            due_ns, _, callback = heappop(self._heap)
            self.now_ns = max(self.now_ns, due_ns)
            callback(due_ns, self.now_ns)
        self.now_ns = max(self.now_ns, to_ns)

    def stop(self) -> None:
        self._heap.clear()


class ScriptedDialect:
    """Bytes out are words that the tests read; events come from the tests."""

    features = Reference.features

    def __init__(self, place: Place) -> None:
        self.place = place
        self.script: list[Event] = []
        self.sealed: dict[int, bytes] = {}
        self.asked: dict[int, tuple[int | None, int | None]] = {}

    def opening(self) -> bytes:
        return b"opening"

    def receive(self, data: bytes) -> list[Event]:
        events, self.script = self.script, []
        return events

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        self.asked[attach.stream] = (epoch, after)
        return b"subscribe %d " % attach.stream

    def unsubscribe(self, stream: int) -> bytes:
        return b"unsubscribe %d " % stream

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        self.sealed[id] = sealed
        return b"publish %d " % id if durable else b"state %d " % slot


class Stage:
    """One participant of a private chat, 0, whose peer is played by the test."""

    def __init__(self, scenario: str = "private-chat", participants: int = 2, index: int = 0) -> None:
        settings = Settings(
            scenario=scenario,
            url="ws://127.0.0.1:9",
            participants=participants,
            rate=0.0001,
            duration_s=1000.0,
            run="t",
        )
        self.population = Population(settings, worker=0)
        self.context = self.population.context
        self.context.loop.stop()
        self.loop = FakeLoop()
        self.context.loop = self.loop  # type: ignore[assignment]  # stands in for it
        self.dialects: list[ScriptedDialect] = []
        dialects = self.dialects

        class Recorded(ScriptedDialect):
            def __init__(self, place: Place) -> None:
                super().__init__(place)
                dialects.append(self)

        self.context.dialect_class = Recorded  # type: ignore[assignment]  # as above
        self.population.enter(index)
        self.participant: Participant = self.population.participants[index]
        self.peer_counter = 0

    @property
    def link(self) -> Link:
        return self.participant.links[0]

    @property
    def connection(self) -> FakeConnection:
        return self.loop.connections[-1]

    @property
    def dialect(self) -> ScriptedDialect:
        return self.dialects[-1]

    @property
    def words(self) -> list[str]:
        """What was sent on the present connection."""
        return b" ".join(self.connection.sent).decode().split()

    def tell(self, *events: Event) -> None:
        self.dialect.script = list(events)
        self.connection.paused = self.connection.piece_bytes is not None  # as the loop does after a read
        self.link.received(b"something", self.loop.now_ns)

    def join(self, head: int = 0) -> None:
        self.link.connected(self.loop.now_ns)
        self.tell(Ready(None))
        self.tell(*(Subscribed(stream, EPOCH, head, True) for stream in self.dialect.asked))

    def go(self) -> None:
        self.population.begin(self.loop.now_ns, 1)

    def due(self, *, durable: bool = True) -> Due:
        kind = Kind.MESSAGE if durable else Kind.TYPING
        return Due(STREAM, kind, durable, 0, b"body", self.loop.now_ns)

    def from_peer(self, seq: int | None, *, kind: Kind = Kind.MESSAGE, clock: int = 1, skip: int = 0) -> Any:
        self.peer_counter += 1 + skip
        flags = EPHEMERAL_FLAG if seq is None else 0
        now_ns = self.loop.now_ns
        sealer = self.context.credentials.sealer(STREAM, 1, 0)
        sealed = sealer.seal(kind, self.peer_counter, now_ns - 5000, now_ns - 3000, b"", clock=clock, flags=flags)
        return State(STREAM, b"", 0, sealed) if seq is None else (STREAM, seq, None, sealed)

    def values(self, metric: str, **labels: str) -> list[int]:
        return list(self.population.recorder.series(series_name(metric, **labels)))


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.population.close()


def test_it_joins_when_every_stream_of_its_plan_is_attached(stage: Stage) -> None:
    stage.link.connected(stage.loop.now_ns)
    stage.tell(Reply(b"hello"))
    stage.tell(Ready(None))
    assert stage.words == ["opening", "hello", "subscribe", "0"]
    assert not stage.participant.joined
    stage.tell(Subscribed(STREAM, EPOCH, 0, True))
    assert stage.participant.joined
    assert (stage.context.presence.joined, stage.context.presence.joined_first, stage.context.presence.attached) == (
        1,
        1,
        1,
    )
    assert len(stage.values("join")) == 1


def test_what_is_due_before_it_is_attached_waits_and_keeps_its_intended_time(stage: Stage) -> None:
    due = stage.due()
    stage.participant.publish(due)
    stage.participant.publish(stage.due(durable=False))
    assert stage.participant.publisher.unsent == 1
    assert stage.context.counts.skipped == 1
    stage.join()
    assert stage.words[-2:] == ["publish", "1000"]
    stamp = stage.context.credentials.opener(STREAM, 0, 1).stamp(stage.dialect.sealed[1000])
    assert stamp.intended_ns == due.intended_ns
    assert stamp.sent_ns > 0
    assert stamp.counter == 1


def test_an_acknowledgement_is_timed_once(stage: Stage) -> None:
    stage.join()
    stage.participant.publish(stage.due())
    assert not stage.participant.publisher.silent
    stage.tell(Published(1000, 1), Published(1000, 1))
    assert stage.participant.publisher.silent
    assert len(stage.values("ack", kind="message")) == 1


def test_no_more_than_the_window_is_under_way(stage: Stage) -> None:
    stage.join()
    for _ in range(PUBLISH_WINDOW + 3):
        stage.participant.publish(stage.due())
    assert stage.participant.publisher.unacknowledged == PUBLISH_WINDOW
    assert stage.participant.publisher.unsent == 3
    stage.tell(Published(1000, 1))
    assert stage.participant.publisher.unsent == 2
    assert stage.words[-1] == str(1000 + PUBLISH_WINDOW)


def test_states_do_not_wait_for_the_window(stage: Stage) -> None:
    stage.join()
    for _ in range(PUBLISH_WINDOW + 1):
        stage.participant.publish(stage.due())
    # The relay acknowledges no states: one that is held back while it stands still would hide that.
    stage.participant.publish(stage.due(durable=False))
    assert stage.words[-2:] == ["state", "0"]
    assert stage.context.counts.skipped == 0


def test_who_was_never_subscribed_is_owed_nothing_from_before(stage: Stage) -> None:
    stage.link.connected(stage.loop.now_ns)
    stage.tell(Ready(None))
    stage.link.closed("reset", stage.loop.now_ns)
    stage.loop.advance(stage.loop.now_ns + 3 * RETRY_NS_MIN)
    stage.link.connected(stage.loop.now_ns)
    stage.tell(Ready(None))
    assert stage.dialect.asked == {STREAM: (None, None)}


def test_after_a_lost_connection_it_resumes_and_repeats_with_the_same_id_and_stamp(stage: Stage) -> None:
    stage.join(head=4)
    stage.participant.publish(stage.due())
    sealed = stage.dialect.sealed[1000]
    stage.tell(stage.from_peer(5))
    stage.link.closed("reset", stage.loop.now_ns)
    assert stage.context.presence.attached == 0
    stage.loop.advance(stage.loop.now_ns + 3 * RETRY_NS_MIN)
    stage.link.connected(stage.loop.now_ns)
    stage.tell(Ready(None))
    assert stage.dialect.asked == {STREAM: (EPOCH, 5)}
    stage.tell(Subscribed(STREAM, EPOCH, 5, True))
    assert stage.words[-2:] == ["publish", "1000"]
    assert stage.dialect.sealed[1000] is sealed
    assert len(stage.values("resume")) == 1


def test_it_has_caught_up_when_it_has_all_up_to_the_head(stage: Stage) -> None:
    stage.join(head=4)
    stage.link.closed("reset", stage.loop.now_ns)
    stage.loop.advance(stage.loop.now_ns + 3 * RETRY_NS_MIN)
    stage.join(head=6)
    assert stage.values("resume") == []
    stage.tell(stage.from_peer(5))
    assert stage.values("resume") == []
    stage.tell(stage.from_peer(6))
    assert len(stage.values("resume")) == 1


def test_it_catches_up_with_a_relay_that_forgot_while_it_was_catching_up(stage: Stage) -> None:
    stage.join(head=4)
    stage.link.closed("reset", stage.loop.now_ns)
    stage.loop.advance(stage.loop.now_ns + 3 * RETRY_NS_MIN)
    stage.join(head=6)
    stage.link.closed("reset", stage.loop.now_ns)
    stage.loop.advance(stage.loop.now_ns + 5 * RETRY_NS_MIN)
    stage.link.connected(stage.loop.now_ns)
    stage.tell(Ready(None))
    stage.tell(Subscribed(STREAM, EPOCH + 1, 0, False))
    assert len(stage.values("resume")) == 1


def test_it_comes_back_less_and_less_often(stage: Stage) -> None:
    gaps = []
    for _ in range(6):
        lost_ns = stage.loop.now_ns
        before = len(stage.loop.connections)
        stage.link.closed("refused", lost_ns)
        while len(stage.loop.connections) == before:
            stage.loop.advance(stage.loop.now_ns + 10_000_000)
        gaps.append(round((stage.loop.now_ns - lost_ns) / 1e8))
    assert gaps == [1, 2, 4, 8, 16, 20]


def test_a_refusal_that_may_pass_is_repeated_and_another_is_given_up(stage: Stage) -> None:
    stage.join()
    stage.participant.publish(stage.due())
    stage.participant.publish(stage.due())
    stage.tell(Refused(Code.STORE, "publish", 1000), Refused(Code.SEALED_SIZE, "publish", 1001))
    assert stage.participant.publisher.unacknowledged == 1
    stage.loop.advance(stage.loop.now_ns + RETRY_NS_MIN)
    assert stage.words.count("1000") == 2
    assert stage.words.count("1001") == 1
    assert stage.context.counts.refused[Kind.MESSAGE] == 1
    finals = stage.context.ledger.sent_log().finals()
    assert finals.lines[STREAM, True][0][:3] == (2, frozenset({2}), frozenset())


def test_a_refused_state_is_not_taken_for_a_record_with_that_id(stage: Stage) -> None:
    stage.join()
    stage.participant.publish(stage.due())
    stage.tell(Refused(Code.RATE, "publish", 0))
    assert stage.participant.publisher.unacknowledged == 1
    assert stage.context.counts.events["refused: publish RATE"] == 1


def test_deliveries_are_timed_from_intended_and_from_actual_send(stage: Stage) -> None:
    stage.join()
    stage.go()
    stage.tell(stage.from_peer(1))
    assert stage.values("deliver", kind="message", basis="intended") == [5000]
    assert stage.values("deliver", kind="message", basis="sent") == [3000]
    stage.tell(stage.from_peer(None, kind=Kind.TYPING))
    assert stage.values("deliver", kind="typing", basis="intended") == [5000]


def test_a_duplicate_and_what_does_not_open_are_not_timed(stage: Stage) -> None:
    stage.join()
    stage.go()
    record = stage.from_peer(1)
    stage.tell(record, record, (STREAM, 2, None, bytes(256)))
    assert len(stage.values("deliver", kind="message", basis="sent")) == 1
    assert stage.context.counts.unopened == 1
    assert stage.context.ledger.settlement.duplicated[Kind.MESSAGE] == 1


def test_a_time_of_another_clock_is_corrected_and_without_an_offset_left_out(stage: Stage) -> None:
    stage.join()
    stage.go()
    stage.tell(stage.from_peer(1, clock=2))
    assert stage.values("deliver", kind="message", basis="sent") == []
    stage.context.phase.compare_clocks({1: 1_000, 2: 4_000})
    stage.tell(stage.from_peer(2, clock=2))
    # Clock 2 is 3000 ns behind ours: what it stamped happened 3000 ns later than it says... by our clock.
    assert stage.values("deliver", kind="message", basis="sent") == [3000 - 3000]
    assert stage.context.ledger.settlement.delivered[Kind.MESSAGE] == 2


def test_a_slow_reader_without_an_offset_is_not_timed_either() -> None:
    stage = Stage("slow-readers", participants=10, index=9)
    stage.join()
    stage.go()
    stage.tell(stage.from_peer(1, clock=2))
    assert stage.values("deliver_slow") == []
    assert stage.context.ledger.settlement.delivered[Kind.MESSAGE] == 1
    stage.population.close()


def test_a_message_is_answered_by_two_receipts_at_their_times(stage: Stage) -> None:
    stage.join()
    stage.go()
    stage.tell(stage.from_peer(1))
    came_ns = stage.loop.now_ns
    delays = [stage.context.workload.think_ns(0, 1, 1, kind) for kind in (Kind.RECEIPT_DELIVERED, Kind.RECEIPT_READ)]
    stage.loop.advance(came_ns + max(delays))
    opener = stage.context.credentials.opener(STREAM, 0, 1)
    stamps = [opener.open(sealed) for sealed in stage.dialect.sealed.values()]
    assert [stamp.kind for stamp, _ in stamps] == [Kind.RECEIPT_DELIVERED, Kind.RECEIPT_READ]
    assert [stamp.intended_ns - came_ns for stamp, _ in stamps] == delays
    assert {stage.context.workload.read_receipt(body) for _, body in stamps} == {(STREAM, 1, 1)}


def test_nothing_new_begins_after_the_end_of_the_load(stage: Stage) -> None:
    stage.join()
    stage.go()
    stage.tell(stage.from_peer(1))
    stage.population.stop()
    stage.loop.advance(stage.loop.now_ns + 10_000_000_000)
    assert stage.dialect.sealed == {}


def test_what_waits_when_the_final_counters_are_told_stays_unsent(stage: Stage) -> None:
    stage.join()
    for _ in range(PUBLISH_WINDOW + 1):
        stage.participant.publish(stage.due())
    log = stage.population.end_sending()
    stage.tell(Published(1000, 1))
    assert (stage.participant.publisher.unsent, stage.participant.publisher.unacknowledged) == (1, PUBLISH_WINDOW - 1)
    assert log.finals().lines[STREAM, True][0][0] == PUBLISH_WINDOW


def test_going_away_brings_it_back_after_the_time_that_was_asked_for(stage: Stage) -> None:
    stage.join()
    told_ns = stage.loop.now_ns
    stage.tell(GoingAway(1_000))
    assert stage.connection.state == "closed"
    stage.loop.advance(told_ns + 999_000_000)
    assert len(stage.loop.connections) == 1
    stage.loop.advance(told_ns + 2_000_000_000)
    assert len(stage.loop.connections) == 2


def test_a_close_by_the_relay_is_counted_with_its_code(stage: Stage) -> None:
    stage.join()
    stage.tell(Closed(4060, "slow"))
    assert stage.context.counts.events == {"disconnected: code 4060": 1}


def test_in_the_end_it_leaves_and_its_account_reconciles(stage: Stage) -> None:
    stage.join()
    stage.go()
    stage.participant.publish(stage.due())
    sealed = stage.dialect.sealed[1000]
    stage.tell(Published(1000, 1), (STREAM, 1, None, sealed))
    stage.population.stop()
    stage.population.drain(stage.context.ledger.sent_log().finals())
    assert stage.words[-2:] == ["unsubscribe", "0"]
    assert not stage.participant.gone
    stage.tell(Unsubscribed(STREAM, 1))
    assert stage.participant.gone
    log = stage.context.ledger.sent_log()
    stage.population.settle(log.finals())
    totals = stage.context.ledger.settle(log.finals()).totals(log)
    assert (totals.delivered, totals.lost, totals.faults) == (1, 0, [])
    assert totals.reconciled


def test_who_comes_back_while_all_leave_gets_what_it_missed_first(stage: Stage) -> None:
    stage.join()
    stage.link.closed("reset", stage.loop.now_ns)
    stage.population.drain(stage.context.ledger.sent_log().finals())
    assert not stage.participant.gone
    stage.loop.advance(stage.loop.now_ns + 3 * RETRY_NS_MIN)
    stage.join(head=1)
    assert stage.words[-2:] == ["unsubscribe", "0"]
    stage.tell(stage.from_peer(1), Unsubscribed(STREAM, 1))
    assert stage.participant.gone
    assert stage.context.ledger.settlement.delivered[Kind.MESSAGE] == 1


def test_a_slow_reader_pauses_and_is_not_among_the_latencies() -> None:
    slow = next(
        index
        for index in range(1, 40)
        if Stage("slow-readers", 40, index).participant._plan.read_bytes_per_s is not None
    )
    stage = Stage("slow-readers", 40, slow)
    stage.join()
    stage.go()
    sealer = stage.context.credentials.sealer(STREAM, 0, None)
    now_ns = stage.loop.now_ns
    assert not stage.connection.paused
    stage.tell((STREAM, 1, None, sealer.seal(Kind.MESSAGE, 1, now_ns, now_ns, b"", clock=1)))
    assert stage.values("deliver", kind="message", basis="sent") == []
    assert stage.values("deliver_slow") == [0]
    assert stage.connection.paused
    # "something" has 9 bytes, each of which takes its time.
    rate = stage.participant._plan.read_bytes_per_s
    assert rate is not None
    stage.loop.advance(now_ns + 8 * 1_000_000_000 // rate)
    assert stage.connection.paused
    stage.loop.advance(now_ns + 9 * 1_000_000_000 // rate)
    assert not stage.connection.paused
    stage.connection.paused = True
    stage.population.stop()
    assert not stage.connection.paused
    stage.tell()
    assert not stage.connection.paused, "who reads slowly does so only while the load goes on"
    stage.population.close()
