"""The states of streams, as the writer of the SQLite store knows them within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final
from zlib import crc32

import msgspec

from relay.store import statements
from relay.store.reading import Damage
from relay.store.runs import StreamRow, pack_state, unpack_state
from relay.store.unwritten import Unwritten, UnwrittenStreams

STATES_REMEMBERED_MAX: Final = 65_536
"""Some 10 MB. What is not among them is read again."""

# Many rows in one statement; each of these sizes is one prepared statement.
_ROWS_PER_STATEMENT: Final = (256, 64, 16, 4, 1)


def insert_rows(
    connection: sqlite3.Connection, table: str, columns: int, rows: list[tuple[object, ...]], tail: str = ""
) -> None:
    """Insert rows by statements of many: every step of one gives up the interpreter lock and has to win it back."""
    start = 0
    for size in _ROWS_PER_STATEMENT:
        while len(rows) - start >= size:
            statement = statements.insert(table, columns, size, tail)
            connection.execute(statement, [value for row in rows[start : start + size] for value in row])
            start += size


class States:
    """What `load` brought is changed in place, noted in `changed`, and put into the database by `write`."""

    def __init__(self, connection: sqlite3.Connection, unwritten: UnwrittenStreams, damage: Damage) -> None:
        self._connection = connection
        self._unwritten = unwritten
        self._damage = damage
        self._known: dict[int, StreamRow] = {}
        self._taken_up: dict[int, Unwritten] = {}
        self.changed: set[int] = set()
        self._written: set[int] = set()
        self._begun: set[int] = set()

    def load(self, numbers: Iterable[int]) -> None:
        """Have the states of these streams at hand, those that are intact."""
        missing = [number for number in numbers if number not in self._known]
        if not missing:
            return
        for number in missing:
            unwritten = self._unwritten.get(number)
            if unwritten is not None:
                self._taken_up[number] = unwritten
                self._known[number] = msgspec.structs.replace(unwritten.state)
        wanted = [number for number in missing if number not in self._known]
        if wanted:
            for number, key, blob in self._connection.execute(
                statements.STATES, (msgspec.json.encode(wanted).decode(),)
            ):
                state = unpack_state(number, crc32(key), blob) if isinstance(key, bytes) else None
                if state is None:
                    self._damage.note("state", number)
                else:
                    self._known[number] = state

    def get(self, number: int) -> StreamRow | None:
        """Return the state of a stream that was asked for, None if it is damaged."""
        return self._known.get(number)

    def begin(self, numbers: Iterable[int]) -> None:
        """Write the rows of streams that the database does not have, before anything of theirs."""
        if self._taken_up:
            for number in numbers:
                if number in self._taken_up and number not in self._begun:
                    self._begun.add(number)
                    self._write_stream(self._taken_up[number])

    def write(self) -> None:
        """Put what changed into the transaction."""
        changed = sorted(self.changed)
        self.begin(changed)
        rows: list[tuple[object, ...]] = [(number, pack_state(number, self._known[number])) for number in changed]
        insert_rows(self._connection, "state", 2, rows, statements.PUT_STATE)
        self._written |= self.changed
        self.changed.clear()

    def _write_stream(self, unwritten: Unwritten) -> None:
        if unwritten.is_new:
            self._connection.execute(statements.insert("stream", 2, 1), (unwritten.number, unwritten.key))
            return
        # What lies beyond the head was damaged, and is in the way of what comes there.
        for statement in statements.FORGET_BEYOND:
            self._connection.execute(statement, (unwritten.number, unwritten.state.head, unwritten.number))

    def committed(self) -> int:
        """The transaction stands; return how many streams are new in the database."""
        new = 0
        for number, unwritten in self._taken_up.items():
            if number not in self._written:
                del self._known[number]
            elif self._unwritten.drop(number) is not None:
                new += unwritten.is_new
        self._taken_up.clear()
        self._written.clear()
        self._begun.clear()
        if len(self._known) > STATES_REMEMBERED_MAX:
            self._known.clear()
        return new

    def rolled_back(self) -> None:
        """The transaction does not stand."""
        self._known.clear()
        self._taken_up.clear()
        self._written.clear()
        self._begun.clear()
        self.changed.clear()

    def forget(self, number: int) -> None:
        """The stream is in the database no more."""
        self._known.pop(number, None)
