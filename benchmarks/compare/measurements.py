"""What a comparison is to do, and what it found so far."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from benchmarks.compare.ranking import Turn
from benchmarks.fast_load.saturate import Saturation
from loadtests.settings import Settings

ROUNDS_MIN: Final = 3
"""Fewer give no interval."""
PARTICIPANTS: Final = 400


class ComparePlan(Struct, frozen=True, kw_only=True):
    """How often and how long. `held`: idle connections whose memory is measured; `rate` None: what all can carry."""

    rounds: int
    seed: int
    scenario: str
    participants: int
    rate: float | None
    run_s: float
    probe_s: float
    warmup_s: float
    saturate_s: float
    held: int
    reached: Settings | None = None
    """How relays that run already are reached: the opening handshake of these settings."""

    def settings(self, run: str) -> Settings:
        """Return the run of a turn, still without a target."""
        return Settings(
            scenario=self.scenario,
            url="",
            participants=self.participants,
            rate=self.rate,
            duration_s=self.run_s,
            seed=self.seed,
            run=run,
        )


class Probe(Struct, frozen=True, kw_only=True):
    """What one target takes when it is idle. `idle_bytes`: resident, with one connection; `held_bytes`: with `held` more."""

    target: str
    saturation: Saturation | None
    held: int
    idle_bytes: int
    held_bytes: int

    @property
    def bytes_per_connection(self) -> float:
        return (self.held_bytes - self.idle_bytes) / self.held


class Measurements(Struct, kw_only=True):
    """All that was measured; `rate`: chat messages a second of every run, 0 before it is known."""

    probes: dict[str, Probe]
    turns: list[Turn]
    failures: dict[str, str]
    """By target, why it could not be measured to the end."""
    versions: dict[str, str]
    rate: float = 0.0


def plan(
    *,
    quick: bool,
    rounds: int | None,
    seed: int,
    scenario: str,
    participants: int,
    rate: float | None,
    run_s: float | None,
) -> ComparePlan:
    """Return the plan of a quick or a full comparison."""
    return ComparePlan(
        rounds=rounds or (5 if quick else 10),
        seed=seed,
        scenario=scenario,
        participants=participants,
        rate=rate,
        run_s=run_s or (2.0 if quick else 6.0),
        probe_s=0.5 if quick else 1.0,
        warmup_s=0.3 if quick else 0.5,
        saturate_s=1.5 if quick else 2.0,
        held=1_000 if quick else 4_000,
    )
