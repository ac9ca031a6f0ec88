"""The measuring: a probe of every target, then rounds in which each has its turn, each time on a fresh server.

The probe tells what an idle connection takes, and, by the slowest target, which load all can carry. In a round a target
is first paced at that load and then saturated. The order moves on by one a round, so that none is always first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from benchmarks.compare.links import LoadError, attach_of, joined
from benchmarks.compare.pace import Pace, pace
from benchmarks.compare.saturate import Saturation, saturate
from benchmarks.compare.workload import DELIVERIES_PER_PUBLISH, keyring
from benchmarks.fast_load.serving import serving
from benchmarks.peers.catalogue import Peer
from benchmarks.rig.processes import Cores, Server, ServerError
from benchmarks.rig.say import Say
from benchmarks.rig.usage import resident_bytes
from relay.capability import Right

LOAD_SHARE: Final = 0.5
"""Share of the slowest target's saturation: far enough below that none of them queues for long."""
DELIVERIES_PER_S_MAX: Final = 20_000.0
"""The load opens every record; beyond, its own work would show in the latencies."""
ROUNDS_MIN: Final = 3
SETTLE_S: Final = 0.5
"""Until buffers of the handshakes have been given back."""

_T = TypeVar("_T")


class ComparePlan(Struct, frozen=True, kw_only=True):
    """How often and how long. `held`: idle connections whose memory is measured."""

    rounds: int
    seed: int
    probe_s: float
    warmup_s: float
    saturate_s: float
    pace_s: float
    held: int


def plan(*, quick: bool, rounds: int | None, seed: int) -> ComparePlan:
    """Return the plan of a quick or a full comparison."""
    if quick:
        return ComparePlan(
            rounds=rounds or 5, seed=seed, probe_s=0.5, warmup_s=0.3, saturate_s=1.0, pace_s=2.0, held=1_000
        )
    return ComparePlan(
        rounds=rounds or 10, seed=seed, probe_s=1.0, warmup_s=0.5, saturate_s=2.0, pace_s=6.0, held=4_000
    )


class Probe(Struct, frozen=True, kw_only=True):
    """What one target takes when it is idle. `idle_bytes`: resident, with one connection; `held_bytes`: with `held` more."""

    target: str
    saturation: Saturation
    held: int
    idle_bytes: int
    held_bytes: int

    @property
    def bytes_per_connection(self) -> float:
        return (self.held_bytes - self.idle_bytes) / self.held


class Turn(Struct, frozen=True, kw_only=True):
    """One target in one round."""

    target: str
    round: int
    started_unix_ns: int
    pace: Pace
    saturation: Saturation


class Measurements(Struct, kw_only=True):
    """All that was measured; `publishes_per_s` is the load of the pacing, 0 before it is known."""

    probes: dict[str, Probe]
    turns: list[Turn]
    failures: dict[str, str]
    """By target, why it could not be measured to the end."""
    publishes_per_s: float = 0.0


def measure(
    measured: Measurements, targets: Sequence[Peer], plan: ComparePlan, cores: Cores, logs: Path, say: Say
) -> None:
    """Fill `measured`, so that what was measured until an interruption is there. A target that fails is left out."""
    for target in targets:
        probe = _attempt(measured, target, cores, logs, say, partial(_probe, target, cores, plan))
        if probe is not None:
            measured.probes[target.name] = probe
            say(f"probe: {target.name:26} {probe.saturation.deliveries_per_s:10,.0f} deliveries/s")
    left = [target for target in targets if target.name in measured.probes]
    if not left:
        return
    slowest = min(probe.saturation.deliveries_per_s for probe in measured.probes.values())
    measured.publishes_per_s = min(LOAD_SHARE * slowest, DELIVERIES_PER_S_MAX) / DELIVERIES_PER_PUBLISH
    for number in range(plan.rounds):
        first = number % len(left)
        for target in left[first:] + left[:first]:
            if target.name in measured.failures:
                continue
            run = partial(_turn, target, cores, plan, number, measured.publishes_per_s)
            turn = _attempt(measured, target, cores, logs, say, run)
            if turn is not None:
                measured.turns.append(turn)
                say(
                    f"round {number + 1}: {target.name:26} {turn.saturation.deliveries_per_s:10,.0f} deliveries/s,"
                    f" p50 {turn.pace.deliver.percentile(50) / 1e6:.2f} ms, p99 {turn.pace.deliver.percentile(99) / 1e6:.2f} ms"
                )


def _attempt(
    measured: Measurements, target: Peer, cores: Cores, logs: Path, say: Say, run: Callable[[Server], _T]
) -> _T | None:
    log = logs / f"{target.name}.log"
    try:
        with serving(target, cores, log=log) as server:
            return run(server)
    except (ServerError, LoadError, OSError) as error:
        measured.failures[target.name] = f"{target.name}: {error} (log: {log})"
        say(measured.failures[target.name])
        return None


def _probe(target: Peer, cores: Cores, plan: ComparePlan, server: Server) -> Probe:
    member = attach_of(keyring(plan.seed, "held"), 0, Right.SUBSCRIBE)
    # What a first connection makes the server load once is not what a connection costs.
    with joined(server, target.dialect, [member]):
        time.sleep(SETTLE_S / 2)
        idle_bytes = resident_bytes(server.pid)
        with joined(server, target.dialect, [member] * plan.held):
            time.sleep(SETTLE_S)
            held_bytes = resident_bytes(server.pid)
    saturation = saturate(server, target.dialect, cores, seed=plan.seed, seconds=plan.probe_s, warmup_s=plan.warmup_s)
    return Probe(
        target=target.name, saturation=saturation, held=plan.held, idle_bytes=idle_bytes, held_bytes=held_bytes
    )


def _turn(target: Peer, cores: Cores, plan: ComparePlan, number: int, publishes_per_s: float, server: Server) -> Turn:
    # Equal work for every target of a round, other work in every round.
    seed = plan.seed + number
    started_unix_ns = time.time_ns()
    paced = pace(server, target.dialect, cores, seed=seed, publishes_per_s=publishes_per_s, seconds=plan.pace_s)
    saturation = saturate(server, target.dialect, cores, seed=seed, seconds=plan.saturate_s, warmup_s=plan.warmup_s)
    return Turn(target=target.name, round=number, started_unix_ns=started_unix_ns, pace=paced, saturation=saturation)
