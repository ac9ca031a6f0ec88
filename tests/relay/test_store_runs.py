"""What rows hold: checked when read, and nothing that must be erasable in a B-tree page."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.store import Record, Run, run_of
from relay.store.runs import (
    PAGE_BYTES,
    StreamRow,
    ack_check,
    blob_bytes,
    pack_run,
    pack_state,
    unpack_run,
    unpack_state,
)

SEED = crc32(b"k" * 32)
NUMBER = 70_000


def some_run(first: int, count: int, chance: random.Random) -> Run:
    return run_of(
        [
            Record(seq, 10**18 + count, chance.randbytes(16), chance.getrandbits(64), chance.randbytes(seq * 7))
            for seq in range(first, first + count)
        ]
    )


def unpacked(run: Run, blob: bytes, number: int = NUMBER, seed: int = SEED) -> Run | None:
    return unpack_run(number, seed, run.first, run.last, run.at_ns, blob)


def test_runs_round_trip() -> None:
    chance = random.Random(1)
    for count in (1, 2, 30):
        run = some_run(5, count, chance)
        assert unpacked(run, pack_run(NUMBER, SEED, run)) == run


def test_whatever_one_bit_is_flipped_it_is_found() -> None:
    run = some_run(3, 2, random.Random(2))
    blob = pack_run(NUMBER, SEED, run)
    begin = blob.index(next(byte for byte in blob if byte))
    for bit in range(8 * begin, 8 * (39 + 4 + 2 * 28 + len(run.data))):
        flipped = bytearray(blob)
        flipped[bit // 8] ^= 1 << bit % 8
        assert unpacked(run, bytes(flipped)) is None, bit


def test_what_stands_beside_the_blob_is_checked_with_it() -> None:
    run = some_run(3, 2, random.Random(3))
    blob = pack_run(NUMBER, SEED, run)
    for bit in range(62):
        assert unpack_run(NUMBER, SEED, run.first ^ 1 << bit, run.last, run.at_ns, blob) is None
        assert unpack_run(NUMBER, SEED, run.first, run.last ^ 1 << bit, run.at_ns, blob) is None
        assert unpack_run(NUMBER, SEED, run.first, run.last, run.at_ns ^ 1 << bit, blob) is None
    assert unpacked(run, blob, number=NUMBER + 1) is None
    assert unpacked(run, blob, seed=SEED ^ 1) is None, "another stream's"


@pytest.mark.parametrize(
    "columns", [(None, 4, 5, b""), (3, "4", 5, b""), (3, 4, 5.0, b""), (3, 4, 5, None), (3, 4, 5, "")]
)
def test_a_column_of_another_type_is_damage(columns: tuple[object, object, object, object]) -> None:
    assert unpack_run(NUMBER, SEED, *columns) is None


@given(blob=st.binary(max_size=300), first=st.integers(), count=st.integers(-3, 100))
def test_garbage_is_damage(blob: bytes, first: int, count: int) -> None:
    assert unpack_run(NUMBER, SEED, first, first + count, 1, blob) is None


def test_a_state_round_trips_and_is_checked() -> None:
    state = StreamRow(SEED, 2**64 - 1, 2**63 - 1, 10**18, 12_345)
    blob = pack_state(NUMBER, state)
    assert unpack_state(NUMBER, SEED, blob) == state
    for bit in range(8 * len(blob)):
        flipped = (int.from_bytes(blob, "big") ^ 1 << bit).to_bytes(len(blob), "big")
        assert unpack_state(NUMBER, SEED, flipped) is None
    assert unpack_state(NUMBER + 1, SEED, blob) is None
    assert unpack_state(NUMBER, SEED ^ 1, blob) is None
    for other in (None, 3, b"", blob[:-1], blob + b"\0", "text"):
        assert unpack_state(NUMBER, SEED, other) is None


def test_the_check_of_an_acknowledgement_takes_all_of_it() -> None:
    checks = {
        ack_check(*arguments)
        for arguments in (
            (1, 2, 3, b"h" * 16),
            (2, 2, 3, b"h" * 16),
            (1, 3, 3, b"h" * 16),
            (1, 2, 4, b"h" * 16),
            (1, 2, 3, b"i" * 16),
        )
    }
    assert len(checks) == 5


@pytest.mark.parametrize("number", [1, 2, 127, 128, 70_000, 2**24, 2**32 - 1])
@pytest.mark.parametrize("first", [1, 300, 2**33])
def test_only_zeros_of_a_run_stay_in_the_b_tree_page(tmp_path: Path, number: int, first: int) -> None:
    # Reads the file as the file format says: page types 2, 5, 10 and 13 are B-tree pages.
    at_ns = 1_700_000_000 * 10**9
    database = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    database.execute(f"PRAGMA page_size={PAGE_BYTES}")
    database.execute(
        "CREATE TABLE body (row INTEGER PRIMARY KEY, number INTEGER, first INTEGER, at_ns INTEGER, blob BLOB)"
    )
    lengths = [*range(60, 1_200, 41), *range(8_100, 8_300, 7), *range(1_048_500, 1_048_620, 27)]
    database.execute("BEGIN")
    for length in lengths:
        padded = blob_bytes(length, number, first, at_ns)
        assert length <= padded < length + PAGE_BYTES + 40
        row = (number, first, at_ns, bytes(39) + b"S" * (padded - 39))
        database.execute("INSERT INTO body (number, first, at_ns, blob) VALUES (?, ?, ?, ?)", row)
    database.execute("COMMIT")
    database.close()
    content = (tmp_path / "x.db").read_bytes()
    pages = [content[start : start + PAGE_BYTES] for start in range(PAGE_BYTES, len(content), PAGE_BYTES)]
    leaves = [page for page in pages if page[0] in (2, 5, 10, 13)]
    assert leaves
    assert not [page for page in leaves if b"SS" in page]
