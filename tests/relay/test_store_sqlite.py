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
from contextlib import closing
from pathlib import Path

import pytest
from batches import batch

from relay.errors import ConfigurationError
from relay.limits import HANDLE_BYTES
from relay.store import Batch, Record, SqliteStore, run_of
from relay.store.opening import SCHEMA_VERSION
from relay.store.runs import PAGE_BYTES

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
    store.expire(99, 10**18)
    store.close()
    store = make(tmp_path / "r.db")
    assert [store.open(key.ljust(32), new_epoch=0, recent_max=0).head for key in (b"a", b"b")] == [5, 4]
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
    assert "name a writable file in a writable directory" in refusal(tmp_path / "missing" / "r.db")
    assert "name a writable file in" in refusal(tmp_path)


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


def test_a_full_store_refuses_what_does_not_fit_and_takes_what_frees_space(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db", file_bytes_max=100 * PAGE_BYTES)
    one, two = number_of(store, b"a"), number_of(store, b"b")
    store.commit(batch(records=[(one, records(1, 20))]))
    committed = store.commit(batch(records=[(one, records(21, 500)), (two, records(1, 2))], acks=[(one, b"h" * 16, 1)]))
    assert (committed.full, committed.damaged) == ([one], [])
    assert store.statistics().full == 1
    assert [record.seq for record in store.read(one, 0, PLENTY)] == list(range(1, 21))
    assert store.read(two, 0, PLENTY) == records(1, 2)
    seq = 2
    while not store.commit(batch(records=[(two, records(seq + 1, seq + 1))])).full:
        seq += 1
    assert 20 < seq < 90
    assert store.commit(Batch(trims=[(one, 20)])).forgotten == [(one, 21)]
    assert store.commit(batch(records=[(one, records(21, 30))])).full == []
    assert store.erase([(two, 9)]) == [(two, True)]
    assert store.commit(batch(records=[(two, records(1, 5))])).full == []
    store.close()
    store = make(tmp_path / "r.db")
    number_of(store, b"a")
    assert store.read(one, 0, PLENTY) == records(21, 30)
    assert store.open(b"a".ljust(32), new_epoch=0, recent_max=0).acks == {b"h" * 16: 1}
    store.close()


def test_a_stream_has_a_bound_of_its_own(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db", stream_bytes_max=20_000)
    one, two = number_of(store, b"a"), number_of(store, b"b")
    seq = 0
    while not store.commit(batch(records=[(one, records(seq + 1, seq + 4))])).full:
        seq += 4
    assert 20 < seq < 60
    assert store.commit(batch(records=[(two, records(1, 4))])).full == []
    store.close()
    store = make(tmp_path / "r.db", stream_bytes_max=20_000)
    number_of(store, b"a")
    assert store.commit(batch(records=[(one, records(seq + 1, seq + 4))])).full == [one], "it is known after a restart"
    assert store.commit(Batch(trims=[(one, 10)])).full == []
    assert store.commit(batch(records=[(one, records(seq + 1, seq + 4))])).full == []
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
    if store.commit(Batch(runs=[(number, run_of(records))])).full:
        raise StoreUnavailable("full")
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
        assert store.open(bytes(32), new_epoch=0, recent_max=0).head == head
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
    monkeypatch.setattr("relay.store.forgetting.RUNS_MAX", 10)
    monkeypatch.setattr("relay.store.forgetting.RUNS_PER_COMMIT", 5)
    store = make(tmp_path / "r.db")
    number = number_of(store, b"a")
    for seq in range(1, 24):
        store.commit(batch(records=[(number, records(seq, seq, at_ns=seq))]))
    assert store.expire(21, 10**18) == [(number, 11)]
    assert store.commit(Batch()).forgotten == [(number, 16)]
    assert store.commit(batch(records=[(number, records(24, 24, at_ns=24))])).forgotten == [(number, 21)]
    assert store.commit(Batch()).forgotten == []
    assert store.expire(24, 10**18) == [(number, 24)]
    store.close()


def test_what_was_forgotten_leaves_the_log_of_a_quiet_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path / "r.db")
    number = number_of(store, b"a")
    store.commit(batch(records=[(number, records(1, 4, frame=b"TRIM-ME!" * 40, at_ns=5))]))
    store.commit(batch(records=[(number, records(5, 8, frame=b"TRIM-ME!" * 40, at_ns=5))]))
    store.commit(batch(records=[(number, records(9, 9, at_ns=50))]))
    store.commit(Batch(trims=[(number, 6)]))
    store.expire(20, 10**18)
    clock = iter([1_000.0, 1_014.0, 1_015.0])
    monkeypatch.setattr("relay.store.writing.monotonic", lambda: next(clock))

    def held() -> bool:
        return b"TRIM-ME!" in b"".join(path.read_bytes() for path in tmp_path.iterdir())

    for expected in (True, True, False):
        store.tidy()
        assert held() is expected
    assert store.read(number, 0, PLENTY) == records(9, 9, at_ns=50)
    store.close()


def test_streams_that_hold_nothing_are_forgotten_with_age(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    old, young, used, held = (number_of(store, key) for key in (b"old", b"young", b"used", b"held"))
    for number, at_ns in ((old, 5), (young, 50), (used, 5), (held, 5)):
        store.commit(
            batch(records=[(number, records(1, 2, at_ns=at_ns))], acks=[(number, b"h" * 16, 1)], trims=[(number, 2)])
        )
    store.commit(batch(records=[(held, records(3, 3, at_ns=60))]))
    for number in (old, young, held):
        store.release(number)
    store.expire(20, 10**18)
    assert store.statistics().streams == 3
    states = [store.open(key.ljust(32), new_epoch=99, recent_max=0) for key in (b"old", b"young", b"used", b"held")]
    assert [(state.epoch, state.head, len(state.acks)) for state in states] == [
        (99, 0, 0),
        (7, 2, 1),
        (7, 2, 1),
        (7, 3, 1),
    ]
    assert states[0].number not in (old, young, used, held)
    store.close()


def test_a_stamp_from_when_the_clock_was_ahead_does_not_hold_up_the_others(tmp_path: Path) -> None:
    store = make(tmp_path / "r.db")
    ahead, right = number_of(store, b"a"), number_of(store, b"b")
    store.commit(batch(records=[(ahead, records(1, 2, at_ns=10**15))]))
    store.commit(batch(records=[(right, records(1, 2, at_ns=5))]))
    store.commit(batch(records=[(right, records(3, 3, at_ns=500))]))
    assert store.expire(100, 1_000) == [(right, 3)]
    assert store.read(ahead, 0, PLENTY) == records(1, 2, at_ns=10**15)
    assert store.swept_ns == 1_000
    store.close()
    store = make(tmp_path / "r.db")
    assert store.swept_ns == 1_000, "over a restart"
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


def octets_in(directory: Path) -> set[bytes]:
    """Return all that stands in eight bytes anywhere in the files."""
    found: set[bytes] = set()
    for path in directory.iterdir():
        content = path.read_bytes()
        found.update({content[start : start + 8] for start in range(len(content) - 7)})
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
            store.expire(chance.randint(0, min(heads.values()) + 5), 10**18)
    live = numbers[-1]
    octets = octets_in(tmp_path)
    while numbers[:-1]:
        erased = [numbers.pop(0) for _ in range(min(3, len(numbers) - 1))]
        traces = set[bytes]().union(*(owners[number].traces for number in erased))
        assert octets & traces, "it was there"
        assert store.erase([(number, 99) for number in erased]) == [(number, True) for number in erased]
        octets = octets_in(tmp_path)
        assert not octets & traces
    kept = store.read(live, 0, PLENTY)
    assert [record.seq for record in kept] == list(range(heads[live] + 1 - len(kept), heads[live] + 1))
    store.close()


def test_much_is_erased_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.forgetting.ERASED_RUNS_MAX", 10)
    store = make(tmp_path / "r.db")
    one, two = number_of(store, b"a"), number_of(store, b"b")
    for seq in range(1, 26):
        store.commit(batch(records=[(one, records(seq, seq))]))
    assert store.erase([(one, 8)]) == [(one, None)]
    assert [record.seq for record in store.read(one, 0, PLENTY)] == list(range(11, 26)), "the oldest go first"
    assert store.commit(batch(records=[(two, records(1, 1))])).damaged == [], "others come in between"
    assert store.erase([(one, 8)]) == [(one, None)]
    assert store.erase([(one, 8)]) == [(one, True)]
    state = store.open(b"a".ljust(32), new_epoch=0, recent_max=0)
    assert (state.epoch, state.head) == (8, 0)
    store.close()


def test_an_erasure_waits_for_a_reader_from_outside_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path / "r.db")
    number = number_of(store, b"a")
    store.commit(batch(records=[(number, records(1, 9, frame=b"ERASE-ME" * 40))]))
    with closing(sqlite3.connect(tmp_path / "r.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM stream").fetchall()
        assert store.erase([(number, 8)]) == []
        assert store.erase([(number, 8)]) == []
        monkeypatch.setattr("relay.store.writing.ERASE_PURGE_S", 0.0)
        assert store.erase([(number, 8)]) == [(number, True)]
        assert "was erased is in its log until" in store.notices()[0]
        assert store.read(number, 0, PLENTY) == []
    monkeypatch.setattr("relay.store.writing.PURGE_S", 0.0)
    store.tidy()
    assert b"ERASE-ME" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    store.close()
