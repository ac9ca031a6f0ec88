"""Intervals against a plain set."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.accounting.intervals import Intervals


@given(script=st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(0, 8)), max_size=60))
@settings(max_examples=150, deadline=None)
def test_like_a_set(script: list[tuple[bool, int, int]]) -> None:
    intervals, plain = Intervals(), set[int]()
    for adding, first, more in script:
        new = set(range(first, first + more + 1))
        if adding and not new & plain:
            intervals.add(first, first + more)
            plain |= new
        elif not adding:
            assert intervals.take(first) is (first in plain)
            plain.discard(first)
        assert intervals.count == len(plain)
        assert {number for a, b in intervals for number in range(a, b + 1)} == plain
        assert all((number in intervals) == (number in plain) for number in range(70))


def test_a_wide_hole_is_one_entry() -> None:
    intervals = Intervals()
    intervals.add(2, 4_000_000_000)
    assert list(intervals) == [(2, 4_000_000_000)]
    assert intervals.count == 3_999_999_999
