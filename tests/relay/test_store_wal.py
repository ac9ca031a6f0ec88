"""Whether a write-ahead log was damaged or cut short, on logs that SQLite wrote."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from relay.store.wal import is_damaged

PAGE_BYTES = 512
FRAME_BYTES = 24 + PAGE_BYTES


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a log of ten commits, of several frames each."""
    return grown(tmp_path_factory.mktemp("wal"), 10)


def grown(directory: Path, commits: int, before: int = 0) -> bytes:
    database = sqlite3.connect(directory / "x.db", isolation_level=None)
    for setting in ("page_size=512", "journal_mode=WAL", "wal_autocheckpoint=0"):
        database.execute(f"PRAGMA {setting}").fetchall()
    database.execute("CREATE TABLE x (y)")
    chance = random.Random(5)
    for count in (before, commits):
        for _ in range(count):
            database.execute("INSERT INTO x VALUES (?)", (chance.randbytes(900),))
        if count is before and before:
            database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # the next commit begins the log again
    found = (directory / "x.db-wal").read_bytes()
    database.close()
    return found


def frames_of(log: bytes) -> int:
    return (len(log) - 32) // FRAME_BYTES


def flipped(log: bytes, bit: int) -> bytes:
    changed = bytearray(log)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def records_in(log: bytes, directory: Path, base: Path) -> int:
    for path in directory.iterdir():
        path.unlink()
    shutil.copy(base, directory / "x.db")
    (directory / "x.db-wal").write_bytes(log)
    database = sqlite3.connect(directory / "x.db")
    (count,) = database.execute("SELECT count(*) FROM x").fetchone()
    database.close()
    return int(count)


def test_a_whole_log_is_whole(log: bytes) -> None:
    assert frames_of(log) > 25
    assert not is_damaged(log)
    for nothing in (b"", log[:20], log[:32], log[:40]):
        assert not is_damaged(nothing)


def test_what_a_crash_cut_short_is_not_damaged(log: bytes) -> None:
    for end in range(0, len(log), 97):
        assert not is_damaged(log[:end])


def test_any_flipped_bit_that_makes_sqlite_forget_is_damage(log: bytes) -> None:
    chance = random.Random(7)
    places = [*range(8 * 24), *(8 * (len(log) - FRAME_BYTES) + bit for bit in range(8 * 24))]
    places += chance.sample(range(8 * len(log)), 60)
    for bit in places:
        assert is_damaged(flipped(log, bit)), bit


def test_much_damage_within_what_was_synced_is_damage(log: bytes) -> None:
    for frame in (0, 3, frames_of(log) - 8):
        at = 32 + frame * FRAME_BYTES
        assert is_damaged(log[: at + 50] + bytes(400) + log[at + 450 :])


def test_sectors_of_the_last_commit_that_are_missing_are_a_power_cut(log: bytes) -> None:
    # The last commit has three frames at least: the row's two pages and the table's.
    for frame in range(frames_of(log) - 3, frames_of(log)):
        at = 32 + frame * FRAME_BYTES
        assert not is_damaged(log[: at + 24] + bytes(PAGE_BYTES) + log[at + FRAME_BYTES :])


def test_what_is_left_of_the_log_before_is_no_damage(tmp_path: Path) -> None:
    again = grown(tmp_path, 3, before=20)
    assert frames_of(again) > 50
    assert not is_damaged(again)
    assert is_damaged(flipped(again, 8 * (32 + 100)))
    assert not is_damaged(flipped(again, 8 * (len(again) - 100))), "that was copied long ago"
