"""The ledger on relays with any set of features: exact whatever they do, and nobody is blamed for what was not promised."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_world import Came, Lies, World

from loadtests.accounting.ledger import LATE_NS
from loadtests.accounting.settlement import Final_, Totals
from loadtests.dialects.base import Features
from loadtests.sealing.records import KIND_NAMES, Stamp

NAMES = ("numbers", "acknowledges", "resumes", "ephemeral", "echoes", "idempotent", "one_stream")
COLUMNS = ("delivered", "lost", "duplicated", "reordered", "late", "superseded", "dropped", "missed_away", "under_way")
HONEST = Lies()


def features_of(values: tuple[bool, ...]) -> Features:
    return Features(**dict(zip(NAMES, values, strict=True)), times=False)


EVERY = [features_of(values) for values in itertools.product((False, True), repeat=len(NAMES))]


def said(features: Features) -> str:
    return "+".join(name for name in NAMES if getattr(features, name)) or "nothing"


any_features = st.tuples(*(st.booleans() for _ in NAMES)).map(features_of)
lies = st.builds(
    Lies,
    drops=st.sampled_from([0, 0, 5, 17]),
    repeats=st.sampled_from([0, 0, 7, 19]),
    swaps=st.sampled_from([0, 0, 6, 13]),
    delays=st.sampled_from([0, 0, 11]),
    drops_publishes=st.sampled_from([0, 0, 5, 9]),
    skips_numbers=st.sampled_from([0, 0, 0, 4]),
)
worlds = st.builds(
    World,
    features=any_features,
    lies=lies,
    scenario=st.sampled_from(["private-chat", "room", "receipt-storm", "flash-crowd", "reconnect-storm"]),
    participants=st.integers(4, 6),
    rate=st.sampled_from([5.0, 15.0]),
    duration_s=st.sampled_from([1.5, 3.0]),
    workers=st.integers(1, 3),
    seed=st.integers(0, 10_000),
    cuts=st.sampled_from([0, 1, 4]),
)


# -- an oracle that sees everything that came to anybody ---------------------------------------------------


class Oracle:
    """Counts from what was witnessed at each participant, as the tables in the ledger's docstring say."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: dict[str, Counter[int]] = {name: Counter() for name in COLUMNS}
        self.unknown = self.phantoms = self.boundary = 0
        finals = world.log.finals().lines
        workload = world.populations[0].context.workload
        for member in range(world.participants):
            for membership in workload.participant(member).memberships:
                if membership.rights & 1:
                    came = world.relay.came[member, membership.stream]
                    self._states(member, membership.stream, came, finals.get((membership.stream, False), {}))
                    self._records(member, membership.stream, came, finals.get((membership.stream, True), {}))

    def _arrived(self, stream: int, came: Came) -> tuple[Stamp, bool]:
        stamp = self.world.stamp_of(stream, came.sealed)
        drained_ns = self.world.drained_ns
        late = came.now_ns - stamp.sent_ns > LATE_NS or (drained_ns is not None and came.now_ns > drained_ns)
        return stamp, late

    def _line(
        self, member: int, stream: int, came: list[Came], finals: dict[int, Final_], what: str
    ) -> tuple[int, int]:
        """Count one line of counters; return how many are lost, and how many may be."""
        features = self.world.features
        echo = features.echoes or features.one_stream
        states = what == "state"
        absences = self._absences(came, states=states)
        lost = unsure = 0
        seen: dict[int, list[tuple[int, int]]] = {}  # sender -> (counter, place in `came`), in order of coming
        numbers: list[int] = []
        for place, each in enumerate(came):
            if each.what != what:
                continue
            stamp, late = self._arrived(stream, each)
            of_sender = seen.setdefault(stamp.sender, [])
            if any(counter == stamp.counter for counter, _ in of_sender):
                self.counts["duplicated"][stamp.kind] += 1
            else:
                overtaken = any(counter > stamp.counter for counter, _ in of_sender)
                overtaken |= each.seq is not None and any(seq > each.seq for seq in numbers)
                self.counts["delivered"][stamp.kind] += 1
                self.counts["reordered"][stamp.kind] += overtaken
                self.counts["late"][stamp.kind] += late
                of_sender.append((stamp.counter, place))
            if each.seq is not None:
                numbers.append(each.seq)
        for sender, (last, refused, open_, _, sent_ns) in finals.items():
            if sender == member and not echo:
                continue
            why = self._missing(seen.get(sender, []), last, absences, came, sent_ns)
            for counter, reason in why.items():
                if counter in refused:
                    continue
                if reason == "boundary":
                    self.boundary += 1
                    unsure += 1
                    continue
                column = {"hole": "superseded", "tail": "dropped"}.get(reason, reason) if states else reason
                if column in ("hole", "tail"):
                    column = "under_way" if counter in open_ else "lost"
                lost += column == "lost"
                unsure += column in ("missed_away", "under_way")
                self.counts[column] += self.world.log.kinds((stream, not states), sender, counter, counter)
        return lost, unsure

    def _absences(self, came: list[Came], *, states: bool) -> list[int]:
        """Return the places of the joins that end an absence."""
        joins = [place for place, each in enumerate(came) if each.what == "joined"]
        return [place for place in joins[1:] if states or came[place].after is None]

    def _missing(
        self,
        seen: list[tuple[int, int]],
        last: int,
        absences: list[int],
        came: list[Came],
        sent_ns: Sequence[int],
    ) -> dict[int, str]:
        """Return why each counter of one sender did not come. What was sent after the join is owed in any case."""
        joins = [place for place, each in enumerate(came) if each.what == "joined"]
        start = self._from_start(came) if joins else False
        top, top_place = (0, joins[0]) if start else (-1, -1)
        low = 1 if start else None
        why: dict[int, str] = {}

        def passed(counters: range, reason: str, then: str, until: int) -> dict[int, str]:
            """Tell what was sent after the last join before `until` from what was not."""
            members = [came[join].now_ns for join in joins if (join == joins[0] or join in absences) and join < until]
            return {each: then if members and sent_ns[each - 1] > members[-1] else reason for each in counters}

        for counter, place in seen:
            if low is None:
                low, top, top_place = counter, counter, place
                why |= passed(range(1, counter), "boundary", "hole", place)
            elif counter > top:
                away = any(top_place < absence < place for absence in absences)
                between = range(top + 1, counter)
                why |= passed(between, "missed_away", "hole", place) if away else dict.fromkeys(between, "hole")
                top, top_place = counter, place
            elif counter < low:
                why |= dict.fromkeys(range(counter + 1, low), "hole")
                low = counter
            why.pop(counter, None)
        end = len(came)
        if low is None:
            return passed(range(1, last + 1), "boundary", "tail", end)
        away = any(top_place < absence for absence in absences)
        beyond = range(top + 1, last + 1)
        why |= passed(beyond, "missed_away", "tail", end) if away else dict.fromkeys(beyond, "tail")
        for counter, _ in seen:
            why.pop(counter, None)
        return why

    def _from_start(self, came: list[Came], *, states: bool = False) -> bool:
        first = next(each for each in came if each.what == "joined")
        before = first.now_ns <= self.world.start_ns - 500_000_000
        return before or (not states and first.seq == 0)

    def _states(self, member: int, stream: int, came: list[Came], finals: dict[int, Final_]) -> None:
        self._line(member, stream, came, finals, "state")

    def _records(self, member: int, stream: int, came: list[Came], finals: dict[int, Final_]) -> None:
        lost, unsure = self._line(member, stream, came, finals, "record")
        features = self.world.features
        echo = features.echoes or features.one_stream
        if not features.numbers or not (echo or features.acknowledges):
            return
        own = set() if echo else self.world.relay.own[member, stream]
        open_ = 0 if echo or member not in finals else len(finals[member].open)
        owed: set[int] = set()
        low = high = 0
        for place, each in enumerate(came):
            if each.what == "joined" and (each.after is None or not any(one.what == "joined" for one in came[:place])):
                owed |= set(range(low + 1, high + 1))
                low = high = max(each.seq or 0, high)
            elif each.what == "record" or each.what == "left":
                high = max(high, each.seq or 0)
        owed |= set(range(low + 1, high + 1))
        unseen = len(owed - own - {each.seq for each in came if each.what == "record"}) - lost - open_
        self.unknown += max(0, min(unseen, unsure))
        self.phantoms += max(0, unseen - unsure)


