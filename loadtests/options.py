"""The options of a run, each declared here and nowhere else, and checked together before anything is started.

`LoadOptions` are what plain Locust takes as well; `relaymark run` takes all of `RunOptions`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from loadtests.address import parse_url
from loadtests.control import exporter
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.results.thresholds import Threshold, ThresholdError, parse
from loadtests.sealing.records import KIND_NAMES
from loadtests.settings import PARTICIPANTS_DEFAULT, SUITES, Settings, problems_of, seconds

REFERENCE: Final = "reference"
TRANSPORTS: Final = ("pump", "trio-websocket", "uvloop")
WORKERS_MAX: Final = 256
UI_HOST: Final = "127.0.0.1"
UI_PORT: Final = 8089
"""Locust's own."""


class CannotRun(Exception):
    """The run cannot begin: `problems`, one sentence each, and the exit code."""

    def __init__(self, code: int, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.code = code
        self.problems = problems


def _says(help: str) -> Parameter:  # noqa: A002  # as cyclopts calls it
    return Parameter(help=help, negative=())


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What is sent, and how. Locust's web page has a field for the first four."""

    rate: Annotated[
        float | None,
        _says("Chat messages a second of all together. Default: the scenario's own for that many participants."),
    ] = None
    seed: Annotated[int, _says("Equal seeds give equal schedules, whatever the number of workers.")] = 1
    suite: Annotated[str, _says(f"How records are sealed: {', '.join(SUITES)}.")] = "sender-key"
    drain: Annotated[str, _says("How long the last records may take to arrive: 5, 5s or 1m.")] = "5s"
    tls_ca: Annotated[
        str | None, _says("File with the authority that signed the target's certificate. Default: the system's.")
    ] = None
    threshold: Annotated[
        list[str] | None,
        _says('A condition such as "deliver{kind=message}: p(99)<50ms"; may be repeated. Code 99 if one is not met.'),
    ] = None
    out: Annotated[str | None, _says("Folder for the results; each run makes its own in it. Default: none.")] = None
    clock_shift_ms: Annotated[
        list[float] | None,
        _says("A fault to inject: the clock of the first, second, ... worker is off by this; may be repeated."),
    ] = None


PAGE: Final = ("rate", "seed", "suite", "drain")
"""Options for which Locust's web page has a field."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(LoadOptions):
    """The options of `relaymark run`, as they were given."""

    target: Annotated[
        str,
        _says(
            "reference: the relay of this package is started and stopped; or the address ws://HOST:PORT or"
            " wss://HOST:PORT of one that runs."
        ),
    ] = REFERENCE
    participants: Annotated[int, _says("People who take part.")] = PARTICIPANTS_DEFAULT
    duration: Annotated[str, _says("Of the load: 30, 30s, 2m or 1h30m. It begins when all have joined.")] = "30s"
    workers: Annotated[int | None, _says("Processes that offer the load. Default: one a core, less the relay's.")] = (
        None
    )
    tls: Annotated[bool, _says("Serve and connect with TLS, by a certificate of the harness's own.")] = False
    store: Annotated[str, _says("Of the reference relay: memory, sqlite (in the run's folder) or sqlite:PATH.")] = (
        "memory"
    )
    transport: Annotated[str, _says(f"Of the reference relay: {', '.join(TRANSPORTS)}.")] = TRANSPORTS[0]
    out: Annotated[str, _says("Folder for the results; each run makes its own in it.")] = "runs"
    json: Annotated[bool, _says("Print the result as JSON instead of tables.")] = False
    ui: Annotated[bool, _says(f"Also open Locust's web page on {UI_HOST}:{UI_PORT}.")] = False
    quiet: Annotated[bool, _says("Show no progress.")] = False
    metrics: Annotated[str | None, _says("HOST:PORT of a listener for Prometheus.")] = None
    linger: Annotated[str, _says("How long the page and the metrics stay after the end.")] = "0"


def settings_of(options: LoadOptions, base: Settings) -> tuple[Settings, list[str]]:
    """Return `base` with what the options say, and what cannot work about all of it, one sentence each."""
    problems: list[str] = []
    settings = msgspec.structs.replace(
        base,
        rate=options.rate,
        seed=options.seed,
        suite=options.suite,
        drain_s=_span("--drain", options.drain, problems),
        ca=options.tls_ca,
        clock_shift_ms=tuple(options.clock_shift_ms or ()),
    )
    return settings, [*problems, *problems_of(settings)]


def _span(option: str, text: str, problems: list[str]) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        problems.append(f"{option}: {error}.")
        return 1.0


class CheckedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that can begin. `settings` lack the address, which is known once the target is open."""

    options: RunOptions
    settings: Settings
    thresholds: list[Threshold]
    linger_s: float


def check(scenario: str, options: RunOptions, run: str) -> CheckedRun:
    """Return what the options ask for; `run` names it. Raises CannotRun with everything that cannot work."""
    problems: list[str] = []
    spans = {name: _span(f"--{name}", getattr(options, name), problems) for name in ("duration", "linger")}
    base = Settings(scenario=scenario, url="", participants=options.participants, duration_s=spans["duration"], run=run)
    settings, found = settings_of(options, base)
    thresholds, wrong = read_thresholds(options.threshold or ())
    problems += [*found, *wrong, *_problems_of_target(options)]
    if options.workers is not None and not 1 <= options.workers <= WORKERS_MAX:
        problems.append(f"--workers must be 1 to {WORKERS_MAX}, not {options.workers}.")
    problems += _problems_of_listeners(options, spans["linger"])
    if problem := cannot_write(Path(options.out)):
        problems.append(problem)
    if problems:
        raise CannotRun(EXIT_CONFIGURATION, problems)
    return CheckedRun(options=options, settings=settings, thresholds=thresholds, linger_s=spans["linger"])


def _problems_of_target(options: RunOptions) -> list[str]:
    problems: list[str] = []
    if options.target != REFERENCE:
        try:
            parse_url(options.target)
        except ValueError as error:
            problems.append(f"--target: {error} Or leave it out for the reference relay.")
        started_here = (
            ("--tls", options.tls, False),
            ("--store", options.store, "memory"),
            ("--transport", options.transport, TRANSPORTS[0]),
        )
        for option, value, default in started_here:
            if value != default:
                problems.append(f"{option} is for the relay that is started here; {options.target} has its own.")
    if options.tls_ca is not None and not options.target.startswith("wss:"):
        problems.append("--tls-ca is for a target at wss://HOST:PORT.")
    if options.store not in ("memory", "sqlite") and not options.store.startswith("sqlite:"):
        problems.append(f"--store must be memory, sqlite or sqlite:PATH, not {options.store}.")
    if options.transport not in TRANSPORTS:
        problems.append(f"--transport must be one of {', '.join(TRANSPORTS)}, not {options.transport}.")
    return problems


def _problems_of_listeners(options: RunOptions, linger_s: float) -> list[str]:
    problems: list[str] = []
    if not 0 <= linger_s < 86_400:
        problems.append(f"--linger must be 0 or more seconds and less than a day, not {linger_s:g}.")
    if linger_s and options.metrics is None and not options.ui:
        problems.append("--linger keeps what --metrics or --ui serves: give one of them, too.")
    if options.metrics is not None:
        try:
            problems += _cannot_listen("--metrics", *exporter.parse_address(options.metrics))
        except ValueError as error:
            problems.append(f"--metrics: {error}.")
    if options.ui:
        problems += _cannot_listen("--ui", UI_HOST, UI_PORT)
    return problems


def read_thresholds(texts: Sequence[str]) -> tuple[list[Threshold], list[str]]:
    """Return the thresholds, and what is wrong with those that cannot be read."""
    thresholds, problems = [], []
    for text in texts:
        try:
            thresholds.append(parse(text, kinds=KIND_NAMES[1:]))
        except ThresholdError as error:
            problems.append(f"{error}.")
    return thresholds, problems


def _cannot_listen(option: str, host: str, port: int) -> list[str]:
    """Return why nothing can be served at host and port; empty if it can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return [f"{option}: cannot listen at {host}:{port}: {error.strerror}."]
    return []


def cannot_write(out: Path) -> str | None:
    """Return why no results can be written under `out`, without making anything there."""
    there = out
    while not there.exists() and there != there.parent:
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    return f"--out: results cannot be written to {out}: {there} is {'not writable' if there.is_dir() else 'no folder'}."
