"""The workload is a pure function of seed, scenario and participant, and is what each scenario says it is."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.sealing.records import Kind
from loadtests.workload import catalogue
from loadtests.workload.arrivals import NS
from loadtests.workload.catalogue import SCENARIOS
from loadtests.workload.traffic import CANARY, Action, ParticipantPlan, Workload
from relay.capability import Right

DURATION_S = 20.0


def build(scenario: str, participants: int = 60, **options: object) -> Workload:
    values: dict[str, object] = {"seed": 3, "rate": 20.0, "duration_s": DURATION_S, **options}
    return Workload(scenario, participants=participants, **values)  # type: ignore[arg-type]


def plans(made: Workload) -> list[ParticipantPlan]:
    return [made.participant(index) for index in range(made.participants)]


def everything(made: Workload) -> list[tuple[int, Action]]:
    return [(plan.participant, action) for plan in plans(made) for action in plan.actions()]


# -- of all scenarios -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_seed_gives_the_same_plan_however_it_is_dealt_out(scenario: str) -> None:
    alone = build(scenario)
    # Four workers, each with a workload of its own, asked in another order.
    workers = [build(scenario) for _ in range(4)]
    for index in reversed(range(60)):
        one, other = alone.participant(index), workers[index % 4].participant(index)
        assert (one.memberships, one.connect_ns, one.cuts, one.receipts) == (
            other.memberships,
            other.connect_ns,
            other.cuts,
            other.receipts,
        )
        assert list(one.actions()) == list(other.actions()) == list(one.actions())
    assert everything(build(scenario, seed=4)) != everything(alone)


@pytest.mark.parametrize("scenario", SCENARIOS)
@given(participants=st.integers(10, 200), seed=st.integers(0, 5))
@settings(max_examples=8, deadline=None)
def test_plans_hold_together(scenario: str, participants: int, seed: int) -> None:
    made = build(scenario, participants, seed=seed, rate=5.0)
    receivers: Counter[int] = Counter()
    for plan in plans(made):
        rights = {membership.stream: membership.rights for membership in plan.memberships}
        assert len(rights) == len(plan.memberships), "attached to no stream twice"
        assert plan.memberships, "everybody takes part"
        receivers.update(stream for stream, right in rights.items() if right & Right.SUBSCRIBE)
        for membership in plan.memberships:
            private = made.streams[membership.stream].purpose == "private"
            assert private is (membership.peer is not None)
            if membership.peer is not None:
                peers = {other.stream: other.peer for other in made.participant(membership.peer).memberships}
                assert peers[membership.stream] == plan.participant
        for stream, rule in plan.receipts.items():
            assert rights[stream] & Right.SUBSCRIBE
            assert rights[rule.to_stream] & Right.PUBLISH
            assert plan.participant not in rule.authors
        before = plan.connect_ns
        for action in plan.actions():
            assert before <= action.offset_ns < made.duration_ns
            before = action.offset_ns
            assert rights[action.stream] & Right.PUBLISH
            assert action.durable is (action.kind is not Kind.TYPING)
        assert 0 <= plan.connect_ns < made.duration_ns + catalogue.FLASH_WITHIN_S * NS
        assert all(0 < cut.at_ns < made.duration_ns for cut in plan.cuts)
    for stream in made.streams:
        assert receivers[stream.index] == stream.members
        assert made.streams[stream.index] is stream


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_rate_is_that_of_chat_messages(scenario: str) -> None:
    made = build(scenario, rate=30.0, duration_s=100.0)
    messages = sum(action.kind is Kind.MESSAGE for _, action in everything(made))
    # Those of the flash crowd are not there at the start, and send nothing until they are.
    low = 0.6 if SCENARIOS[scenario].flash_share else 0.9
    assert low * 3_000 < messages < 1.1 * 3_000


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_default_rate_is_one_that_two_cores_carry(scenario: str) -> None:
    for participants in (10, 300, 2_000):
        made = build(scenario, participants, rate=None)
        assert 0 < made.rate <= catalogue.RATE_PER_PARTICIPANT * participants
        size = max((stream.members for stream in made.streams if stream.purpose == "room"), default=0)
        in_rooms = made.rate * made.scenario.room_share * size * size / participants
        assert in_rooms <= catalogue.DELIVERIES_PER_S_DEFAULT


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_impossible_workloads_say_why(scenario: str) -> None:
    for options, text in (
        ({"participants": 1}, "at least"),
        ({"duration_s": 0.0}, "duration"),
        ({"rate": -1.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
    ):
        with pytest.raises(ValueError, match=text):
            build(scenario, **options)  # type: ignore[arg-type]
    assert everything(build(scenario, rate=0.0)) == []
    smallest = build(scenario, SCENARIOS[scenario].participants_min)
    assert len(plans(smallest)) == SCENARIOS[scenario].participants_min
    with pytest.raises(IndexError):
        smallest.participant(smallest.participants)


def test_an_unknown_scenario_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'riot'.*private-chat.*evening-peak"):
        build("riot")


# -- of each --------------------------------------------------------------------------------------------------


def test_typing_comes_before_each_private_message() -> None:
    made = build("private-chat", 2, rate=0.5, duration_s=200.0)
    (stream,) = made.streams
    assert (stream.purpose, stream.members) == ("private", 2)
    actions = list(made.participant(0).actions())
    typing = [action.offset_ns for action in actions if action.kind is Kind.TYPING]
    for action in actions:
        if action.kind is Kind.MESSAGE and action.offset_ns > catalogue.TYPING_LEAD_NS_MAX:
            leads = [action.offset_ns - at_ns for at_ns in typing if action.offset_ns - at_ns > 0]
            assert min(leads) <= catalogue.TYPING_EVERY_NS


def test_an_odd_participant_chats_too() -> None:
    made = build("private-chat", 5)
    assert [len(plan.memberships) for plan in plans(made)] == [2, 1, 1, 1, 1]


def test_a_private_message_is_answered_with_both_receipts() -> None:
    first = build("private-chat", 2).participant(0)
    (membership,) = first.memberships
    (rule,) = first.receipts.values()
    assert (rule.to_stream, rule.delivered, rule.read, rule.authors) == (membership.stream, True, True, {1})


def test_receipts_of_a_room_go_to_the_performers_inbox() -> None:
    made = build("receipt-storm")
    performer, *viewers = plans(made)
    room, inbox = made.streams
    assert (room.purpose, inbox.purpose, inbox.members, inbox.owner) == ("room", "inbox", 1, performer.participant)
    assert {membership.stream: membership.rights for membership in performer.memberships}[
        inbox.index
    ] == Right.SUBSCRIBE
    for viewer in viewers:
        assert viewer.receipts[room.index].to_stream == inbox.index
        assert viewer.receipts[room.index].authors == {performer.participant}
        assert not list(viewer.actions()), "only the performer writes"


def test_the_storm_types_often() -> None:
    kinds = Counter(action.kind for _, action in everything(build("typing-storm")))
    assert kinds[Kind.TYPING] > 3.5 * kinds[Kind.MESSAGE]


def test_tips_come_in_bursts_and_some_are_spent_twice() -> None:
    made = build("tips", rate=30.0, duration_s=100.0)
    tips = [action for _, action in everything(made) if action.kind is Kind.TIP]
    serials = Counter(tip.voucher for tip in tips)
    twice = [serial for serial, count in serials.items() if count > 1]
    assert made.double_spends(0) == len(twice) > 10
    assert all(tip.amount_cents > 0 for tip in tips)
    assert len({tip.amount_cents for tip in tips if tip.voucher == twice[0]}) == 1
    # Self-exciting: the counts of seconds scatter far more than a Poisson process's, whose variance is its mean.
    seconds = Counter(tip.offset_ns // NS for tip in tips)
    counts = [seconds[second] for second in range(100)]
    mean = sum(counts) / 100
    assert sum((count - mean) ** 2 for count in counts) / 100 > 1.5 * mean


def test_tips_of_two_rooms_never_share_a_voucher() -> None:
    made = build("evening-peak", 400, rate=200.0)
    by_room: dict[int, set[int | None]] = {}
    for _, action in everything(made):
        if action.kind is Kind.TIP:
            by_room.setdefault(action.stream, set()).add(action.voucher)
    assert len(by_room) > 1
    assert len(set.union(*by_room.values())) == sum(map(len, by_room.values()))


def test_files_come_in_chunks_one_file_at_a_time() -> None:
    made = build("media", 2, rate=5.0, duration_s=60.0)
    chunks = [action for action in made.participant(0).actions() if action.kind is Kind.MEDIA]
    assert len(chunks) > 20
    assert {chunk.body_bytes for chunk in chunks} == {catalogue.MEDIA_CHUNK_BYTES}
    gaps = [after.offset_ns - before.offset_ns for before, after in pairwise(chunks)]
    assert min(gaps) == catalogue.MEDIA_CHUNK_INTERVAL_NS
    # Before them the chat is alone, so that what they do to it can be seen.
    assert chunks[0].offset_ns >= made.media_from_ns == 30 * NS
    assert build("evening-peak").media_from_ns == 0


def test_the_flash_crowd_comes_at_once_and_speaks_afterwards() -> None:
    made = build("flash-crowd", 101)
    late = [plan for plan in plans(made) if plan.connect_ns]
    assert len(late) == 80
    times = [plan.connect_ns / NS - 0.3 * DURATION_S for plan in late]
    assert 0 <= min(times) < max(times) <= catalogue.FLASH_WITHIN_S
    assert all(action.offset_ns >= plan.connect_ns for plan in late for action in plan.actions())


def test_all_are_cut_at_once_and_come_back_within_half_a_second() -> None:
    made = build("reconnect-storm")
    cuts = [plan.cuts for plan in plans(made)]
    assert {cut.at_ns for (cut,) in cuts} == {int(0.4 * DURATION_S * NS)}
    assert 0 <= min(cut.away_ns for (cut,) in cuts) < max(cut.away_ns for (cut,) in cuts) <= catalogue.CUT_AWAY_NS_MAX


@pytest.mark.parametrize("participants", [3, 60, 400])
def test_some_read_slowly_but_never_the_performer(participants: int) -> None:
    made = build("slow-readers", participants)
    slow = [plan for plan in plans(made) if plan.read_bytes_per_s]
    assert 1 <= len(slow) <= max(1, participants // 5)
    assert all(plan.role == "viewer" for plan in slow)
    # Half of what the room writes: 20 messages a second of 4.3 kB.
    assert {plan.read_bytes_per_s for plan in slow} == {43_000}


def test_the_evening_peak_has_it_all() -> None:
    made = build("evening-peak", 400, rate=None, duration_s=60.0)
    all_plans = plans(made)
    kinds = Counter(action.kind for _, action in everything(made))
    assert set(kinds) == {Kind.MESSAGE, Kind.TYPING, Kind.TIP, Kind.MEDIA}
    sizes = [1 + len(room.viewers) for room in made.rooms]
    assert sum(sizes) == 400
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 4 * sizes[-1], "Zipf"
    assert {stream.purpose for stream in made.streams} == {"room", "inbox", "private"}
    for some in (
        [plan for plan in all_plans if plan.connect_ns],
        [plan for plan in all_plans if plan.cuts],
        [plan for plan in all_plans if plan.read_bytes_per_s],
    ):
        assert 0 < len(some) < 100
    messages = [
        action.offset_ns // (made.duration_ns // 3) for _, action in everything(made) if action.kind is Kind.MESSAGE
    ]
    thirds = Counter(messages)
    assert thirds[1] > 1.4 * thirds[0], "the peak is in the middle"
    assert thirds[1] > 1.2 * thirds[2]


def test_a_long_run_is_never_held_in_memory() -> None:
    made = build("private-chat", 2, rate=1.0, duration_s=1e9)
    assert len(list(islice(made.participant(0).actions(), 100))) == 100


# -- what follows from what comes -----------------------------------------------------------------------------


def test_thinking_takes_its_time_and_the_same_each_time() -> None:
    made, again, other = build("private-chat"), build("private-chat"), build("private-chat", seed=4)
    delays = []
    for counter in range(1, 500):
        for kind, (low, high) in (
            (Kind.RECEIPT_DELIVERED, catalogue.DELIVERED_NS),
            (Kind.RECEIPT_READ, catalogue.READ_NS),
        ):
            delay_ns = made.think_ns(1, 2, counter, kind)
            assert low <= delay_ns < high
            assert delay_ns == again.think_ns(1, 2, counter, kind)
            delays.append((delay_ns - low) / (high - low))
    assert other.think_ns(1, 2, 1, Kind.RECEIPT_READ) != made.think_ns(1, 2, 1, Kind.RECEIPT_READ)
    assert 0.45 < sum(delays) / len(delays) < 0.55
    assert len(set(delays)) > 900


def test_bodies_are_canaries_and_receipts_name_their_message() -> None:
    action = Action(0, Kind.MESSAGE, 1, True, 100)
    body = Workload.body_of(action)
    assert len(body) == 100
    assert body.startswith(CANARY)
    assert Workload.body_of(action._replace(body_bytes=0)) == b""
    assert Workload.read_receipt(Workload.receipt_body(1, 2, 3)) == (1, 2, 3)
