"""The measuring: a probe of every target, then rounds in which each has its turn, each time on a fresh server.

A turn is a run of the scenario by the engine, whose workers stay for the whole comparison, and then a closed window on
the same server. The probe tells what an idle connection takes, and, by the slowest target, which load all can carry.
The order moves on by one a round, so that none is always first. A relay that runs already is not ours to fill: it has no
probe and no closed window, and its turns are runs alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from msgspec.structs import replace

from benchmarks.compare.measurements import ComparePlan, Measurements, Probe
from benchmarks.compare.ranking import Turn
from benchmarks.fast_load.members import LoadError
from benchmarks.fast_load.saturate import rate_for_all
from benchmarks.fast_load.workbench import Workbench, usage_of
from benchmarks.rig.processes import ServerError
from benchmarks.rig.say import say
from loadtests.address import TargetError
from loadtests.dialects.find import DialectError
from loadtests.report.words import main_histogram
from loadtests.results.files import write
from loadtests.results.thresholds import Threshold
from loadtests.settings import Settings
from loadtests.target.greeting import greet
from loadtests.target.opening import OpenTarget
from loadtests.target.target import Target

SETTLE_S: Final = 0.5
"""Until buffers of the handshakes have been given back."""
_T = TypeVar("_T")


def measure(
    measured: Measurements,
    targets: Sequence[Target],
    plan: ComparePlan,
    thresholds: Sequence[Threshold],
    bench: Workbench,
    folder: Path,
) -> None:
    """Fill `measured`, so that what was measured until an interruption is there. A target that fails is left out."""
    for target in targets:
        if not target.started:
            _attempt(measured, target, bench, folder, "greeting", partial(_greet, plan))
        else:
            probe = _attempt(measured, target, bench, folder, "probe", partial(_probe, plan, bench))
            if probe is not None:
                measured.probes[target.name] = probe
                say(_line_of_probe(probe))
    carried = [probe.saturation for probe in measured.probes.values() if probe.saturation is not None]
    measured.rate = plan.rate or rate_for_all(plan.settings("").workload(), carried)
    plan = replace(plan, rate=measured.rate)
    for number in range(plan.rounds):
        left = [target for target in targets if target.name not in measured.failures]
        first = number % len(left) if left else 0
        for target in left[first:] + left[:first]:
            run = partial(_turn, plan, thresholds, bench, number)
            turn = _attempt(measured, target, bench, folder, f"{number:02d}", run)
            if turn is not None:
                measured.turns.append(turn)
                say(_line_of_turn(turn))


def _line_of_probe(probe: Probe) -> str:
    carried = f"{probe.saturation.deliveries_per_s:10,.0f} deliveries/s" if probe.saturation else "not saturated"
    return f"probe: {probe.target:26} {carried}, {probe.bytes_per_connection / 1024:.1f} KiB a connection"


def _line_of_turn(turn: Turn) -> str:
    p50_ms, p99_ms = (value / 1e6 for value in main_histogram(turn.result).percentiles((50, 99)))
    carried = f", {turn.saturation.deliveries_per_s:,.0f} deliveries/s at saturation" if turn.saturation else ""
    return f"round {turn.round + 1}: {turn.target:26} p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms{carried}"


def _attempt(
    measured: Measurements,
    target: Target,
    bench: Workbench,
    folder: Path,
    name: str,
    run: Callable[[Target, OpenTarget, Path], _T],
) -> _T | None:
    """Open the target in a folder of its own, and `run` something on it; a failure is kept for the report."""
    bench.go_on()
    folder = folder / re.sub(r"[^\w.@-]+", "-", f"{name}-{target.name}")
    try:
        folder.mkdir()
        with bench.opened(target, folder) as found:
            measured.versions.setdefault(target.name, found.version)
            return run(target, found, folder)
    except (TargetError, LoadError, ServerError, DialectError, OSError) as error:
        bench.go_on()  # what an interruption broke is no failure
        measured.failures[target.name] = f"{target.name}: {error} (see {folder})"
        say(measured.failures[target.name])
        return None


def _probe(plan: ComparePlan, bench: Workbench, target: Target, found: OpenTarget, _folder: Path) -> Probe:
    settings = _settings(plan, "probe", target, found)
    # What a first connection makes the server load once is not what a connection costs.
    bench.counting.hold(settings, 1)
    time.sleep(SETTLE_S / 2)
    idle = usage_of(found)
    bench.counting.hold(settings, plan.held)
    time.sleep(SETTLE_S)
    held = usage_of(found)
    return Probe(
        target=target.name,
        saturation=bench.saturate(settings, found, seconds=plan.probe_s, warmup_s=plan.warmup_s),
        held=plan.held,
        idle_bytes=idle.rss_bytes,
        held_bytes=held.rss_bytes,
    )


def _turn(
    plan: ComparePlan,
    thresholds: Sequence[Threshold],
    bench: Workbench,
    number: int,
    target: Target,
    found: OpenTarget,
    folder: Path,
) -> Turn:
    # Equal schedules in every turn, other keys and streams in each: a relay that ran before has seen none of them.
    settings = _settings(plan, f"{time.time_ns():x}", target, found)
    facts = bench.facts(target, found, thresholds)
    result, others_cpu = bench.run(settings, replace(facts, options={**facts.options, "round": number}))
    write(folder, result, bench.engine.intervals())
    bench.go_on()
    saturation = None
    if target.started:
        saturation = bench.saturate(settings, found, seconds=plan.saturate_s, warmup_s=plan.warmup_s)
    return Turn(target=target.name, round=number, result=result, others_cpu=others_cpu, saturation=saturation)


def _greet(plan: ComparePlan, target: Target, found: OpenTarget, _folder: Path) -> bool:
    """Return once the target has let us in."""
    greet(_settings(plan, "greeting", target, found))
    return True


def _settings(plan: ComparePlan, run: str, target: Target, found: OpenTarget) -> Settings:
    settings = replace(plan.settings(run), url=found.address.url, dialect=target.dialect)
    if target.started or plan.reached is None:
        return settings
    reached = plan.reached
    return replace(
        settings,
        ca=reached.ca,
        headers=reached.headers,
        query=reached.query,
        origin=reached.origin,
        subprotocol=reached.subprotocol,
    )
