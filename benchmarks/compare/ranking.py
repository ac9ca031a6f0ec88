"""Who carries more, and by how much: an order with ties, and ratios with intervals. Pure.

The run is the unit: figures of two targets are paired by round, as they were taken next to each other, and the pairs are
resampled (benchmarks/rig/statistics.py). A turn that other processes disturbed is left out wherever enough turns remain;
whether it is, is decided by what they took of the server's core, never by the turn's figures.

The order is by the median of the saturation. A target is tied with the first of the group before it unless the whole
interval of their ratio is below 1 by a margin: then a new group begins. Tied targets stand in the order in which they
were measured first. Percentiles of several rounds are read from merged histograms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from msgspec import Struct

from benchmarks.compare.session import Turn
from benchmarks.rig.statistics import PAIRS_MIN, Estimate, of_pairs
from loadtests.measuring.histogram import Histogram

OTHERS_MAX: Final = 0.10
"""Share of a core: beyond, a turn is disturbed."""
LOAD_CPU_MAX: Final = 0.90
"""Share of a core: beyond, it may be the load that set the figure."""

TIE: Final = 1.05
"""A ratio within this factor of 1 decides no order: two calls on one machine may differ by as much."""

Figure = Callable[[Turn], float]


class TurnFigure(Struct, frozen=True, kw_only=True):
    name: str
    figure: Figure
    higher_is_better: bool = False


METRICS: Final = (
    TurnFigure(name="throughput", figure=lambda turn: turn.saturation.deliveries_per_s, higher_is_better=True),
    TurnFigure(name="p50", figure=lambda turn: turn.pace.deliver.percentile(50)),
    TurnFigure(name="p99", figure=lambda turn: turn.pace.deliver.percentile(99)),
    TurnFigure(name="CPU a delivery", figure=lambda turn: turn.saturation.cpu_ns_per_delivery),
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


def disturbed(turn: Turn) -> bool:
    """Tell whether other processes took so much of the server's core that the figures are theirs too."""
    return max(turn.saturation.others_cpu, turn.pace.others_cpu) > OTHERS_MAX


def turns_of(turns: Sequence[Turn], target: str) -> list[Turn]:
    """Return the turns of a target that count."""
    own = [turn for turn in turns if turn.target == target]
    calm = [turn for turn in own if not disturbed(turn)]
    return calm if len(calm) >= PAIRS_MIN else own


def pairs(turns: Sequence[Turn], base: str, target: str, figure: Figure) -> list[tuple[float, float]]:
    """Return (base, target) of every round that has both, without disturbed ones if enough are left."""
    firsts = {turn.round: turn for turn in turns if turn.target == base}
    both = [(firsts[turn.round], turn) for turn in turns if turn.target == target and turn.round in firsts]
    calm = [pair for pair in both if not any(map(disturbed, pair))]
    return [(figure(first), figure(second)) for first, second in (calm if len(calm) >= PAIRS_MIN else both)]


def ratio(turns: Sequence[Turn], metric: TurnFigure, base: str, target: str) -> TargetRatio:
    """Compare two targets in one figure."""
    paired = pairs(turns, base, target, metric.figure)
    enough = len(paired) >= PAIRS_MIN and min(min(pair) for pair in paired) > 0
    return TargetRatio(metric=metric.name, target=target, base=base, interval=of_pairs(paired) if enough else None)


def order(turns: Sequence[Turn]) -> list[Standing]:
    """Return the targets by saturation throughput, the one that carries most first."""
    throughput = METRICS[0]
    names = sorted(
        dict.fromkeys(turn.target for turn in turns),
        key=lambda name: -median(throughput.figure(turn) for turn in turns_of(turns, name)),
    )
    groups: list[list[str]] = []
    for name in names:
        interval = ratio(turns, throughput, groups[-1][0], name).interval if groups else None
        if groups and (interval is None or interval.high * TIE >= 1):
            groups[-1].append(name)
        else:
            groups.append([name])
    named = list(dict.fromkeys(turn.target for turn in sorted(turns, key=lambda turn: turn.round)))
    places: list[Standing] = []
    for group in groups:
        rank = len(places) + 1
        places += [Standing(rank=rank, target=name) for name in sorted(group, key=named.index)]
    return places


def in_words(places: Sequence[Standing]) -> str:
    """Return the order in one line: `bun = reference > nats`."""
    text = ""
    for before, place in zip((None, *places), places, strict=False):
        if before is not None:
            text += " = " if before.rank == place.rank else " > "
        text += place.target
    return text


def merged(turns: Sequence[Turn], target: str) -> Histogram:
    """Return the deliveries of a target at the fixed load over all rounds that count, from the intended send."""
    total = Histogram()
    for turn in turns_of(turns, target):
        total.merge(turn.pace.deliver)
    return total
