"""Streams that the database does not have yet, or not as they are now: known from `open` to their first commit."""

from __future__ import annotations

import threading

import msgspec

from relay.errors import StoreUnavailable
from relay.limits import STREAM_NUMBER_MAX
from relay.store.runs import StreamRow


class Unwritten(msgspec.Struct, gc=False):
    """One such stream. `is_new`: the database has no row of this number."""

    number: int
    key: bytes
    state: StreamRow
    is_new: bool


class UnwrittenStreams:
    """Numbered in the reader's thread, written in the writer's."""

    def __init__(self, next_number: int) -> None:
        self._lock = threading.Lock()
        self._by_number: dict[int, Unwritten] = {}
        self._by_key: dict[bytes, Unwritten] = {}
        self._next_number = next_number
        self.new = 0
        """How many of them the database does not know."""

    def get(self, number: int) -> Unwritten | None:
        """Return a stream, None if it is not one of these."""
        return self._by_number.get(number)

    def find(self, key: bytes) -> Unwritten | None:
        """Return a stream, None if it is not one of these."""
        return self._by_key.get(key)

    def add_new(self, key: bytes, state: StreamRow) -> Unwritten:
        """Take and number a stream that the database does not know."""
        number = self._next_number
        if number > STREAM_NUMBER_MAX:
            raise StoreUnavailable("no stream numbers are left")
        self._next_number += 1
        return self._add(Unwritten(number, key, state, True))

    def add_renewed(self, number: int, key: bytes, state: StreamRow) -> Unwritten:
        """Take a stream whose state was damaged, as it goes on."""
        return self._add(Unwritten(number, key, state, False))

    def _add(self, unwritten: Unwritten) -> Unwritten:
        with self._lock:
            self._by_number[unwritten.number] = self._by_key[unwritten.key] = unwritten
            self.new += unwritten.is_new
        return unwritten

    def drop(self, number: int) -> Unwritten | None:
        """Return a stream and forget it: it is written, or nobody uses it."""
        with self._lock:
            unwritten = self._by_number.pop(number, None)
            if unwritten is not None:
                del self._by_key[unwritten.key]
                self.new -= unwritten.is_new
            return unwritten
