"""Stores of durable records: the contract, in memory, and in SQLite."""

from relay.store.base import SECRET_BYTES, Batch, MemoryStore, Record, Store, StoreStatistics, StreamState
from relay.store.sqlite import SqliteStore
from relay.store.worker import Worker

__all__ = [
    "SECRET_BYTES",
    "Batch",
    "MemoryStore",
    "Record",
    "SqliteStore",
    "Store",
    "StoreStatistics",
    "StreamState",
    "Worker",
]
