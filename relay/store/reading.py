"""The reader of the SQLite store: what it gives was checked. What is damaged is left out, noted, and ends nothing.

A run that is not what was stored, that cannot be read, or that is missing is a hole: `read` gives what comes before it, and
the next time what comes behind it, so that the client is told of a gap. A stream whose state is damaged goes on in a new
epoch from its newest whole run: which numbers it had given is not known any more.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, TypeAlias
from zlib import crc32

from relay.errors import StoreUnavailable
from relay.limits import HANDLE_BYTES
from relay.store import statements
from relay.store.base import Record, Run, StreamState
from relay.store.runs import StreamRow, ack_check, unpack_handle, unpack_run, unpack_state
from relay.store.unwritten import UnwrittenStreams

_Row: TypeAlias = tuple[Any, ...]

EPOCH_MAX: Final = 2**64 - 1
INTEGER_MAX: Final = 2**63 - 1
"""The largest integer of SQLite."""
DAMAGE_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
DAMAGED_REMEMBERED_MAX: Final = 65_536
"""Rows that are counted once, however often they are read."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite found its file damaged; text that is no UTF-8 is an error of the sqlite3 module, without a code."""
    code = getattr(error, "sqlite_errorcode", None)
    return "decode" in str(error) if code is None else code & 0xFF in DAMAGE_CODES


class Damage:
    """Counts what was found damaged, each row once; from any thread."""

    def __init__(self) -> None:
        self._seen: set[_Row] = set()
        self.rows = 0

    def note(self, *row: object) -> None:
        """Count a row, unless it was before."""
        if row not in self._seen:
            if len(self._seen) >= DAMAGED_REMEMBERED_MAX:
                self._seen.clear()
            self._seen.add(row)
            self.rows += 1


