"""Medians, ratios and tables of the throughput benchmark, pure.

A ratio is the median of the rounds' ratios: the targets of a round were loaded in turn, so what drifts over seconds is the
same for them. Beside it stand the smallest and the largest ratio of any one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.fast_load.closed_loop import Measured

BUSY: Final = 0.95
"""A core that is used more than this has nothing left."""
OTHERS_MAX: Final = 0.05
"""Other processes may use this much of the measured cores before a figure is called disturbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement of one round."""

    target: str
    shape: str
    round: int
    measured: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times `over` the target `target` delivered; `low` and `high` are the rounds' extremes."""

    shape: str
    target: str
    over: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a ratio must reach at least. Source: the relay's requirements, "what it must reach"."""

    shape: str
    target: str
    over: str
    at_least: float


GOALS: Final = (
    Goal(shape="room", target="pump", over="trio-websocket", at_least=15.0),
    Goal(shape="private-1", target="pump", over="trio-websocket", at_least=4.0),
    Goal(shape="room", target="pump", over="nats-server", at_least=1.5),
    Goal(shape="private-1", target="pump", over="nats-server", at_least=1.5),
    Goal(shape="rooms-20", target="pump", over="nats-server", at_least=1.5),
    Goal(shape="private-8", target="pump", over="nats-server", at_least=0.9),
    Goal(shape="room", target="pump", over="bun", at_least=0.75),
    Goal(shape="private-1", target="pump", over="bun", at_least=0.75),
    Goal(shape="private-8", target="pump", over="bun", at_least=0.75),
    Goal(shape="rooms-20", target="pump", over="bun", at_least=0.75),
    Goal(shape="private-8", target="pump-sqlite", over="pump", at_least=0.3),
)


def of(rows: Sequence[Row], target: str, shape: str) -> list[Row]:
    """Return the rounds of one target on one shape."""
    return [row for row in rows if (row.target, row.shape) == (target, shape)]


def ratio(rows: Sequence[Row], shape: str, target: str, over: str) -> Ratio | None:
    """Return how `target` compares with `over`; None unless some round has both."""
    ours = {row.round: row.measured.deliveries_per_s for row in of(rows, target, shape)}
    theirs = {row.round: row.measured.deliveries_per_s for row in of(rows, over, shape)}
    rounds = [ours[number] / theirs[number] for number in ours if number in theirs]
    if not rounds:
        return None
    return Ratio(shape=shape, target=target, over=over, value=median(rounds), low=min(rounds), high=max(rounds))


def load_bound(rows: Sequence[Row]) -> bool:
    """Tell whether the load, not the server, set these figures."""
    return (
        median(row.measured.load_cpu for row in rows) > BUSY and median(row.measured.server_cpu for row in rows) < BUSY
    )


def note(rows: Sequence[Row]) -> str:
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


def shape_lines(rows: Sequence[Row], shape: str) -> list[list[str]]:
    """Return the table of one shape: a heading and a line a target, in the order in which targets first occur."""
    lines = [
        [
            *("target", "deliveries/s", "lowest..highest", "publishes/s", "behind"),
            *("server CPU", "load CPU", "pump : target", ""),
        ]
    ]
    for target in dict.fromkeys(row.target for row in rows if row.shape == shape):
        chosen = of(rows, target, shape)
        rates = [row.measured.deliveries_per_s for row in chosen]
        compared = ratio(rows, shape, "pump", target) if target != "pump" else None
        lines.append(
            [
                target,
                thousands(median(rates)),
                f"{thousands(min(rates))}..{thousands(max(rates))}",
                thousands(median(row.measured.publishes_per_s for row in chosen)),
                f"{median(row.measured.behind_ns for row in chosen) / 1e6:.1f} ms",
                f"{median(row.measured.server_cpu for row in chosen):.0%}",
                f"{median(row.measured.load_cpu for row in chosen):.0%}",
                f"{compared.value:.2f}" if compared else "",
                note(chosen),
            ]
        )
    return lines


def goal_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the table of what must be reached, for the goals that these rows can answer."""
    lines = [["ratio", "shape", "measured", "rounds", "at least", ""]]
    for goal in GOALS:
        got = ratio(rows, goal.shape, goal.target, goal.over)
        if got is not None:
            lines.append(
                [
                    f"{goal.target} : {goal.over}",
                    goal.shape,
                    f"{got.value:.2f}",
                    f"{got.low:.2f}..{got.high:.2f}",
                    f"{goal.at_least:g}",
                    "reached" if got.value >= goal.at_least else "missed",
                ]
            )
    return lines


def thousands(value: float) -> str:
    """Return 104_300.0 as `104.3 k`, and 1_043_000.0 as `1043 k`."""
    return f"{value / 1000:.0f} k" if value >= 1e6 else f"{value / 1000:.1f} k"


def plain(lines: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return the same table for Markdown."""
    head, *body = lines
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))
