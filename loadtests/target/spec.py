"""What a target is called on a command line, and in targets.toml.

    nats                       a name of the catalogue, or a section of targets.toml
    nats@ws://127.0.0.1:4222   a dialect of ours, and where a relay that speaks it runs
    mine.py:Mine@wss://host/p  a dialect in a file
    theirs@ws://host:80        a dialect that an installed package offers
    ws://127.0.0.1:8765        as reference@ws://...

A section of targets.toml:

    [mine]
    dialect = "mine.py:Mine"                     # a file is looked for beside targets.toml
    command = ["./mine", "--port", "{port}"]     # or url = "wss://host/path"; {dir}: a fresh folder, {cert}, {key}: for TLS
    environment = { DATA = "{dir}" }
    path = "/chat"                               # of the started relay
    ready = "http://127.0.0.1:{port}/healthz"    # otherwise: its port accepts a connection
    version = ["--version"]                      # arguments that make it tell its version
    how_to_get = "make mine"
    pid = 4711                                   # of one that runs here; metrics and series as for any
    metrics = "http://127.0.0.1:{port}/metrics"
    series = ["mine_sessions"]
    [mine.promises]                              # all of loadtests.target.target.Promises
    ordered = "stream"
    resumes = true
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from loadtests.address import encoded_path, is_page, parse_url
from loadtests.dialects.find import NAMES, DialectError, find
from loadtests.target.catalogue import CATALOGUE
from loadtests.target.target import Command, Promises, Target

TARGETS_FILE: Final = "targets.toml"
_OURS: Final = "reference"


class SpecError(ValueError):
    """A target cannot be used; `problems`, one sentence each with its remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


class _Section(Struct, kw_only=True, forbid_unknown_fields=True):
    dialect: str
    url: str | None = None
    command: list[str] | None = None
    environment: dict[str, str] = {}
    path: str = "/"
    tcp: bool = False
    ready: str = ""
    version: list[str] = []
    how_to_get: str = ""
    about: str = ""
    pid: int | None = None
    metrics: str = ""
    series: list[str] = []
    promises: Promises = Promises()


def read(text: str, file: Path | None = None) -> Target:
    """Return the target that `text` names; `file`: None for targets.toml of this folder, if there is one.

    Raises SpecError with all that is wrong about it.
    """
    dialect, at, url = text.partition("@")
    if "://" in dialect:
        return _running(_OURS, text)
    if at and "://" in url:
        return _running(_absolute(dialect, Path()), url)
    sections = sections_of(file)
    if text in sections:
        return sections[text]
    if text in CATALOGUE:
        return CATALOGUE[text]
    raise SpecError([_unknown(text, [*sections, *CATALOGUE])])


