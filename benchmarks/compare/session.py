"""The measuring: a probe of every target, then rounds in which each has its turn, each time on a fresh server.

A turn is a run of the scenario by the engine, whose workers stay for the whole comparison, and then a closed window on
the same server. The probe tells what an idle connection takes, and, by the slowest target, which load all can carry.
The order moves on by one a round, so that none is always first. A relay that runs already is not ours to fill: it has no
probe and no closed window, and its turns are runs alone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.compare.measurements import ComparePlan, Measurements, Probe
from benchmarks.compare.members import LoadError
from benchmarks.compare.ranking import Turn
from benchmarks.compare.saturate import Saturation
from benchmarks.compare.window import Window
from benchmarks.compare.workload import DELIVERIES_PER_PUBLISH
from benchmarks.rig.priority import giving_way, prefer_sessions
from benchmarks.rig.processes import Cores, ServerError
from benchmarks.rig.say import Say
from benchmarks.rig.usage import core_busy_ns
from loadtests.address import TargetError
from loadtests.control.facts import RunFacts
from loadtests.dialects.find import find
from loadtests.engine import Engine
from loadtests.report.words import main_histogram
from loadtests.results.files import write
from loadtests.settings import Settings
from loadtests.target.opening import OpenTarget, opened
from loadtests.target.process import ProcessUsage
from loadtests.target.target import Target
from loadtests.workload.catalogue import DELIVERIES_PER_S_DEFAULT

LOAD_SHARE: Final = 0.5
"""Share of the slowest target's saturation: far enough below that none of them queues for long."""
PUBLISH_WEIGHT: Final = 5
"""What a publish costs, in deliveries: as the workload's default rate counts it."""
SETTLE_S: Final = 0.5
"""Until buffers of the handshakes have been given back."""
_T = TypeVar("_T")


class Bench(Struct, frozen=True, kw_only=True):
    """What measures, for the whole comparison."""

    engine: Engine
    window: Window
    cores: Cores
    folder: Path
    facts: Callable[[Target, OpenTarget], RunFacts]
    go_on: Callable[[], None]
    """Raises KeyboardInterrupt after a Ctrl-C."""
    preferred: bool
    """This process goes ahead of others, and may let its own go first."""
    say: Say


def measure(measured: Measurements, targets: Sequence[Target], plan: ComparePlan, bench: Bench) -> None:
    """Fill `measured`, so that what was measured until an interruption is there. A target that fails is left out."""
    for target in targets:
        if target.started:
            probe = _attempt(measured, target, bench, "probe", partial(_probe, plan, bench))
            if probe is not None:
                measured.probes[target.name] = probe
                bench.say(_line_of_probe(probe))
    measured.rate = plan.rate or _rate_for_all(measured.probes, plan)
    plan = replace(plan, rate=measured.rate)
    for number in range(plan.rounds):
        left = [target for target in targets if target.name not in measured.failures]
        first = number % len(left) if left else 0
        for target in left[first:] + left[:first]:
            turn = _attempt(measured, target, bench, f"{number:02d}", partial(_turn, plan, bench, number))
            if turn is not None:
                measured.turns.append(turn)
                bench.say(_line_of_turn(turn))


def _rate_for_all(probes: Mapping[str, Probe], plan: ComparePlan) -> float:
    """Return a rate that the load carries, and that is at most half of what the slowest target carries."""
    carried = [probe.saturation.deliveries_per_s for probe in probes.values() if probe.saturation is not None]
    loads = [rate * (1 + PUBLISH_WEIGHT / DELIVERIES_PER_PUBLISH) * LOAD_SHARE for rate in carried]
    return min([DELIVERIES_PER_S_DEFAULT, *loads]) / plan.settings("").workload().load_per_message


def _line_of_probe(probe: Probe) -> str:
    carried = f"{probe.saturation.deliveries_per_s:10,.0f} deliveries/s" if probe.saturation else "not saturated"
    return f"probe: {probe.target:26} {carried}, {probe.bytes_per_connection / 1024:.1f} KiB a connection"


def _line_of_turn(turn: Turn) -> str:
    p50_ms, p99_ms = (value / 1e6 for value in main_histogram(turn.result).percentiles((50, 99)))
    carried = f", {turn.saturation.deliveries_per_s:,.0f} deliveries/s at saturation" if turn.saturation else ""
    return f"round {turn.round + 1}: {turn.target:26} p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms{carried}"


