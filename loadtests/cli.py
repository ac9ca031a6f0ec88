"""`relaymark run` and `relaymark report`: options to a run. Locust, which patches the process, is imported only when called.

Exit codes: 0 done, 99 a threshold was not met, 104 options that cannot work, 105 interrupted, 120 the run is invalid,
122 the target did not start or does not speak the protocol.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from loadtests.options import CannotRun, RunOptions, check
from loadtests.results.exit_codes import EXIT_INTERRUPTED
from loadtests.signals import on_ending

_DEFAULTS: Final = RunOptions()


def run(scenario: str = "evening-peak", *, options: Annotated[RunOptions, Parameter(name="*")] = _DEFAULTS) -> int:
    """Offer a relay the load of a live platform, end-to-end encrypted and open-loop, and show how it fared.

    Parameters
    ----------
    scenario
        private-chat, room, typing-storm, receipt-storm, tips, media, flash-crowd, reconnect-storm, slow-readers, mix, or
        evening-peak: all of them mixed.
    """
    try:
        checked = check(scenario, options, run=f"{time.time_ns():x}")
        with _no_interrupts():
            from loadtests import run as runner
        return runner.run(checked, command=["relaymark", *sys.argv[1:]])
    except CannotRun as error:
        for problem in error.problems:
            sys.stderr.write(f"relaymark run: {problem}\n")
        return error.code


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Keep Ctrl-C and the like until the block is done: Locust patches the process while it is imported, which must not
    be cut short."""
    seen: list[None] = []
    with ExitStack() as stack:
        on_ending(stack, lambda: seen.append(None))
        yield
    if seen:
        raise CannotRun(EXIT_INTERRUPTED, ["interrupted before the load began."])


def report(*runs: Path, output: Annotated[Path | None, Parameter(alias="-o")] = None) -> int:
    """Show runs again, and write a report of them: of several, one that lays them over each other and compares them.

    Parameters
    ----------
    runs
        Folders of runs, their result.json, or folders that hold runs.
    output
        File to write: .html, .md (Markdown) or .xml (JUnit). Default: report.html in the run's folder, or for several
        runs comparison.html beside the first.
    """
    from rich.console import Console
    from rich.text import Text

    from loadtests.report import comparison, files
    from loadtests.report.terminal import render_final
    from loadtests.results.exit_codes import EXIT_CONFIGURATION
    from loadtests.results.files import ResultsError

    try:
        if not runs:
            raise ResultsError("name one run at least: a folder below runs/")
        if output is not None:
            files.check_name(output)
        paths = files.find(runs)
        found = files.read(paths)
        output = output or files.default_output(paths)
        files.write(found, output)
    except ResultsError as error:
        sys.stderr.write(f"relaymark report: {error}.\n")
        return EXIT_CONFIGURATION
    console = Console(markup=False)
    for path, result in zip(paths, found, strict=True):
        render_final(result, console, path)
    if len(found) > 1:
        for sentence in comparison.sentences(comparison.group(found)):
            console.print(Text(sentence), soft_wrap=True)
    console.print(Text(f"report: {output}"), soft_wrap=True)
    return 0
