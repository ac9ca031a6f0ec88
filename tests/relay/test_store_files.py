"""One relay a file, whatever it is called; files that vanish; copies; the reserve."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from batches import batch

from relay.errors import ConfigurationError, StoreUnavailable
from relay.store import Batch, Record, SqliteStore, StreamState

SECRET = bytes(range(32))
KEY = b"k" * 32


def make(path: Path, **options: int) -> SqliteStore:
    return SqliteStore(path, secret_if_new=SECRET, **options)


def opened(store: SqliteStore, epoch: int = 7) -> StreamState:
    return store.open(KEY, new_epoch=epoch, recent_max=9)


def publish(store: SqliteStore, count: int = 1) -> None:
    state = opened(store)
    store.commit(
        batch(records=[(state.number, [Record(state.head + 1 + i, 1, b"h" * 16, i, b"f" * 300) for i in range(count)])])
    )


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        make(path)
    (problem,) = raised.value.problems
    return problem


def killed(directory: Path, target: Path) -> None:
    """Copy what a relay that is killed now would leave."""
    target.mkdir()
    for name in ("r.db", "r.db-wal"):
        (target / name).touch(0o600)
        (target / name).write_bytes((directory / name).read_bytes())


def test_no_other_name_leads_two_relays_to_one_file(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    (tmp_path / "soft.db").symlink_to("r.db")
    assert "another relay uses" in refusal(tmp_path / "soft.db")
    assert "another relay uses" in refusal(tmp_path / ".." / tmp_path.name / "r.db")
    (tmp_path / "hard.db").hardlink_to(tmp_path / "r.db")
    assert "another relay uses" in refusal(tmp_path / "hard.db")
    assert not (tmp_path / "r.db.lock").exists(), "there is no file whose removal would let another in"
    store.close()
    assert "second name" in refusal(tmp_path / "r.db")
    assert "second name" in refusal(tmp_path / "hard.db")
    (tmp_path / "hard.db").unlink()
    store = make(tmp_path / "soft.db")
    publish(store)
    assert (tmp_path / "r.db-wal").exists(), "the log has the name of the file, not of the link"
    store.close()


@pytest.mark.parametrize("name", ["r.db", "r.db-wal"])
def test_files_that_others_can_read_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    store = make(tmp_path / "r.db")
    publish(store)
    killed(tmp_path, tmp_path / "left")
    store.close()
    path = tmp_path / "left" / name
    path.chmod(0o640)
    problem = refusal(tmp_path / "left" / "r.db")
    assert f"chmod go= {path}" in problem
    if path.exists():  # SQLite has taken the log in
        path.chmod(0o600)
    make(tmp_path / "left" / "r.db").close()


def test_an_empty_file_that_others_can_read_gets_no_secret(tmp_path: Path) -> None:
    (tmp_path / "r.db").touch(0o644)
    assert "chmod go=" in refusal(tmp_path / "r.db")
    assert (tmp_path / "r.db").stat().st_size == 0


@pytest.mark.parametrize("name", ["r.db", "r.db-wal", "r.db-shm"])
@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
def test_a_file_that_vanishes_is_noticed_and_nothing_is_taken_any_more(tmp_path: Path, name: str, how: str) -> None:
    store = make(tmp_path / "r.db")
    publish(store)
    store.tidy()
    assert store.fault is None
    path, aside = tmp_path / name, tmp_path / "aside"
    if how == "removed":
        path.unlink()
    else:
        path.rename(aside)
        if how == "replaced":
            path.write_bytes(aside.read_bytes())
    with pytest.raises(StoreUnavailable, match="removed, moved or replaced"):
        store.tidy()
    assert store.fault is not None
    assert store.notices() == [store.fault]
    with pytest.raises(StoreUnavailable):
        publish(store)
    with pytest.raises(StoreUnavailable):
        store.tidy()
    assert store.notices() == [], "once"
    if how == "moved":
        aside.rename(path)
        store.tidy()
        assert store.fault is None
        publish(store)
        assert opened(store).head == 2
    store.close()


def test_a_copy_and_a_moved_file_begin_new_epochs(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    publish(store, 3)
    killed(tmp_path, tmp_path / "copy")
    publish(store, 2)
    store.close()
    for _ in range(2):
        store = make(tmp_path / "r.db")
        assert store.notices() == []
        assert (opened(store, 99).epoch, opened(store).head) == (7, 5)
        store.close()
    store = make(tmp_path / "copy" / "r.db")
    assert "copy or was moved" in store.notices()[0]
    state = opened(store, 99)
    assert state.epoch != 7
    assert state.head == 3
    store.close()
    store = make(tmp_path / "copy" / "r.db")
    assert opened(store).epoch == state.epoch, "it is at home there now"
    store.close()


def test_a_backup_made_as_the_documentation_says(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    publish(store, 3)
    with closing(sqlite3.connect(tmp_path / "r.db", isolation_level=None)) as outside:
        outside.execute(f"VACUUM INTO '{tmp_path / 'backup.db'}'")
    with closing(sqlite3.connect(tmp_path / "backup.db", isolation_level=None)) as outside:
        outside.execute("DELETE FROM meta WHERE name = 'home'")
    publish(store, 2)
    store.close()
    (tmp_path / "backup.db").chmod(0o600)
    os.replace(tmp_path / "backup.db", tmp_path / "r.db")
    store = make(tmp_path / "r.db")
    assert "copy" in store.notices()[0]
    state = opened(store)
    assert state.epoch != 7
    assert [record.seq for record in store.read(state.number, 0, 10_000)] == [1, 2, 3]
    assert store.secret == SECRET
    publish(store)
    store.close()


def test_a_reader_from_outside_does_not_hold_up_commits(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db", wal_bytes_max=5_000)
    publish(store)
    statements: list[str] = []
    store._writer._connection.set_trace_callback(statements.append)
    with closing(sqlite3.connect(tmp_path / "r.db", isolation_level=None)) as outside:
        outside.execute("BEGIN")
        outside.execute("SELECT * FROM stream").fetchall()
        for _ in range(300):
            publish(store, 2)
        assert (tmp_path / "r.db-wal").stat().st_size > 16 * 5_000, "past the size from which on the log is emptied"
    checkpoints = [place for place, statement in enumerate(statements) if "wal_checkpoint" in statement]
    assert len([place for place in checkpoints if "TRUNCATE" in statements[place]]) > 2
    for place in checkpoints:
        assert "PASSIVE" in statements[place] or statements[place - 1] == "PRAGMA busy_timeout=0"
    assert len(checkpoints) < 60, "they become fewer while a reader is in the way"
    for _ in range(20):
        publish(store, 2)
    assert opened(store).head == 641
    assert (tmp_path / "r.db-wal").stat().st_size < 16 * 5_000 + 20_000
    store.close()


def test_the_reserve_is_given_when_the_disk_is_full_and_put_by_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path / "r.db")
    for _ in range(5):
        publish(store)
    number = opened(store).number
    reserve = tmp_path / "r.db-reserve"
    assert 0 < reserve.stat().st_size <= 8_388_608
    writer = store._writer
    writer._connection.execute("PRAGMA max_page_count=1")  # SQLITE_FULL for whatever needs a new page
    committed = store.commit(
        Batch(runs=batch(records=[(number, [Record(6, 1, b"h" * 16, 6, b"f" * 30_000)])]).runs, trims=[(number, 2)])
    )
    assert committed.full == [number]
    assert committed.forgotten == [(number, 3)], "what frees space was done"
    assert not reserve.exists()
    assert "disk is full" in store.notices()[0]
    monkeypatch.setattr(type(writer._files), "reserve", lambda self: False)
    assert store.commit(batch(records=[(number, [Record(6, 1, b"h" * 16, 6, b"f")])])).full == [number]
    monkeypatch.undo()
    writer._connection.execute("PRAGMA max_page_count=1000000")
    store.tidy()
    assert reserve.exists()
    assert store.commit(batch(records=[(number, [Record(6, 1, b"h" * 16, 6, b"f")])])).full == []
    store.close()
    assert not reserve.exists()
