"""The SQL of the SQLite store: its tables, and statements that act on many streams in one step.

stream  number, key, epoch, head     `head` counts only where no record is left to tell it
body    row, blob                    the runs (relay/store/runs.py)
span    number, first -> last, newest at_ns, row of the body
ack     number, member -> upto, handle         `member` is a keyed hash of the handle
"""
# ruff: noqa: S608 - the statements are put together from the constants of this file

from __future__ import annotations

from typing import Final

SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE stream (number INTEGER PRIMARY KEY, key BLOB UNIQUE, epoch INTEGER, head INTEGER)",
    "CREATE TABLE body (row INTEGER PRIMARY KEY, blob BLOB)",
    """CREATE TABLE span (number INTEGER, first INTEGER, last INTEGER, at_ns INTEGER, row INTEGER,
        PRIMARY KEY (number, first)) WITHOUT ROWID""",
    "CREATE INDEX span_at ON span (at_ns)",
    """CREATE TABLE ack (number INTEGER, member INTEGER, upto INTEGER, handle BLOB,
        PRIMARY KEY (number, member)) WITHOUT ROWID""",
)

_LAST: Final = "(SELECT last FROM span WHERE number = stream.number ORDER BY first DESC LIMIT 1)"
_FIRST: Final = "(SELECT first FROM span WHERE number = stream.number ORDER BY first LIMIT 1)"
_HEAD: Final = f"coalesce({_LAST}, head)"

# What is to be forgotten comes as JSON, [[number, upto], ...]: one statement, however many streams.
_PAIRS: Final = (
    "WITH pair (number, upto) AS MATERIALIZED"
    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?)) "
)
OLD_FIRSTS: Final = (
    f"{_PAIRS} SELECT stream.number, upto, {_FIRST} AS oldest FROM pair CROSS JOIN stream USING (number)"
    " WHERE oldest <= upto"
)
KEEP_HEADS: Final = (
    f"{_PAIRS} UPDATE stream SET head = {_HEAD} WHERE number IN (SELECT pair.number FROM pair WHERE upto >="
    " (SELECT last FROM span WHERE span.number = pair.number ORDER BY first DESC LIMIT 1))"
)
STRADDLING: Final = (
    f"{_PAIRS} SELECT span.number, upto, first, last, span.row, blob FROM pair CROSS JOIN span CROSS JOIN body"
    " WHERE span.number = pair.number AND body.row = span.row AND last > upto"
    " AND first = (SELECT max(first) FROM span WHERE number = pair.number AND first <= upto)"
)
_WHOLE_RUNS: Final = "pair CROSS JOIN span USING (number) WHERE first <= upto AND last <= upto"
FORGET_BODIES: Final = f"{_PAIRS} DELETE FROM body WHERE row IN (SELECT row FROM {_WHOLE_RUNS})"
FORGET_SPANS: Final = (
    f"{_PAIRS} DELETE FROM span WHERE (number, first) IN (SELECT span.number, first FROM {_WHOLE_RUNS})"
)
NEW_FIRSTS: Final = f"{_PAIRS} SELECT number, coalesce({_FIRST}, head + 1) FROM pair CROSS JOIN stream USING (number)"
EXPIRED: Final = (
    "SELECT number, max(last), count(*) FROM (SELECT number, last FROM span WHERE at_ns < ? ORDER BY at_ns LIMIT ?)"
    " GROUP BY number"
)
RUNS_AFTER: Final = (
    "SELECT first, last, blob FROM span CROSS JOIN body USING (row) WHERE number = ? AND last > ?"
    " AND first >= coalesce((SELECT max(first) FROM span WHERE number = ? AND first <= ?), 0) ORDER BY first"
)
RUNS_BACKWARDS: Final = (
    "SELECT first, last, blob FROM span CROSS JOIN body USING (row) WHERE number = ? ORDER BY first DESC"
)
ACK: Final = " ON CONFLICT (number, member) DO UPDATE SET upto = excluded.upto WHERE excluded.upto > upto"
STATE: Final = f"SELECT number, epoch, {_HEAD}, coalesce({_FIRST}, {_HEAD} + 1) FROM stream WHERE key = ?"
HEADS: Final = f"SELECT number, {_HEAD} FROM stream WHERE number IN (SELECT value FROM json_each(?))"
ERASE: Final = (
    "DELETE FROM body WHERE row IN (SELECT row FROM span WHERE number = ?)",
    "DELETE FROM span WHERE number = ?",
    "DELETE FROM ack WHERE number = ?",
)


def insert(table: str, columns: int, rows: int, tail: str = "") -> str:
    """Return a statement that inserts `rows` rows, with one parameter for each value."""
    values = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([values] * rows)}{tail}"


__all__ = [
    "ACK",
    "ERASE",
    "EXPIRED",
    "FORGET_BODIES",
    "FORGET_SPANS",
    "HEADS",
    "KEEP_HEADS",
    "NEW_FIRSTS",
    "OLD_FIRSTS",
    "RUNS_AFTER",
    "RUNS_BACKWARDS",
    "SCHEMA",
    "STATE",
    "STRADDLING",
    "insert",
]
