"""Medians, ratios, goals and tables of the throughput benchmark."""

from __future__ import annotations

import pytest

from benchmarks.fast_load.closed_loop import Throughput
from benchmarks.relay_throughput import TARGETS
from benchmarks.rig.tables import plain
from benchmarks.throughput.goals import GOALS, ShapeRound, load_bound, note, ratio
from benchmarks.throughput.report import goal_lines, shape_lines
from benchmarks.throughput.shapes import SHAPES


def row(
    target: str,
    number: int,
    rate: float,
    *,
    shape: str = "room",
    server_cpu: float = 1.0,
    load_cpu: float = 0.5,
    others_cpu: float = 0.0,
    others_load_cpu: float = 0.0,
) -> ShapeRound:
    measured = Throughput(
        deliveries_per_s=rate,
        publishes_per_s=rate / 500,
        behind_ns=2e6,
        server_cpu=server_cpu,
        load_cpu=load_cpu,
        others_cpu=others_cpu,
        others_load_cpu=others_load_cpu,
        delivered=1,
        acknowledged=1,
    )
    return ShapeRound(target=target, shape=shape, round=number, measured=measured)


ROWS = [
    *(row("reference", number, rate) for number, rate in enumerate((900e3, 1_000e3, 400e3))),
    *(row("bun", number, rate) for number, rate in enumerate((1_000e3, 1_250e3, 800e3))),
]


def test_a_ratio_is_the_median_of_the_rounds_ratios_with_their_extremes() -> None:
    got = ratio(ROWS, "room", "reference", "bun")
    assert got is not None
    assert (got.value, got.low, got.high) == pytest.approx((0.8, 0.5, 0.9))


def test_rounds_that_one_of_the_two_missed_are_not_paired() -> None:
    got = ratio([row("reference", 0, 10.0), row("reference", 1, 30.0), row("bun", 1, 10.0)], "room", "reference", "bun")
    assert got is not None
    assert (got.value, got.low, got.high) == (3.0, 3.0, 3.0)
    assert ratio([row("reference", 0, 10.0), row("bun", 1, 10.0)], "room", "reference", "bun") is None
    assert ratio(ROWS, "private-1", "reference", "bun") is None


def test_load_bound_is_a_busy_load_beside_a_server_with_time_to_spare() -> None:
    assert load_bound([row("bun", 0, 1.0, server_cpu=0.9, load_cpu=0.97)])
    assert not load_bound([row("bun", 0, 1.0, server_cpu=0.99, load_cpu=0.99)])
    assert not load_bound([row("bun", 0, 1.0, server_cpu=0.6, load_cpu=0.6)])


def test_notes_name_what_makes_a_figure_doubtful() -> None:
    assert note([row("bun", 0, 1.0)]) == ""
    assert note([row("bun", 0, 1.0, others_cpu=0.3)]) == "disturbed: others took 30% of a core"
    assert note([row("bun", 0, 1.0, others_load_cpu=0.3)]) == "", "the server had enough to do"
    assert note([row("bun", 0, 1.0, server_cpu=0.8, others_load_cpu=0.3)]) == "disturbed: others took 30% of a core"
    assert note([row("bun", 0, 1.0, server_cpu=0.5, load_cpu=1.0)]) == "load-bound"


def test_the_table_of_a_shape() -> None:
    assert plain(shape_lines(ROWS, "room")).splitlines() == [
        "target     deliveries/s  lowest..highest  publishes/s  behind  server CPU  load CPU  reference : target",
        "reference       900.0 k  400.0 k..1000 k        1.8 k  2.0 ms        100%       50%",
        "bun              1000 k  800.0 k..1250 k        2.0 k  2.0 ms        100%       50%                0.80",
    ]


def test_goals_are_judged_by_the_median_of_the_rounds_ratios() -> None:
    rows = [*ROWS, row("nats", 0, 700e3)]
    assert goal_lines(rows)[1:] == [
        ["reference : nats", "room", "1.29", "1.29..1.29", "1.5", "missed"],
        ["reference : bun", "room", "0.80", "0.50..0.90", "0.75", "reached"],
    ]


def test_every_goal_names_a_shape_and_targets_that_exist() -> None:
    shapes = {shape.name for shape in SHAPES}
    for goal in GOALS:
        assert goal.shape in shapes
        assert {goal.target, goal.over} <= set(TARGETS)
