"""Runs of targets: a fresh server of each on its own core, spoken to by its dialect, with the same figures as of commits.

Fixed work in turn measures the processor time a delivery, a closed window the throughput, and a run of a scenario by the
harness's engine the latency. Nothing may be lost: a relay that is quick because it drops records is no faster one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec.structs import replace

from benchmarks.fast_load.members import LoadError
from benchmarks.fast_load.saturate import rate_for_all
from benchmarks.fast_load.workbench import Workbench
from benchmarks.gate.metrics import MetricName
from benchmarks.gate.runs import GateRun, RunError, Side, TargetWork
from benchmarks.rig.processes import ServerError
from loadtests.address import TargetError
from loadtests.report.words import ledger_total, main_histogram
from loadtests.settings import Settings
from loadtests.target.opening import OpenTarget
from loadtests.target.target import Target

WARMUP_S: Final = 0.25


class TargetRuns:
    """Runs of two targets."""

    def __init__(self, base: Target, head: Target, work: TargetWork, bench: Workbench) -> None:
        self._targets: dict[Side, Target] = {"base": base, "head": head}
        self._bench = bench
        self.work = work
        self.versions: dict[str, str] = {}
        """By target, once it was started."""

    def try_out(self, seconds: float) -> None:
        """Start both once; if no rate was asked for, choose one of which each carries twice as much. Raises RunError."""
        carried = []
        for target in self._targets.values():
            with self._served(target) as found:
                if self.work.rate is None:
                    settings = self._settings(target, found, seconds)
                    saturation = self._bench.saturate(settings, found, seconds=seconds, warmup_s=WARMUP_S)
                    carried += [saturation] if saturation is not None else []
        if self.work.rate is None:
            self.work = replace(self.work, rate=rate_for_all(self.work.settings(seconds).workload(), carried))

    def pair(
        self, sides: tuple[Side, Side], *, seconds: float, calibration: bool = False, whole: bool = True
    ) -> tuple[GateRun, GateRun]:
        """Run a pair, as MakePair says."""
        one, two = (self._targets[side] for side in sides)
        bench, made = self._bench, []
        with self._served(one) as first, self._served(two) as second:
            both = ((one, first), (two, second))
            relays = [bench.counted(self._settings(target, found, seconds), found) for target, found in both]
            with _named(f"{one.name} or {two.name}"):
                costs = bench.counting.costs_ns((relays[0], relays[1]), 2 * seconds)
            for (target, found), side, cost_ns in zip(both, sides, costs, strict=True):
                run = GateRun(side=side, calibration=calibration, figures={"cpu": cost_ns / 1e3}, others=0.0)
                if whole:
                    run = self._loaded(target, found, run, seconds)
                if min(run.figures.values()) <= 0:
                    raise RunError(
                        f"{target.name} delivered nothing within {seconds:g} s, or this system tells its processor time"
                        " too coarsely: use more --seconds"
                    )
                made.append(run)
        return made[0], made[1]

    def _loaded(self, target: Target, found: OpenTarget, run: GateRun, seconds: float) -> GateRun:
        """Return the run with its throughput and latency."""
        bench, settings = self._bench, self._settings(target, found, seconds)
        with _named(target.name):
            result, others_cpu = bench.run(settings, bench.facts(target, found))
            bench.go_on()
            saturation = bench.saturate(settings, found, seconds=seconds, warmup_s=WARMUP_S)
        total = ledger_total(result)
        lost, wrong = total.lost, total.duplicated + total.reordered
        if saturation is not None:
            lost, wrong = lost + saturation.lost, wrong + saturation.wrong
        if lost or wrong:
            raise RunError(f"{target.name} lost {lost} records, and gave {wrong} twice, changed or out of order")
        p50_ns, p99_ns = main_histogram(result).percentiles((50, 99))
        figures: dict[MetricName, float] = {**run.figures, "p50": p50_ns / 1e3, "p99": p99_ns / 1e3}
        others = others_cpu or 0.0
        if saturation is not None:
            figures["throughput"] = saturation.deliveries_per_s
            others = max(others, saturation.others_cpu)
        return replace(run, figures=figures, others=others, valid=not result.findings)

    def _settings(self, target: Target, found: OpenTarget, seconds: float) -> Settings:
        return replace(self.work.settings(seconds), url=found.address.url, dialect=target.dialect)

    @contextmanager
    def _served(self, target: Target) -> Iterator[OpenTarget]:
        self._bench.go_on()
        with (
            TemporaryDirectory(prefix="relaymark-gate-") as folder,
            _named(target.name),
            self._bench.opened(target, Path(folder)) as found,
        ):
            self.versions[target.name] = found.version
            yield found


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say which target failed."""
    try:
        yield
    except (TargetError, LoadError, ServerError, OSError) as error:
        raise RunError(f"{name}: {error}") from error
