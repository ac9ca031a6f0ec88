"""The tables of the throughput benchmark, as lines of cells; pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from benchmarks.fast_load.private_chats import Latency
from benchmarks.rig.tables import thousands
from benchmarks.throughput.beside_room import DELAYED_ACKS_MAX, Beside, median_ratio
from benchmarks.throughput.goals import GOALS, OTHERS_MAX, ShapeRound, note, ratio, rounds_of
from benchmarks.throughput.idle import Idle

IDLE_BYTES_MAX: Final = 4096
BESIDE_RATIO_MAX: Final = 3.0
OURS: Final = "reference"
"""The target that bounds and ratios are about."""

Lines = list[list[str]]


def shape_lines(rows: Sequence[ShapeRound], shape: str) -> Lines:
    """Return the table of one shape: a heading and a line a target, in the order in which targets first occur."""
    lines = [
        [
            *("target", "deliveries/s", "lowest..highest", "publishes/s", "behind"),
            *("server CPU", "load CPU", f"{OURS} : target", ""),
        ]
    ]
    for target in dict.fromkeys(row.target for row in rows if row.shape == shape):
        chosen = rounds_of(rows, target, shape)
        rates = [row.measured.deliveries_per_s for row in chosen]
        compared = ratio(rows, shape, OURS, target) if target != OURS else None
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


def goal_lines(rows: Sequence[ShapeRound]) -> Lines:
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


def idle_lines(idle: dict[str, list[Idle]]) -> Lines:
    """Return the table of idle connections."""
    lines = [["target", "connections", "streams", "bytes each", "at most", ""]]
    for target, measured in idle.items():
        for one in measured:
            bound = [str(IDLE_BYTES_MAX), "reached" if one.bytes_each <= IDLE_BYTES_MAX else "missed"]
            figures = [str(one.connections), str(one.streams), f"{one.bytes_each:.0f}"]
            lines.append([target, *figures, *(bound if target == OURS else ["", ""])])
    return lines


def beside_lines(beside: dict[str, list[Beside]]) -> Lines:
    """Return the table of private chats without and beside a big room."""
    lines = [
        [
            *("target", "p99 without", "p99 beside", "ratio", "rounds", "at most", "", "p99 again / first"),
            *("send lag p50, p99 without", "beside", "room msg/s", "room delivered", "others' CPU", "late ACKs", ""),
        ]
    ]
    for target, rounds in beside.items():
        value = median_ratio(rounds)
        without = [phase for one in rounds for phase in (one.before, one.after)]
        inside = [one.beside for one in rounds]
        bound = [f"{BESIDE_RATIO_MAX:g}", "reached" if value <= BESIDE_RATIO_MAX else "missed"]
        delivered = sum(one.room.delivered for one in rounds)
        lines.append(
            [
                target,
                f"{median(one.p99_ns for one in without) / 1e6:.3f} ms",
                f"{median(one.p99_ns for one in inside) / 1e6:.3f} ms",
                f"{value:.2f}",
                f"{min(one.ratio for one in rounds):.2f}..{max(one.ratio for one in rounds):.2f}",
                *(bound if target == OURS else ["", ""]),
                f"{median(one.noise for one in rounds):.2f}",
                *(_lag(phases) for phases in (without, inside)),
                f"{median(one.room.per_s for one in rounds):.1f}",
                f"{delivered} of {sum(one.room.published * one.room.subscribers for one in rounds)}",
                f"{max(one.others_cpu for one in rounds):.0%}",
                f"{median(one.room.late_share for one in rounds):.0%}",
                _doubt(rounds),
            ]
        )
    return lines


def _lag(phases: Sequence[Latency]) -> str:
    return f"{median(p.lag_p50_ns for p in phases) / 1e6:.3f}, {median(p.lag_p99_ns for p in phases) / 1e6:.3f} ms"


def _doubt(rounds: Sequence[Beside]) -> str:
    """Return what makes the latencies doubtful, if anything does."""
    notes = []
    if max(one.others_cpu for one in rounds) > OTHERS_MAX:
        notes.append("disturbed")
    if median(one.room.late_share for one in rounds) > DELAYED_ACKS_MAX:
        notes.append("the room was drained too late")
    return ", ".join(notes)
