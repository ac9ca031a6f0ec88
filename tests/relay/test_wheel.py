"""The timer wheel: who is due when, exactly once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wheel import Wheel


class Member:
    due_slot = 0


def test_due_after_its_delay_and_not_before() -> None:
    wheel, member = Wheel(100.5), Member()
    wheel.schedule(member, 2.0)
    assert wheel.advance(101.9) == []
    assert wheel.advance(102.0) == [member]
    assert wheel.advance(1000.0) == []


def test_a_part_of_a_second_is_rounded_up() -> None:
    wheel, member = Wheel(100.0), Member()
    wheel.schedule(member, 0.2)
    assert wheel.advance(100.99) == []
    assert wheel.advance(101.0) == [member]
    wheel.schedule(member, 1.2)
    assert wheel.advance(102.0) == []
    assert wheel.advance(103.0) == [member]


def test_scheduling_again_moves() -> None:
    wheel, member = Wheel(0), Member()
    wheel.schedule(member, 5)
    wheel.schedule(member, 2)
    assert wheel.advance(10) == [member]
    wheel.schedule(member, 1)
    wheel.schedule(member, 5)
    assert wheel.advance(12) == []
    assert wheel.advance(15) == [member]


def test_scheduling_again_for_the_same_time_is_due_once() -> None:
    wheel, member = Wheel(0), Member()
    wheel.schedule(member, 2)
    wheel.schedule(member, 5)
    wheel.schedule(member, 2)
    wheel.schedule(member, 2)
    assert wheel.advance(10) == [member]


def test_a_long_pause_makes_everything_due_in_order() -> None:
    wheel = Wheel(0)
    members = [Member() for _ in range(5)]
    for delay_s, member in zip((3, 1, 5, 2, 4), members, strict=True):
        wheel.schedule(member, delay_s)
    assert wheel.advance(100) == [members[i] for i in (1, 3, 0, 4, 2)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(0, 3)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_each_member_is_due_once_at_its_last_schedule(steps: list[tuple[int, int, int]]) -> None:
    wheel, members, now_s = Wheel(0), [Member() for _ in range(5)], 0
    due_s: dict[Member, int] = {}
    for index, delay_s, pause_s in steps:
        wheel.schedule(members[index], delay_s)
        due_s[members[index]] = now_s + delay_s
        now_s += pause_s
        came = wheel.advance(now_s)
        assert sorted(map(id, came)) == sorted(id(member) for member, at_s in due_s.items() if at_s <= now_s)
        for member in came:
            del due_s[member]
