"""Stores of durable records: the contract, in memory, and in SQLite."""

from relay.store.base import SECRET_BYTES, Batch, MemoryStore, Record, Run, Store, StoreStatistics, StreamState, run_of
from relay.store.sqlite import SqliteStore
from relay.store.worker import Worker

__all__ = [
    "SECRET_BYTES",
    "Batch",
    "MemoryStore",
    "Record",
    "Run",
    "SqliteStore",
    "Store",
    "StoreStatistics",
    "StreamState",
    "Worker",
    "run_of",
]
