"""The store in a SQLite file: what was committed survives kill -9 and power loss (WAL, synchronous=FULL).

One writer connection and one reader connection, each for one thread. The records that a batch adds to a stream are one
row. Checkpoints are made between commits, when the write-ahead log has grown, and wait for nobody.

    opening, files, wal     is it ours, is it whole, is it still there
    reading                 open, read: everything is checked
    writing, states         commit, within the bounds of space
    forgetting              by number, by age, and beyond recovery
    runs, statements        what rows hold, and the SQL
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from relay.errors import ConfigurationError
from relay.limits import STORE_BYTES_MAX, STREAM_BYTES_MAX
from relay.store.base import SECRET_BYTES, Batch, Committed, Record, StoreStatistics, StreamState
from relay.store.files import StoreFiles
from relay.store.opening import connect, meta, prepare, remedy, renew_epochs
from relay.store.reading import Damage, Reader
from relay.store.unwritten import UnwrittenStreams
from relay.store.writing import BUSY_S, Writer

WAL_BYTES_MAX: Final = 2_097_152
"""Past this the log is copied into the database, some ten milliseconds in which the next batch gathers. Sizes from
1 to 16 MiB gave about the same throughput, larger ones a longer wait."""


class SqliteStore:
    """Keeps records in the file `path` until they are trimmed or expire."""

    instant = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        secret_if_new: bytes,
        wal_bytes_max: int = WAL_BYTES_MAX,
        file_bytes_max: int = STORE_BYTES_MAX,
        stream_bytes_max: int = STREAM_BYTES_MAX,
    ) -> None:
        """Open or make the database. Runs that would take it, or their stream, above a bound are not taken.

        Raises ConfigurationError: not writable, not a database, of another schema, damaged, readable by others, or in use
        by another relay.
        """
        assert len(secret_if_new) == SECRET_BYTES
        self._files = StoreFiles(path)
        self._file_bytes_max = file_bytes_max
        self._damage = Damage()
        self._closed = False
        connections: list[sqlite3.Connection] = []
        path = self._files.path
        try:
            log_is_damaged = self._files.log_is_damaged()
            writer = connect(path, BUSY_S, connections)
            self.secret = prepare(writer, path, secret_if_new)
            self._files.check_modes()
            new_generation = int.from_bytes(os.urandom(8), "big")
            generation, self._notices = renew_epochs(writer, self._files.home, new_generation, log_is_damaged)
            swept_ns = meta(writer, "swept_ns")
            self._swept_ns = swept_ns if isinstance(swept_ns, int) else None
            reader = connect(path, BUSY_S, connections)
            reader.execute("PRAGMA query_only=ON")
            (newest,) = writer.execute("SELECT coalesce(max(number), 0) FROM stream").fetchone()
            self._unwritten = UnwrittenStreams(newest + 1)
            self._reader = Reader(reader, self._unwritten, generation, self._damage)
            self._writer = Writer(
                writer,
                self._reader,
                self._unwritten,
                self._files,
                self._damage,
                secret=self.secret,
                generation=generation,
                wal_bytes_max=wal_bytes_max,
                file_bytes_max=file_bytes_max,
                stream_bytes_max=stream_bytes_max,
            )
            self._files.reserve()
            self._files.watch()
        except BaseException as error:
            for connection in connections:
                connection.close()
            self._files.close()
            if isinstance(error, sqlite3.Error):
                raise ConfigurationError([f"the store {path} cannot be used ({error}): {remedy(error)}"]) from error
            raise
        self._connections = connections

    # -- the reader's thread -------------------------------------------------------------------------

    def open(self, key: bytes, *, new_epoch: int, recent_max: int) -> StreamState:
        return self._reader.open(key, new_epoch, recent_max)

    def read(self, number: int, after: int, bytes_max: int) -> list[Record]:
        return self._reader.read(number, after, bytes_max)

    def release(self, number: int) -> None:
        self._reader.release(number)

    # -- the writer's thread -------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Committed:
        return self._writer.commit(batch)

    def expire(self, before_ns: int, now_ns: int) -> list[tuple[int, int]]:
        forgotten = self._writer.expire(before_ns, now_ns)
        self._swept_ns = now_ns
        return forgotten

    def erase(self, erasures: list[tuple[int, int]]) -> list[tuple[int, bool | None]]:
        return self._writer.erase(erasures)

    def tidy(self) -> list[tuple[int, int]]:
        return self._writer.tidy()

    # -- any thread ----------------------------------------------------------------------------------

    @property
    def fault(self) -> str | None:
        return self._writer.fault

    @property
    def swept_ns(self) -> int | None:
        return self._swept_ns

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        for connection in reversed(self._connections):
            connection.close()
        self._files.close()

    def notices(self) -> list[str]:
        found, self._notices = self._notices, []
        while self._writer.notices:
            found.append(self._writer.notices.popleft())
        return found

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            streams=self._writer.streams + self._unwritten.new,
            records=None,
            held_bytes=sum(self._files.sizes()),
            commits=self._writer.commits,
            commit_failures=self._writer.commit_failures,
            trimmed=self._writer.trimmed,
            damaged=self._damage.rows,
            full=self._writer.full,
            held_bytes_max=self._file_bytes_max,
        )
