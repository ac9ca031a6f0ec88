"""What a piece of work costs two servers, measured by turns of milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

WARMUP_BLOCKS: Final = 3
BLOCKS_MIN: Final = 8


def costs_in_turn(one: Callable[[], float], two: Callable[[], float], seconds: float) -> tuple[float, float]:
    """Do the blocks of both in turn, for so long, and return what a block says that it cost.

    One server is idle while the other works, so what disturbs for more than milliseconds disturbs both. The lower
    quartile of the blocks stands for a server, as interference only ever adds.
    """
    costs: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARMUP_BLOCKS):
        one()
        two()
    end_ns = time.monotonic_ns() + int(seconds * 1e9)
    while time.monotonic_ns() < end_ns or len(costs[0]) < BLOCKS_MIN:
        for own, block in ((costs[0], one), (costs[1], two), (costs[1], two), (costs[0], one)):
            own.append(block())
    first, second = (sorted(own)[len(own) // 4] for own in costs)
    return first, second
