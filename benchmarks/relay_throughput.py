"""How much the relay carries on one core, beside its other transports, nats-server and Bun, in one interleaved call.

    python -m benchmarks.relay_throughput [--rounds 3] [--seconds 2] [--targets ...] [--shapes ...] [--idle] [--room]

The servers are pinned to one core and the load to another. All targets of a round are started, and the load turns from
one to the next every quarter of a second: what drifts is the same for all. Every publish of a 256-byte sealed record is
acknowledged, the window is closed, and deliveries are counted exactly: a record lost, repeated or out of order fails
the benchmark (exit code 1). Of every read the first record is compared byte for byte, the others by their place and index.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.fast_load.clients import client_of
from benchmarks.fast_load.closed_loop import BLOCK_S, ClosedLoop, Shape, Throughput, loaded, measure_in_turn
from benchmarks.fast_load.counting import CountingError
from benchmarks.fast_load.serving import serving
from benchmarks.rig.processes import Cores, Server, ServerError, choose_cores, ended_by_signal, raise_file_limit
from benchmarks.rig.say import say
from benchmarks.rig.tables import markdown, plain
from benchmarks.throughput.beside_room import ROOM_SUBSCRIBERS, Beside, measure_beside
from benchmarks.throughput.goals import ShapeRound
from benchmarks.throughput.idle import CONNECTIONS, Idle, measure_idle
from benchmarks.throughput.report import beside_lines, goal_lines, idle_lines, shape_lines
from benchmarks.throughput.shapes import SHAPES, SQLITE_SHAPES
from loadtests.results.environment import commit, machine
from loadtests.results.exit_codes import EXIT_INTERRUPTED
from loadtests.target.catalogue import CATALOGUE
from loadtests.target.target import Target

TARGETS: Final = ("reference", "reference@sqlite", "reference@trio-websocket", "reference@uvloop", "nats", "bun")
WARMUP_S: Final = 0.5
_SPARE_FILES: Final = 200

_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True)
class Results:
    """All that one call measured."""

    rows: list[ShapeRound] = field(default_factory=list)
    idle: dict[str, list[Idle]] = field(default_factory=dict)
    beside: dict[str, list[Beside]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code: 0, 1 if something could not be measured or was lost, 105 for Ctrl-C."""
    options = _parse(arguments)
    targets = _installed(options.targets)
    shapes = [shape for shape in SHAPES if shape.name in options.shapes]
    cores = choose_cores()
    os.sched_setaffinity(0, {cores.load})
    results, interrupted = Results(), False
    with ended_by_signal():
        try:
            open_at_once = max((shape.streams * (shape.subscribers + 1) for shape in shapes), default=0) * len(targets)
            beside = options.connections if options.idle else options.subscribers
            raise_file_limit(max(open_at_once, beside) + _SPARE_FILES)
            _throughput(results, targets, shapes, cores, options)
            if options.idle:
                _idle(results, targets, cores, options)
            if options.room:
                _room(results, targets, cores, options)
        except ServerError as error:
            results.failures.append(str(error))
        except KeyboardInterrupt:
            interrupted = True
            results.failures.append("interrupted: these are the figures until then")
    conditions = _conditions(cores, options)
    print(_report(results, shapes, conditions, markdown if options.markdown else plain))
    if options.json:
        content = {"conditions": conditions, "shapes": [asdict(shape) for shape in shapes], **asdict(results)}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if interrupted:
        return EXIT_INTERRUPTED
    return 1 if results.failures else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay_throughput", description=__doc__.split("\n")[0])
    names = [shape.name for shape in SHAPES]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--shapes", nargs="*", choices=names, default=names, help="none after it: no throughput")
    parser.add_argument("--idle", action="store_true", help="measure the memory of idle connections too")
    parser.add_argument("--room", action="store_true", help="measure private chats beside a big room too")
    parser.add_argument("--quick", action="store_true", help="a short look: one round, small, too noisy to compare")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args(arguments)
    options.warmup_s, options.connections, options.subscribers = WARMUP_S, CONNECTIONS, ROOM_SUBSCRIBERS
    options.room_s = max(5.0, options.seconds)
    if options.quick:
        options.rounds, options.seconds, options.warmup_s, options.room_s = 1, 0.5, 0.2, 1.0
        options.connections, options.subscribers = CONNECTIONS // 8, ROOM_SUBSCRIBERS // 8
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be above 0")
    return options


def _installed(names: Sequence[str]) -> list[Target]:
    chosen = []
    for name in names:
        how_to_get = CATALOGUE[name].missing()
        if how_to_get is None:
            chosen.append(CATALOGUE[name])
        else:
            say(f"{name} is not installed and left out; to get it: {how_to_get}")
    return chosen


