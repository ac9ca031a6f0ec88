"""The options of a run, each declared here and nowhere else, and checked together before anything is started.

`LoadOptions` are what plain Locust takes as well; `relaymark run` takes all of `RunOptions`.
"""

from __future__ import annotations

import os
import re
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
from cyclopts import Group, Parameter
from msgspec.structs import replace

from loadtests.address import is_page, parse_url
from loadtests.control import exporter
from loadtests.dialects.find import find
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.results.thresholds import Threshold, ThresholdError, parse
from loadtests.sealing.records import KIND_NAMES
from loadtests.settings import PARTICIPANTS_DEFAULT, SUITES, Settings, problems_of, seconds
from loadtests.target import catalogue, spec
from loadtests.target.opening import default_cores
from loadtests.target.spec import TARGETS_FILE
from loadtests.target.target import Command, ReferenceVariant, Target
from loadtests.workload.connections import connections

WORKERS_MAX: Final = 256
_SECRET: Final = ("--header", "--query")
HIDDEN: Final = "..."
DESCRIPTORS_SPARE: Final = 100
"""What a worker or a relay has open besides its connections."""
UI_HOST: Final = "127.0.0.1"
UI_PORT: Final = 8089
"""Locust's own."""


class CannotRun(Exception):
    """The run cannot begin: `problems`, one sentence each, and the exit code."""

    def __init__(self, code: int, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.code = code
        self.problems = problems


_TARGET: Final = Group("Target", sort_key=1)
_LOAD: Final = Group("Load", sort_key=2)
_REACHED: Final = Group("How the target is reached", sort_key=3)
_TOLD: Final = Group("What is told", sort_key=4)


def _says(help: str, group: Group = _LOAD) -> Parameter:  # noqa: A002  # as cyclopts calls it
    return Parameter(help=help, group=group, negative=())


@dataclass(frozen=True, kw_only=True)
class HandshakeOptions:
    """How a relay is reached that asks for more than its address."""

    tls_ca: Annotated[
        str | None,
        _says("File with the authority that signed the target's certificate. Default: the system's.", _REACHED),
    ] = None
    header: Annotated[
        list[str] | None,
        _says('Of the opening handshake, "NAME: VALUE"; may be repeated. Stands in no result.', _REACHED),
    ] = None
    query: Annotated[
        list[str] | None,
        _says("NAME=VALUE, added to the target's address; may be repeated. Stands in no result.", _REACHED),
    ] = None
    token_file: Annotated[str | None, _says("File with a token: sent as `Authorization: Bearer TOKEN`.", _REACHED)] = (
        None
    )
    origin: Annotated[str | None, _says("Origin of the opening handshake, as a browser sends it.", _REACHED)] = None
    subprotocol: Annotated[
        str | None, _says("WebSocket subprotocol to offer instead of the dialect's own.", _REACHED)
    ] = None


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(HandshakeOptions):
    """The options of `relaymark probe`, as they were given."""

    targets: Annotated[
        str | None, _says(f"File with targets of yours. Default: ./{TARGETS_FILE}, if it is there.", _TARGET)
    ] = None
    tls: Annotated[bool, _says("Serve and connect with TLS, by a certificate of the harness's own.", _TARGET)] = False
    stall: Annotated[str, _says("How long a reader stops reading: 10s, 1m.", _TOLD)] = "10s"
    only: Annotated[
        list[str] | None, _says("Ask only questions whose name contains this word; may be repeated.", _TOLD)
    ] = None
    json: Annotated[bool, _says("Print JSON instead of a table.", _TOLD)] = False
    quiet: Annotated[bool, _says("Show no progress.", _TOLD)] = False


@dataclass(frozen=True, kw_only=True)
class LoadOptions(HandshakeOptions):
    """What is sent, and how. Locust's web page has a field for the first four."""

    rate: Annotated[
        float | None,
        _says("Chat messages a second of all together. Default: the scenario's own for that many participants."),
    ] = None
    seed: Annotated[int, _says("Equal seeds give equal schedules, whatever the number of workers.")] = 1
    suite: Annotated[str, _says(f"How records are sealed: {', '.join(SUITES)}.")] = "sender-key"
    drain: Annotated[str, _says("How long the last records may take to arrive: 5, 5s or 1m.")] = "5s"
    targets: Annotated[
        str | None, _says(f"File with your targets. Default: ./{TARGETS_FILE}, if it is there.", _TARGET)
    ] = None
    target_pid: Annotated[
        int | None,
        _says("Process of a target that runs here: its CPU and memory, and its children's, are observed.", _TARGET),
    ] = None
    target_metrics: Annotated[
        str | None, _says("http://HOST:PORT/PATH of the target's own metrics, for the report.", _TARGET)
    ] = None
    target_series: Annotated[
        list[str] | None, _says("Name of a metric of the target's, charted in the report; may be repeated.", _TARGET)
    ] = None
    threshold: Annotated[
        list[str] | None,
        _says(
            'A condition such as "deliver{kind=message}: p(99)<50ms"; may be repeated. Code 99 if one is not met.',
            _TOLD,
        ),
    ] = None
    out: Annotated[str | None, _says("Folder for the results; each run makes its own in it. Default: none.", _TOLD)] = (
        None
    )
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
            "A relay that is started and stopped here (`relaymark targets` lists them), a section of targets.toml, or one"
            " that runs: DIALECT@ws://HOST:PORT/PATH, FILE.py:Class@wss://HOST, ws://HOST:PORT for a reference relay.",
            _TARGET,
        ),
    ] = "reference"
    participants: Annotated[int, _says("People who take part.")] = PARTICIPANTS_DEFAULT
    duration: Annotated[str, _says("Of the load: 30, 30s, 2m or 1h30m. It begins when all have joined.")] = "30s"
    workers: Annotated[int | None, _says("Processes that offer the load. Default: one a core, less the relay's.")] = (
        None
    )
    tls: Annotated[bool, _says("Serve and connect with TLS, by a certificate of the harness's own.", _TARGET)] = False
    store: Annotated[
        str, _says("Of the reference relay: memory, sqlite (in the run's folder) or sqlite:PATH.", _TARGET)
    ] = "memory"
    transport: Annotated[str, _says(f"Of the reference relay: {', '.join(catalogue.TRANSPORTS)}.", _TARGET)] = (
        catalogue.TRANSPORTS[0]
    )
    out: Annotated[str, _says("Folder for the results; each run makes its own in it.", _TOLD)] = "runs"
    json: Annotated[bool, _says("Print the result as JSON instead of tables.", _TOLD)] = False
    ui: Annotated[bool, _says(f"Also open Locust's web page on {UI_HOST}:{UI_PORT}.", _TOLD)] = False
    quiet: Annotated[bool, _says("Show no progress.", _TOLD)] = False
    metrics: Annotated[str | None, _says("HOST:PORT of a listener for Prometheus.", _TOLD)] = None
    linger: Annotated[str, _says("How long the page and the metrics stay after the end.", _TOLD)] = "0"