def _unknown(text: str, known: list[str]) -> str:
    close = get_close_matches(text, known, 1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return (
        f"There is no target {text!r}.{meant} Write one of {', '.join(known)}; DIALECT@URL or FILE.py:Class@URL for a relay"
        f" that runs (dialects: {', '.join(NAMES)}); or the name of a section of {TARGETS_FILE}."
    )


def _absolute(dialect: str, folder: Path) -> str:
    file, colon, name = dialect.rpartition(":")
    return f"{(folder / file).resolve()}:{name}" if colon and file.endswith(".py") else dialect


def _running(dialect: str, url: str) -> Target:
    problems = _problems_of_dialect(dialect)
    try:
        address = parse_url(url)
    except ValueError as error:
        raise SpecError([*problems, str(error)]) from None
    if problems:
        raise SpecError(problems)
    return Target(name=f"{dialect}@{address.url}", dialect=dialect, url=address.url, websocket=address.websocket)


def _problems_of_dialect(dialect: str) -> list[str]:
    try:
        find(dialect)
    except DialectError as error:
        return [str(error)]
    return []


def sections_of(file: Path | None) -> dict[str, Target]:
    """Return the targets of a TOML file; none if `file` is None and there is no targets.toml here. Raises SpecError."""
    if file is None:
        file = Path(TARGETS_FILE)
        if not file.is_file():
            return {}
    try:
        sections = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError([f"{file} cannot be read: {error.strerror}."]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError([f"{file} is no TOML: {error}."]) from None
    found: dict[str, Target] = {}
    problems: list[str] = []
    for name, section in sections.items():
        try:
            found[name] = _target(name, section, file.resolve().parent)
        except SpecError as error:
            problems += [f"{file}, [{name}]: {problem}" for problem in error.problems]
    if problems:
        raise SpecError(problems)
    return found


def _target(name: str, raw: Any, folder: Path) -> Target:
    problems = [f"{name} is a target that is known already: call it otherwise."] if name in CATALOGUE else []
    section = _section(raw, problems)
    if (section.url is None) == (section.command is None):
        problems.append("give either url, of a relay that runs, or command, which starts one.")
    if section.command is not None and not (section.command and any("{port}" in part for part in _texts(section))):
        problems.append("command must say {port} where the port to listen at goes.")
    if section.command is None and (section.environment or section.ready or section.version):
        problems.append("environment, ready and version are for a relay that command starts.")
    if section.url is None and section.pid is not None:
        problems.append("pid is for a relay that runs; what command starts is observed without.")
    url = ""
    if section.url is not None:
        try:
            url = parse_url(section.url).url
        except ValueError as error:
            problems.append(f"url: {error}")
    if not section.path.startswith("/") or "?" in section.path or "#" in section.path:
        problems.append("path must begin with / and have no query or fragment.")
    problems += [
        f"{name} must be http://HOST:PORT/PATH, percent-encoded, not {page}."
        for name, page in (("ready", section.ready), ("metrics", section.metrics))
        if page and not is_page(page)
    ]
    dialect = _absolute(section.dialect, folder)
    if section.dialect:
        problems += _problems_of_dialect(dialect)
    if problems:
        raise SpecError(problems)
    program = None
    if section.command is not None:
        first = section.command[0]
        program = Command(
            arguments=(str(folder / first) if "/" in first else first, *section.command[1:]),
            added=section.environment,
            version=tuple(section.version),
            how_to_get=section.how_to_get,
        )
    return Target(
        name=name,
        dialect=dialect,
        url=url,
        program=program,
        websocket=parse_url(url).websocket if url else not section.tcp,
        path=encoded_path(section.path),
        ready=section.ready,
        promises=section.promises,
        about=section.about,
        pid=section.pid,
        metrics=section.metrics,
        series=tuple(section.series),
    )


def _texts(section: _Section) -> list[str]:
    return [*(section.command or ()), *section.environment.values()]


def _section(raw: Any, problems: list[str]) -> _Section:
    """Read a section key by key, so that all that is wrong is told at once; what is wrong is left out."""
    if not isinstance(raw, Mapping):
        raise SpecError([*problems, "is no section: write [NAME] and keys below it."])
    kinds = {field.name: field.type for field in msgspec.structs.fields(_Section)}
    good: dict[str, Any] = {"dialect": ""}
    if "dialect" not in raw:
        problems.append(f"dialect is missing: {', '.join(NAMES)}, FILE.py:Class, or an installed package's.")
    for key, value in raw.items():
        if key not in kinds:
            close = get_close_matches(key, kinds, 1)
            problems.append(f"unknown key {key!r}{f': did you mean {close[0]}?' if close else '.'}")
            continue
        if key == "promises" and isinstance(value, Mapping):
            value = _promises(value, problems)
        try:
            good[key] = msgspec.convert(value, kinds[key])
        except msgspec.ValidationError as error:
            problems.append(f"{key}: {error}.")
    return _Section(**good)


def _promises(raw: Mapping[str, Any], problems: list[str]) -> Promises:
    kinds = {field.name: field.type for field in msgspec.structs.fields(Promises)}
    good: dict[str, Any] = {}
    for key, value in raw.items():
        try:
            good[key] = msgspec.convert(value, kinds[key])
        except KeyError:
            problems.append(f"unknown key promises.{key}: there are {', '.join(kinds)}.")
        except msgspec.ValidationError as error:
            problems.append(f"promises.{key}: {error}.")
    return Promises(**good)
