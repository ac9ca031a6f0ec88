"""The store in a SQLite file: what was committed survives kill -9 and power loss (WAL, synchronous=FULL).

One writer connection, one reader connection. The records that a batch adds to a stream are one row, see
relay/store/runs.py, and rows go in by statements of many rows: every step of a statement gives up the interpreter
lock and has to win it back from the event loop. Checkpoints are made between commits, when the WAL has grown.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

import msgspec

from relay.errors import ConfigurationError, StoreUnavailable
from relay.limits import STREAM_NUMBER_MAX
from relay.store import statements
from relay.store.base import SECRET_BYTES, Batch, Record, StoreStatistics, StreamState
from relay.store.runs import PAGE_BYTES, pack_handle, pack_run, unpack_handle, unpack_run

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x524D524B
"""Tells the file apart from other SQLite databases ("RMRK")."""

_INTEGER_MAX: Final = 2**63 - 1

# Many rows in one statement; each of these sizes is one prepared statement.
_ROWS_PER_STATEMENT: Final = (256, 64, 16, 4, 1)

WAL_BYTES_MAX: Final = 2_097_152
"""Past this the WAL is copied into the database, some ten milliseconds in which the next batch gathers. Sizes from
1 to 16 MiB gave about the same throughput, larger ones a longer wait."""
_WAL_FILE_FACTOR: Final = 16
"""A reader can keep the WAL from starting over; past this many times its size commits wait for that reader."""
CACHE_BYTES: Final = 33_554_432
"""Page cache of the writer. The reader's stays at SQLite's default of 2 MB."""
BUSY_S: Final = 5.0
"""How long a checkpoint waits for the reader."""
_EXPIRE_RUNS_MAX: Final = 2_048
"""Runs forgotten in one call, some 50 ms: commits wait for it."""
_EXPIRE_RUNS_PER_COMMIT: Final = 32
"""Records that each commit forgets of what is left, besides twice what it added, so that forgetting keeps up."""


class SqliteStore:
    """Keeps records in the file `path` until they are trimmed or expire."""

    instant = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        secret_if_new: bytes,
        wal_bytes_max: int = WAL_BYTES_MAX,
        file_bytes_max: int | None = None,
    ) -> None:
        """Open or make the database. `file_bytes_max` bounds its file; a commit that does not fit is refused.

        Raises ConfigurationError: not writable, not a database, of another schema, or in use by another relay.
        """
        assert len(secret_if_new) == SECRET_BYTES
        self._path = os.path.abspath(os.fspath(path))
        self._wal_bytes_max = wal_bytes_max
        self._lock_fd = _claim(self._path)
        connections: list[sqlite3.Connection] = []
        try:
            self._writer = _connect(self._path, connections)
            self.secret = _prepare(self._writer, self._path, secret_if_new)
            if file_bytes_max is not None:
                self._writer.execute(f"PRAGMA max_page_count={max(file_bytes_max // PAGE_BYTES, 1)}")
            self._reader = _connect(self._path, connections)
            self._reader.execute("PRAGMA query_only=ON")
            streams, newest = self._writer.execute("SELECT count(*), coalesce(max(number), 0) FROM stream").fetchone()
            (row,) = self._writer.execute("SELECT coalesce(max(row), 0) FROM body").fetchone()
        except BaseException as error:
            for connection in connections:
                connection.close()
            os.close(self._lock_fd)
            if isinstance(error, sqlite3.Error):
                raise ConfigurationError(
                    [f"the store {self._path} cannot be used ({error}): {_remedy(error)}"]
                ) from error
            raise
        self._streams: int = streams
        self._next_number: int = newest + 1
        self._row: int = row
        # Streams that were opened but have nothing committed yet: key -> number, number -> (key, epoch).
        self._unwritten_numbers: dict[bytes, int] = {}
        self._unwritten: dict[int, tuple[bytes, int]] = {}
        self._unwritten_lock = threading.Lock()
        self._wal_bytes = 0
        self._expire_before_ns: int | None = None
        self._commits = 0
        self._commit_failures = 0
        self._trimmed = 0
        self._closed = False

    # -- the reader's thread -------------------------------------------------------------------------

    def open(self, key: bytes, *, new_epoch: int, recent_max: int) -> StreamState:
        reader = self._reader
        try:
            # A transaction, so that head, records and acknowledgements are of one moment. Numbers are looked up before
            # it begins: a stream that leaves `_unwritten` is in the database by then.
            with self._unwritten_lock:
                number = self._unwritten_numbers.get(key)
                epoch = new_epoch if number is None else self._unwritten[number][1]
            reader.execute("BEGIN")
            try:
                row = reader.execute(statements.STATE, (key,)).fetchone()
                if row is None:
                    return StreamState(self._number_new(key, epoch), epoch, 0, 1, [], {})
                number, signed_epoch, head, first = row
                recent = self._recent(number, recent_max)
                acks = reader.execute("SELECT handle, upto FROM ack WHERE number = ?", (number,)).fetchall()
            finally:
                reader.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"cannot read: {error}") from error
        acknowledged = {unpack_handle(handle): upto for handle, upto in acks}
        return StreamState(number, _unsigned(signed_epoch), head, first, recent, acknowledged)

    def release(self, number: int) -> None:
        with self._unwritten_lock:
            unwritten = self._unwritten.pop(number, None)
            if unwritten is not None:
                del self._unwritten_numbers[unwritten[0]]
                self._streams -= 1

    def _number_new(self, key: bytes, epoch: int) -> int:
        with self._unwritten_lock:
            number = self._unwritten_numbers.get(key)
            if number is None:
                number = self._next_number
                if number > STREAM_NUMBER_MAX:
                    raise StoreUnavailable("no stream numbers are left")
                self._next_number += 1
                self._unwritten_numbers[key] = number
                self._unwritten[number] = (key, epoch)
                self._streams += 1
            return number

    def _recent(self, number: int, recent_max: int) -> list[tuple[bytes, int, int]]:
        recent: list[tuple[bytes, int, int]] = []
        if recent_max > 0:
            cursor = self._reader.execute(statements.RUNS_BACKWARDS, (number,))
            for first, last, blob in cursor:
                run = unpack_run(first, last, blob)
                recent += list(zip(run.handles, run.ids, range(first, last + 1), strict=True))[::-1]
                if len(recent) >= recent_max:
                    break
            cursor.close()
        del recent[recent_max:]
        recent.reverse()
        return recent

    def read(self, number: int, after: int, bytes_max: int) -> list[Record]:
        found: list[Record] = []
        frame_bytes = 0
        try:
            cursor = self._reader.execute(statements.RUNS_AFTER, (number, after, number, after + 1))
            for first, last, blob in cursor:
                for record in unpack_run(first, last, blob).records(after):
                    found.append(record)
                    frame_bytes += len(record.frame)
                    if frame_bytes >= bytes_max:
                        cursor.close()  # or its snapshot would keep the WAL from starting over
                        return found
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"cannot read: {error}") from error
        return found

    # -- the writer's thread -------------------------------------------------------------------------

    def commit(self, batch: Batch) -> list[tuple[int, int]]:
        if self._wal_bytes > self._wal_bytes_max:
            self._checkpoint()
        row = self._row
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            written = self._write(batch)
            forgotten = self._forget(batch.trims) if batch.trims else []
            if self._expire_before_ns is not None:
                forgotten += self._expire_some(_EXPIRE_RUNS_PER_COMMIT + 2 * len(batch.runs))
            self._writer.execute("COMMIT")
        except BaseException as error:
            self._row = row
            self._commit_failures += 1
            self._roll_back()
            if _is_ours(error):
                raise
            raise StoreUnavailable(f"cannot commit: {error}") from error
        if written:
            with self._unwritten_lock:
                for number in written:
                    key, _ = self._unwritten.pop(number)
                    del self._unwritten_numbers[key]
        self._commits += 1
        self._count(forgotten)
        # A stream may be in it twice, trimmed and then expired; the later word counts.
        return list({number: first for number, _, first in forgotten}.items())

    def _write(self, batch: Batch) -> list[int]:
        written = []
        if self._unwritten:
            numbers = {number for number, _ in batch.runs} | {number for number, _, _ in batch.acks}
            with self._unwritten_lock:
                written = sorted(numbers & self._unwritten.keys())
                rows = [
                    (number, key, _signed(epoch), 0) for number in written for key, epoch in (self._unwritten[number],)
                ]
            self._insert("stream", 4, rows)
        if batch.runs:
            bodies = []
            spans = []
            row = self._row
            for number, run in batch.runs:
                row += 1
                blob = pack_run(run)
                bodies.append((row, blob))
                spans.append((number, run.first, run.last, run.at_ns, row))
                self._wal_bytes += len(blob)
            self._row = row
            self._insert("body", 2, bodies)
            self._insert("span", 5, spans)
        if batch.acks:
            acks = [
                (number, self._member(handle), min(upto, _INTEGER_MAX), pack_handle(handle))
                for number, handle, upto in batch.acks
            ]
            self._insert("ack", 4, acks, statements.ACK)
        # An estimate: beside the blobs each row changes about two pages.
        self._wal_bytes += 2 * PAGE_BYTES * (len(batch.runs) + len(batch.acks)) + 4 * PAGE_BYTES
        return written

    def _insert(self, table: str, columns: int, rows: Sequence[tuple[Any, ...]], tail: str = "") -> None:
        start = 0
        for size in _ROWS_PER_STATEMENT:
            while len(rows) - start >= size:
                statement = statements.insert(table, columns, size, tail)
                self._writer.execute(statement, [value for row in rows[start : start + size] for value in row])
                start += size

    def _member(self, handle: bytes) -> int:
        """Return what stands for a handle in keys, which B-trees move about: it tells nothing without the secret."""
        digest = blake2b(handle, digest_size=8, key=self.secret, person=b"relaymark.member").digest()
        return int.from_bytes(digest, "big", signed=True)

    def _forget(self, pairs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
        """Delete records up to `upto` of each stream. Returns (number, old first, new first) where any went."""
        execute = self._writer.execute
        old = execute(statements.OLD_FIRSTS, (_json(pairs),)).fetchall()
        if not old:
            return []
        firsts = {number: first for number, _, first in old}
        upto_max: dict[int, int] = {}
        for number, upto, _ in old:
            upto_max[number] = max(upto, upto_max.get(number, 0))
        todo = (_json(list(upto_max.items())),)
        # Before the rows that tell the head go.
        execute(statements.KEEP_HEADS, todo)
        for number, upto, first, last, row, blob in execute(statements.STRADDLING, todo).fetchall():
            kept = pack_run(unpack_run(first, last, blob).behind(upto))
            execute("UPDATE body SET blob = ? WHERE row = ?", (kept, row))
            execute("UPDATE span SET first = ? WHERE number = ? AND first = ?", (upto + 1, number, first))
        execute(statements.FORGET_BODIES, todo)
        execute(statements.FORGET_SPANS, todo)
        self._wal_bytes += 4 * PAGE_BYTES * len(old)
        return [(number, firsts[number], first) for number, first in execute(statements.NEW_FIRSTS, todo).fetchall()]

    def _expire_some(self, runs_max: int) -> list[tuple[int, int, int]]:
        expired = self._writer.execute(statements.EXPIRED, (self._expire_before_ns, runs_max)).fetchall()
        if sum(runs for _, _, runs in expired) < runs_max:
            self._expire_before_ns = None
        return self._forget([(number, upto) for number, upto, _ in expired]) if expired else []

    def heads(self, numbers: list[int]) -> dict[int, int]:
        try:
            rows = self._writer.execute(statements.HEADS, (_json(numbers),)).fetchall()
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"cannot read: {error}") from error
        return dict.fromkeys(numbers, 0) | dict(rows)

    def expire(self, before_ns: int) -> list[tuple[int, int]]:
        self._expire_before_ns = before_ns
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            forgotten = self._expire_some(_EXPIRE_RUNS_MAX)
            self._writer.execute("COMMIT")
        except BaseException as error:
            self._roll_back()
            if _is_ours(error):
                raise
            raise StoreUnavailable(f"cannot forget: {error}") from error
        self._count(forgotten)
        return [(number, first) for number, _, first in forgotten]

    def erase(self, number: int, new_epoch: int) -> None:
        with self._unwritten_lock:
            if number in self._unwritten:
                self._unwritten[number] = (self._unwritten[number][0], new_epoch)
                return
        execute = self._writer.execute
        try:
            execute("BEGIN IMMEDIATE")
            for statement in statements.ERASE:
                execute(statement, (number,))
            execute("UPDATE stream SET epoch = ?, head = 0 WHERE number = ?", (_signed(new_epoch), number))
            execute("COMMIT")
            # The WAL still holds the old pages. Waits for the reader, whose transactions are short.
            if not self._truncate_wal():
                raise StoreUnavailable("erased, but not yet from the WAL: a reader is in the way; erase again")
        except sqlite3.DatabaseError as error:
            self._roll_back()
            raise StoreUnavailable(f"cannot erase: {error}") from error

    def _count(self, forgotten: list[tuple[int, int, int]]) -> None:
        for _, old_first, first in forgotten:
            self._trimmed += first - old_first

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        # If the WAL took the whole batch and only its fsync failed, a crash now would bring the batch back. Emptying
        # the WAL prevents it and gives space back; where that fails too, a small write takes the batch's place.
        with suppress(sqlite3.Error):
            if self._truncate_wal():
                return
        with suppress(sqlite3.Error):
            self._writer.execute("UPDATE meta SET value = value + 1 WHERE name = 'failures'")

    def _checkpoint(self) -> None:
        # A failure is not the batch's: what it holds was committed before, and the WAL keeps it. Tried again soon.
        with suppress(sqlite3.Error):
            if os.path.getsize(f"{self._path}-wal") > _WAL_FILE_FACTOR * self._wal_bytes_max:
                self._truncate_wal()
            else:
                self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._wal_bytes = 0

    def _truncate_wal(self) -> bool:
        busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            self._wal_bytes = 0
        return not busy

    # -- any thread ----------------------------------------------------------------------------------

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._reader.close()
        with suppress(sqlite3.Error):
            self._truncate_wal()
        self._writer.close()
        os.close(self._lock_fd)

    def statistics(self) -> StoreStatistics:
        held_bytes = 0
        for suffix in ("", "-wal"):
            with suppress(OSError):
                held_bytes += os.path.getsize(self._path + suffix)
        return StoreStatistics(
            streams=self._streams,
            records=None,
            held_bytes=held_bytes,
            commits=self._commits,
            commit_failures=self._commit_failures,
            trimmed=self._trimmed,
        )


def _claim(path: str) -> int:
    """Lock `path`.lock for this process: two relays on one file would number records twice. Returns its descriptor."""
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            [f"the store {path} cannot be used ({error.strerror}): name a file in a writable directory"]
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Made here, so that only its owner can read the secret in it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise ConfigurationError([f"another relay uses the store {path}: give each relay its own"]) from error
        raise ConfigurationError(
            [f"the store {path} cannot be used ({error.strerror}): name a writable file"]
        ) from error
    return descriptor


def _connect(path: str, connections: list[sqlite3.Connection]) -> sqlite3.Connection:
    # Threads are checked by nobody: the contract gives each connection to one.
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connections.append(connection)
    return connection


def _prepare(writer: sqlite3.Connection, path: str, secret_if_new: bytes) -> bytes:
    """Set the writer's connection up, make the schema where the file is new, and return the store's secret."""
    execute = writer.execute
    (version,) = execute("PRAGMA user_version").fetchone()
    (application,) = execute("PRAGMA application_id").fetchone()
    (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
    is_new = not (version or application or tables)
    if not is_new and application != APPLICATION_ID:
        raise ConfigurationError([f"{path} is the database of another program: name a file of the relay's own"])
    if not is_new and version != SCHEMA_VERSION:
        raise ConfigurationError(
            [
                f"the store {path} has schema {version}, not {SCHEMA_VERSION}: use the release that wrote it or another file"
            ]
        )
    if is_new:
        execute(f"PRAGMA page_size={PAGE_BYTES}")
    (mode,) = execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise ConfigurationError([f"the store {path} cannot have a write-ahead log: name a file on a local disk"])
    settings = ("synchronous=FULL", "secure_delete=ON", "wal_autocheckpoint=0", f"cache_size={-CACHE_BYTES // 1024}")
    for setting in settings:
        execute(f"PRAGMA {setting}").fetchall()
    if is_new:
        execute("BEGIN IMMEDIATE")
        for statement in statements.SCHEMA:
            execute(statement)
        execute("INSERT INTO meta VALUES ('secret', ?), ('failures', 0)", (secret_if_new,))
        execute(f"PRAGMA application_id={APPLICATION_ID}")
        execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        execute("COMMIT")
    (secret,) = execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()
    return bytes(secret)


def _remedy(error: sqlite3.Error) -> str:
    if "not a database" in str(error):
        return "it is no database of the relay's; name another file, or move this one away"
    if "malformed" in str(error):
        return "it is damaged; restore it from a backup, or move it away to begin with an empty store"
    return "check that the file and its directory are writable and that the disk has space"


def _is_ours(error: BaseException) -> bool:
    """Whether it is a bug of ours, or a request to stop, and not the disk's fault."""
    return not isinstance(error, sqlite3.DatabaseError) or isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def _json(value: Sequence[Any]) -> str:
    return msgspec.json.encode(value).decode()


# SQLite's integers have a sign, an epoch on the wire has none.


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _unsigned(value: int) -> int:
    return value & (1 << 64) - 1


__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "SqliteStore"]
