"""The shapes of the closed loop that targets are compared in."""

from __future__ import annotations

from typing import Final

from benchmarks.fast_load.closed_loop import Shape

SHAPES: Final = (
    Shape(name="room", streams=1, subscribers=500, window=8),
    Shape(name="private-1", streams=200, subscribers=1, window=1),
    Shape(name="private-8", streams=200, subscribers=1, window=8),
    Shape(name="rooms-20", streams=20, subscribers=20, window=1),
)
SQLITE_SHAPES: Final = frozenset({"private-8"})
"""The durable store is compared with the memory store where group commit must carry it."""
