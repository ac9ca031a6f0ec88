"""What a throughput benchmark found, and what it must reach: rounds, ratios between targets, goals; pure.

A ratio is the median of the rounds' ratios: the targets of a round were loaded in turn, so what drifts over seconds is the
same for them. Beside it stand the smallest and the largest ratio of any one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.fast_load.closed_loop import Throughput

BUSY: Final = 0.95
"""A core that is used more than this has nothing left."""
OTHERS_MAX: Final = 0.05
"""Other processes may use this much of the measured cores before a figure is called disturbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRound:
    """One measurement of one round."""

    target: str
    shape: str
    round: int
    measured: Throughput


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsRatio:
    """How many times `over` the target `target` delivered; `low` and `high` are the rounds' extremes."""

    shape: str
    target: str
    over: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a ratio must reach at least, so that the relay is worth measuring."""

    shape: str
    target: str
    over: str
    at_least: float


GOALS: Final = (
    Goal(shape="room", target="reference", over="reference@trio-websocket", at_least=15.0),
    Goal(shape="private-1", target="reference", over="reference@trio-websocket", at_least=4.0),
    Goal(shape="room", target="reference", over="nats", at_least=1.5),
    Goal(shape="private-1", target="reference", over="nats", at_least=1.5),
    Goal(shape="rooms-20", target="reference", over="nats", at_least=1.5),
    Goal(shape="private-8", target="reference", over="nats", at_least=0.9),
    Goal(shape="room", target="reference", over="bun", at_least=0.75),
    Goal(shape="private-1", target="reference", over="bun", at_least=0.75),
    Goal(shape="private-8", target="reference", over="bun", at_least=0.75),
    Goal(shape="rooms-20", target="reference", over="bun", at_least=0.75),
    Goal(shape="private-8", target="reference@sqlite", over="reference", at_least=0.3),
)


def rounds_of(rows: Sequence[ShapeRound], target: str, shape: str) -> list[ShapeRound]:
    """Return the rounds of one target on one shape."""
    return [row for row in rows if (row.target, row.shape) == (target, shape)]


def ratio(rows: Sequence[ShapeRound], shape: str, target: str, over: str) -> RoundsRatio | None:
    """Return how `target` compares with `over`; None unless some round has both."""
    ours = {row.round: row.measured.deliveries_per_s for row in rounds_of(rows, target, shape)}
    theirs = {row.round: row.measured.deliveries_per_s for row in rounds_of(rows, over, shape)}
    rounds = [ours[number] / theirs[number] for number in ours if number in theirs]
    if not rounds:
        return None
    return RoundsRatio(shape=shape, target=target, over=over, value=median(rounds), low=min(rounds), high=max(rounds))


def load_bound(rows: Sequence[ShapeRound]) -> bool:
    """Tell whether the load, not the server, set these figures."""
    return (
        median(row.measured.load_cpu for row in rows) > BUSY and median(row.measured.server_cpu for row in rows) < BUSY
    )


def note(rows: Sequence[ShapeRound]) -> str:
    """Return what makes these figures doubtful, if anything does."""
    notes = ["load-bound"] if load_bound(rows) else []
    # What others take of the load's core does no harm while the server has enough to do.
    others = max(
        row.measured.others_cpu
        if row.measured.server_cpu > BUSY
        else max(row.measured.others_cpu, row.measured.others_load_cpu)
        for row in rows
    )
    if others > OTHERS_MAX:
        notes.append(f"disturbed: others took {others:.0%} of a core")
    return ", ".join(notes)
