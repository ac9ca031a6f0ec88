"""How the SQLite store forgets: always the beginning of a stream, and a bounded number of runs at a time.

Runs lie in the order of their commits, so the oldest are found at the beginning of their table. A run whose stamp lies
in the future, from a time when the clock was ahead, is passed over and looked at again by the next sweep.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import msgspec

from relay.store import statements
from relay.store.reading import Damage, Reader
from relay.store.runs import StreamRow, pack_run, unpack_run, unpack_state
from relay.store.states import States

RUNS_MAX: Final = 2_048
"""Forgotten in one call, some 50 ms: commits wait for it."""
ERASED_RUNS_MAX: Final = 256
"""Erased in one call, some 6 ms: calls follow one another until a stream is empty."""
RUNS_PER_COMMIT: Final = 32
"""Records that each commit forgets of what is left, besides twice what it added, so that forgetting keeps up."""
STREAMS_PER_SWEEP: Final = 4_096
"""Looked at in a sweep, in turn: whether nothing was heard of them for so long that they are forgotten."""
UPTO_MAX: Final = 2**63 - 1


class Forgetting:
    """What is to be forgotten, and the work of it, within the writer's transactions."""

    def __init__(self, connection: sqlite3.Connection, states: States, reader: Reader, damage: Damage) -> None:
        self._connection = connection
        self._states = states
        self._reader = reader
        self._damage = damage
        self._trims: dict[int, int] = {}
        self._before_ns: int | None = None
        self._now_ns = 0
        self._passed_row = 0
        self._passed_number = 0
        # Rows that `_up_to` found, and `_delete` deletes in one go.
        self._bodies: list[Any] = []
        self._spans: list[tuple[int, Any]] = []
        self.records = 0
        """Forgotten since the start, but for those erased."""
        self.unpurged = False
        """Whether the write-ahead log may hold what was forgotten."""

    @property
    def left(self) -> bool:
        """Whether more is to be forgotten at once."""
        return bool(self._trims) or self._before_ns is not None

    def want_trims(self, trims: Sequence[tuple[int, int]]) -> None:
        """Have records up to a number forgotten."""
        for number, upto in trims:
            self._trims[number] = max(upto, self._trims.get(number, 0))

    def want_expired(self, before_ns: int, now_ns: int) -> None:
        """Have records from before a time forgotten."""
        self._before_ns = before_ns
        self._now_ns = now_ns
        self._passed_row = 0

    def saved(self) -> tuple[dict[int, int], int | None, int, int]:
        """Return what `restore` takes where a transaction does not stand."""
        return dict(self._trims), self._before_ns, self._passed_row, self.records

    def restore(self, saved: tuple[dict[int, int], int | None, int, int]) -> None:
        """Want again what was wanted."""
        self._trims, self._before_ns, self._passed_row, self.records = saved
        self._bodies, self._spans = [], []

    def give_up(self) -> None:
        """Leave what is left to the next sweep: it could not be done."""
        self._trims.clear()
        self._before_ns = None

    def some(self, runs_max: int) -> list[tuple[int, int]]:
        """Forget a part of what is wanted. Returns (number, new first)."""
        firsts: dict[int, int] = {}
        if self._trims:
            trims, self._trims = self._trims, {}
            self._states.load(trims)
            for number, upto in trims.items():
                count = self._up_to(number, upto, runs_max)
                if count:
                    firsts[number] = 0
                if count >= runs_max:
                    self._trims[number] = upto
                runs_max = max(runs_max - count, 0)
        if self._before_ns is not None and runs_max:
            for number in self._expire(runs_max):
                firsts[number] = 0
        self._delete()
        return self._new_firsts(firsts)

    def _new_firsts(self, numbers: dict[int, int]) -> list[tuple[int, int]]:
        if not numbers:
            return []
        found = []
        for number, first in self._connection.execute(statements.FIRSTS, (_json(list(numbers)),)):
            state = self._states.get(number)
            if state is not None:
                found.append((number, first if isinstance(first, int) and first <= state.head else state.head + 1))
        return found

    def _expire(self, runs_max: int) -> dict[int, int]:
        assert self._before_ns is not None
        rows = self._connection.execute(statements.OLDEST_BODIES, (self._passed_row, runs_max)).fetchall()
        wanted: dict[int, int] = {}
        without_span = []
        finished = len(rows) < runs_max
        for row, number, last, at_ns in rows:
            if isinstance(at_ns, int) and self._before_ns <= at_ns <= self._now_ns:
                finished = True
                break
            self._passed_row = row
            if isinstance(at_ns, int) and at_ns > self._now_ns:
                continue
            if isinstance(number, int) and isinstance(last, int):
                wanted[number] = max(last, wanted.get(number, 0))
            else:
                without_span.append(row)
        if finished:
            self._before_ns = None
        self._states.load(wanted)
        for number, last in wanted.items():
            self._up_to(number, last, RUNS_MAX)
        self._bodies += without_span
        return wanted

    def _delete(self) -> None:
        bodies, self._bodies = self._bodies, []
        spans, self._spans = self._spans, []
        if bodies or spans:
            self._connection.execute(statements.FORGET_BODIES, (_json(bodies),))
            self._connection.execute(statements.FORGET_SPANS, (_json(spans),))
            self.unpurged = True

    def _up_to(self, number: int, upto: int, runs_max: int) -> int:
        """Forget a stream's records up to a number, of the oldest runs. Returns how many runs it took."""
        rows = self._connection.execute(statements.UP_TO, (number, upto, runs_max)).fetchall()
        if not rows:
            return 0
        state = self._states.get(number)
        held_bytes = 0
        for first, last, body_row, size in rows:
            if isinstance(last, int) and last > upto and state is not None:
                cut_bytes = self._cut(number, state, upto, (first, last, body_row))
                if cut_bytes is not None:
                    held_bytes += size - cut_bytes
                    self.records += upto + 1 - first
                    continue
            self._spans.append((number, first))
            self._bodies.append(body_row)
            held_bytes += size or 0
            self.records += last + 1 - first if isinstance(last, int) else 0
        if state is not None:
            state.held_bytes = max(state.held_bytes - held_bytes, 0)
            self._states.changed.add(number)
        return len(rows)

    def _cut(self, number: int, state: StreamRow, upto: int, span: tuple[int, int, int]) -> int | None:
        """Forget the records of one run up to `upto`. Returns the bytes left, None if it is damaged, and goes whole."""
        first, last, body_row = span
        at_ns, blob = self._connection.execute(statements.BODY, (body_row,)).fetchone() or (None, None)
        run = unpack_run(number, state.seed, first, last, at_ns, blob)
        if run is None:
            self._damage.note("run", number, first)
            return None
        kept = pack_run(number, state.seed, run.behind(upto))
        self._connection.execute(statements.CUT_BODY, (upto + 1, kept, body_row))
        self._connection.execute(statements.CUT_SPAN, (upto + 1, number, first))
        self.unpurged = True
        return len(kept)

    def erase(self, number: int, runs_max: int) -> int:
        """Forget a stream's runs, the oldest first, and with the last its acknowledgements. Returns how many it took."""
        records = self.records
        count = self._up_to(number, UPTO_MAX, runs_max)
        self.records = records
        self._delete()
        if count < runs_max:
            self._connection.execute(statements.FORGET_ACKS, (number,))
            self._trims.pop(number, None)
            self.unpurged = True
        return count

    def unused(self, before_ns: int) -> int:
        """Forget streams that nobody uses, that hold nothing, and whose last record is from before a time.

        The reader opens none meanwhile. Returns how many.
        """
        rows = self._connection.execute(statements.UNUSED, (self._passed_number, STREAMS_PER_SWEEP)).fetchall()
        self._passed_number = rows[-1][0] if len(rows) == STREAMS_PER_SWEEP else 0
        count = 0
        for number, stamped_ns, holds in ((row[0], _stamped_ns(*row[:3]), row[3]) for row in rows):
            if not holds and stamped_ns < before_ns and number not in self._reader.seeds:
                for statement in statements.FORGET_STREAM:
                    self._connection.execute(statement, (number,))
                self._states.forget(number)
                count += 1
        return count


def _stamped_ns(number: int, key: Any, blob: Any) -> int:
    state = unpack_state(number, crc32(key), blob) if isinstance(key, bytes) else None
    return state.stamped_ns if state is not None else 0


def _json(value: Sequence[Any]) -> str:
    return msgspec.json.encode(value).decode()
