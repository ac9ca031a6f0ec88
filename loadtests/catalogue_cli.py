"""`relaymark targets` and `relaymark scenarios`: what can be measured here, and with what."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.target.catalogue import CATALOGUE
from loadtests.target.spec import SpecError, sections_of
from loadtests.target.target import ReferenceVariant, Target, version_of
from loadtests.workload.catalogue import SCENARIOS
from loadtests.workload.offered import Offered, offered
from loadtests.workload.traffic import Workload

SIZES: Final = (40, 400, 4_000)
_SECONDS: Final = 30.0


class TargetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One target as `relaymark targets --json` prints it. `how_to_get` is empty where it is installed."""

    name: str
    dialect: str
    about: str
    url: str
    version: str
    how_to_get: str
    promises: dict[str, str]


def targets(*, targets: str | None = None, json: Annotated[bool, Parameter(negative=())] = False) -> int:
    """List the relays that can be started and measured here, and those of targets.toml.

    Parameters
    ----------
    targets
        File with targets of yours. Default: ./targets.toml, if it is there.
    json
        Print JSON instead of a table.
    """
    try:
        own = sections_of(Path(targets) if targets is not None else None)
    except SpecError as error:
        for problem in error.problems:
            sys.stderr.write(f"relaymark targets: {problem}\n")
        return EXIT_CONFIGURATION
    with ThreadPoolExecutor() as pool:  # some take a second to say their version
        lines = list(pool.map(line_of, [*own.values(), *CATALOGUE.values()]))
    if json:
        _print_json(lines)
        return 0
    table = _table("target", "here")
    table.add_column("what it is, and what it promises", overflow="fold")
    for line in lines:
        here = "missing" if line.how_to_get else line.version or ("running" if line.url else "installed")
        table.add_row(line.name, here, line.about or line.url or line.dialect)
        table.add_row("", "", Text("; ".join(f"{name}: {text}" for name, text in line.promises.items()), style="dim"))
        if line.how_to_get:
            table.add_row("", "", f"to get it: {line.how_to_get}")
    Console(markup=False).print(table)
    return 0


def line_of(target: Target) -> TargetLine:
    """Return what is told of a target; its version is the relay's, not of what it runs on."""
    program = target.program
    told = ""
    if isinstance(program, ReferenceVariant):
        told = version("relaymark")
    elif program is not None:
        told = version_of(program)
    return TargetLine(
        name=target.name,
        dialect=target.dialect,
        about=target.about,
        url=target.url,
        version=told,
        how_to_get=target.missing() or "",
        promises=target.promises.words(),
    )


class ScenarioLine(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario as `relaymark scenarios --json` prints it; rates are a second, by the number of participants."""

    name: str
    about: str
    participants_min: int
    loads: dict[int, dict[str, float]]


def scenarios(*, json: Annotated[bool, Parameter(negative=())] = False) -> int:
    """List the scenarios: what each does, and what it loads a relay with at which size, by its own rate.

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    found = [(name, {size: _load(name, size) for size in SIZES}) for name in SCENARIOS]
    if json:
        _print_json(
            [
                ScenarioLine(
                    name=name,
                    about=SCENARIOS[name].about,
                    participants_min=SCENARIOS[name].participants_min,
                    loads={size: dict(load._asdict()) for size, load in loads.items()},
                )
                for name, loads in found
            ]
        )
        return 0
    table = _table("scenario")
    for size in SIZES:
        table.add_column(f"{size:,}", justify="right", no_wrap=True)
    table.add_column("what it does", overflow="fold")
    for name, loads in found:
        cells = [f"{load.records:,.0f} > {load.deliveries:,.0f}" for load in loads.values()]
        table.add_row(name, *cells, SCENARIOS[name].about)
    table.caption = (
        "By participants: records sent > received a second, receipts included, at the scenario's own rate. --rate sets the"
        " chat messages a second, and all else follows from it."
    )
    Console(markup=False).print(table)
    return 0


def _load(name: str, participants: int) -> Offered:
    return offered(Workload(name, seed=1, participants=participants, duration_s=_SECONDS))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _print_json(lines: list[Any]) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(lines), indent=1).decode() + "\n")