def _attempt(
    measured: Measurements, target: Target, bench: Bench, name: str, run: Callable[[Target, OpenTarget, Path], _T]
) -> _T | None:
    """Open the target in a folder of its own, and `run` something on it; a failure is kept for the report."""
    bench.go_on()
    folder = bench.folder / re.sub(r"[^\w.@-]+", "-", f"{name}-{target.name}")
    try:
        folder.mkdir()
        with opened(target, folder, cores={bench.cores.server}) as found:
            if bench.preferred:
                prefer_sessions()
            measured.versions.setdefault(target.name, found.version)
            return run(target, found, folder)
    except (TargetError, LoadError, ServerError, OSError) as error:
        bench.go_on()  # what an interruption broke is no failure
        measured.failures[target.name] = f"{target.name}: {error} (see {folder})"
        bench.say(measured.failures[target.name])
        return None


def _probe(plan: ComparePlan, bench: Bench, target: Target, found: OpenTarget, _folder: Path) -> Probe:
    settings = _settings(plan, "probe", target, found)
    # What a first connection makes the server load once is not what a connection costs.
    bench.window.hold(settings, 1)
    time.sleep(SETTLE_S / 2)
    idle = _usage(found)
    bench.window.hold(settings, plan.held)
    time.sleep(SETTLE_S)
    held = _usage(found)
    return Probe(
        target=target.name,
        saturation=_saturate(plan, bench, settings, found, plan.probe_s),
        held=plan.held,
        idle_bytes=idle.rss_bytes,
        held_bytes=held.rss_bytes,
    )


def _turn(plan: ComparePlan, bench: Bench, number: int, target: Target, found: OpenTarget, folder: Path) -> Turn:
    # Equal schedules in every turn, other keys and streams in each: a relay that ran before has seen none of them.
    settings = _settings(plan, f"{time.time_ns():x}", target, found)
    facts = bench.facts(target, found)
    others = _Others(bench.cores, found)
    with giving_way(preferred=bench.preferred):
        # The master only adds up during a run: a worker on the same core goes first.
        result = bench.engine.run(settings, replace(facts, options={**facts.options, "round": number}))
    others_cpu = others.share()
    write(folder, result, bench.engine.intervals())
    bench.go_on()
    saturation = _saturate(plan, bench, settings, found, plan.saturate_s) if target.started else None
    return Turn(target=target.name, round=number, result=result, others_cpu=others_cpu, saturation=saturation)


def _settings(plan: ComparePlan, run: str, target: Target, found: OpenTarget) -> Settings:
    return replace(plan.settings(run), url=found.address.url, dialect=target.dialect)


def _saturate(
    plan: ComparePlan, bench: Bench, settings: Settings, found: OpenTarget, seconds: float
) -> Saturation | None:
    """Return what it carries; None of a relay that acknowledges nothing: no window can be kept full of that."""
    if not find(settings.dialect).features.acknowledges:
        return None
    assert found.pid is not None, "it was started here"
    return bench.window.saturate(settings, found.pid, bench.cores, seconds=seconds, warmup_s=plan.warmup_s)


def _usage(found: OpenTarget) -> ProcessUsage:
    usage = found.relay.usage() if found.relay is not None else None
    if usage is None:
        raise ServerError("it ended by itself")
    return usage


class _Others:
    """Measures what other processes take of the server's core, from when it is made."""

    def __init__(self, cores: Cores, found: OpenTarget) -> None:
        self._core = cores.server
        self._relay = None if cores.shared else found.relay
        self._before = self._now()

    def share(self) -> float | None:
        """Return the share of the core; None where the load is on it too, or the relay cannot be observed."""
        now = self._now()
        if self._before is None or now is None:
            return None
        at_ns, others_ns = (after - before for before, after in zip(self._before, now, strict=True))
        return max(0, others_ns) / at_ns

    def _now(self) -> tuple[int, int] | None:
        usage = self._relay.usage() if self._relay is not None else None
        return None if usage is None else (usage.at_ns, core_busy_ns(self._core) - usage.cpu_ns)
