"""Opening a database: the file is ours, its schema is known, its secret is whole, and its numbers can be trusted."""

from __future__ import annotations

import sqlite3
from typing import Final
from zlib import crc32

from relay.errors import ConfigurationError
from relay.store import statements
from relay.store.reading import EPOCH_MAX, INTEGER_MAX
from relay.store.runs import PAGE_BYTES

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x524D524B
"""Tells the file apart from other SQLite databases ("RMRK")."""
CACHE_BYTES: Final = 33_554_432
"""Page cache of the writer. The reader's stays at SQLite's default of 2 MB."""


def connect(path: str, busy_s: float, connections: list[sqlite3.Connection]) -> sqlite3.Connection:
    """Open a connection, and add it to `connections`."""
    # Threads are checked by nobody: the contract gives each connection to one.
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    connections.append(connection)
    return connection


def prepare(writer: sqlite3.Connection, path: str, secret_if_new: bytes) -> bytes:
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
                f"the store {path} has schema {version}, not {SCHEMA_VERSION}: "
                + ("its records have no checks; " if version < SCHEMA_VERSION else "")
                + "use the release that wrote it or another file"
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
        execute(statements.SET_META, ("secret", secret_if_new + _check(secret_if_new)))
        execute(f"PRAGMA application_id={APPLICATION_ID}")
        execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        execute("COMMIT")
    secret = meta(writer, "secret")
    if not isinstance(secret, bytes) or secret[-4:] != _check(secret[:-4]):
        raise sqlite3.DatabaseError("the relay's secret in it is malformed")
    return secret[:-4]


def renew_epochs(
    writer: sqlite3.Connection, home: str, new_generation: int, log_is_damaged: bool
) -> tuple[int, list[str]]:
    """Give all streams new epochs where numbers may have been given that the database does not know.

    That is so if its log was damaged, and if it is a copy: a backup put back, or a file moved without its log. Returns
    the generation of the epochs, and what the operator should know.
    """
    generation = meta(writer, "generation")
    known_home = meta(writer, "home")
    notices = []
    if log_is_damaged:
        notices.append("the store's write-ahead log was damaged: what it held behind the damage is lost")
    if known_home not in (home, None) or (known_home is None and isinstance(generation, int)):
        notices.append("the store is a copy or was moved: what was stored since then is not in it")
    if notices or not isinstance(generation, int):
        notices = [f"{notice}; every stream begins a new epoch" for notice in notices]
        generation = new_generation & INTEGER_MAX
        writer.execute(statements.SET_META, ("generation", generation))
    if known_home != home:
        writer.execute(statements.SET_META, ("home", home))
    return generation & EPOCH_MAX, notices


def meta(connection: sqlite3.Connection, name: str) -> object:
    """Return a value of the table meta, None if it is not there."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row is not None else None


def remedy(error: sqlite3.Error) -> str:
    """Return what to do about a database that cannot be opened."""
    if "not a database" in str(error):
        return "it is no database of the relay's; name another file, or move this one away"
    if "malformed" in str(error):
        return "it is damaged; restore it from a backup, or move it away to begin with an empty store"
    return "check that the file and its directory are writable and that the disk has space"


def _check(secret: bytes) -> bytes:
    return crc32(secret).to_bytes(4, "big")