def check(world: World, totals: Totals) -> None:
    """Everything adds up, nothing is below zero, and every column is the oracle's."""
    assert totals.faults == []
    for columns in totals.kinds.values():
        assert all(value >= 0 for value in msgspec.structs.asdict(columns).values()), columns
    oracle = Oracle(world)
    for column in COLUMNS:
        for kind, name in enumerate(KIND_NAMES):
            row = totals.kinds.get(name)
            counted = getattr(row, column) if row is not None else 0
            expected = oracle.counts[column][kind] + (oracle.unknown if column == "lost" and not kind else 0)
            assert counted == expected, (column, name)
    assert totals.boundary == oracle.boundary
    assert totals.phantoms == oracle.phantoms


@given(world=worlds)
@settings(max_examples=120, deadline=None)
def test_the_ledger_is_exact_whatever_the_relay_has_and_does(world: World) -> None:
    check(world, world.run())


@given(features=any_features, seed=st.integers(0, 10_000), scenario=st.sampled_from(["room", "reconnect-storm"]))
@settings(max_examples=60, deadline=None)
def test_an_honest_relay_is_blamed_for_nothing_however_often_the_lines_break(
    features: Features, seed: int, scenario: str
) -> None:
    world = World(features=features, lies=HONEST, scenario=scenario, seed=seed, cuts=6, workers=2)
    totals = world.run()
    check(world, totals)
    assert (totals.lost, totals.duplicated, totals.phantoms, totals.misnumbered) == (0, 0, 0, 0)
    assert sum(row.reordered + row.late for row in totals.kinds.values()) == 0
    assert totals.delivered > 0


@pytest.mark.parametrize("features", EVERY, ids=said)
def test_a_liar_is_convicted_to_the_exact_count(features: Features) -> None:
    lies = Lies(drops=40, repeats=45, swaps=50, drops_publishes=12)
    world = World(features=features, lies=lies, scenario="typing-storm", participants=5, rate=15.0, duration_s=3.0)
    totals = world.run()
    check(world, totals)
    told, row = world.relay.told, totals.kinds["message"]
    states = totals.kinds["typing"]
    others = 5 if features.echoes or features.one_stream else 4
    assert told["drops"] > 3
    assert told["drops_publishes"] > 1
    assert totals.lost + states.superseded + states.dropped == told["drops"] + others * told["drops_publishes"]
    assert totals.duplicated == told["repeats"] > 2
    assert row.missed_away == row.under_way == row.boundary == 0
