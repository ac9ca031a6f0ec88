"""What becomes of damage: a gap, a new epoch or a refusal for the streams that it concerns, and never more."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from batches import batch
from torture_store import torture

from relay.errors import ConfigurationError
from relay.store import Batch, Record, SqliteStore, StreamState
from relay.store.runs import PAGE_BYTES

SECRET = bytes(range(32))
KEYS = [bytes([65 + index]) * 32 for index in range(3)]
PLENTY = 1 << 30
NOW = 10**18


def make(path: Path) -> SqliteStore:
    return SqliteStore(path, secret_if_new=SECRET)


def opened(store: SqliteStore, index: int = 0, epoch: int = 99) -> StreamState:
    return store.open(KEYS[index], new_epoch=epoch, recent_max=9)


def records(first: int, last: int, at_ns: int = 1) -> list[Record]:
    return [Record(seq, at_ns, b"h" * 16, seq, bytes([seq]) * 300) for seq in range(first, last + 1)]


def seqs(store: SqliteStore, number: int, after: int = 0) -> list[list[int]]:
    """Return the numbers that a reader gets, a list for each stretch without a hole."""
    stretches = []
    while found := store.read(number, after, PLENTY):
        stretches.append([record.seq for record in found])
        assert [record.frame for record in found] == [bytes([record.seq]) * 300 for record in found]
        after = found[-1].seq
    return stretches


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store: three streams in epoch 7, each with the runs 1-2, 3-4, 5-6 and 7-8, and an acknowledgement."""
    store = make(tmp_path / "r.db")
    numbers = [opened(store, index, 7).number for index in range(3)]
    for first in (1, 3, 5, 7):
        added = [(number, records(first, first + 1, first)) for number in numbers]
        store.commit(batch(records=added, acks=[(number, b"m" * 16, first) for number in numbers]))
    store.close()
    return tmp_path / "r.db"


def alter(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute(statement, values).rowcount == 1


def alter_page(path: Path, table: str, changed: bytes) -> None:
    """Write over the root page of a table."""
    with closing(sqlite3.connect(path)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    content = bytearray(path.read_bytes())
    content[(page - 1) * PAGE_BYTES : (page - 1) * PAGE_BYTES + len(changed)] = changed
    path.write_bytes(content)


def row_of(path: Path, number: int, first: int) -> int:
    with closing(sqlite3.connect(path)) as database:
        (row,) = database.execute("SELECT row FROM span WHERE number = ? AND first = ?", (number, first)).fetchone()
    return int(row)


def test_without_damage_there_is_none(path: Path) -> None:
    store = make(path)
    for index in range(3):
        state = opened(store, index)
        assert (state.epoch, state.head, state.first, state.acks) == (7, 8, 1, {b"m" * 16: 7})
        assert seqs(store, state.number) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert store.statistics().damaged == 0
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE body SET blob = CAST(substr(blob, 1, 200) || x'00' || substr(blob, 202) AS BLOB) WHERE row = ?",
        "UPDATE body SET blob = zeroblob(700) WHERE row = ?",
        "UPDATE body SET blob = 'text' WHERE row = ?",
        "UPDATE body SET at_ns = at_ns + 1 WHERE row = ?",
        "UPDATE span SET last = last + 1 WHERE row = ?",
        "UPDATE span SET row = row + 1 WHERE row = ?",
        "DELETE FROM body WHERE row = ?",
        "DELETE FROM span WHERE row = ?",
    ],
)
def test_a_run_that_is_not_what_was_stored_is_a_hole(path: Path, statement: str) -> None:
    alter(path, statement, row_of(path, 2, 3))
    store = make(path)
    state = opened(store, 1)
    assert (state.epoch, state.head) == (7, 8)
    assert seqs(store, state.number) == [[1, 2], [5, 6, 7, 8]]
    assert seqs(store, state.number, 2) == [[5, 6, 7, 8]]
    assert store.statistics().damaged == 1, "however often it is read"
    for index in (0, 2):
        assert seqs(store, opened(store, index).number) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    store.close()


def test_another_streams_run_is_not_served(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE stream SET key = x'00' WHERE number = 1")
        database.execute("UPDATE stream SET key = ? WHERE number = 2", (KEYS[0],))
    store = make(path)
    state = opened(store, 0)
    assert state.epoch == 99
    assert seqs(store, state.number) == []
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET blob = zeroblob(36) WHERE number = ?",
        "UPDATE state SET blob = NULL WHERE number = ?",
        "DELETE FROM state WHERE number = ?",
    ],
)
def test_a_stream_whose_state_is_damaged_goes_on_in_a_new_epoch(path: Path, statement: str) -> None:
    alter(path, statement, 2)
    alter(path, "UPDATE body SET blob = x'00' WHERE row = ?", row_of(path, 2, 7))
    store = make(path)
    state = opened(store, 1)
    assert (state.epoch, state.head, state.recent[-1][2]) == (99, 6, 6)
    assert opened(store, 1, 100).epoch == 99, "it keeps the new one"
    assert store.commit(batch(records=[(state.number, records(7, 9))])).damaged == []
    store.close()
    store = make(path)
    state = opened(store, 1, 101)
    assert (state.epoch, state.head) == (99, 9)
    assert seqs(store, state.number) == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert opened(store, 0).epoch == 7
    store.close()


