"""A target: a relay that is measured, where it is or how it is started, and what it promises."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

from msgspec import Struct

from loadtests.address import CERTIFICATE_KEY

VERSION_S_MAX: Final = 20.0
_NUMBER: Final = re.compile(rb"\d+(?:\.\d+)+[\w.-]*")


class Promises(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a relay says of itself. What it does not promise cannot be broken."""

    durability: str = "not told"
    order: str = "not told"
    resume: str = "not told"
    acknowledged: str = "not told"
    """What its acknowledgement means."""
    transport: str = "WebSocket"
    ordered: Literal["none", "publisher", "stream"] = "none"
    """Recipients get records in one order: none, that of each publisher, or one order for the whole stream."""
    resumes: bool = False
    """Who was away gets what it missed."""
    survives: Literal["nothing", "restart", "kill"] = "nothing"
    """What an acknowledged record survives."""
    tells_gaps: bool = False
    """Who cannot be given everything is told or cut off: nobody misses records on a connection that lives."""
    acknowledges_last: bool = False
    """A record is acknowledged when all who are there have got it."""

    def words(self) -> dict[str, str]:
        """Return what a report shows beside the figures."""
        return {
            "durability": self.durability,
            "order": self.order,
            "resume": self.resume,
            "acknowledged means": self.acknowledged,
            "transport": self.transport,
        }


class Program(Protocol):
    """How a relay is started; a module of loadtests.target.relays is one."""

    @property
    def HOW_TO_GET(self) -> str: ...  # noqa: N802  # modules have it as a constant

    @property
    def VERSION(self) -> Sequence[str]:  # noqa: N802  # modules have it as a constant
        """Arguments that make the binary tell its version; none where it cannot."""
        ...

    def find(self) -> str | None:
        """Return the path of the binary, None unless all that is needed is installed."""
        ...

    def command(self, binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
        """Write what it needs into `directory`, and return what starts it on 127.0.0.1:`port`, with TLS or without."""
        ...

    def environment(self, directory: Path, port: int) -> Mapping[str, str]: ...


class Command(Struct, frozen=True, kw_only=True):
    """A program by its command line, in which {port}, {dir}, {cert} and {key} are filled in."""

    arguments: tuple[str, ...]
    added: Mapping[str, str] = {}
    """To the environment."""
    version: tuple[str, ...] = ()
    how_to_get: str = ""

    @property
    def HOW_TO_GET(self) -> str:  # noqa: N802  # as in modules
        return self.how_to_get or f"install {self.arguments[0]}"

    @property
    def VERSION(self) -> Sequence[str]:  # noqa: N802  # as in modules
        return self.version

    @property
    def encrypts(self) -> bool:
        """It can be given a certificate."""
        return any("{cert}" in part for part in self.arguments)

    def find(self) -> str | None:
        return shutil.which(self.arguments[0])

    def command(self, binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
        return [binary, *(self._filled(part, directory, port, certificate) for part in self.arguments[1:])]

    def environment(self, directory: Path, port: int) -> Mapping[str, str]:
        return {name: self._filled(value, directory, port, None) for name, value in self.added.items()}

    @staticmethod
    def _filled(text: str, directory: Path, port: int, certificate: Path | None) -> str:
        # Not str.format: a command may have braces of its own.
        for name, value in (("port", port), ("dir", directory), ("cert", certificate or ""), ("key", CERTIFICATE_KEY)):
            text = text.replace(f"{{{name}}}", str(value))
        return text


class ReferenceVariant(Struct, frozen=True, kw_only=True):
    """The relay of this package, by its store and its transport."""

    store: str = "memory"
    transport: str = "pump"


class Target(Struct, frozen=True, kw_only=True):
    """`dialect`: what finds it (loadtests/dialects/find.py). Either `url` or `program` says where it is."""

    name: str
    dialect: str
    url: str = ""
    """Address of one that runs."""
    program: Program | ReferenceVariant | None = None
    """How it is started by us; then on loopback."""
    websocket: bool = True
    path: str = "/"
    """Path of the address of one that is started."""
    ready: str = ""
    """Page that answers 200 when it is ready, with {port}; empty: when its port accepts a connection."""
    promises: Promises = Promises()
    about: str = ""
    pid: int | None = None
    """Process of one that runs on this machine, to be observed with all its children."""
    metrics: str = ""
    """Page of its own metrics, with {port} where it is started."""
    series: tuple[str, ...] = ()
    """Names of the metrics that are shown over the load's charts."""

    @property
    def started(self) -> bool:
        return self.program is not None

    @property
    def label(self) -> str:
        """Label of the metrics of its runs: its name, but no address and no path of a file."""
        return self.dialect.rpartition(":")[2] if "://" in self.name else self.name

    @property
    def tells_metrics(self) -> bool:
        """It has a page of metrics: the reference relay's is found when it starts."""
        return bool(self.metrics) or isinstance(self.program, ReferenceVariant)

    def missing(self) -> str | None:
        """Return how to get what is not installed; None if it can be used."""
        if self.program is None or isinstance(self.program, ReferenceVariant) or self.program.find() is not None:
            return None
        return self.program.HOW_TO_GET


def version_of(program: Program) -> str:
    """Return the first number with a dot that the program tells as its version; empty if it tells none."""
    binary = program.find()
    if binary is None or not program.VERSION:
        return ""
    try:
        told = subprocess.run(
            [binary, *program.VERSION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _NUMBER.search(told.stdout)
    return found[0].decode() if found else ""
