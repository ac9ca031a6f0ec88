"""What `relaymark gate` does with its options: checks all of them, measures or compares, writes, gives the exit code."""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.gate import outputs
from benchmarks.gate.decide import Word
from benchmarks.gate.metrics import MetricName
from benchmarks.gate.report import Commit, Judged, Report, ReportError, compare, judged, load, save
from benchmarks.gate.runs import RunError
from benchmarks.gate.session import FULL, QUICK, ROUNDS_MIN, GatePlan, collect
from benchmarks.gate.trees import Tree, TreeError, checked_out, refuse_changes, repository, resolve
from benchmarks.rig import instructions
from benchmarks.rig.files import unwritable, write
from benchmarks.rig.priority import preferred
from benchmarks.rig.processes import ServerError, choose_cores, ended_by_signal, raise_file_limit
from benchmarks.rig.say import complain, say_as
from loadtests.results.environment import commit, machine, python_version, versions
from loadtests.results.exit_codes import (
    EXIT_CONFIGURATION,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TARGET,
    EXIT_THRESHOLD,
)
from loadtests.results.files import ResultsError

_say = say_as("relaymark gate")
_EXIT = {Word.PASS: EXIT_OK, Word.REGRESSION: EXIT_THRESHOLD, Word.INCONCLUSIVE: EXIT_INCONCLUSIVE}
_FILES = 1_000
"""Connections of both ends of two counted relays at once, and some."""
SECONDS_RANGE = (0.2, 60.0)


class GateOptions(Struct, frozen=True, kw_only=True):
    """The options."""

    base: str | None
    head: str
    quick: bool
    rounds: int | None
    seconds: float | None
    budget: float | None
    metrics: tuple[MetricName, ...]
    allow_dirty: bool
    results: tuple[Path, Path] | None
    json: Path | None
    markdown: Path | None
    junit: Path | None
    github: Path | None


def run(wanted: GateOptions) -> int:
    """Return the exit code.

    0 pass, 99 regression, 104 configuration, 105 interrupted, 121 inconclusive, 122 a relay did not start.
    """
    try:
        return _run(wanted)
    except KeyboardInterrupt:
        _say("interrupted; the worktrees and the relays are gone")
        return EXIT_INTERRUPTED


def _run(wanted: GateOptions) -> int:
    problems = _problems(wanted)
    started_ns = time.time_ns()
    verdict: Judged | None = None
    if wanted.results is not None and not problems:
        try:
            verdict = compare(load(wanted.results[0]), load(wanted.results[1]))
        except ReportError as error:
            problems.append(f"--results: {error}")
    elif wanted.results is None:
        top = _repository(wanted, problems)
        if top is not None and not problems:
            try:
                report = _measure(wanted, top)
            except TreeError as error:
                problems.append(str(error))
            except (RunError, ServerError) as error:
                _say(str(error))
                return EXIT_TARGET
            else:
                verdict = judged(report)
                if wanted.json:
                    save(wanted.json, report)
    if verdict is None:
        return complain("relaymark gate", problems, EXIT_CONFIGURATION)
    print(outputs.text(verdict))
    try:
        _write(wanted, verdict, time.time_ns() - started_ns)
    except ResultsError as error:
        _say(str(error))
        return EXIT_CONFIGURATION
    return _EXIT[verdict.word]


def _problems(wanted: GateOptions) -> list[str]:
    problems = []
    if wanted.results is None and wanted.base is None:
        problems.append("say what to compare with: --base REF, or --results A.json B.json")
    if wanted.results is not None and (wanted.base is not None or wanted.json is not None):
        problems.append("--results compares what was stored: --base and --json do not go with it")
    if wanted.rounds is not None and wanted.rounds < ROUNDS_MIN:
        problems.append(f"--rounds {wanted.rounds}: too few for an interval, use {ROUNDS_MIN} or more")
    if wanted.results is None and wanted.metrics == ("instructions",) and instructions.find() is None:
        problems.append("--metrics instructions: nothing here counts them, neither perf nor valgrind: install valgrind")
    low, high = SECONDS_RANGE
    if wanted.seconds is not None and not low <= wanted.seconds <= high:
        problems.append(f"--seconds {wanted.seconds:g}: use {low:g} to {high:g}")
    if wanted.budget is not None and not 0 < wanted.budget < float("inf"):
        problems.append(f"--budget {wanted.budget:g}: use more than 0 seconds")
    # Known before the measuring, not after it.
    problems += unwritable({name: getattr(wanted, name) for name in ("json", "markdown", "junit", "github")})
    return problems


def _repository(wanted: GateOptions, problems: list[str]) -> Path | None:
    try:
        top = repository(Path.cwd())
    except TreeError as error:
        problems.append(str(error))
        return None
    for ref in (wanted.base, wanted.head):
        if ref is not None:
            try:
                resolve(top, ref)
            except TreeError as error:
                problems.append(str(error))
    if not wanted.allow_dirty and "HEAD" in (wanted.base, wanted.head):
        try:
            refuse_changes(top)
        except TreeError as error:
            problems.append(str(error))
    return top


def plan(wanted: GateOptions) -> GatePlan:
    """Return the plan that the options ask for."""
    chosen = QUICK if wanted.quick else FULL
    return replace(
        chosen,
        rounds=wanted.rounds or chosen.rounds,
        seconds=wanted.seconds or chosen.seconds,
        budget_s=wanted.budget or chosen.budget_s,
        metrics=wanted.metrics,
    )


def _measure(wanted: GateOptions, top: Path) -> Report:
    assert wanted.base is not None, "checked"
    chosen = plan(wanted)
    cores = choose_cores()
    notes = []
    if cores.shared:
        notes.append("one core only: the load's work disturbs the relay's, and stands in every figure but instructions")
    started_ns = time.time_ns()
    affinity = os.sched_getaffinity(0)
    raise_file_limit(_FILES)
    os.sched_setaffinity(0, {cores.load})
    try:
        with ended_by_signal(), preferred(), checked_out(top, wanted.base, wanted.head) as (base, head):
            collected = collect(base, head, chosen, cores, _say)
    finally:
        os.sched_setaffinity(0, affinity)
    if "instructions" in chosen.metrics and collected.tool is None:
        notes.append("instructions were not counted: install valgrind, or use a machine whose perf has the counter")
    return Report(
        relaymark=version("relaymark"),
        machine=machine(),
        python=python_version(),
        versions=versions(),
        started_unix_ns=started_ns,
        duration_ns=time.time_ns() - started_ns,
        command=["relaymark", *sys.argv[1:]],
        base=_commit(base),
        head=_commit(head),
        harness=commit(Path(__file__).parent),
        metrics=chosen.metrics,
        seconds=chosen.seconds,
        runs=collected.runs,
        counts=collected.counts,
        tool=collected.tool,
        notes=notes,
    )


def _commit(tree: Tree) -> Commit:
    return Commit(ref=tree.ref, commit=tree.commit)


def _write(wanted: GateOptions, verdict: Judged, duration_ns: int) -> None:
    if wanted.markdown:
        write(wanted.markdown, outputs.markdown(verdict).encode())
    if wanted.junit:
        write(wanted.junit, outputs.junit(verdict, duration_ns))
    if wanted.github:
        write(wanted.github, outputs.github(verdict))
