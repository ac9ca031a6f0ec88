"""First, median and last recipient, put together from what several workers saw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.measuring.recorder import Recorder
from loadtests.measuring.room_spread import SpreadMerger, SpreadNotes, step_of
from loadtests.measuring.series import series_name


def finished(*workers: SpreadNotes, members: int) -> dict[str, list[int]]:
    counts, recorder = SpreadMerger(), Recorder()
    for notes in workers:
        counts.add(notes.take())
    counts.finish(recorder, {1: members})
    size = "1-9" if members < 10 else "10-99"
    return {
        metric: list(recorder.series(series_name(metric, size=size)))
        for metric in ("fanout_first", "fanout_median", "fanout_last")
    }


def test_workers_are_put_together_before_anything_is_read() -> None:
    one, other = SpreadNotes(), SpreadNotes()
    for latency_ns in (50, 10):
        one.note(1, 7, 3, latency_ns)
    for latency_ns in (20, 90, 40):
        other.note(1, 7, 3, latency_ns)
    assert finished(one, other, members=5) == {"fanout_first": [10], "fanout_median": [40], "fanout_last": [90]}


def test_every_message_has_its_own_figures_and_is_taken_once() -> None:
    notes = SpreadNotes()
    notes.note(1, 7, 1, 10)
    notes.note(1, 7, 2, 30)
    assert len(notes.take()) == 2
    assert notes.take() == []


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.integers(1, 5))
def test_any_split_over_workers_gives_the_same(latencies: list[int], workers: int) -> None:
    split = [SpreadNotes() for _ in range(workers)]
    for index, latency_ns in enumerate(latencies):
        split[index % workers].note(1, 0, 1, latency_ns)
    whole = SpreadNotes()
    for latency_ns in latencies:
        whole.note(1, 0, 1, latency_ns)
    assert finished(*split, members=60) == finished(whole, members=60)


@pytest.mark.parametrize(("members", "step"), [(1, 0), (2, 0), (3, 1), (150, 1), (1_000, 10), (10_000, 100)])
def test_large_rooms_have_fewer_of_their_messages_chosen(members: int, step: int) -> None:
    assert step_of(members) == step
