"""Runs of commits: a fresh relay of a tree on its own core, the same load as ever, a handful of figures.

The interpreter, its libraries and the load are always the ones that run the gate; only the relay's code is the tree's.
Work in lock step measures the processor time a delivery, a closed window the throughput, and an open-loop schedule, the
same in every run, the latency.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.fast_load.clients import RelayClient
from benchmarks.fast_load.closed_loop import Shape, measure
from benchmarks.fast_load.counting import CountingError
from benchmarks.fast_load.lockstep import DELIVERIES, LockStep, instructions_per_delivery, lock_step
from benchmarks.fast_load.private_chats import private_chats, schedule
from benchmarks.gate.metrics import MetricName
from benchmarks.gate.runs import GateRun, RunError, Side
from benchmarks.gate.trees import Tree
from benchmarks.rig.in_turn import costs_in_turn
from benchmarks.rig.instructions import Tool
from benchmarks.rig.processes import Cores, Server, ServerError, running
from benchmarks.rig.usage import run_time_ns

SHAPE: Final = Shape(name="gate", streams=50, subscribers=4, window=4)
"""Small rooms: what a publish costs and what a delivery costs both weigh in."""
WARMUP_S: Final = 0.25
SEED: Final = 4
UNLIMITED_PER_S: Final = 10_000_000
"""One publisher in lock step sends more than a client may."""
BUSY: Final = 0.9
"""Share of the relay's core: beyond, it had enough to do."""
START: Final = """
import os, sys, relay.cli
if not relay.cli.__file__.startswith(os.environ["RELAYMARK_TREE"] + os.sep):
    sys.exit("the relay that was found is not the tree's: " + relay.cli.__file__)
relay.cli.main()
"""


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


class TreeRuns:
    """Runs of two trees."""

    def __init__(self, base: Tree, head: Tree, cores: Cores) -> None:
        self._trees: dict[Side, Tree] = {"base": base, "head": head}
        self._cores = cores

    def pair(
        self, sides: tuple[Side, Side], *, seconds: float, calibration: bool = False, whole: bool = True
    ) -> tuple[GateRun, GateRun]:
        """Run a pair, as MakePair says."""
        one, two = (self._trees[side] for side in sides)
        made = []
        with _serving(one, self._cores) as first, _serving(two, self._cores) as second:
            costs = _costs((one, two), (first, second), seconds)
            for tree, server, side, cost_ns in zip((one, two), (first, second), sides, costs, strict=True):
                figures: dict[MetricName, float] = {"cpu": cost_ns / 1e3}
                others = 0.0
                if whole:
                    with named(tree):
                        others = _loaded(server, self._cores, seconds, figures)
                if min(figures.values()) <= 0:
                    raise RunError(
                        f"the relay of {tree.ref} ({tree.commit[:12]}): it delivered nothing within {seconds:g} s, or this "
                        "system tells its processor time too coarsely: use more --seconds"
                    )
                made.append(GateRun(side=side, calibration=calibration, figures=figures, others=others))
        return made[0], made[1]

    def count(self, side: Side, tool: Tool, *, swapped: bool) -> float:
        """Count a relay's instructions, as CountInstructions says."""
        tree, cores = self._trees[side], self._cores
        if swapped:
            cores = Cores(server=cores.load, load=cores.server)
        with named(tree):
            return instructions_per_delivery(*command(tree), tool, cores)


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
    """Return the processor time a delivery of both, ns."""
    with named(trees[0]), lock_step(servers[0]) as one, named(trees[1]), lock_step(servers[1]) as two:
        return costs_in_turn(lambda: _cost(one, servers[0]), lambda: _cost(two, servers[1]), 2 * seconds)


def _cost(step: LockStep, server: Server) -> float:
    before_ns = run_time_ns(server.pid)
    step.block()
    return (run_time_ns(server.pid) - before_ns) / DELIVERIES


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
