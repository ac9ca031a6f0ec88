"""Reports as files: reads the runs, and writes what the name of the file asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from loadtests.report import html, junit, markdown
from loadtests.results.files import ResultsError, load, write_files
from loadtests.results.schema import Result

NAME: Final = "report.html"
"""Name of a run's report, in the run's folder."""
FORMS: Final[Mapping[str, Callable[[Sequence[Result]], str]]] = {
    ".html": html.render,
    ".md": markdown.render,
    ".xml": junit.render,
}


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the folders of runs in `paths`: each is one, or a result.json, or a folder of runs such as a comparison's.

    A run that is named twice comes once: as two rounds it would make every interval too narrow.

    Raises ResultsError for a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir() or (path / "result.json").is_file():
            found.append(path)
            continue
        inside = sorted(result.parent for result in path.rglob("result.json"))
        if not inside:
            raise ResultsError(f"there is no run in {path}: name a folder that has a result.json")
        found.extend(inside)
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault((path / "result.json" if path.is_dir() else path).resolve(), path)
    return list(once.values())


def read(paths: Sequence[Path]) -> list[Result]:
    """Return the runs. Raises ResultsError with every problem in it."""
    results, problems = [], []
    for path in paths:
        try:
            results.append(load(path))
        except ResultsError as error:
            problems.append(str(error))
    if problems:
        raise ResultsError("; ".join(problems))
    return results


def check_name(output: Path) -> None:
    """Raise ResultsError if a report cannot be called so."""
    if output.suffix not in FORMS:
        raise ResultsError(f"cannot tell the form of {output}: its name must end in {', '.join(FORMS)}")


def write(results: Sequence[Result], output: Path) -> None:
    """Write a report as HTML, Markdown or JUnit's XML, by the end of its name. Raises ResultsError."""
    check_name(output)
    write_files(output.parent, {output.name: FORMS[output.suffix](results).encode()})


def default_output(paths: Sequence[Path]) -> Path:
    """Return where a report goes if nothing is said: to its run, or beside the first of several."""
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    return folder / NAME if len(paths) == 1 else folder.parent / "comparison.html"
