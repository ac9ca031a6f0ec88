"""The writer of the SQLite store: group commits, within the bounds of space, and what becomes of them on a bad disk."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from time import monotonic
from typing import Final, TypeVar

from relay.errors import StoreUnavailable
from relay.limits import COMMIT_BATCH_BYTES_MAX
from relay.store import forgetting, statements
from relay.store.base import Batch, Committed, Run
from relay.store.files import StoreFiles
from relay.store.forgetting import Forgetting
from relay.store.reading import EPOCH_MAX, INTEGER_MAX, Damage, Reader, is_damage
from relay.store.runs import PAGE_BYTES, ack_check, pack_handle, pack_run
from relay.store.states import States, insert_rows
from relay.store.unwritten import UnwrittenStreams

T = TypeVar("T")

_WAL_FILE_FACTOR: Final = 16
"""A reader can keep the log from starting over; past this many times its size it is emptied where no reader is seen."""
BUSY_S: Final = 5.0
"""How long a commit waits for a program that writes to our database. No reader is ever waited for."""
PURGE_S: Final = 15.0
"""From forgetting to when it is gone from the write-ahead log as well."""
ERASE_PURGE_S: Final = 5.0
"""How long an erasure waits for a reader from outside that keeps the write-ahead log."""
ERASURES_MAX: Final = 256
"""Streams erased by one call: commits wait for it."""
_BATCH_ROOM_BYTES: Final = 4 * COMMIT_BATCH_BYTES_MAX
"""While more than this was left, what is left is reckoned and not measured."""
_RUN_BYTES: Final = 3 * PAGE_BYTES
"""What a run takes beside its frames, at most."""


class Writer:
    """Writes in one thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        reader: Reader,
        unwritten: UnwrittenStreams,
        files: StoreFiles,
        damage: Damage,
        *,
        secret: bytes,
        generation: int,
        wal_bytes_max: int,
        file_bytes_max: int,
        stream_bytes_max: int,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._unwritten = unwritten
        self._files = files
        self._damage = damage
        self._secret = secret
        self._generation = generation
        self._wal_bytes_max = wal_bytes_max
        self._file_bytes_max = file_bytes_max
        self._stream_bytes_max = stream_bytes_max
        self._states = States(connection, unwritten, damage)
        self._forgetting = Forgetting(connection, self._states, reader, damage)
        (self._row,) = connection.execute("SELECT coalesce(max(row), 0) FROM body").fetchone()
        (self.streams,) = connection.execute("SELECT count(*) FROM stream").fetchone()
        self._wal_bytes = 0
        self._checkpoint_bytes = wal_bytes_max
        self._room_bytes = 0
        self._disk_full = False
        self._unpurged_since_s: float | None = None
        self._erased_since_s: float | None = None
        self.notices: deque[str] = deque()
        self.fault: str | None = None
        self.commits = 0
        self.commit_failures = 0
        self.full = 0

    @property
    def trimmed(self) -> int:
        """Records forgotten since the start."""
        return self._forgetting.records

    # -- commits -------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Committed:
        """See Store.commit."""
        try:
            self._refuse_if_files_are_gone()
            if self._wal_bytes > self._checkpoint_bytes:
                self._checkpoint()
            runs, full, damaged = self._admit(batch.runs)
            saved = self._forgetting.saved()
            try:
                forgotten = self._transact(lambda: self._apply(runs, batch))
            except sqlite3.DatabaseError as error:
                self._forgetting.restore(saved)
                if _code(error) == sqlite3.SQLITE_FULL and (runs or not self._disk_full):
                    # What frees space must still be done: the reserve is for that.
                    self._disk_is_full()
                    full += [number for number, _ in runs]
                    forgotten = self._transact(lambda: self._apply([], batch))
                elif is_damage(error):
                    forgotten = self._apply_one_by_one(runs, batch, damaged)
                else:
                    raise
        except BaseException as error:
            self.commit_failures += 1
            if _is_ours(error):
                raise
            raise StoreUnavailable(f"cannot commit: {error}") from error
        self.commits += 1
        self.full += len(full)
        # A stream may be in it twice, trimmed and then expired; the later word counts.
        return Committed(list(dict(forgotten).items()), full, damaged)

    def _transact(self, work: Callable[[], T]) -> T:
        row = self._row
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = work()
            self._connection.execute("COMMIT")
        except BaseException:
            self._row = row
            self._roll_back()
            self._states.rolled_back()
            raise
        self.streams += self._states.committed()
        return result

    def _admit(self, runs: list[tuple[int, Run]]) -> tuple[list[tuple[int, Run]], list[int], list[int]]:
        """Return the runs that can be written, the streams that are full, and those that are damaged."""
        if not runs:
            return [], [], []
        if self._disk_full and not self._files.reserve():
            return [], [number for number, _ in runs], []
        self._disk_full = False
        self._states.load([number for number, _ in runs])
        if self._room_bytes < _BATCH_ROOM_BYTES:
            self._room_bytes = self._measure_room()
        admitted, full, damaged = [], [], []
        get = self._states.get
        for number, run in runs:
            state = get(number)
            needed_bytes = len(run.data) + _RUN_BYTES
            if state is None:
                damaged.append(number)
            elif state.held_bytes + needed_bytes > self._stream_bytes_max or needed_bytes > self._room_bytes:
                full.append(number)
            else:
                self._room_bytes -= needed_bytes
                admitted.append((number, run))
        return admitted, full, damaged

    def _measure_room(self) -> int:
        pages: int
        free_pages: int
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (free_pages,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        _, log_bytes = self._files.sizes()
        # A log of its usual size comes and goes.
        log_bytes = max(log_bytes - _WAL_FILE_FACTOR * self._wal_bytes_max, 0)
        return self._file_bytes_max - (pages - free_pages) * PAGE_BYTES - log_bytes

    def _apply(self, runs: list[tuple[int, Run]], batch: Batch) -> list[tuple[int, int]]:
        if runs:
            self._append(runs)
        if batch.acks:
            self._acknowledge(batch.acks)
        self._forgetting.want_trims(batch.trims)
        forgotten = []
        if self._forgetting.left:
            runs_max = forgetting.RUNS_MAX if batch.trims else forgetting.RUNS_PER_COMMIT + 2 * len(runs)
            forgotten = self._forgetting.some(runs_max)
        self._states.write()
        return forgotten

    def _apply_one_by_one(self, runs: list[tuple[int, Run]], batch: Batch, damaged: list[int]) -> list[tuple[int, int]]:
        """Keep what damage does not concern: it must not be the end of other streams."""
        forgotten: list[tuple[int, int]] = []
        for number, run in runs:
            if not self._attempt(number, Batch(runs=[(number, run)]), forgotten):
                damaged.append(number)
        for number, handle, upto in batch.acks:
            if number not in damaged:
                self._attempt(number, Batch(acks=[(number, handle, upto)]), forgotten)
        for number, upto in batch.trims:
            if not self._attempt(number, Batch(trims=[(number, upto)]), forgotten):
                self._forgetting.give_up()
        return forgotten

    def _attempt(self, number: int, part: Batch, forgotten: list[tuple[int, int]]) -> bool:
        """Make a part of a batch a transaction of its own: a savepoint cannot be gone back to once SQLite saw damage."""
        saved = self._forgetting.saved()
        try:
            forgotten += self._transact(lambda: self._apply(part.runs, part))
        except sqlite3.DatabaseError as error:
            if not (is_damage(error) or isinstance(error, sqlite3.IntegrityError)):
                raise
            self._damage.note("page", number)
            self._forgetting.restore(saved)
            self._forgetting.give_up()
            return False
        return True

    def _append(self, runs: list[tuple[int, Run]]) -> None:
        bodies: list[tuple[object, ...]] = []
        spans: list[tuple[object, ...]] = []
        row = self._row
        changed = self._states.changed
        self._states.load([number for number, _ in runs])
        for number, run in runs:
            state = self._states.get(number)
            assert state is not None
            assert run.first == state.head + 1
            row += 1
            blob = pack_run(number, state.seed, run)
            bodies.append((row, number, run.first, run.at_ns, blob))
            spans.append((number, run.first, run.last, row))
            state.head = run.last
            state.stamped_ns = run.at_ns
            state.held_bytes += len(blob)
            changed.add(number)
            self._wal_bytes += len(blob)
        self._row = row
        self._states.begin(changed)
        insert_rows(self._connection, "body", 5, bodies)
        insert_rows(self._connection, "span", 4, spans)
        # An estimate: beside the blobs each row changes about two pages.
        self._wal_bytes += 2 * PAGE_BYTES * len(runs) + 4 * PAGE_BYTES

    def _acknowledge(self, acks: Sequence[tuple[int, bytes, int]]) -> None:
        self._states.load({number for number, _, _ in acks})
        rows: list[tuple[object, ...]] = []
        for number, handle, upto in acks:
            state = self._states.get(number)
            if state is not None:
                upto = min(upto, INTEGER_MAX)
                check = ack_check(number, state.seed, upto, handle)
                rows.append((number, self._member(handle), upto, check, pack_handle(handle)))
                if self._unwritten.get(number) is not None:
                    self._states.changed.add(number)
        insert_rows(self._connection, "ack", 5, rows, statements.PUT_ACK)
        self._wal_bytes += 2 * PAGE_BYTES * len(acks)

    def _member(self, handle: bytes) -> int:
        """Return what stands for a handle in keys, which B-trees move about: it tells nothing without the secret."""
        digest = blake2b(handle, digest_size=8, key=self._secret, person=b"relaymark.member").digest()
        return int.from_bytes(digest, "big", signed=True)

    # -- forgetting ----------------------------------------------------------------------------------

    def expire(self, before_ns: int, now_ns: int) -> list[tuple[int, int]]:
        """See Store.expire."""
        self._refuse_if_files_are_gone()
        self._forgetting.want_expired(before_ns, now_ns)
        forgotten = self._forget_some(forgetting.RUNS_MAX, ("swept_ns", now_ns))
        with self._reader.busy:  # None of them is opened while it goes.
            self.streams -= self._freeing(lambda: self._forgetting.unused(before_ns))
        return forgotten

    def _forget_some(self, runs_max: int, *meta: tuple[str, int]) -> list[tuple[int, int]]:
        def work() -> list[tuple[int, int]]:
            for name, value in meta:
                self._connection.execute(statements.SET_META, (name, value))
            forgotten = self._forgetting.some(runs_max)
            self._states.write()
            return forgotten

        return self._freeing(work)

    def _freeing(self, work: Callable[[], T]) -> T:
        """Do what frees space, with the reserve where there is no other."""
        saved = self._forgetting.saved()
        try:
            try:
                return self._transact(work)
            except sqlite3.DatabaseError as error:
                self._forgetting.restore(saved)
                if _code(error) != sqlite3.SQLITE_FULL or self._disk_full:
                    raise
                self._disk_is_full()
                return self._transact(work)
        except sqlite3.DatabaseError as error:
            if _is_ours(error):
                raise
            if is_damage(error):
                self._damage.note("page")
                self._forgetting.give_up()
            raise StoreUnavailable(f"cannot forget: {error}") from error

    def erase(self, erasures: list[tuple[int, int]]) -> list[tuple[int, bool | None]]:
        """See Store.erase."""
        self._refuse_if_files_are_gone()
        try:
            emptied = self._freeing(lambda: self._erase_some(erasures))
        except StoreUnavailable:
            if len(erasures) > 1:  # One damaged stream is not the others' end.
                return [finished for erasure in erasures for finished in self.erase([erasure])]
            return [(erasures[0][0], False)]
        if not emptied:
            return [(erasures[0][0], None)]
        self._erased_since_s = self._erased_since_s or monotonic()
        if self._forgetting.unpurged and not self._purge():
            if monotonic() - self._erased_since_s < ERASE_PURGE_S:
                return []
            self.notices.append("a program from outside reads the store: what was erased is in its log until it ends")
        self._erased_since_s = None
        return [(number, True) for number in emptied]

    def _erase_some(self, erasures: list[tuple[int, int]]) -> list[int]:
        emptied = []
        runs_max = forgetting.ERASED_RUNS_MAX
        self._states.load([number for number, _ in erasures])
        for number, new_epoch in erasures[:ERASURES_MAX]:
            epoch = new_epoch - self._generation & EPOCH_MAX
            unwritten = self._unwritten.get(number)
            state = self._states.get(number)
            if state is None:
                raise StoreUnavailable("the state of a stream was damaged while it was open")
            if unwritten is not None and unwritten.is_new:
                unwritten.state.epoch = epoch
            elif state.epoch != epoch or state.head:
                count = self._forgetting.erase(number, runs_max)
                runs_max -= count
                if runs_max <= 0:
                    break
                state.epoch, state.head, state.stamped_ns, state.held_bytes = epoch, 0, 0, 0
                self._states.changed.add(number)
            emptied.append(number)
        self._states.write()
        return emptied

    def tidy(self) -> list[tuple[int, int]]:
        """See Store.tidy."""
        self._look_for_the_files()
        forgotten = self._forget_some(forgetting.RUNS_MAX) if self._forgetting.left else []
        if self._disk_full and self._files.reserve():
            self._disk_full = False
        if self._forgetting.unpurged:
            now_s = monotonic()
            self._unpurged_since_s = self._unpurged_since_s or now_s
            if now_s - self._unpurged_since_s >= PURGE_S:
                self._purge()
        return forgotten

    # -- the files -----------------------------------------------------------------------------------

    def _look_for_the_files(self) -> None:
        if not self._files.gone():
            self.fault = None
        elif self.fault is None:
            self.fault = "a file of the store was removed, moved or replaced: nothing is taken until it is put back"
            self.notices.append(self.fault)
        self._refuse_if_files_are_gone()

    def _refuse_if_files_are_gone(self) -> None:
        if self.fault is not None:
            raise StoreUnavailable(self.fault)

    def _disk_is_full(self) -> None:
        if not self._disk_full:
            self.notices.append(
                "the store's disk is full: records are refused until space is free; the reserve is in use"
            )
        self._disk_full = True
        self._files.give_reserve()

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        # If the log took the whole batch and only its fsync failed, a crash now would bring the batch back. Emptying
        # the log prevents it and gives space back; where that fails too, a small write takes the batch's place.
        if self._purge():
            return
        with suppress(sqlite3.Error):
            self._connection.execute(statements.SET_META, ("failures", self.commit_failures))

    def _checkpoint(self) -> None:
        # A failure is not the batch's: what it holds was committed before, and the log keeps it. Tried again soon.
        self._checkpoint_bytes = self._wal_bytes_max
        _, log_bytes = self._files.sizes()
        if log_bytes > _WAL_FILE_FACTOR * self._wal_bytes_max and self._purge():
            return
        with suppress(sqlite3.Error):
            _, log_pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if copied < log_pages:
                # A reader is in the way. Each attempt goes through the whole log, so they become fewer as it grows.
                self._checkpoint_bytes = max(self._wal_bytes_max, log_bytes)
        self._wal_bytes = 0

    def _purge(self) -> bool:
        """Empty the log, unless a reader from outside is in the way; return whether it is empty."""
        execute = self._connection.execute
        with suppress(sqlite3.Error), self._reader.busy:
            execute("PRAGMA busy_timeout=0").fetchall()
            try:
                busy, _, _ = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}").fetchall()
            if not busy:
                self._wal_bytes = 0
                self._forgetting.unpurged = False
                self._unpurged_since_s = None
                return True
        return False

    def close(self) -> None:
        """Leave an empty log behind, if nobody is in the way."""
        self._purge()


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's code, 0 for an error of the module."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _is_ours(error: BaseException) -> bool:
    """Whether it is a bug of ours, or a request to stop, and not the disk's fault."""
    return not isinstance(error, sqlite3.DatabaseError | StoreUnavailable) or isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError
    )
