"""What `relaymark compare` does: starts the engine and the closed window, has everything measured, writes, gives the code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.compare.measurements import ComparePlan, Measurements
from benchmarks.compare.report import Comparison, content, invalid, text, threshold_outcomes
from benchmarks.compare.session import measure
from benchmarks.fast_load.workbench import workbench
from benchmarks.rig.processes import choose_cores
from benchmarks.rig.say import complain, say
from benchmarks.rig.tables import markdown as markdown_table
from benchmarks.rig.tables import plain
from loadtests.options import CannotRun, without_secrets
from loadtests.report.html import render
from loadtests.results.exit_codes import (
    EXIT_CONFIGURATION,
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_OK,
    EXIT_TARGET,
    EXIT_THRESHOLD,
)
from loadtests.results.files import ResultsError, create_run_directory, write_files
from loadtests.results.thresholds import Threshold
from loadtests.target.target import Target

NAME = "relaymark compare"


def run(
    targets: Sequence[Target],
    plan: ComparePlan,
    thresholds: Sequence[Threshold],
    *,
    out: Path,
    json: Path | None,
    markdown: Path | None,
) -> int:
    """Return the exit code."""
    left_out = {t.name: f"it is not installed; to get it: {how}" for t in targets if (how := t.missing()) is not None}
    for name, why in left_out.items():
        say(f"{name} is left out: {why}")
    chosen = [target for target in targets if target.name not in left_out]
    if not chosen:
        return complain(NAME, ["none of these targets is installed."], EXIT_TARGET)
    started_unix_ns = time.time_ns()
    measured, interrupted = Measurements(probes={}, turns=[], failures={}, versions={}), False
    cores = choose_cores()
    try:
        folder = create_run_directory(out, "compare", started_unix_ns)
        with workbench(folder) as bench:
            measure(measured, chosen, plan, thresholds, bench, folder)
    except KeyboardInterrupt:
        interrupted = True
    except ResultsError as error:
        return complain(NAME, [f"{error}."], EXIT_CONFIGURATION)
    except CannotRun as error:
        return complain(NAME, error.problems, error.code)
    comparison = Comparison(
        targets={target.name: target for target in chosen},
        left_out=left_out,
        plan=plan,
        cores=cores,
        measured=measured,
        thresholds=thresholds,
        started_unix_ns=started_unix_ns,
        command=without_secrets(["relaymark", *sys.argv[1:]]),
        interrupted=interrupted,
    )
    print(text(comparison, plain))
    try:
        _write(comparison, folder, {json: content, markdown: _as_markdown})
    except ResultsError as error:
        return complain(NAME, [f"{error}."], EXIT_CONFIGURATION)
    say(f"results: {folder}")
    return exit_code(comparison)


def exit_code(comparison: Comparison) -> int:
    """Return the code: what explains the others comes first."""
    if comparison.interrupted:
        return EXIT_INTERRUPTED
    if comparison.measured.failures:
        return EXIT_TARGET
    if invalid(comparison):
        return EXIT_INVALID
    missed = any(not one.ok for outcomes in threshold_outcomes(comparison).values() for one in outcomes)
    return EXIT_THRESHOLD if missed else EXIT_OK


def _as_markdown(comparison: Comparison) -> bytes:
    return f"{text(comparison, markdown_table)}\n".encode()


def _write(comparison: Comparison, folder: Path, asked: Mapping[Path | None, Callable[[Comparison], bytes]]) -> None:
    """Write everything into `folder`, and what was asked for where it was. Raises ResultsError."""
    results = [turn.result for turn in comparison.measured.turns]
    files = {"compare.json": content(comparison), "compare.md": _as_markdown(comparison)}
    if len(results) > 1:
        files["report.html"] = render(results).encode()
    write_files(folder, files)
    for path, make in asked.items():
        if path is not None:
            write_files(path.parent, {path.name: make(comparison)})
