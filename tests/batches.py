"""Batches for the tests of stores, written as records."""

from __future__ import annotations

from collections.abc import Sequence

from relay.store import Batch, Record, run_of


def batch(
    records: Sequence[tuple[int, list[Record]]] = (),
    acks: Sequence[tuple[int, bytes, int]] = (),
    trims: Sequence[tuple[int, int]] = (),
) -> Batch:
    """Return a batch of these records, each stream's as one run."""
    return Batch(runs=[(number, run_of(found)) for number, found in records], acks=list(acks), trims=list(trims))
