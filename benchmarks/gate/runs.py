"""What a run of the gate gives, whatever was run. Runs come in pairs: base with head, or one of them with itself."""

from __future__ import annotations

import time
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from benchmarks.gate.metrics import MetricName
from benchmarks.rig.instructions import Tool
from loadtests.settings import Settings

RUN_S_MIN: Final = 1.0
"""Shorter runs of a scenario are none."""

Side: TypeAlias = Literal["base", "head"]


class RunError(Exception):
    """A relay did not start, or lost what it was given."""


class GateRun(Struct, frozen=True, kw_only=True):
    """The figures of one run; times in us, as they are printed. `others`: the share that others took of the cores.

    `valid`: the harness believes the latencies; of what is not sound only CPU a delivery counts.
    """

    side: Side
    calibration: bool
    figures: dict[MetricName, float]
    others: float
    valid: bool = True


class TargetWork(Struct, frozen=True, kw_only=True):
    """What the latency is measured under. `rate`: chat messages a second; None: what both carry easily."""

    scenario: str
    participants: int
    rate: float | None

    def settings(self, seconds: float) -> Settings:
        """Return a run, still without a target."""
        return Settings(
            scenario=self.scenario,
            url="",
            participants=self.participants,
            rate=self.rate,
            duration_s=max(seconds, RUN_S_MIN),
            run=f"{time.time_ns():x}",
        )

    def in_words(self) -> str:
        """Return the work in one phrase."""
        rate = "" if self.rate is None else f", {self.rate:.4g} chat messages a second"
        return f"{self.scenario}, {self.participants} participants{rate}"


class MakePair(Protocol):
    """Runs a pair."""

    def __call__(
        self, sides: tuple[Side, Side], *, seconds: float, calibration: bool = False, whole: bool = True
    ) -> tuple[GateRun, GateRun]:
        """Start a fresh relay of both sides, measure and stop them; not `whole`: their processor time alone.

        Raises RunError.
        """


class CountInstructions(Protocol):
    """Counts the instructions a delivery of a fresh relay of one side."""

    def __call__(self, side: Side, tool: Tool, *, swapped: bool) -> float:
        """`swapped`: the relay runs on the load's core, and the load on the relay's. Raises RunError, ToolError."""
