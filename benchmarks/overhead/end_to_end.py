"""The price on the wire: paired runs of one seeded scenario, not encrypted and encrypted, without and with TLS.

Every run is `relaymark run` in a process of its own, with a fresh relay. Within a round the four configurations follow
one another, the next round in the opposite order, and all of a round have one seed: the same people say the same things
at the same times. Differences are taken within rounds.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from benchmarks.rig.processes import finish
from benchmarks.rig.statistics import Estimate, difference_of_pairs
from loadtests.results.exit_codes import EXIT_INVALID, EXIT_OK, EXIT_TARGET
from loadtests.results.schema import Result
from relaymark import child

Suite: TypeAlias = Literal["none", "sender-key"]

CONFIGURATIONS: Final[tuple[tuple[Suite, bool], ...]] = (
    ("none", False),
    ("sender-key", False),
    ("sender-key", True),
    ("none", True),
)
FIGURES: Final = ("p50_us", "p99_us", "relay_cpu_us")
RUN_S_MAX: Final = 300.0
_LINES: Final = 5


class EndToEndError(Exception):
    """A run failed. `code` is its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class EndToEndLoad(Struct, frozen=True, kw_only=True):
    """What every run does."""

    scenario: str
    participants: int
    duration_s: float
    rounds: int
    seed: int


class Point(Struct, frozen=True, kw_only=True):
    """One run: latency of messages from the intended send, and the relay's processor time a delivery."""

    round: int
    suite: Suite
    tls: bool
    valid: bool
    samples: int
    p50_us: float
    p99_us: float
    relay_cpu_us: float


class Added(Struct, frozen=True, kw_only=True):
    """What `head` adds to `base` in one figure, us; `cost` is None with fewer than three rounds."""

    what: str
    figure: str
    base: float
    head: float
    cost: Estimate | None


def measure(load: EndToEndLoad, points: list[Point], say: Callable[[str], None]) -> None:
    """Run all rounds; fill `points`, so that what was measured until an interruption is there. Raises EndToEndError."""
    with tempfile.TemporaryDirectory(prefix="relaymark-overhead-") as directory:
        for number in range(load.rounds):
            for suite, tls in CONFIGURATIONS if number % 2 == 0 else CONFIGURATIONS[::-1]:
                point = _point(_run(load, load.seed + number, suite, tls, Path(directory)), number, suite, tls)
                points.append(point)
                say(
                    f"round {number + 1}: {suite}{' TLS' if tls else ''}: p50 {point.p50_us:.0f} us, "
                    f"p99 {point.p99_us:.0f} us, relay {point.relay_cpu_us:.1f} us a delivery"
                )


def _run(load: EndToEndLoad, seed: int, suite: Suite, tls: bool, directory: Path) -> Result:
    command = child("run", load.scenario, "--participants", str(load.participants))
    command += ["--duration", f"{load.duration_s:g}s", "--seed", str(seed), "--suite", suite, *(["--tls"] * tls)]
    command += ["--json", "--quiet", "--out", str(directory)]
    try:
        done = finish(command, timeout_s=load.duration_s + RUN_S_MAX)
    except subprocess.TimeoutExpired:
        raise EndToEndError(f"relaymark run did not end within {RUN_S_MAX:.0f} s of its load", EXIT_TARGET) from None
    if done.returncode not in (EXIT_OK, EXIT_INVALID):
        last = "\n".join(done.stderr.splitlines()[-_LINES:])
        raise EndToEndError(f"relaymark run ended with {done.returncode}: {last}", done.returncode)
    try:
        return msgspec.json.decode(done.stdout, type=Result)
    except msgspec.DecodeError as error:
        raise EndToEndError(f"relaymark run printed no result: {error}", EXIT_TARGET) from None


def _point(result: Result, number: int, suite: Suite, tls: bool) -> Point:
    latency = result.histogram("deliver", kind="message", basis="intended")
    cpu_ns = result.relay.cpu_ns_per_delivery if result.relay else None
    if not latency.count or cpu_ns is None:
        raise EndToEndError("the run delivered no message", EXIT_INVALID)
    return Point(
        round=number,
        suite=suite,
        tls=tls,
        valid=not result.findings,
        samples=latency.count,
        p50_us=latency.percentile(50) / 1e3,
        p99_us=latency.percentile(99) / 1e3,
        relay_cpu_us=cpu_ns / 1e3,
    )


COMPARISONS: Final = (
    ("encryption", ("none", False), ("sender-key", False)),
    ("encryption, under TLS", ("none", True), ("sender-key", True)),
    ("TLS", ("none", False), ("none", True)),
    ("encryption and TLS", ("none", False), ("sender-key", True)),
)


def added(points: Sequence[Point]) -> list[Added]:
    """Return what encryption and TLS add, from the rounds that have both sides."""
    found = []
    for what, base, head in COMPARISONS:
        sides = [{p.round: p for p in points if (p.suite, p.tls) == side} for side in (base, head)]
        shared = sorted(sides[0].keys() & sides[1].keys())
        for figure in FIGURES:
            pairs = [(getattr(sides[0][at], figure), getattr(sides[1][at], figure)) for at in shared]
            if not pairs:
                continue
            found.append(
                Added(
                    what=what,
                    figure=figure,
                    base=median(base for base, _ in pairs),
                    head=median(head for _, head in pairs),
                    cost=difference_of_pairs(pairs) if len(pairs) >= 3 else None,
                )
            )
    return found
