"""What only the SQLite store has: a file, a restart, a full disk, two threads, and erasing beyond recovery."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from batches import batch

from relay.errors import ConfigurationError, StoreUnavailable
from relay.limits import HANDLE_BYTES
from relay.store import Batch, Record, SqliteStore, run_of
from relay.store.runs import PAGE_BYTES, blob_bytes, pack_run, unpack_run
from relay.store.sqlite import SCHEMA_VERSION

SECRET = bytes(range(32))
PLENTY = 1 << 30


def make(path: Path, **options: int) -> SqliteStore:
    return SqliteStore(path, secret_if_new=SECRET, **options)  # type: ignore[arg-type]


def number_of(store: SqliteStore, key: bytes) -> int:
    return store.open(key.ljust(32), new_epoch=7, recent_max=0).number


def records(first: int, last: int, *, frame: bytes = b"frame" * 58, at_ns: int = 1) -> list[Record]:
    return [Record(seq, at_ns, b"h" * HANDLE_BYTES, seq, frame) for seq in range(first, last + 1)]


# -- restart -----------------------------------------------------------------------------------------


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    number_of(store, b"never committed")
    kept = number_of(store, b"kept")
    store.commit(batch(records=[(kept, records(1, 5))], acks=[(kept, b"h" * 16, 3)], trims=[(kept, 2)]))
    before = store.open(b"kept".ljust(32), new_epoch=0, recent_max=9)
    store.close()
    store = SqliteStore(tmp_path / "r.db", secret_if_new=bytes(32))
    assert store.secret == SECRET
    assert store.open(b"kept".ljust(32), new_epoch=0, recent_max=9) == before
    assert store.read(kept, 0, PLENTY) == records(3, 5)
    assert number_of(store, b"another") > kept
    store.close()


def test_the_head_survives_records_that_are_all_forgotten(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    one, two = number_of(store, b"a"), number_of(store, b"b")
    store.commit(batch(records=[(one, records(1, 5)), (two, records(1, 4))], trims=[(one, 5)]))
    store.expire(99)
    store.close()
    store = make(tmp_path / "r.db")
    assert store.heads([one, two]) == {one: 5, two: 4}
    store.close()


def test_the_file_and_its_lock_are_the_owners_only(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    number = number_of(store, b"a")
    store.commit(batch(records=[(number, records(1, 5))]))
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    store.close()
    store.close()


# -- configuration -----------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        make(path)
    (problem,) = raised.value.problems
    return problem


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    assert "name a file in a writable directory" in refusal(tmp_path / "missing" / "r.db")
    assert "name a writable file" in refusal(tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"dear diary " * 100)
    assert "no database of the relay's" in refusal(path)
    assert path.read_bytes() == b"dear diary " * 100


def test_the_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    assert "another program" in refusal(path)
    assert path.read_bytes() == before


def test_another_schema_version_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    make(path).close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    newer.close()
    problem = refusal(path)
    assert f"schema {SCHEMA_VERSION + 1}, not {SCHEMA_VERSION}" in problem
    assert "use the release that wrote it" in problem


def test_two_relays_cannot_share_a_file(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    assert "another relay uses" in refusal(tmp_path / "r.db")
    store.close()
    make(tmp_path / "r.db").close()


# -- a full disk -------------------------------------------------------------------------------------


def test_a_full_store_takes_nothing_of_a_batch_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db", file_bytes_max=100 * PAGE_BYTES)
    one, two = number_of(store, b"a"), number_of(store, b"b")
    store.commit(batch(records=[(one, records(1, 20))]))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.commit(batch(records=[(two, records(1, 2)), (one, records(21, 500))], acks=[(two, b"h" * 16, 1)]))
        # Were the batch complete in the WAL (only its fsync failed), a crash now would bring it back.
        assert os.path.getsize(tmp_path / "r.db-wal") == 0
        assert store.heads([one, two]) == {one: 20, two: 0}
        assert store.read(two, 0, PLENTY) == []
    assert store.statistics().commit_failures == 2
    store.commit(batch(records=[(two, records(1, 2))]))
    store.commit(Batch(trims=[(one, 20)]))
    store.commit(batch(records=[(one, records(21, 40))]))
    store.close()
    store = make(tmp_path / "r.db")
    assert store.read(one, 0, PLENTY) == records(21, 40)
    assert store.read(two, 0, PLENTY) == records(1, 2)
    assert store.open(b"b".ljust(32), new_epoch=0, recent_max=0).acks == {}
    store.close()


DISK_FULL = """
import resource, signal, sys
from relay.errors import StoreUnavailable
from relay.store import Batch, Record, SqliteStore, run_of

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SqliteStore(sys.argv[1], secret_if_new=bytes(32))
number = store.open(bytes(32), new_epoch=7, recent_max=0).number
head = 0

def publish(count, mark):
    global head
    records = [Record(head + i, 1, bytes(16), i, mark * 300) for i in range(1, count + 1)]
    store.commit(Batch(runs=[(number, run_of(records))]))
    head += count

publish(10, b"a")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
refused = 0
while refused < 3:
    try:
        publish(50, b"b")
    except StoreUnavailable:
        refused += 1
        assert store.heads([number]) == {number: head}
before = head
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
publish(500, b"c")
assert [record.seq for record in store.read(number, 0, 1 << 30)] == list(range(1, head + 1))
print(before, head, flush=True)
signal.pause()
"""


@pytest.mark.process
def test_a_write_error_of_the_system_and_kill_9_after_it(tmp_path: Path) -> None:
    path = str(tmp_path / "r.db")
    with subprocess.Popen([sys.executable, "-c", DISK_FULL, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            before, head = map(int, process.stdout.readline().split())
        finally:
            process.send_signal(signal.SIGKILL)
    assert before >= 10
    store = make(Path(path))
    state = store.open(bytes(32), new_epoch=0, recent_max=0)
    assert (state.epoch, state.head, state.first) == (7, head, 1)
    assert [record.frame[:1] for record in store.read(1, before, PLENTY)] == [b"c"] * 500
    store.close()


# -- two threads, checkpoints, age -------------------------------------------------------------------


def test_reading_while_committing_sees_whole_batches(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db", wal_bytes_max=20_000)
    one, two = number_of(store, b"a"), number_of(store, b"b")
    rounds = 60
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for index in range(rounds):
                first = 1 + 4 * index
                added = records(first, first + 3)
                store.commit(batch(records=[(one, added), (two, added)], trims=[(one, first - 100)]))
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while seen < 4 * rounds and not failures:
        seqs = [record.seq for record in store.read(two, 0, PLENTY)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) % 4 == 0
        assert len(seqs) >= seen
        state = store.open(b"a".ljust(32), new_epoch=0, recent_max=3)
        assert [seq for _, _, seq in state.recent] == list(range(state.head - 2, state.head + 1))[-state.head or 3 :]
        assert state.head >= len(seqs)
        seen = len(seqs)
    writer.join()
    assert not failures
    store.close()


def test_the_wal_starts_over(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db", wal_bytes_max=50_000)
    number = number_of(store, b"a")
    for index in range(200):
        store.commit(batch(records=[(number, records(1 + 8 * index, 8 + 8 * index))]))
    assert os.path.getsize(tmp_path / "r.db-wal") < 200_000
    assert os.path.getsize(tmp_path / "r.db") > 400_000
    store.close()


def test_much_to_expire_goes_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.sqlite._EXPIRE_RUNS_MAX", 10)
    monkeypatch.setattr("relay.store.sqlite._EXPIRE_RUNS_PER_COMMIT", 5)
    store = make(tmp_path / "r.db")
    number = number_of(store, b"a")
    for seq in range(1, 24):
        store.commit(batch(records=[(number, records(seq, seq, at_ns=seq))]))
    assert store.expire(21) == [(number, 11)]
    assert store.commit(Batch()) == [(number, 16)]
    assert store.commit(batch(records=[(number, records(24, 24, at_ns=24))])) == [(number, 21)]
    assert store.commit(Batch()) == []
    assert store.expire(24) == [(number, 24)]
    store.close()


# -- erasing -----------------------------------------------------------------------------------------


class Secretive:
    """Records of which each part can be found in a file, if it is there."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.traces: set[bytes] = set()

    def record(self, seq: int) -> Record:
        frame = self.random.randbytes(self.random.choice([20, 290, 290, 290, 1_200]))
        handle = self.random.randbytes(HANDLE_BYTES)
        id_ = self.random.getrandbits(64)
        self.traces |= {frame[start : start + 8] for start in range(0, len(frame) - 7, 4)}
        self.traces |= {handle[:8], handle[8:], id_.to_bytes(8, "big"), id_.to_bytes(8, "little")}
        return Record(seq, seq, handle, id_, frame)