def _throughput(
    results: Results, targets: list[Target], shapes: list[Shape], cores: Cores, options: argparse.Namespace
) -> None:
    for number in range(options.rounds):
        for shape in shapes:
            chosen = [target for target in targets if target.name != "reference@sqlite" or shape.name in SQLITE_SHAPES]
            for target, measured in _in_turn(results, chosen, shape, cores, options, number):
                results.rows.append(ShapeRound(target=target.name, shape=shape.name, round=number, measured=measured))
                say(f"round {number + 1}: {shape.name:10} {target.name:15} {measured.deliveries_per_s:12,.0f}/s")


def _in_turn(
    results: Results, targets: list[Target], shape: Shape, cores: Cores, options: argparse.Namespace, number: int
) -> list[tuple[Target, Throughput]]:
    """Start all targets and load them in turn; a failure is kept for the report and for the exit code."""
    blocks = max(1, round(options.seconds / BLOCK_S))
    block_s = options.seconds / blocks
    running: list[Target] = []
    loads: list[tuple[Server, ClosedLoop]] = []
    figures: list[Throughput | CountingError | OSError] = []
    try:
        with ExitStack() as stack:
            for target in targets:
                try:
                    server = stack.enter_context(serving(target, cores))
                    load = stack.enter_context(loaded(client_of(target.name), server, shape))
                except (CountingError, ServerError, OSError) as error:
                    _failed(results, f"{target.name}, {shape.name}", error)
                else:
                    running.append(target)
                    loads.append((server, load))
            if loads:
                figures = measure_in_turn(
                    loads, cores, blocks=blocks, block_s=block_s, warmup_s=options.warmup_s, seed=number
                )
    except ServerError as error:  # one has ended by itself
        _failed(results, shape.name, error)
    measured = []
    for target, figure in zip(running, figures, strict=False):  # none where the round was given up
        if isinstance(figure, Exception):
            _failed(results, f"{target.name}, {shape.name}", figure)
        else:
            measured.append((target, figure))
    return measured


def _failed(results: Results, what: str, error: Exception) -> None:
    results.failures.append(f"{what}: {error}")
    say(results.failures[-1])


def _idle(results: Results, targets: list[Target], cores: Cores, options: argparse.Namespace) -> None:
    for target in targets:
        for own_streams in (False, True):
            idle = _attempt(
                results,
                f"{target.name}, idle",
                target,
                cores,
                lambda client, server, own=own_streams: measure_idle(
                    client, server, count=options.connections, own_streams=own
                ),
            )
            if idle is not None:
                results.idle.setdefault(target.name, []).append(idle)
                say(f"idle: {target.name:15} {idle.bytes_each:8,.0f} bytes a connection, {idle.streams} streams")


def _room(results: Results, targets: list[Target], cores: Cores, options: argparse.Namespace) -> None:
    for number in range(options.rounds):
        for target in targets:
            beside = _attempt(
                results,
                f"{target.name}, private chats",
                target,
                cores,
                lambda client, server, seed=number: measure_beside(
                    client, server, cores, seconds=options.room_s, subscribers=options.subscribers, seed=seed
                ),
            )
            if beside is not None:
                results.beside.setdefault(target.name, []).append(beside)
                say(f"round {number + 1}: {target.name:15} private p99 beside the room {beside.ratio:.2f} times")


def _attempt(results: Results, what: str, target: Target, cores: Cores, run: Callable[..., _T]) -> _T | None:
    """Run one measurement on a fresh server; a failure is kept for the report and for the exit code."""
    try:
        with serving(target, cores) as server:
            return run(client_of(target.name), server)
    except (CountingError, ServerError, OSError) as error:
        _failed(results, what, error)
        return None


Lines = Sequence[Sequence[str]]


def _report(
    results: Results, shapes: Sequence[Shape], conditions: dict[str, object], table: Callable[[Lines], str]
) -> str:
    parts = ["; ".join(f"{name} {value}" for name, value in conditions.items())]
    for shape in shapes:
        title = f"{shape.name}: {shape.streams} x {shape.subscribers} subscribers, window {shape.window}"
        parts += [title, table(shape_lines(results.rows, shape.name))]
    goals = goal_lines(results.rows)
    if len(goals) > 1:
        parts += ["What must be reached", table(goals)]
    if results.idle:
        parts += ["Idle connections, each subscribed", table(idle_lines(results.idle))]
    if results.beside:
        parts += ["Private chats, without and beside a big room", table(beside_lines(results.beside))]
    if results.failures:
        parts += ["FAILED", *results.failures]
    return "\n\n".join(parts)


def _conditions(cores: Cores, options: argparse.Namespace) -> dict[str, object]:
    where = f"server on core {cores.server}, load on core {cores.load}"
    if cores.shared:
        where = "ONE CORE ONLY, shared by server and load: these figures compare with no others"
    return {
        "cores:": where,
        "processor:": machine().cpu,
        "Python": platform.python_version(),
        "kernel": platform.release(),
        "commit": commit(Path(__file__).parent) or "unknown",
        "rounds:": options.rounds,
        "seconds:": options.seconds,
        "at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


if __name__ == "__main__":
    sys.exit(main())