def settings_of(options: LoadOptions, base: Settings) -> tuple[Settings, list[str]]:
    """Return `base` with what the options say, and what cannot work about all of it, one sentence each."""
    problems: list[str] = []
    settings = replace(
        base,
        rate=options.rate,
        seed=options.seed,
        suite=options.suite,
        drain_s=_span("--drain", options.drain, problems),
        clock_shift_ms=tuple(options.clock_shift_ms or ()),
    )
    settings = with_handshake(options, settings, problems)
    return settings, [*problems, *problems_of(settings)]


def with_handshake(options: HandshakeOptions, settings: Settings, problems: list[str]) -> Settings:
    """Return `settings` with how the relay is reached; what is wrong about it is appended to `problems`."""
    return replace(
        settings,
        ca=options.tls_ca,
        headers=_headers(options, problems),
        query=_query(options, problems),
        origin=options.origin,
        subprotocol=options.subprotocol,
    )


def _span(option: str, text: str, problems: list[str]) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        problems.append(f"{option}: {error}.")
        return 1.0


class CheckedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that can begin. `settings` lack the address, which is known once the target is open."""

    options: RunOptions
    target: Target
    settings: Settings
    thresholds: list[Threshold]
    linger_s: float
    descriptors: int
    """That the target must be allowed, if it is started here."""


def check(scenario: str, options: RunOptions, run: str) -> CheckedRun:
    """Return what the options ask for; `run` names it. Raises CannotRun with everything that cannot work."""
    problems: list[str] = []
    spans = {name: _span(f"--{name}", getattr(options, name), problems) for name in ("duration", "linger")}
    target = target_of(options.target, options, problems)
    base = Settings(
        scenario=scenario,
        url=target.url,
        dialect=target.dialect,
        participants=options.participants,
        duration_s=spans["duration"],
        run=run,
    )
    settings, found = settings_of(options, base)
    thresholds, wrong = read_thresholds(options.threshold or ())
    target = _with_variant(target, options, problems)
    problems += [*found, *wrong]
    if options.workers is not None and not 1 <= options.workers <= WORKERS_MAX:
        problems.append(f"--workers must be 1 to {WORKERS_MAX}, not {options.workers}.")
    problems += _problems_of_listeners(options, spans["linger"])
    if problem := cannot_write(Path(options.out)):
        problems.append(problem)
    wanted = 0
    if not problems:
        wanted, problem = descriptors(settings, target, options.workers)
        problems += [problem] if problem else []
    if problems:
        raise CannotRun(EXIT_CONFIGURATION, problems)
    return CheckedRun(
        options=options,
        target=target,
        settings=settings,
        thresholds=thresholds,
        linger_s=spans["linger"],
        descriptors=wanted,
    )


def target_of(text: str, options: LoadOptions, problems: list[str], option: str = "--target") -> Target:
    """Return the target that `text` names, with what the options say of it; what is wrong is added to `problems`."""
    target = target_named(text, options.targets, options, problems, option)
    if options.target_pid is not None and target.started:
        problems.append("--target-pid is for a target that runs; what is started here is observed without.")
    metrics = options.target_metrics or target.metrics
    if metrics and not is_page(metrics):
        problems.append(f"--target-metrics must be http://HOST:PORT/PATH, percent-encoded, not {metrics}.")
    series = (*target.series, *(options.target_series or ()))
    if series and not (metrics or target.tells_metrics):
        problems.append("--target-series are of the page that --target-metrics names: give it, too.")
    return replace(target, pid=options.target_pid or target.pid, metrics=metrics, series=series)


def target_named(
    text: str, targets: str | None, options: HandshakeOptions, problems: list[str], option: str = "--target"
) -> Target:
    """Return the target that `text` names, if need be in the file `targets`; what is wrong is added to `problems`."""
    try:
        target = spec.read(text, Path(targets) if targets is not None else None)
    except spec.SpecError as error:
        problems += [f"{option}: {problem}" for problem in error.problems]
        return Target(name=text, dialect="reference")
    if not target.websocket:
        problems += [
            f"--{name.replace('_', '-')} is for relays over WebSocket, which {target.name} is not."
            for name in ("header", "query", "token_file", "origin", "subprotocol")
            if getattr(options, name)
        ]
    if options.tls_ca is not None and (target.started or not parse_url(target.url).tls):
        problems.append("--tls-ca is for a target at wss://HOST:PORT or tls://HOST:PORT.")
    return target


def problems_of_tls(target: Target) -> list[str]:
    """Return why --tls cannot be asked of a target."""
    if target.url:
        return [f"--tls is for a relay that is started here; {target.name} has its own."]
    if isinstance(target.program, Command) and not target.program.encrypts:
        return [f"--tls: the command of {target.name} says nowhere {{cert}} and {{key}}."]
    return []


def _with_variant(target: Target, options: RunOptions, problems: list[str]) -> Target:
    """Return the target as --tls, --store and --transport ask for it."""
    if options.store not in ("memory", "sqlite") and not options.store.startswith("sqlite:"):
        problems.append(f"--store must be memory, sqlite or sqlite:PATH, not {options.store}.")
    if options.transport not in catalogue.TRANSPORTS:
        problems.append(f"--transport must be one of {', '.join(catalogue.TRANSPORTS)}, not {options.transport}.")
    if options.tls:
        problems += problems_of_tls(target)
    chosen = {
        name: getattr(options, name)
        for name, default in (("store", "memory"), ("transport", catalogue.TRANSPORTS[0]))
        if getattr(options, name) != default
    }
    if not chosen:
        return target
    if not isinstance(target.program, ReferenceVariant):
        problems += [
            f"--{name} is for the reference relay that is started here, not for {target.name}." for name in chosen
        ]
        return target
    variant = replace(target.program, **chosen)
    named = catalogue.reference(variant.store, variant.transport)
    return replace(named, metrics=target.metrics, series=target.series)


_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LATIN: Final = bytes(range(256)).decode("latin-1")
_OF_THE_HANDSHAKE: Final = ("host", "upgrade", "connection", "origin")


def _headers(options: HandshakeOptions, problems: list[str]) -> tuple[tuple[str, str], ...]:
    """Return the headers of the opening handshake. What is wrong is told without a value, which may be a secret."""
    found: list[tuple[str, str]] = []
    for text in options.header or ():
        name, colon, value = (part.strip() for part in text.partition(":"))
        if not colon or not _HEADER.fullmatch(name) or not _fits(value):
            problems.append('--header must be "NAME: VALUE" on one line, in letters of Latin-1.')
        elif name.lower() in _OF_THE_HANDSHAKE or name.lower().startswith("sec-websocket-"):
            problems.append(f"--header {name}: the handshake has its own; there are --origin and --subprotocol.")
        else:
            found.append((name, value))
    if options.token_file is not None:
        try:
            token = Path(options.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            problems.append(f"--token-file: {options.token_file} cannot be read.")
        else:
            if token and _fits(token):
                found.append(("Authorization", f"Bearer {token}"))
            else:
                problems.append(f"--token-file: {options.token_file} holds no token on one line.")
    for name in ("origin", "subprotocol"):
        value = getattr(options, name) or ""
        if not _fits(value) or " " in value or not value.isascii():
            problems.append(f"--{name} must be one word in ASCII.")
    return tuple(found)


def _fits(value: str) -> bool:
    """Return whether a header can hold it: RFC 9110, section 5.5, knows no other letters."""
    return value.isprintable() and all(letter in _LATIN for letter in value)


def _query(options: HandshakeOptions, problems: list[str]) -> tuple[str, ...]:
    if any("=" not in text for text in options.query or ()):
        problems.append("--query must be NAME=VALUE.")
    return tuple(quote(text, safe="=+%~!$'()*,;:@/?") for text in options.query or ())


def without_secrets(command: Sequence[str]) -> list[str]:
    """Return a command line as it may stand in a result: values of --header and --query are left out."""
    shown: list[str] = []
    for part in command:
        option, equals, _ = part.partition("=")
        if shown and shown[-1] in _SECRET:
            shown.append(HIDDEN)
        elif equals and option in _SECRET:
            shown.append(f"{option}={HIDDEN}")
        else:
            shown.append(part)
    return shown


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


def descriptors(settings: Settings, target: Target, workers: int | None) -> tuple[int, str | None]:
    """Return how many open files one process needs, the target's if it is started here, and why that cannot be."""
    workers = workers or len(default_cores(target)[1])
    each = connections(settings.workload(), workers=workers, one_stream=find(settings.dialect).features.one_stream)
    wanted = (sum(each) if target.started else max(each)) + DESCRIPTORS_SPARE
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed == resource.RLIM_INFINITY or wanted <= allowed:
        return wanted, None
    who, more = (target.name, "") if target.started else ("a worker", " or more --workers")
    return wanted, (
        f"--participants {settings.participants}: {who} would need {wanted} open files, and the limit is {allowed}: raise"
        f" it by `ulimit -Hn {wanted}`, or use fewer participants{more}."
    )


def cannot_write(out: Path) -> str | None:
    """Return why no results can be written under `out`, without making anything there."""
    there = out
    while not there.exists() and there != there.parent:
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    return f"--out: results cannot be written to {out}: {there} is {'not writable' if there.is_dir() else 'no folder'}."
