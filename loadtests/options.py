"""The options of a run, checked together before anything is started."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from loadtests.address import parse_url
from loadtests.control import exporter
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.results.thresholds import Threshold, ThresholdError, parse
from loadtests.sealing.records import KIND_NAMES
from loadtests.settings import Settings, problems_of

REFERENCE: Final = "reference"
TRANSPORTS: Final = ("pump", "trio-websocket", "uvloop")
WORKERS_MAX: Final = 256
UI_HOST: Final = "127.0.0.1"
UI_PORT: Final = 8089
"""Locust's own."""


class Plan(Struct, frozen=True, kw_only=True):
    """The options of `relaymark run`, as they were given."""

    settings: Settings
    target: str = REFERENCE
    workers: int | None = None
    tls: bool = False
    store: str = "memory"
    transport: str = "pump"
    thresholds: tuple[str, ...] = ()
    out: str = "runs"
    json: bool = False
    ui: bool = False
    quiet: bool = False
    metrics: str | None = None
    linger_s: float = 0.0
    command: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """Found while the options were read, to be reported with all others."""


class Refused(Exception):
    """The run cannot begin: `problems`, one sentence each, and the exit code."""

    def __init__(self, code: int, problems: Sequence[str]) -> None:
        super().__init__(" ".join(problems))
        self.code = code
        self.problems = problems


def check(plan: Plan) -> list[Threshold]:
    """Return the thresholds. Raises Refused with everything that cannot work."""
    thresholds, wrong = read_thresholds(plan.thresholds)
    problems = [*plan.problems, *problems_of(plan.settings), *wrong]
    if plan.target != REFERENCE:
        try:
            parse_url(plan.target)
        except ValueError as error:
            problems.append(f"--target: {error} Or leave it out for the reference relay.")
        started_here = (
            ("--tls", plan.tls, False),
            ("--store", plan.store, "memory"),
            ("--transport", plan.transport, TRANSPORTS[0]),
        )
        for option, value, default in started_here:
            if value != default:
                problems.append(f"{option} is for the relay that is started here; {plan.target} has its own.")
    if plan.settings.ca is not None and not plan.target.startswith("wss:"):
        problems.append("--tls-ca is for a target at wss://HOST:PORT.")
    if plan.store not in ("memory", "sqlite") and not plan.store.startswith("sqlite:"):
        problems.append(f"--store must be memory, sqlite or sqlite:PATH, not {plan.store}.")
    if plan.transport not in TRANSPORTS:
        problems.append(f"--transport must be one of {', '.join(TRANSPORTS)}, not {plan.transport}.")
    if plan.workers is not None and not 1 <= plan.workers <= WORKERS_MAX:
        problems.append(f"--workers must be 1 to {WORKERS_MAX}, not {plan.workers}.")
    if not 0 <= plan.linger_s < 86_400:
        problems.append(f"--linger must be 0 or more seconds and less than a day, not {plan.linger_s:g}.")
    if plan.linger_s and plan.metrics is None and not plan.ui:
        problems.append("--linger keeps what --metrics or --ui serves: give one of them, too.")
    if plan.metrics is not None:
        try:
            problems += _cannot_listen("--metrics", *exporter.parse_address(plan.metrics))
        except ValueError as error:
            problems.append(f"--metrics: {error}.")
    if plan.ui:
        problems += _cannot_listen("--ui", UI_HOST, UI_PORT)
    if problem := cannot_write(Path(plan.out)):
        problems.append(problem)
    if problems:
        raise Refused(EXIT_CONFIGURATION, problems)
    return thresholds


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
