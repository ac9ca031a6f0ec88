"""What a run is: the settings that the master hands to every worker, and their checks."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtests.address import Address, client_context, parse_url
from loadtests.dialects.base import Place
from loadtests.sealing.envelope import Suite
from loadtests.workload.catalogue import SCENARIOS
from loadtests.workload.traffic import Workload

PARTICIPANTS_DEFAULT: Final = 400
"""Two cores carry the evening peak of so many with room to spare."""
DURATION_S_DEFAULT: Final = 30.0
DRAIN_S_DEFAULT: Final = 5.0
"""From the end of the load until every recipient must have everything."""
DURATION_S_MAX: Final = 7 * 86_400.0
PARTICIPANTS_MAX: Final = 1_000_000
RATE_MAX: Final = 1_000_000
SUITES: Final = {suite.name.lower().replace("_", "-"): suite for suite in Suite}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Equal settings give equal schedules, however many workers there are."""

    scenario: str
    url: str
    dialect: str = "reference"
    """What finds the target's dialect: loadtests/dialects/find.py."""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers of the opening handshake; these and `query` may be secrets, and stand in no result or log."""
    query: tuple[str, ...] = ()
    """NAME=VALUE each, as they stand in the address."""
    origin: str | None = None
    subprotocol: str | None = None
    """None: the dialect's own."""
    participants: int
    rate: float | None = None
    """Chat messages a second of the whole workload; None: the scenario's own for that many participants."""
    duration_s: float = DURATION_S_DEFAULT
    drain_s: float = DRAIN_S_DEFAULT
    seed: int = 1
    suite: str = "sender-key"
    run: str = ""
    """Names the run; keys and streams are derived from it and the seed, so that two runs never share a stream."""
    ca: str | None = None
    """File with the authority that signed the target's certificate; None: the system's."""
    own_certificate: bool = False
    """The target serves the harness's own certificate."""
    clock_shift_ms: tuple[float, ...] = ()
    """A fault to inject: the clock of worker i is off by the i-th value."""

    @property
    def address(self) -> Address:
        return parse_url(self.url)

    def place(self) -> Place:
        """Return where and how connections are opened. Raises ValueError for what no header can hold."""
        address = self.address
        return Place(
            host=address.netloc,
            path="" if address.path == "/" else address.path,
            query="&".join(self.query),
            headers=self.headers,
            origin=self.origin,
            subprotocol=self.subprotocol,
        )

    def client_context(self) -> ssl.SSLContext | None:
        """Return what verifies the target, None where it is reached without TLS."""
        if not self.address.tls:
            return None
        return client_context(Path(self.ca) if self.ca else None, own=self.own_certificate)

    def workload(self) -> Workload:
        """Return who is in which stream, and what each sends and when."""
        return Workload(
            self.scenario,
            seed=self.seed,
            participants=self.participants,
            rate=self.rate,
            duration_s=self.duration_s,
        )

    def to_wire(self) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Settings:
        return msgspec.convert(wire, cls)


def problems_of(settings: Settings) -> list[str]:
    """Return what cannot work about `settings`, one sentence each; empty if all is well."""
    found = []
    if settings.scenario not in SCENARIOS:
        found.append(f"There is no scenario {settings.scenario!r}; there are {', '.join(SCENARIOS)}.")
        if settings.participants < 1:
            found.append(f"--participants must be at least 1, not {settings.participants}.")
    elif settings.participants < (least := SCENARIOS[settings.scenario].participants_min):
        found.append(f"--participants must be at least {least} for {settings.scenario}, not {settings.participants}.")
    if settings.participants > PARTICIPANTS_MAX:
        found.append(f"--participants must be at most {PARTICIPANTS_MAX}, not {settings.participants}.")
    if settings.rate is not None and not 0 < settings.rate <= RATE_MAX:
        found.append(f"--rate must be above 0 and at most {RATE_MAX} messages a second, not {settings.rate:g}.")
    if not 1 <= settings.duration_s <= DURATION_S_MAX:
        found.append(f"--duration must be at least 1 s and at most a week, not {settings.duration_s:g} s.")
    if not 0 < settings.drain_s <= 600:
        found.append(f"--drain must be above 0 and at most 600 s, not {settings.drain_s:g} s.")
    if settings.suite not in SUITES:
        found.append(f"There is no suite {settings.suite!r}; there are {', '.join(SUITES)}.")
    if not 0 <= settings.seed < 2**63:
        found.append("--seed must be 0 or a positive number of at most 63 bits.")
    if settings.ca is not None and (problem := _cannot_trust(Path(settings.ca))):
        found.append(problem)
    return found


def _cannot_trust(ca: Path) -> str | None:
    """Return why the authorities in `ca` cannot be used."""
    if not ca.is_file():
        return f"--tls-ca: there is no file {ca}."
    try:
        client_context(ca, own=False)
    except ssl.SSLError:
        return f"--tls-ca: {ca} holds no certificate in PEM form."
    except OSError as error:
        return f"--tls-ca: {ca} cannot be read: {error.strerror}."
    return None


_TIME: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds(text: str) -> float:
    """Return the seconds of "30", "1.5", "30s", "2m" or "1h30m". Raises ValueError."""
    found = _TIME.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        raise ValueError(f"{text!r} is no time: write 30, 30s, 2m or 1h30m")
    hours, minutes, rest = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest
