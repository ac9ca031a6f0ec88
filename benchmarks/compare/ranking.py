"""Who carries more, who is quicker, and by how much: an order with ties, and ratios with intervals. Pure.

The run is the unit: figures of two targets are paired by round, as they were taken next to each other, and the pairs are
resampled (benchmarks/rig/statistics.py). A turn that other processes disturbed, or whose run is invalid, is left out
wherever enough turns remain; that is decided by what happened to the load and to the server's core, never by the figures.

The order is by the median of the saturation. A target is tied with the first of the group before it unless the whole
interval of their ratio is below 1 by a margin: then a new group begins. Tied targets stand in the order in which they
were named. Percentiles of several rounds are read from merged histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from benchmarks.fast_load.saturate import Saturation
from benchmarks.rig.statistics import PAIRS_MIN, Estimate, of_pairs
from loadtests.measuring.histogram import Histogram
from loadtests.report.words import main_histogram
from loadtests.results.schema import Result

OTHERS_MAX: Final = 0.10
"""Share of a core: beyond, a turn is disturbed."""
LOAD_CPU_MAX: Final = 0.90
"""Share of a core: beyond, it may be the load that set the figure."""

TIE: Final = 1.05
"""A ratio within this factor of 1 decides no order: two calls on one machine may differ by as much."""


class Turn(Struct, frozen=True, kw_only=True):
    """One target in one round.

    `others_cpu`: what other processes took of the relay's core during the run, None where that is not known;
    `saturation`: None of a relay that was not started here.
    """

    target: str
    round: int
    result: Result
    others_cpu: float | None
    saturation: Saturation | None

    @property
    def sound(self) -> bool:
        """Whether the run may be believed, and nothing disturbed it."""
        return not self.result.findings and (self.others_cpu or 0.0) <= OTHERS_MAX

    @property
    def sound_saturation(self) -> bool:
        """Whether nothing disturbed the closed window."""
        return self.saturation is not None and self.saturation.others_cpu <= OTHERS_MAX


class TurnFigure(Struct, frozen=True, kw_only=True):
    """One figure of a turn; `sound` says whether it counts."""

    name: str
    figure: Callable[[Turn], float | None]
    sound: Callable[[Turn], bool] = lambda turn: turn.sound


def _percentile(percent: float) -> Callable[[Turn], float | None]:
    return lambda turn: main_histogram(turn.result).percentile(percent) or None


def _cpu(turn: Turn) -> float | None:
    return turn.result.relay.cpu_ns_per_delivery if turn.result.relay else None


THROUGHPUT: Final = TurnFigure(
    name="throughput",
    figure=lambda turn: turn.saturation.deliveries_per_s if turn.saturation else None,
    sound=lambda turn: turn.sound_saturation,
)
FIGURES: Final = (
    TurnFigure(name="p50", figure=_percentile(50)),
    TurnFigure(name="p99", figure=_percentile(99)),
    TurnFigure(name="CPU a delivery", figure=_cpu),
    THROUGHPUT,
)


class Standing(Struct, frozen=True, kw_only=True):
    """`rank` from 1; equal ranks are ties."""

    rank: int
    target: str


class TargetRatio(Struct, frozen=True, kw_only=True):
    """How many times the figure of `base` the one of `target` is; `interval` None where there are too few rounds."""

    metric: str
    target: str
    base: str
    interval: Estimate | None


def turns_of(turns: Sequence[Turn], target: str, figure: TurnFigure) -> list[Turn]:
    """Return the turns of a target that count for a figure: the sound ones, or all where those are too few."""
    own = [turn for turn in turns if turn.target == target and figure.figure(turn) is not None]
    sound = [turn for turn in own if figure.sound(turn)]
    return sound if len(sound) >= PAIRS_MIN else own


def pairs(turns: Sequence[Turn], base: str, target: str, figure: TurnFigure) -> list[tuple[float, float]]:
    """Return (base, target) of every round that has both, only of sound turns if enough are left."""
    firsts = {turn.round: turn for turn in turns if turn.target == base}
    both = [(firsts[turn.round], turn) for turn in turns if turn.target == target and turn.round in firsts]
    sound = [pair for pair in both if all(map(figure.sound, pair))]
    values = [tuple(map(figure.figure, pair)) for pair in (sound if len(sound) >= PAIRS_MIN else both)]
    return [(first, second) for first, second in values if first is not None and second is not None]


def ratio(turns: Sequence[Turn], figure: TurnFigure, base: str, target: str) -> TargetRatio:
    """Compare two targets in one figure."""
    paired = pairs(turns, base, target, figure)
    enough = len(paired) >= PAIRS_MIN and min(min(pair) for pair in paired) > 0
    return TargetRatio(metric=figure.name, target=target, base=base, interval=of_pairs(paired) if enough else None)


def order(turns: Sequence[Turn]) -> list[Standing]:
    """Return the targets by throughput at saturation, the one that carries most first; those without it are left out."""

    def middle(name: str) -> float:
        return median(THROUGHPUT.figure(turn) or 0.0 for turn in turns_of(turns, name, THROUGHPUT))

    named = list(dict.fromkeys(turn.target for turn in turns if turn.saturation is not None))
    groups: list[list[str]] = []
    for name in sorted(named, key=middle, reverse=True):
        interval = ratio(turns, THROUGHPUT, groups[-1][0], name).interval if groups else None
        if groups and (interval is None or interval.high * TIE >= 1):
            groups[-1].append(name)
        else:
            groups.append([name])
    standings: list[Standing] = []
    for group in groups:
        rank = len(standings) + 1
        standings += [Standing(rank=rank, target=name) for name in sorted(group, key=named.index)]
    return standings


def in_words(standings: Sequence[Standing]) -> str:
    """Return the order in one line: `bun = reference > nats`."""
    text = ""
    for before, standing in zip((None, *standings), standings, strict=False):
        if before is not None:
            text += " = " if before.rank == standing.rank else " > "
        text += standing.target
    return text


def merged(turns: Sequence[Turn], target: str) -> Histogram:
    """Return the deliveries of a target over all rounds that count, from the intended send."""
    total = Histogram()
    for turn in turns_of(turns, target, FIGURES[0]):
        total.merge(main_histogram(turn.result))
    return total
