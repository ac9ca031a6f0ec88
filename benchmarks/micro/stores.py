"""What a commit costs: memory and SQLite, by the number of records in a batch."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.micro.codec import publish
from relay import framing, wire
from relay.store import MemoryStore, Store
from relay.store.base import Batch, Record, run_of
from relay.store.sqlite import SqliteStore

STREAMS = 16
"""A batch is spread over so many, or has a record a stream if it is smaller."""
_AT_NS = 1_700_000_000 * 10**9


def _committer(store: Store, size: int) -> Callable[[], object]:
    frame = framing.encode(framing.BINARY, wire.encode(publish()))
    spread = min(size, STREAMS)
    numbers = [store.open(at.to_bytes(32, "big"), new_epoch=1, recent_max=0).number for at in range(spread)]
    heads = dict.fromkeys(numbers, 0)
    each = size // spread

    def commit() -> None:
        runs = []
        for number in numbers:
            head = heads[number]
            runs.append(
                (
                    number,
                    run_of([Record(seq, _AT_NS, b"h" * 16, seq, frame) for seq in range(head + 1, head + each + 1)]),
                )
            )
            heads[number] = head + each
        store.commit(Batch(runs=runs))

    return commit


def memory(size: int) -> Callable[[], object]:
    return _committer(MemoryStore(bytes(32)), size)


def sqlite(size: int) -> Callable[[], object]:
    """On the disk of the temporary directory: every commit waits for it."""
    directory = tempfile.mkdtemp(prefix="relaymark-micro-")
    store = SqliteStore(Path(directory) / "relay.db", secret_if_new=bytes(32))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(store.close)  # before its files go: the last one registered is called first
    return _committer(store, size)


SIZES = (1, 16, 256)
BENCHMARKS = {
    f"store {name}, batch of {size}": (partial(make, size), size)
    for name, make in (("memory", memory), ("sqlite", sqlite))
    for size in SIZES
}