def test_a_head_that_fell_is_noticed(path: Path) -> None:
    """The state is an old one, though whole: the newest run is ahead of it."""
    with closing(sqlite3.connect(path)) as database:
        (old,) = database.execute("SELECT blob FROM state WHERE number = 1").fetchone()
    store = make(path)
    store.commit(batch(records=[(opened(store).number, records(9, 10))]))
    store.close()
    alter(path, "UPDATE state SET blob = ? WHERE number = 1", old)
    store = make(path)
    state = opened(store)
    assert (state.epoch, state.head) == (99, 10)
    store.close()


def test_a_head_without_its_newest_runs_stays(path: Path) -> None:
    alter(path, "DELETE FROM span WHERE row = ?", row_of(path, 1, 7))
    store = make(path)
    state = opened(store)
    assert (state.epoch, state.head) == (7, 8), "no number is given twice"
    assert seqs(store, state.number) == [[1, 2, 3, 4, 5, 6]]
    store.close()


@pytest.mark.parametrize("column", ["upto = upto + 1", "handle = zeroblob(118)", '"check" = 0', "handle = 3"])
def test_a_damaged_acknowledgement_counts_for_nothing(path: Path, column: str) -> None:
    alter(path, f"UPDATE ack SET {column} WHERE number = 1")
    store = make(path)
    assert opened(store).acks == {}
    assert store.statistics().damaged == 1
    assert opened(store, 1).acks == {b"m" * 16: 7}
    store.close()


def test_damage_that_a_commit_meets_refuses_its_stream_and_not_the_batch(path: Path) -> None:
    alter_page(path, "span", b"\xff" * 12)
    store = make(path)
    states = [opened(store, index) for index in range(3)]
    assert [state.head for state in states] == [8, 8, 8]
    new = store.open(b"n" * 32, new_epoch=1, recent_max=0).number
    committed = store.commit(
        batch(
            records=[(new, records(1, 2)), (states[0].number, records(9, 9))],
            acks=[(states[1].number, b"a" * 16, 8)],
            trims=[(states[1].number, 3)],
        )
    )
    assert sorted(committed.damaged) == sorted([new, states[0].number]), "all runs go into that table"
    assert opened(store, 1).acks == {b"m" * 16: 7, b"a" * 16: 8}, "the rest stands"
    assert seqs(store, states[0].number) == []
    assert store.erase([(states[0].number, 5), (states[1].number, 6)]) == [
        (states[0].number, False),
        (states[1].number, False),
    ]
    assert store.statistics().damaged > 0
    store.close()


def test_damaged_runs_are_forgotten_with_their_age_and_by_erasing(path: Path) -> None:
    alter(path, "UPDATE body SET blob = x'00' WHERE row = ?", row_of(path, 1, 1))
    alter(path, "DELETE FROM span WHERE row = ?", row_of(path, 2, 1))
    alter(path, "UPDATE body SET number = 77 WHERE row = ?", row_of(path, 3, 3))
    store = make(path)
    numbers = [opened(store, index).number for index in range(3)]
    assert store.commit(Batch(trims=[(numbers[0], 1)])).forgotten == [(numbers[0], 3)], "a damaged run goes whole"
    store.expire(6, NOW)
    assert [opened(store, index).first for index in range(3)] == [7, 7, 7]
    assert [seqs(store, number) for number in numbers] == [[[7, 8]]] * 3
    assert store.erase([(number, 9) for number in numbers]) == [(number, True) for number in numbers]
    store.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM body").fetchone() == (0,)


def test_a_damaged_secret_is_not_used(path: Path) -> None:
    alter(path, "UPDATE meta SET value = zeroblob(36) WHERE name = 'secret'")
    with pytest.raises(ConfigurationError, match="restore it from a backup"):
        make(path)


@pytest.mark.process
def test_kills_power_cuts_and_flipped_bits(tmp_path: Path) -> None:
    """The short form of tests/relay/torture_store.py."""
    seen = torture(tmp_path, 20_260, kills=3, cuts=6, flips=25)
    assert seen["acknowledged"]
    assert sum(seen["flips"].values()) == 25  # type: ignore[attr-defined]
