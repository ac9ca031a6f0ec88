"""The SQL of the SQLite store: its tables, and statements that act on many rows in one step.

stream  number, key
state   number, blob                   what must be right of a stream at every moment
body    row, number, first, at_ns, blob        the runs, in the order of their commits
span    number, first -> last, row of the body
ack     number, member -> upto, check, handle  `member` is a keyed hash of the handle
meta    name -> value                  secret, generation of the epochs, home, time of the last sweep

The blobs and their checks: relay/store/runs.py.
"""
# ruff: noqa: S608 - the statements are put together from the constants of this file

from __future__ import annotations

from functools import cache
from typing import Final

SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE stream (number INTEGER PRIMARY KEY, key BLOB UNIQUE)",
    "CREATE TABLE state (number INTEGER PRIMARY KEY, blob BLOB)",
    "CREATE TABLE body (row INTEGER PRIMARY KEY, number INTEGER, first INTEGER, at_ns INTEGER, blob BLOB)",
    """CREATE TABLE span (number INTEGER, first INTEGER, last INTEGER, row INTEGER,
        PRIMARY KEY (number, first)) WITHOUT ROWID""",
    """CREATE TABLE ack (number INTEGER, member INTEGER, upto INTEGER, "check" INTEGER, handle BLOB,
        PRIMARY KEY (number, member)) WITHOUT ROWID""",
)

# -- reading -----------------------------------------------------------------------------------------

STREAM: Final = "SELECT number, (SELECT blob FROM state WHERE state.number = stream.number) FROM stream WHERE key = ?"
NEWEST: Final = "SELECT last FROM span WHERE number = ? ORDER BY first DESC LIMIT 1"
OLDEST: Final = "SELECT first FROM span WHERE number = ? ORDER BY first LIMIT 1"
ACKS: Final = 'SELECT handle, upto, "check" FROM ack WHERE number = ?'
RUNS_AFTER: Final = (
    "SELECT span.first, last, at_ns, blob FROM span LEFT JOIN body ON body.row = span.row WHERE span.number = ?"
    " AND last > ? AND span.first >= coalesce((SELECT max(first) FROM span WHERE number = ? AND first <= ?), 0)"
    " ORDER BY span.first"
)
RUNS_BACKWARDS: Final = (
    "SELECT span.first, last, at_ns, blob FROM span LEFT JOIN body ON body.row = span.row WHERE span.number = ?"
    " ORDER BY span.first DESC"
)
SPANS_AFTER: Final = "SELECT first, last, row FROM span WHERE number = ? AND last > ? ORDER BY first"
BODY: Final = "SELECT at_ns, blob FROM body WHERE row = ?"
KEY: Final = "SELECT key FROM stream NOT INDEXED WHERE number = ?"
HELD_BYTES: Final = "SELECT coalesce(sum(length(blob)), 0) FROM span CROSS JOIN body USING (row) WHERE span.number = ?"

# -- writing -----------------------------------------------------------------------------------------

# What is asked for comes as JSON: one statement, however many rows.
STATES: Final = (
    "SELECT number, stream.key, blob FROM json_each(?) AS wanted CROSS JOIN stream ON number = wanted.value"
    " LEFT JOIN state USING (number)"
)
PUT_STATE: Final = " ON CONFLICT (number) DO UPDATE SET blob = excluded.blob"
PUT_ACK: Final = (
    ' ON CONFLICT (number, member) DO UPDATE SET upto = excluded.upto, "check" = excluded."check"'
    " WHERE excluded.upto > upto"
)
SET_META: Final = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

# -- forgetting --------------------------------------------------------------------------------------

UP_TO: Final = (
    "SELECT span.first, last, span.row, length(blob) FROM span LEFT JOIN body ON body.row = span.row"
    " WHERE span.number = ? AND span.first <= ? ORDER BY span.first LIMIT ?"
)
OLDEST_BODIES: Final = (
    "SELECT body.row, body.number, last, at_ns FROM body LEFT JOIN span"
    " ON span.number = body.number AND span.first = body.first AND span.row = body.row"
    " WHERE body.row > ? ORDER BY body.row LIMIT ?"
)
FORGET_BODIES: Final = "DELETE FROM body WHERE row IN (SELECT value FROM json_each(?))"
FORGET_SPANS: Final = (
    "DELETE FROM span WHERE (number, first) IN"
    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)
CUT_BODY: Final = "UPDATE body SET first = ?, blob = ? WHERE row = ?"
CUT_SPAN: Final = "UPDATE span SET first = ? WHERE number = ? AND first = ?"
FIRSTS: Final = "SELECT value, (SELECT first FROM span WHERE number = value ORDER BY first LIMIT 1) FROM json_each(?)"
FORGET_BEYOND: Final = (
    "DELETE FROM body WHERE row IN (SELECT row FROM span WHERE number = ? AND first > ?) AND number = ?",
    "DELETE FROM span WHERE number = ? AND first > ? AND number = ?",
)
FORGET_ACKS: Final = "DELETE FROM ack WHERE number = ?"
UNUSED: Final = (
    "SELECT number, key, blob, EXISTS (SELECT 1 FROM span WHERE span.number = stream.number) FROM stream"
    " LEFT JOIN state USING (number) WHERE number > ? ORDER BY number LIMIT ?"
)
FORGET_STREAM: Final = (
    "DELETE FROM ack WHERE number = ?",
    "DELETE FROM state WHERE number = ?",
    "DELETE FROM stream WHERE number = ?",
)


@cache
def insert(table: str, columns: int, rows: int, tail: str = "") -> str:
    """Return a statement that inserts `rows` rows, with one parameter for each value."""
    values = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([values] * rows)}{tail}"
