"""`relaymark compare`: options to a plan, the measuring, and what is written.

Exit codes: 0 done, 104 options that cannot work, 105 interrupted, 120 the latencies of a target are invalid, 122 a target
did not start, or none is installed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from benchmarks.compare.report import Comparison, content, invalid, text, write_results
from benchmarks.compare.session import ROUNDS_MIN, Measurements, measure, plan
from benchmarks.peers.catalogue import all_peers, version_of
from benchmarks.rig.files import unwritable
from benchmarks.rig.priority import preferred
from benchmarks.rig.processes import ServerError, choose_cores, ended_by_signal, raise_file_limit
from benchmarks.rig.say import complain, say
from benchmarks.rig.tables import markdown as markdown_table
from benchmarks.rig.tables import plain
from loadtests.report.html import render
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK, EXIT_TARGET
from loadtests.results.files import ResultsError, create_run_directory, write_files

DEFAULT: Final = ("reference", "reference@trio-websocket", "reference@uvloop", "nats", "bun")
ROUNDS_MAX: Final = 1000
_SPARE_FILES: Final = 200
_FLAG: Final = Parameter(negative=())


def compare(
    *targets: str,
    quick: Annotated[bool, _FLAG] = False,
    rounds: int | None = None,
    seed: int = 1,
    json: Path | None = None,
    markdown: Path | None = None,
    out: Path = Path("runs"),
) -> int:
    """Measure several relays in turn under the same sealed work: throughput, latency, CPU, memory, losses.

    Each relay is started and stopped here, on a core of its own. Every round measures every one of them, next to each
    other in time: first at a load that all of them carry, then as much as it can take.

    Parameters
    ----------
    targets
        Any of reference, reference@trio-websocket, reference@uvloop, reference@sqlite, nats, bun, nchan, mosquitto,
        redis, valkey, centrifugo. The ratios are to the first. Default: reference reference@trio-websocket
        reference@uvloop nats bun.
    quick
        Shorter turns and 5 rounds, instead of 10.
    rounds
        How often every target has its turn, at least 3.
    seed
        Equal seeds give equal work, byte for byte.
    json
        Also write every figure to this file.
    markdown
        Also write the tables to this file.
    out
        Folder for the results; each comparison makes its own in it, with one run a turn and a report.
    """
    known = all_peers()
    names = list(targets or DEFAULT)
    problems = [f"{name} is no target: there are {', '.join(known)}." for name in names if name not in known]
    problems += [f"{name} is named twice." for name in dict.fromkeys(names) if names.count(name) > 1]
    if rounds is not None and not ROUNDS_MIN <= rounds <= ROUNDS_MAX:
        problems.append(f"--rounds must be {ROUNDS_MIN} to {ROUNDS_MAX}, not {rounds}: fewer give no interval.")
    problems += unwritable({"json": json, "markdown": markdown})
    if problems:
        return complain("relaymark compare", problems, EXIT_CONFIGURATION)
    left_out = {name: f"it is not installed; to get it: {known[name].how_to_get}" for name in names}
    left_out = {name: why for name, why in left_out.items() if known[name].binary is None}
    for name, why in left_out.items():
        say(f"{name} is left out: {why}")
    chosen = {name: known[name] for name in names if name not in left_out}
    if not chosen:
        return complain("relaymark compare", ["none of these targets is installed."], EXIT_TARGET)
    planned = plan(quick=quick, rounds=rounds, seed=seed)
    started_unix_ns = time.time_ns()
    try:
        raise_file_limit(planned.held + _SPARE_FILES)
        directory = create_run_directory(out, "compare", started_unix_ns)
    except (ServerError, ResultsError) as error:
        return complain("relaymark compare", [f"{error}."], EXIT_CONFIGURATION)
    cores, measured, interrupted = choose_cores(), Measurements(probes={}, turns=[], failures={}), False
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cores.load})
        with ended_by_signal(), preferred():
            measure(measured, list(chosen.values()), planned, cores, directory, say)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        os.sched_setaffinity(0, allowed)
    comparison = Comparison(
        targets=chosen,
        versions={name: version_of(target) for name, target in chosen.items()},
        left_out=left_out,
        plan=planned,
        cores=cores,
        measured=measured,
        started_unix_ns=started_unix_ns,
        command=("relaymark", *sys.argv[1:]),
        interrupted=interrupted,
    )
    print(text(comparison, plain))
    try:
        _write(comparison, directory, {json: content, markdown: _as_markdown})
    except ResultsError as error:
        return complain("relaymark compare", [f"{error}."], EXIT_CONFIGURATION)
    say(f"results: {directory}")
    if interrupted:
        return EXIT_INTERRUPTED
    if measured.failures:
        return EXIT_TARGET
    return EXIT_INVALID if invalid(comparison) else EXIT_OK


def _as_markdown(comparison: Comparison) -> bytes:
    return f"{text(comparison, markdown_table)}\n".encode()


def _write(comparison: Comparison, directory: Path, asked: Mapping[Path | None, Callable[[Comparison], bytes]]) -> None:
    """Write everything into `directory`, and what was asked for where it was. Raises ResultsError."""
    results = write_results(comparison, directory)
    files = {"compare.json": content(comparison), "compare.md": _as_markdown(comparison)}
    if len(results) > 1:
        files["report.html"] = render(results).encode()
    write_files(directory, files)
    for path, make in asked.items():
        if path is not None:
            write_files(path.parent, {path.name: make(comparison)})
