"""What `relaymark gate` does with its options: checks all of them, measures or compares, writes, gives the exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.gate import outputs
from benchmarks.gate.decide import Word
from benchmarks.gate.metrics import MetricName
from benchmarks.gate.report import Contender, Judged, Report, ReportError, compare, judged, load, save
from benchmarks.gate.runs import RUN_S_MIN, RunError, TargetWork
from benchmarks.gate.session import FULL, QUICK, ROUNDS_MIN, Collected, GatePlan, collect
from benchmarks.gate.tree_runs import TreeRuns
from benchmarks.gate.trees import TreeError, checked_out, refuse_changes, repository, resolve
from benchmarks.rig import instructions
from benchmarks.rig.files import unwritable, write
from benchmarks.rig.git import GitError
from benchmarks.rig.priority import preferred
from benchmarks.rig.processes import ServerError, choose_cores, ended_by_signal, raise_file_limit
from benchmarks.rig.say import complain, say_as
from loadtests.options import CannotRun, HandshakeOptions, target_named
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
from loadtests.settings import problems_of
from loadtests.target.spec import TARGETS_FILE
from loadtests.target.target import Target

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
    target: tuple[str, str] | None
    targets: str | None
    work: TargetWork
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
        measured = _measuring(wanted, problems)
        if measured is not None and not problems:
            try:
                report = measured()
            except (TreeError, GitError) as error:
                problems.append(str(error))
            except (RunError, ServerError) as error:
                _say(str(error))
                return EXIT_TARGET
            except CannotRun as error:
                return complain("relaymark gate", error.problems, error.code)
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


def _measuring(wanted: GateOptions, problems: list[str]) -> Callable[[], Report] | None:
    """Return what measures as the options ask for; what cannot work is added to `problems`."""
    if wanted.target is not None:
        targets = _targets(wanted.target, wanted.targets, problems)
        return None if targets is None else partial(_measure_targets, wanted, *targets)
    top = _repository(wanted, problems)
    return None if top is None else partial(_measure_commits, wanted, top)


def _problems(wanted: GateOptions) -> list[str]:
    problems = []
    if wanted.results is None and wanted.base is None and wanted.target is None:
        problems.append("say what to compare: --base REF, --target BASE HEAD, or --results A.json B.json")
    if wanted.results is not None and (wanted.base, wanted.target, wanted.json) != (None, None, None):
        problems.append("--results compares what was stored: --base, --target and --json do not go with it")
    if wanted.target is not None and wanted.base is not None:
        problems.append("--base compares commits of the reference relay, --target relays of any kind: give one of them")
    if wanted.target is not None and "instructions" in wanted.metrics:
        problems.append("--metrics instructions: they are counted of the reference relay only, by --base")
    if wanted.target is not None:
        problems += problems_of(wanted.work.settings(RUN_S_MIN))
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
    except (TreeError, GitError) as error:
        problems.append(str(error))
        return None
    for ref in (wanted.base, wanted.head):
        if ref is not None:
            try:
                resolve(top, ref)
            except (TreeError, GitError) as error:
                problems.append(str(error))
    if not wanted.allow_dirty and "HEAD" in (wanted.base, wanted.head):
        try:
            refuse_changes(top)
        except (TreeError, GitError) as error:
            problems.append(str(error))
    return top


def _targets(specs: tuple[str, str], file: str | None, problems: list[str]) -> tuple[Target, Target] | None:
    """Return the targets, if they can be started here again and again."""
    unknown: list[str] = []
    base, head = (target_named(spec, file, HandshakeOptions(), unknown) for spec in specs)
    problems += unknown
    for target in () if unknown else (base, head):
        if not target.started:
            problems.append(
                f"--target {target.name}: the gate starts a fresh one for every run: give it a section with its command in"
                f" {TARGETS_FILE}."
            )
        elif (how_to_get := target.missing()) is not None:
            problems.append(f"--target {target.name}: it is not installed; to get it: {how_to_get}")
    return None if problems else (base, head)


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


def _measure_commits(wanted: GateOptions, top: Path) -> Report:
    assert wanted.base is not None, "checked"
    chosen, cores, started_ns = plan(wanted), choose_cores(), time.time_ns()
    affinity = os.sched_getaffinity(0)
    raise_file_limit(_FILES)
    os.sched_setaffinity(0, {cores.load})
    try:
        with ended_by_signal(), preferred(), checked_out(top, wanted.base, wanted.head) as (base, head):
            runs = TreeRuns(base, head, cores)
            collected = collect(base.ref, chosen, _say, runs.pair, runs.count)
    finally:
        os.sched_setaffinity(0, affinity)
    notes = []
    if "instructions" in chosen.metrics and collected.tool is None:
        notes.append("instructions were not counted: install valgrind, or use a machine whose perf has the counter")
    sides = [Contender(ref=tree.ref, commit=tree.commit) for tree in (base, head)]
    return _report(sides, chosen, collected, started_ns, notes)


def _measure_targets(wanted: GateOptions, base: Target, head: Target) -> Report:
    # gevent, which the engine needs, changes the process that imports it.
    from benchmarks.fast_load.workbench import workbench
    from benchmarks.gate.target_runs import TargetRuns

    chosen, started_ns = plan(wanted), time.time_ns()
    with TemporaryDirectory(prefix="relaymark-gate-") as folder, workbench(Path(folder)) as bench:
        runs = TargetRuns(base, head, wanted.work, bench)
        runs.try_out(chosen.seconds)
        collected = collect(base.name, chosen, _say, runs.pair)
    sides = [Contender(ref=target.name, commit=runs.versions[target.name]) for target in (base, head)]
    return _report(sides, chosen, collected, started_ns, [], runs.work.in_words())


def _report(
    sides: Sequence[Contender],
    chosen: GatePlan,
    collected: Collected,
    started_ns: int,
    notes: list[str],
    work: str = "",
) -> Report:
    if choose_cores().shared:
        notes.append("one core only: the load's work disturbs the relay's, and stands in every figure but instructions")
    return Report(
        relaymark=version("relaymark"),
        machine=machine(),
        python=python_version(),
        versions=versions(),
        started_unix_ns=started_ns,
        duration_ns=time.time_ns() - started_ns,
        command=["relaymark", *sys.argv[1:]],
        base=sides[0],
        head=sides[1],
        work=work,
        harness=commit(Path(__file__).parent),
        metrics=chosen.metrics,
        seconds=chosen.seconds,
        runs=collected.runs,
        counts=collected.counts,
        tool=collected.tool,
        notes=notes,
    )


def _write(wanted: GateOptions, verdict: Judged, duration_ns: int) -> None:
    if wanted.markdown:
        write(wanted.markdown, outputs.markdown(verdict).encode())
    if wanted.junit:
        write(wanted.junit, outputs.junit(verdict, duration_ns))
    if wanted.github:
        write(wanted.github, outputs.github(verdict))
