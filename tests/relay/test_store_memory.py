"""The byte bounds of the memory store."""

from __future__ import annotations

import sys

from batches import batch

from relay.store import Batch, MemoryStore, Record, run_of

SECRET = bytes(32)


def records(first: int, last: int, frame_bytes: int = 100) -> list[Record]:
    return [Record(seq, seq, bytes(16), seq, bytes(frame_bytes)) for seq in range(first, last + 1)]


def number_of(store: MemoryStore, key: bytes) -> int:
    return store.open(key.ljust(32), new_epoch=1, recent_max=0).number


def test_a_stream_keeps_its_newest_records() -> None:
    store = MemoryStore(SECRET, retain_stream_bytes_max=350)
    number = number_of(store, b"a")
    assert store.commit(batch(records=[(number, records(1, 3))])).forgotten == []
    assert store.commit(batch(records=[(number, records(4, 4))])).forgotten == [(number, 4)], (
        "what came together goes together"
    )
    assert store.commit(batch(records=[(number, records(5, 6))])).forgotten == []
    assert store.commit(batch(records=[(number, records(7, 7))])).forgotten == [(number, 5)]
    assert [kept.seq for kept in store.read(number, 0, 10_000)] == [5, 6, 7]
    counted = store.statistics()
    assert (counted.records, counted.held_bytes, counted.trimmed) == (3, 300, 4)


def test_of_a_run_larger_than_the_bound_the_newest_records_stay() -> None:
    store = MemoryStore(SECRET, retain_stream_bytes_max=350)
    number = number_of(store, b"a")
    assert store.commit(batch(records=[(number, records(1, 9))])).forgotten == [(number, 7)]
    assert [kept.seq for kept in store.read(number, 0, 10_000)] == [7, 8, 9]


def test_the_longest_unused_stream_is_forgotten_first() -> None:
    store = MemoryStore(SECRET, retain_total_bytes_max=500)
    one, two, three = (number_of(store, key) for key in (b"a", b"b", b"c"))
    store.commit(batch(records=[(one, records(1, 2)), (two, records(1, 2))]))
    store.read(one, 0, 1)  # a use, so that `two` is the longest unused
    assert store.commit(batch(records=[(three, records(1, 2))])).forgotten == [(two, 2)]
    assert store.commit(batch(records=[(three, records(3, 4))])).forgotten == [(two, 3), (one, 2)]
    assert [kept.seq for kept in store.read(three, 0, 10_000)] == [1, 2, 3, 4]
    assert [store.open(key.ljust(32), new_epoch=1, recent_max=0).head for key in (b"a", b"b")] == [2, 2]
    assert store.statistics().held_bytes == 500


def test_a_record_larger_than_the_bounds_is_numbered_but_not_kept() -> None:
    store = MemoryStore(SECRET, retain_stream_bytes_max=50)
    number = number_of(store, b"a")
    assert store.commit(batch(records=[(number, records(1, 1))])).forgotten == [(number, 2)]
    assert store.open(b"a".ljust(32), new_epoch=1, recent_max=0).head == 1
    assert store.statistics().held_bytes == 0


def test_what_is_forgotten_is_released() -> None:
    store = MemoryStore(SECRET)
    number = number_of(store, b"a")
    runs = [run_of([Record(n, n, bytes(16), n, bytes(1_000))]) for n in range(1, 5)]

    def references() -> list[int]:
        return [sys.getrefcount(held) for held in runs]

    unheld = references()
    for run in runs:
        store.commit(Batch(runs=[(number, run)]))
    del run
    assert references() == [count + 1 for count in unheld]
    store.commit(Batch(trims=[(number, 1)]))
    store.expire(3, 10**18)
    assert references() == [*unheld[:2], unheld[2] + 1, unheld[3] + 1]
    store.erase([(number, 2)])
    assert references() == unheld


def test_a_stream_that_fills_and_empties_does_not_pile_up_ages() -> None:
    store = MemoryStore(SECRET)
    number = number_of(store, b"a")
    for seq in range(1, 50):
        store.commit(batch(records=[(number, records(seq, seq))], trims=[(number, seq)]))
    assert len(store._ages) == 1
    store.commit(batch(records=[(number, records(50, 50))]))
    assert store.expire(50, 10**18) == []
    assert store.expire(51, 10**18) == [(number, 51)]
    assert store._ages == []
