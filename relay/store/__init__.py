"""Stores of durable records: the contract, in memory, and in SQLite."""

from relay.store.base import (
    SECRET_BYTES,
    Batch,
    Committed,
    Record,
    Run,
    Store,
    StoreStatistics,
    StreamState,
    joined,
    run_of,
)
from relay.store.memory import MemoryStore
from relay.store.sqlite import SqliteStore
from relay.store.worker import Worker

__all__ = [
    "SECRET_BYTES",
    "Batch",
    "Committed",
    "MemoryStore",
    "Record",
    "Run",
    "SqliteStore",
    "Store",
    "StoreStatistics",
    "StreamState",
    "Worker",
    "joined",
    "run_of",
]
