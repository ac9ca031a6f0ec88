"""A publisher's window: what it answers for an id, whatever the ids are, and what it may forget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.limits import PUBLISH_WINDOW
from relay.window import Window

some_id = st.one_of(st.integers(0, 40), st.integers(2**64 - 5, 2**64 - 1))
ids_of_a_read = st.one_of(
    st.lists(some_id, min_size=1, max_size=6),
    st.builds(lambda first, count: list(range(first, first + count)), st.integers(0, 40), st.integers(1, 6)),
)


@given(st.lists(st.tuples(ids_of_a_read, st.booleans())))
def test_an_id_is_taken_once_and_keeps_its_number(reads: list[tuple[list[int], bool]]) -> None:
    window = Window()
    known: dict[int, int] = {}
    seq = 1
    for ids, stored in reads:
        new = len(set(ids)) == len(ids) and known.keys().isdisjoint(ids)
        assert window.take(ids) is new
        if not new:
            continue
        assert all(window.seq_of(id_) == 0 for id_ in ids), "on its way to the store"
        if stored:
            window.number(seq, len(ids))
            known.update(zip(ids, range(seq, seq + len(ids)), strict=True))
            seq += len(ids)
        else:
            window.take_back()
        asked = (*range(50), *range(2**64 - 5, 2**64))
        assert {id_: window.seq_of(id_) for id_ in asked} == {id_: known.get(id_) for id_ in asked}


@given(st.lists(st.tuples(st.integers(1, 64), st.booleans()), min_size=20, max_size=60))
def test_the_newest_ids_are_held_and_memory_is_bounded(reads: list[tuple[int, bool]]) -> None:
    window = Window()
    taken: list[int] = []
    for count, counted_up in reads:
        ids = list(range(len(taken), len(taken) + count))
        if not counted_up:
            ids.reverse()
        assert window.take(ids)
        window.number(len(taken) + 1, count)
        taken += ids
        assert min(PUBLISH_WINDOW, len(taken)) <= len(window.ids) <= 2 * PUBLISH_WINDOW
        assert len(window.ids) == len(window.seqs)
        for seq, id_ in list(enumerate(taken, 1))[-PUBLISH_WINDOW:]:
            assert window.seq_of(id_) == seq, "an answer may have been lost, and it is asked for again"


def test_what_the_store_has_not_answered_is_not_forgotten() -> None:
    window = Window()
    count = 3 * PUBLISH_WINDOW
    for id_ in range(count):
        assert window.take([id_])
    assert [window.seq_of(id_) for id_ in range(count)] == [0] * count


def test_an_id_lower_than_all_before_is_new_unless_it_is_held() -> None:
    window = Window()
    for id_ in (50, 7, 20):
        assert window.take([id_])
    window.number(1, 3)
    assert not window.take([20, 21])
    assert window.take([21, 19])
    window.number(4, 2)
    assert [window.seq_of(id_) for id_ in (50, 7, 20, 21, 19, 8)] == [1, 2, 3, 4, 5, None]


def test_what_the_store_remembers_is_taken_up_and_an_erasure_forgets_it() -> None:
    window = Window()
    for id_, seq in ((5, 10), (9, 11)):
        window.restore(id_, seq)
    assert (window.seq_of(5), window.seq_of(9), window.take([9])) == (10, 11, False)
    window.clear()
    assert window.seq_of(5) is None
    assert window.take([9])
