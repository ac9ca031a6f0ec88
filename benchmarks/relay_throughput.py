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
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

from benchmarks.fast_load.closed_loop import BLOCK_S, Load, Measured, Shape, loaded, measure_in_turn
from benchmarks.fast_load.counting import CountingError
from benchmarks.rig.processes import Cores, Server, ServerError, choose_cores, ended_by_signal, raise_file_limit
from benchmarks.rig.tables import OTHERS_MAX, Row, goal_lines, markdown, plain, shape_lines
from benchmarks.throughput.beside_room import (
    DELAYED_ACKS_MAX,
    ROOM_SUBSCRIBERS,
    Beside,
    Latency,
    measure_beside,
    median_ratio,
)
from benchmarks.throughput.idle import CONNECTIONS, Idle, measure_idle
from benchmarks.throughput.targets import Target, all_targets, serving
from loadtests.results.exit_codes import EXIT_INTERRUPTED

SHAPES: Final = (
    Shape(name="room", streams=1, subscribers=500, window=8),
    Shape(name="private-1", streams=200, subscribers=1, window=1),
    Shape(name="private-8", streams=200, subscribers=1, window=8),
    Shape(name="rooms-20", streams=20, subscribers=20, window=1),
)
SQLITE_SHAPES: Final = frozenset({"private-8"})
"""The durable store is compared with the memory store where group commit must carry it."""
WARMUP_S: Final = 0.5
IDLE_BYTES_MAX: Final = 4096
BESIDE_RATIO_MAX: Final = 3.0
_SPARE_FILES: Final = 200

_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True)
class Results:
    """All that one call measured."""

    rows: list[Row] = field(default_factory=list)
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
    parser.add_argument("--targets", nargs="+", choices=list(all_targets()), default=list(all_targets()))
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
    known = all_targets()
    for name in names:
        if known[name].command is None:
            _say(f"{name} is not installed and left out; to get it: {known[name].how_to_get}")
    return [known[name] for name in names if known[name].command is not None]


def _throughput(
    results: Results, targets: list[Target], shapes: list[Shape], cores: Cores, options: argparse.Namespace
) -> None:
    for number in range(options.rounds):
        for shape in shapes:
            chosen = [target for target in targets if target.name != "pump-sqlite" or shape.name in SQLITE_SHAPES]
            for target, measured in _in_turn(results, chosen, shape, cores, options, number):
                results.rows.append(Row(target=target.name, shape=shape.name, round=number, measured=measured))
                _say(f"round {number + 1}: {shape.name:10} {target.name:15} {measured.deliveries_per_s:12,.0f}/s")


def _in_turn(
    results: Results, targets: list[Target], shape: Shape, cores: Cores, options: argparse.Namespace, number: int
) -> list[tuple[Target, Measured]]:
    """Start all targets and load them in turn; a failure is kept for the report and for the exit code."""
    blocks = max(1, round(options.seconds / BLOCK_S))
    block_s = options.seconds / blocks
    running: list[Target] = []
    loads: list[tuple[Server, Load]] = []
    figures: list[Measured | CountingError | OSError] = []
    try:
        with ExitStack() as stack:
            for target in targets:
                try:
                    server = stack.enter_context(serving(target, cores))
                    load = stack.enter_context(loaded(target.client(), server, shape))
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
    _say(results.failures[-1])


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
                _say(f"idle: {target.name:15} {idle.bytes_each:8,.0f} bytes a connection, {idle.streams} streams")


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
                _say(f"round {number + 1}: {target.name:15} private p99 beside the room {beside.ratio:.2f} times")


def _attempt(results: Results, what: str, target: Target, cores: Cores, run: Callable[..., _T]) -> _T | None:
    """Run one measurement on a fresh server; a failure is kept for the report and for the exit code."""
    try:
        with serving(target, cores) as server:
            return run(target.client(), server)
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
        parts += ["Idle connections, each subscribed", table(_idle_lines(results.idle))]
    if results.beside:
        parts += ["Private chats, without and beside a big room", table(_beside_lines(results.beside))]
    if results.failures:
        parts += ["FAILED", *results.failures]
    return "\n\n".join(parts)


def _idle_lines(idle: dict[str, list[Idle]]) -> Lines:
    lines = [["target", "connections", "streams", "bytes each", "at most", ""]]
    for target, measured in idle.items():
        for one in measured:
            bound = [str(IDLE_BYTES_MAX), "reached" if one.bytes_each <= IDLE_BYTES_MAX else "missed"]
            figures = [str(one.connections), str(one.streams), f"{one.bytes_each:.0f}"]
            lines.append([target, *figures, *(bound if target == "pump" else ["", ""])])
    return lines


def _beside_lines(beside: dict[str, list[Beside]]) -> Lines:
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
                *(bound if target == "pump" else ["", ""]),
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


def _conditions(cores: Cores, options: argparse.Namespace) -> dict[str, object]:
    where = f"server on core {cores.server}, load on core {cores.load}"
    if cores.shared:
        where = "ONE CORE ONLY, shared by server and load: these figures compare with no others"
    return {
        "cores:": where,
        "processor:": _processor(),
        "Python": platform.python_version(),
        "kernel": platform.release(),
        "commit": _commit(),
        "rounds:": options.rounds,
        "seconds:": options.seconds,
        "at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
