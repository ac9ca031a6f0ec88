"""One run: a fresh relay of a tree on its own core, the same load as ever, a handful of figures. Runs come in pairs.

The interpreter, its libraries and the load are always the ones that run the gate; only the relay's code is the tree's.
Work in lock step measures the processor time a delivery, a closed window the throughput, and an open-loop schedule, the
same in every run, the latency.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from benchmarks.fast_load.clients import RelayClient
from benchmarks.fast_load.closed_loop import Shape, measure
from benchmarks.fast_load.counting import CountingError
from benchmarks.fast_load.lockstep import DELIVERIES, instructions_per_delivery, lock_step
from benchmarks.fast_load.private_chats import private_chats, schedule
from benchmarks.gate.metrics import MetricName
from benchmarks.gate.trees import Tree
from benchmarks.rig.instructions import Tool
from benchmarks.rig.processes import Cores, Server, ServerError, running
from benchmarks.rig.usage import run_time_ns

Side: TypeAlias = Literal["base", "head"]

SHAPE: Final = Shape(name="gate", streams=50, subscribers=4, window=4)
"""Small rooms: what a publish costs and what a delivery costs both weigh in."""
WARMUP_S: Final = 0.25
SEED: Final = 4
UNLIMITED_PER_S: Final = 10_000_000
"""One publisher in lock step sends more than a client may."""
WARMUP_BLOCKS: Final = 3
BLOCKS_MIN: Final = 8
BUSY: Final = 0.9
"""Share of the relay's core: beyond, it had enough to do."""
START: Final = """
import os, sys, relay.cli
if not relay.cli.__file__.startswith(os.environ["RELAYMARK_TREE"] + os.sep):
    sys.exit("the relay that was found is not the tree's: " + relay.cli.__file__)
relay.cli.main()
"""


class RunError(Exception):
    """A tree's relay did not start, or lost what it was given."""


class GateRun(Struct, frozen=True, kw_only=True):
    """The figures of one run; times in us, as they are printed. `others`: the share that others took of the cores."""

    side: Side
    calibration: bool
    figures: dict[MetricName, float]
    others: float


def command(tree: Tree) -> tuple[list[str], Mapping[str, str]]:
    """Return the command and the environment that serve the relay of `tree` on a free port."""
    # -P: not the directory of the caller, which may be a checkout too.
    arguments = [sys.executable, "-P", "-c", START, "serve", "--listen", "127.0.0.1:0", "--store", "memory"]
    arguments += ["--durable-per-s", str(UNLIMITED_PER_S)]
    environment = {"PYTHONPATH": str(tree.directory), "RELAYMARK_TREE": str(tree.directory)}
    return arguments, environment


@contextmanager
def named(tree: Tree) -> Iterator[None]:
    """Say which tree's relay failed."""
    try:
        yield
    except (ServerError, CountingError, OSError) as error:
        raise RunError(f"the relay of {tree.ref} ({tree.commit[:12]}): {error}") from error


def run_pair(
    trees: tuple[Tree, Tree],
    sides: tuple[Side, Side],
    cores: Cores,
    *,
    seconds: float,
    calibration: bool = False,
    whole: bool = True,
) -> tuple[GateRun, GateRun]:
    """Start a fresh relay of both trees, measure and stop them; not `whole`: their processor time alone.

    Raises RunError.
    """
    made = []
    with _serving(trees[0], cores) as first, _serving(trees[1], cores) as second:
        costs = _costs(trees, (first, second), seconds)
        for tree, server, side, cost_ns in zip(trees, (first, second), sides, costs, strict=True):
            figures: dict[MetricName, float] = {"cpu": cost_ns / 1e3}
            others = 0.0
            if whole:
                with named(tree):
                    others = _loaded(server, cores, seconds, figures)
            if min(figures.values()) <= 0:
                raise RunError(
                    f"the relay of {tree.ref} ({tree.commit[:12]}): it delivered nothing within {seconds:g} s, or this "
                    "system tells its processor time too coarsely: use more --seconds"
                )
            made.append(GateRun(side=side, calibration=calibration, figures=figures, others=others))
    return made[0], made[1]


def costs_ns(trees: tuple[Tree, Tree], cores: Cores, seconds: float) -> tuple[float, float]:
    """Return the processor time a delivery of a fresh relay of each. Raises RunError."""
    with _serving(trees[0], cores) as first, _serving(trees[1], cores) as second:
        return _costs(trees, (first, second), seconds)


@contextmanager
def _serving(tree: Tree, cores: Cores) -> Iterator[Server]:
    arguments, environment = command(tree)
    with named(tree), running(arguments, cores, environment) as server:
        yield server


def _costs(trees: tuple[Tree, Tree], servers: tuple[Server, Server], seconds: float) -> tuple[float, float]:
    """Return the processor time a delivery of both, ns.

    Their blocks alternate, one relay idle while the other works, so what disturbs for more than milliseconds disturbs
    both. The lower quartile of the blocks stands for a relay, as interference only ever adds.
    """
    costs: tuple[list[float], list[float]] = ([], [])
    with named(trees[0]), lock_step(servers[0]) as one, named(trees[1]), lock_step(servers[1]) as two:
        for _ in range(WARMUP_BLOCKS):
            one.block()
            two.block()
        end_ns = time.monotonic_ns() + int(2 * seconds * 1e9)
        while time.monotonic_ns() < end_ns or len(costs[0]) < BLOCKS_MIN:
            for at, step in ((0, one), (1, two), (1, two), (0, one)):
                before_ns = run_time_ns(servers[at].pid)
                step.block()
                costs[at].append((run_time_ns(servers[at].pid) - before_ns) / DELIVERIES)
    first, second = (sorted(cost)[len(cost) // 4] for cost in costs)
    return first, second


def _loaded(server: Server, cores: Cores, seconds: float, figures: dict[MetricName, float]) -> float:
    """Measure throughput and latency into `figures`; return the share that others took of the cores."""
    loaded = measure(RelayClient(), server, SHAPE, cores, seconds=seconds, warmup_s=WARMUP_S)
    p50_ns, p99_ns = _latency(server, seconds)
    figures |= {"throughput": loaded.deliveries_per_s, "p50": p50_ns / 1e3, "p99": p99_ns / 1e3}
    # What others take of the load's core does no harm while the relay has enough to do.
    return loaded.others_cpu if loaded.server_cpu > BUSY else max(loaded.others_cpu, loaded.others_load_cpu)


def _latency(server: Server, seconds: float) -> tuple[int, int]:
    with private_chats(RelayClient(), server) as chats:
        chats.run(schedule(SEED, WARMUP_S))
        latency = chats.run(schedule(SEED + 1, seconds))
    return latency.p50_ns, latency.p99_ns


def count_instructions(tree: Tree, tool: Tool, cores: Cores) -> float:
    """Return the instructions a delivery of a fresh relay of `tree`. Raises RunError, ToolError."""
    with named(tree):
        return instructions_per_delivery(*command(tree), tool, cores)
