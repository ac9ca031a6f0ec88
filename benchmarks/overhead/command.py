"""What `relaymark bench overhead` does with its options."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from benchmarks.overhead import end_to_end, operations, ratchets
from benchmarks.overhead.end_to_end import EndToEndError, EndToEndLoad, Point
from benchmarks.overhead.operations import GroupCost, Operation, Setup
from benchmarks.overhead.report import Overhead, render
from benchmarks.overhead.schemes import SUITES
from benchmarks.rig.files import unwritable, write
from benchmarks.rig.processes import ended_by_signal
from benchmarks.rig.say import complain, say_as
from loadtests.results.environment import commit, machine, python_version, versions
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_OK
from loadtests.results.files import ResultsError

Part: TypeAlias = Literal["operations", "end-to-end"]
PARTS: tuple[Part, ...] = ("operations", "end-to-end")
_TIMING_ROUNDS = 7
_say = say_as("relaymark bench overhead")


class OverheadOptions(Struct, frozen=True, kw_only=True):
    """The options."""

    parts: tuple[Part, ...]
    quick: bool
    scenario: str
    participants: int
    seconds: float
    rounds: int
    seed: int
    json: Path | None
    markdown: Path | None


def run(wanted: OverheadOptions) -> int:
    """Return the exit code: 0, 104 for options, 105 if interrupted, or that of the run that failed."""
    problems = _problems(wanted)
    if problems:
        return complain("relaymark bench overhead", problems, EXIT_CONFIGURATION)
    try:
        with ended_by_signal():
            overhead = _measure(wanted)
    except EndToEndError as error:
        _say(str(error))
        return error.code
    print(render(overhead, as_markdown=False))
    try:
        if wanted.json:
            write(wanted.json, msgspec.json.format(msgspec.json.encode(overhead), indent=1) + b"\n")
        if wanted.markdown:
            write(wanted.markdown, render(overhead, as_markdown=True).encode() + b"\n")
    except ResultsError as error:
        _say(str(error))
        return EXIT_CONFIGURATION
    return EXIT_INTERRUPTED if overhead.interrupted else EXIT_OK


def _problems(wanted: OverheadOptions) -> list[str]:
    problems = []
    if wanted.rounds < 1:
        problems.append(f"--rounds {wanted.rounds}: use 1 or more; 3 give an interval")
    if wanted.participants < 2:
        problems.append(f"--participants {wanted.participants}: use 2 or more")
    if not 1 <= wanted.seconds <= 3600:
        problems.append(f"--seconds {wanted.seconds:g}: use 1 to 3600")
    return problems + unwritable({"json": wanted.json, "markdown": wanted.markdown})


def _measure(wanted: OverheadOptions) -> Overhead:
    started_ns = time.time_ns()
    found, missing = ratchets.installed()
    schemes = [*SUITES, *found]
    one: list[Operation] = []
    groups: list[GroupCost] = []
    setups: list[Setup] = []
    points: list[Point] = []
    load, notes, interrupted = None, [], False
    try:
        if "operations" in wanted.parts:
            notes += missing
            payloads = operations.PAYLOADS[::2] if wanted.quick else operations.PAYLOADS
            members = operations.GROUPS[::2] if wanted.quick else operations.GROUPS
            rounds = 3 if wanted.quick else _TIMING_ROUNDS
            for scheme in schemes:
                _say(f"{scheme.title}: operations, groups, joining")
                one += [operations.operation(scheme, payload, rounds=rounds) for payload in payloads]
                groups += [operations.group(scheme, count, rounds=rounds) for count in members]
                setups += [operations.setup(scheme, count) for count in members]
        if "end-to-end" in wanted.parts:
            load = EndToEndLoad(
                scenario=wanted.scenario,
                participants=wanted.participants,
                duration_s=wanted.seconds,
                rounds=wanted.rounds,
                seed=wanted.seed,
            )
            end_to_end.measure(load, points, _say)
    except KeyboardInterrupt:
        interrupted = True
        notes.append("Interrupted: this is what was measured until then.")
    invalid = sum(not point.valid for point in points)
    if invalid:
        notes.append(
            f"{invalid} of {len(points)} runs are invalid by the harness's own checks (a disturbed machine, most "
            "often): trust no small difference here"
        )
    return Overhead(
        relaymark=version("relaymark"),
        commit=commit(Path(__file__).parent),
        machine=machine(),
        python=python_version(),
        versions=versions(),
        started_unix_ns=started_ns,
        titles={scheme.name: scheme.title for scheme in schemes},
        operations=one,
        groups=groups,
        setups=setups,
        load=load,
        points=points,
        added=end_to_end.added(points),
        notes=notes,
        interrupted=interrupted,
    )
