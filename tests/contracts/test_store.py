"""The contract of relay.store.base.Store, on every store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batches import batch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.store import Batch, MemoryStore, Record, SqliteStore, Store, StreamState, run_of

SECRET = bytes(range(32))
ALICE = b"alice-handle-016"
BOB = b"bob-handle-00016"
PLENTY = 1 << 30
NOW = 1 << 60


def memory_store(directory: Path) -> Store:
    return MemoryStore(SECRET)


def sqlite_store(directory: Path) -> Store:
    return SqliteStore(directory / "relay.db", secret_if_new=SECRET)


MAKERS: list[Callable[[Path], Store]] = [memory_store, sqlite_store]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = request.param(tmp_path)
    yield made
    made.close()


def record(seq: int, *, at_ns: int = 1_000, handle: bytes = ALICE, frame_bytes: int = 290) -> Record:
    return Record(seq, at_ns, handle, 2**64 - seq, seq.to_bytes(2, "big") * (frame_bytes // 2))


def records(first: int, last: int, **options: int) -> list[Record]:
    return [record(seq, **options) for seq in range(first, last + 1)]  # type: ignore[arg-type]


def opened(store: Store, key: bytes = b"a", *, new_epoch: int = 7, recent_max: int = 256) -> StreamState:
    return store.open(key.ljust(32, b"."), new_epoch=new_epoch, recent_max=recent_max)


def seqs(found: list[Record]) -> list[int]:
    return [found_one.seq for found_one in found]


def test_the_secret_is_the_one_given_to_a_new_store(store: Store) -> None:
    assert store.secret == SECRET


def test_a_new_stream_is_empty_and_keeps_its_number_and_epoch(store: Store) -> None:
    one = opened(store, new_epoch=2**64 - 1)
    assert one == StreamState(one.number, 2**64 - 1, 0, 1, [], {})
    two = opened(store, b"b")
    assert two.number != one.number
    assert opened(store, new_epoch=5) == one
    assert store.read(one.number, 0, PLENTY) == []


def test_what_was_committed_is_read_again(store: Store) -> None:
    one, two = opened(store).number, opened(store, b"b").number
    assert store.commit(batch(records=[(one, records(1, 3)), (two, records(1, 1))])).forgotten == []
    assert store.commit(batch(records=[(one, records(4, 5))])).forgotten == []
    assert store.read(one, 0, PLENTY) == records(1, 5)
    assert store.read(one, 3, PLENTY) == records(4, 5)
    assert store.read(one, 4, PLENTY) == records(5, 5)
    assert store.read(one, 5, PLENTY) == []
    assert store.read(one, 99, PLENTY) == []
    assert store.read(two, 0, PLENTY) == records(1, 1)
    assert (opened(store).head, opened(store, b"b").head) == (5, 1)


def test_open_tells_the_newest_ids_and_the_acknowledgements(store: Store) -> None:
    number = opened(store).number
    mixed = [record(1), record(2, handle=BOB), record(3), record(4, handle=BOB)]
    store.commit(batch(records=[(number, mixed[:3])], acks=[(number, BOB, 2), (number, ALICE, 1)]))
    store.commit(batch(records=[(number, mixed[3:])], acks=[(number, BOB, 1), (number, ALICE, 3)]))
    state = opened(store, recent_max=2)
    assert (state.head, state.first) == (4, 1)
    assert state.recent == [(ALICE, 2**64 - 3, 3), (BOB, 2**64 - 4, 4)]
    assert state.acks == {ALICE: 3, BOB: 2}
    assert opened(store, recent_max=0).recent == []
    assert len(opened(store, recent_max=99).recent) == 4


def test_a_released_stream_that_holds_nothing_begins_anew(store: Store) -> None:
    number = opened(store, new_epoch=7).number
    streams = store.statistics().streams
    store.release(number)
    assert store.statistics().streams == streams - 1
    again = opened(store, new_epoch=8)
    assert (again.epoch, again.head) == (8, 0)
    other = opened(store, b"other")
    assert other.number != again.number


def test_a_released_stream_with_records_is_kept_until_they_are_forgotten(store: Store) -> None:
    number = opened(store, new_epoch=7).number
    store.commit(batch(records=[(number, records(1, 3, at_ns=100))]))
    store.release(number)
    again = opened(store, new_epoch=8)
    assert (again.number, again.epoch, again.head) == (number, 7, 3)
    assert store.read(number, 0, PLENTY) == records(1, 3, at_ns=100)
    store.release(number)
    store.expire(101, NOW)
    fresh = opened(store, new_epoch=9)
    assert (fresh.epoch, fresh.head) in ((9, 0), (7, 3)), "either it is gone, or it goes on"


def test_read_is_bounded_but_gives_one_record_at_least(store: Store) -> None:
    number = opened(store).number
    store.commit(batch(records=[(number, records(1, 8))]))
    assert seqs(store.read(number, 2, 1)) == [3]
    assert seqs(store.read(number, 2, 291)) == [3, 4]
    assert seqs(store.read(number, 2, 580)) == [3, 4]


@pytest.mark.parametrize("frame_bytes", [0, 2, 500, 8_000, 131_400, 262_000])
def test_frames_of_any_size(store: Store, frame_bytes: int) -> None:
    number = opened(store).number
    kept = records(1, 4, frame_bytes=frame_bytes)
    store.commit(batch(records=[(number, kept)]))
    assert store.read(number, 0, PLENTY) == kept


def test_trims_forget_up_to_a_number_also_inside_of_what_was_committed_together(store: Store) -> None:
    number = opened(store).number
    store.commit(batch(records=[(number, records(1, 4))]))
    store.commit(batch(records=[(number, records(5, 8))]))
    assert store.commit(Batch(trims=[(number, 2)])).forgotten == [(number, 3)]
    assert store.read(number, 0, PLENTY) == records(3, 8)
    assert store.commit(Batch(trims=[(number, 2), (number, 1)])).forgotten == []
    assert store.commit(Batch(trims=[(number, 5), (number, 4)])).forgotten == [(number, 6)]
    assert opened(store).first == 6
    assert seqs(store.read(number, 1, 1)) == [6]
    assert store.statistics().trimmed == 5


def test_a_stream_that_was_trimmed_empty_goes_on_numbering(store: Store) -> None:
    number = opened(store).number
    store.commit(batch(records=[(number, records(1, 3))]))
    assert store.commit(batch(records=[(number, records(4, 4))], trims=[(number, 99)])).forgotten == [(number, 5)]
    state = opened(store)
    assert (state.head, state.first, state.recent) == (4, 5, [])
    assert store.commit(batch(records=[(number, records(5, 6))])).forgotten == []
    assert store.read(number, 0, PLENTY) == records(5, 6)


def test_expiry_forgets_what_is_older(store: Store) -> None:
    one, two = opened(store).number, opened(store, b"b").number
    store.commit(batch(records=[(one, records(1, 2, at_ns=100)), (two, records(1, 1, at_ns=100))]))
    store.commit(batch(records=[(one, records(3, 3, at_ns=200))]))
    assert store.expire(100, NOW) == []
    assert sorted(store.expire(101, NOW)) == sorted([(one, 3), (two, 2)])
    assert store.expire(101, NOW) == []
    assert store.read(one, 0, PLENTY) == records(3, 3, at_ns=200)
    store.commit(batch(records=[(two, records(2, 2, at_ns=300))]))
    assert store.expire(201, NOW) == [(one, 4)]
    assert store.expire(999, NOW) == [(two, 3)]
    assert (opened(store).head, opened(store, b"b").head) == (3, 2)


def test_erase_leaves_an_empty_stream_in_a_new_epoch(store: Store) -> None:
    one, two = opened(store).number, opened(store, b"b").number
    store.commit(batch(records=[(one, records(1, 5)), (two, records(1, 2))], acks=[(one, BOB, 4), (two, BOB, 1)]))
    assert store.erase([(one, 8)]) == [(one, True)]
    assert opened(store) == StreamState(one, 8, 0, 1, [], {})
    assert store.read(one, 0, PLENTY) == []
    assert store.read(two, 0, PLENTY) == records(1, 2)
    assert opened(store, b"b").acks == {BOB: 1}
    store.commit(batch(records=[(one, records(1, 1))]))
    assert store.read(one, 0, PLENTY) == records(1, 1)


def test_erase_of_a_stream_with_nothing_committed_changes_its_epoch(store: Store) -> None:
    number = opened(store).number
    assert store.erase([(number, 8)]) == [(number, True)]
    assert opened(store) == StreamState(number, 8, 0, 1, [], {})
    store.commit(batch(records=[(number, records(1, 1))]))
    assert opened(store).epoch == 8


def test_statistics_count(store: Store) -> None:
    number = opened(store).number
    store.commit(batch(records=[(number, records(1, 3))]))
    store.commit(Batch())
    counted = store.statistics()
    assert (counted.streams, counted.commits, counted.commit_failures, counted.trimmed) == (1, 2, 0, 0)
    assert counted.records in (3, None)
    assert counted.held_bytes >= 3 * 290


# -- every store does what a plain list does ---------------------------------------------------------


@dataclasses.dataclass
class Model:
    """One stream, as simply as it can be said."""

    epoch: int
    head: int = 0
    held: list[Record] = dataclasses.field(default_factory=list)
    acks: dict[bytes, int] = dataclasses.field(default_factory=dict)
    stamped_ns: int = 0

    @property
    def first(self) -> int:
        return self.held[0].seq if self.held else self.head + 1


STREAMS = st.integers(0, 2)
SEQS = st.integers(0, 24)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("commit"),
            st.dictionaries(STREAMS, st.lists(st.integers(0, 1_200), min_size=1, max_size=5), max_size=3),
            st.lists(st.tuples(STREAMS, st.sampled_from([ALICE, BOB]), SEQS), max_size=3),
            st.lists(st.tuples(STREAMS, SEQS), max_size=3),
        ),
        st.tuples(st.just("expire"), st.integers(0, 12)),
        st.tuples(st.just("erase"), STREAMS),
        st.tuples(st.just("reopen")),
    ),
    max_size=12,
)


@pytest.mark.parametrize("maker", MAKERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_every_store_does_what_the_model_does(
    maker: Callable[[Path], Store], operations: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("store")
    store = maker(directory)
    try:
        numbers = [opened(store, bytes([65 + index])).number for index in range(3)]
        models = [Model(epoch=7) for _ in numbers]
        for now, operation in enumerate(operations, 1):
            before = [model.first for model in models]
            match operation:
                case ("commit", dict(added), list(acks), list(trims)):
                    made = Batch()
                    for index, sizes in added.items():
                        model = models[index]
                        new = [
                            record(seq, at_ns=now, frame_bytes=size) for seq, size in enumerate(sizes, model.head + 1)
                        ]
                        model.head += len(new)
                        model.stamped_ns = now
                        model.held += new
                        made.runs.append((numbers[index], run_of(new)))
                    for index, handle, upto in acks:
                        made.acks.append((numbers[index], handle, upto))
                        models[index].acks[handle] = max(upto, models[index].acks.get(handle, upto))
                    for index, upto in trims:
                        made.trims.append((numbers[index], upto))
                        models[index].held = [kept for kept in models[index].held if kept.seq > upto]
                    forgotten = store.commit(made).forgotten
                case ("expire", int(before_ns)):
                    for model in models:
                        model.held = [kept for kept in model.held if kept.at_ns >= before_ns]
                    forgotten = store.expire(before_ns, NOW)
                case ("erase", int(index)):
                    models[index] = Model(epoch=100 + now)
                    before[index] = 1
                    store.erase([(numbers[index], 100 + now)])
                    forgotten = []
                case _:
                    forgotten = []
                    if isinstance(store, SqliteStore) and all(model.head for model in models):
                        store.close()
                        store = maker(directory)
            moved = {
                number: model.first
                for number, model, first in zip(numbers, models, before, strict=True)
                if model.first != first
            }
            assert dict(forgotten) == moved
            for index, (number, model) in enumerate(zip(numbers, models, strict=True)):
                state = opened(store, bytes([65 + index]))
                recent = [(kept.handle, kept.id, kept.seq) for kept in model.held]
                assert state == StreamState(
                    number, model.epoch, model.head, model.first, recent, model.acks, model.stamped_ns
                )
                for after in (0, model.first, model.head - 1):
                    assert store.read(number, after, PLENTY) == [kept for kept in model.held if kept.seq > after]
    finally:
        store.close()