class Reader:
    """Reads in one thread. `busy` is held while a snapshot of the database is."""

    def __init__(
        self, connection: sqlite3.Connection, unwritten: UnwrittenStreams, generation: int, damage: Damage
    ) -> None:
        self._connection = connection
        self._unwritten = unwritten
        self._generation = generation
        self._damage = damage
        self.busy = threading.RLock()
        self.seeds: dict[int, int] = {}
        """The streams that are open: number -> CRC-32 of the key."""

    def open(self, key: bytes, new_epoch: int, recent_max: int) -> StreamState:
        """See Store.open."""
        seed = crc32(key)
        with self.busy:
            # What is unwritten is looked up before the snapshot: a stream that is written meanwhile is in it then.
            unwritten = self._unwritten.find(key)
            try:
                with self._snapshot():
                    row = self._connection.execute(statements.STREAM, (key,)).fetchone()
                    if row is None:
                        if unwritten is None:
                            unwritten = self._unwritten.add_new(key, StreamRow(seed, self._kept(new_epoch)))
                        number, state = unwritten.number, unwritten.state
                    else:
                        number, blob = row
                        intact = unpack_state(number, seed, blob)
                        if intact is None and unwritten is not None:
                            intact = unwritten.state
                        state = self._held_against_the_newest(number, key, intact, new_epoch)
                    self.seeds[number] = seed
                    return StreamState(
                        number,
                        state.epoch + self._generation & EPOCH_MAX,
                        state.head,
                        self._first(number, state.head),
                        self._recent(number, seed, state.head, recent_max),
                        self._acks(number, seed),
                        state.stamped_ns,
                    )
            except sqlite3.DatabaseError as error:
                raise StoreUnavailable(f"cannot read: {error}") from error

    def release(self, number: int) -> None:
        """See Store.release."""
        self._unwritten.drop(number)
        self.seeds.pop(number, None)

    def read(self, number: int, after: int, bytes_max: int) -> list[Record]:
        """See Store.read."""
        seed = self.seeds[number]
        found: list[Record] = []
        frame_bytes = 0
        # Closed, or its snapshot would keep the write-ahead log from starting over.
        with self.busy, closing(self._rows_after(number, after)) as rows:
            try:
                for first, last, at_ns, blob in rows:
                    run = unpack_run(number, seed, first, last, at_ns, blob)
                    if run is None or (found and run.first != found[-1].seq + 1):
                        self._damage.note("run", number, first)
                        if found:
                            return found
                        continue
                    for record in run.records(after):
                        found.append(record)
                        frame_bytes += len(record.frame)
                        if frame_bytes >= bytes_max:
                            return found
            except sqlite3.DatabaseError as error:
                raise StoreUnavailable(f"cannot read: {error}") from error
        return found

    def _kept(self, epoch: int) -> int:
        """Return how an epoch is stored: a new generation of the database makes all epochs others."""
        return epoch - self._generation & EPOCH_MAX

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def _rows_after(self, number: int, after: int) -> Generator[_Row, None, None]:
        """Find the rows of the runs with records behind `after`, one by one where that cannot be done in one go."""
        execute = self._connection.execute
        parameters = (number, after, number, after + 1)
        try:
            with closing(execute(statements.RUNS_AFTER, parameters)) as rows:
                for row in rows:
                    yield row
                    after = row[1] if isinstance(row[1], int) else after
            return
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        for first, last, body_row in self._all(statements.SPANS_AFTER, number, after):
            bodies = self._all(statements.BODY, body_row) if isinstance(body_row, int) else []
            yield (first, last, *(bodies[0] if bodies else (None, None)))

    def _all(self, statement: str, *parameters: object) -> list[_Row]:
        """Return all rows, or those that come before a damaged page."""
        found: list[_Row] = []
        try:
            with closing(self._connection.execute(statement, parameters)) as rows:
                found.extend(rows)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._damage.note("page", *parameters)
        return found

    def _held_against_the_newest(self, number: int, key: bytes, state: StreamRow | None, new_epoch: int) -> StreamRow:
        """Return the state of a stream as it was read, or in a new epoch where it cannot be right."""
        seed = crc32(key)
        last = next((row[0] for row in self._all(statements.NEWEST, number)), 0)
        if state is not None and isinstance(last, int) and last <= state.head:
            return state
        newest = next(self._intact_backwards(number, seed), None)
        head, stamped_ns = (newest.last, newest.at_ns) if newest is not None else (0, 0)
        if state is not None and head <= state.head:
            return state  # It was the newest run's row that was damaged.
        self._damage.note("state", number)
        if [row[0] for row in self._all(statements.KEY, number)] != [key]:
            raise StoreUnavailable("the stream's entry is damaged")
        ((held_bytes,),) = self._all(statements.HELD_BYTES, number) or [(0,)]
        renewed = StreamRow(
            seed, self._kept(new_epoch), head, stamped_ns, held_bytes if isinstance(held_bytes, int) else 0
        )
        self._unwritten.add_renewed(number, key, renewed)
        return renewed

    def _first(self, number: int, head: int) -> int:
        first = next((row[0] for row in self._all(statements.OLDEST, number)), None)
        return first if isinstance(first, int) and 0 < first <= head else head + 1

    def _intact_backwards(self, number: int, seed: int) -> Generator[Run, None, None]:
        try:
            with closing(self._connection.execute(statements.RUNS_BACKWARDS, (number,))) as rows:
                for row in rows:
                    run = unpack_run(number, seed, *row)
                    if run is not None:
                        yield run
                    else:
                        self._damage.note("run", number, row[0])
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._damage.note("page", number)

    def _recent(self, number: int, seed: int, head: int, recent_max: int) -> list[tuple[bytes, int, int]]:
        recent: list[tuple[bytes, int, int]] = []
        if recent_max > 0:
            with closing(self._intact_backwards(number, seed)) as runs:
                for run in runs:
                    if run.last <= head:
                        seqs = range(run.first, run.last + 1)
                        recent += list(zip(run.handles, run.ids, seqs, strict=True))[::-1]
                    if len(recent) >= recent_max:
                        break
        del recent[recent_max:]
        recent.reverse()
        return recent

    def _acks(self, number: int, seed: int) -> dict[bytes, int]:
        acks = {}
        for blob, upto, check in self._all(statements.ACKS, number):
            if isinstance(blob, bytes) and isinstance(upto, int) and 0 <= upto <= INTEGER_MAX:
                handle = unpack_handle(blob)
                if len(handle) == HANDLE_BYTES and ack_check(number, seed, upto, handle) == check:
                    acks[handle] = upto
                    continue
            self._damage.note("ack", number, blob)
        return acks