def traces_in(directory: Path, traces: set[bytes]) -> int:
    found = 0
    for path in directory.iterdir():
        content = path.read_bytes()
        found += len(traces & {content[start : start + 8] for start in range(len(content) - 7)})
    return found


@pytest.mark.parametrize("seed", range(3))
def test_erased_is_gone_from_every_file_however_pages_were_moved_about(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = make(tmp_path / "r.db", wal_bytes_max=30_000)
    numbers = [number_of(store, bytes([index])) for index in range(12)]
    owners = {number: Secretive(seed * 100 + number) for number in numbers}
    heads = dict.fromkeys(numbers, 0)
    for _ in range(60):
        made = Batch()
        for number in chance.sample(numbers, 6):
            added = [owners[number].record(heads[number] + 1 + index) for index in range(chance.randint(1, 4))]
            heads[number] += len(added)
            made.runs.append((number, run_of(added)))
            made.acks.append((number, added[-1].handle, heads[number]))
            if chance.random() < 0.4:
                made.trims.append((number, chance.randint(0, heads[number])))
        store.commit(made)
        if chance.random() < 0.1:
            store.expire(chance.randint(0, min(heads.values()) + 5))
    live = numbers[-1]
    while numbers[:-1]:
        number = numbers.pop(0)
        assert traces_in(tmp_path, owners[number].traces), "it was there"
        store.erase(number, 99)
        assert traces_in(tmp_path, owners[number].traces) == 0
    kept = store.read(live, 0, PLENTY)
    assert [record.seq for record in kept] == list(range(heads[live] + 1 - len(kept), heads[live] + 1))
    store.close()


def test_erase_says_so_when_a_reader_keeps_the_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.sqlite.BUSY_S", 0.0)
    store = make(tmp_path / "r.db")
    number = number_of(store, b"a")
    store.commit(batch(records=[(number, records(1, 9, frame=b"ERASE-ME" * 40))]))
    reader = sqlite3.connect(tmp_path / "r.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM stream").fetchall()
    with pytest.raises(StoreUnavailable, match="erase again"):
        store.erase(number, 8)
    reader.close()
    store.erase(number, 9)
    assert b"ERASE-ME" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.close()


# -- runs --------------------------------------------------------------------------------------------


def test_runs_round_trip() -> None:
    chance = random.Random(1)
    for count in (1, 2, 30):
        kept = [
            Record(seq, count, chance.randbytes(16), chance.getrandbits(64), chance.randbytes(seq * 7))
            for seq in range(5, 5 + count)
        ]
        assert unpack_run(5, 4 + count, pack_run(run_of(kept))).records() == kept


def test_only_the_zeros_in_front_of_a_run_stay_in_the_b_tree_page(tmp_path: Path) -> None:
    # Reads the file as the file format says: page types 2, 5, 10 and 13 are B-tree pages.
    database = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    database.execute(f"PRAGMA page_size={PAGE_BYTES}")
    database.execute("CREATE TABLE body (row INTEGER PRIMARY KEY, blob BLOB)")
    lengths = [*range(40, 1_200, 7), *range(8_100, 8_300), *range(1_048_500, 1_048_620, 9), 4_194_304]
    database.execute("BEGIN")
    for length in lengths:
        padded = blob_bytes(length)
        assert length <= padded < length + PAGE_BYTES + 40
        database.execute("INSERT INTO body (blob) VALUES (?)", (bytes(39) + b"S" * (padded - 39),))
    database.execute("COMMIT")
    database.close()
    content = (tmp_path / "x.db").read_bytes()
    pages = [content[start : start + PAGE_BYTES] for start in range(PAGE_BYTES, len(content), PAGE_BYTES)]
    leaves = [page for page in pages if page[0] in (2, 5, 10, 13)]
    assert leaves
    assert not [page for page in leaves if b"SS" in page]
