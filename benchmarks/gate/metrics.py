"""What the gate compares, and how much worse each figure may get before it is a regression."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

MetricName: TypeAlias = Literal["cpu", "throughput", "p50", "p99", "instructions"]


class GateMetric(Struct, frozen=True, kw_only=True):
    """One figure. `allowed` is the share by which it may get worse.

    `needed`: as long as it is open, so is the verdict. The others hang on everything that runs on the machine, and no
    quick gate can rule out a small step of theirs: they speak against a change if they can, and a pass names those
    that stayed open. Where only such ones are asked for, they are needed.
    """

    name: MetricName
    title: str
    unit: str
    better: Literal["lower", "higher"]
    allowed: float
    needed: bool


METRICS: Final = (
    GateMetric(name="cpu", title="CPU a delivery", unit="us", better="lower", allowed=0.05, needed=True),
    GateMetric(name="throughput", title="Throughput", unit="deliveries/s", better="higher", allowed=0.05, needed=False),
    GateMetric(name="p50", title="Latency p50", unit="us", better="lower", allowed=0.10, needed=False),
    # Of a second at 1,000 messages a second, p99 is what the ten slowest happened to meet.
    GateMetric(name="p99", title="Latency p99", unit="us", better="lower", allowed=0.25, needed=False),
    GateMetric(
        name="instructions", title="Instructions a delivery", unit="", better="lower", allowed=0.03, needed=True
    ),
)
NAMES: Final = tuple(metric.name for metric in METRICS)


TIMED: Final = tuple(name for name in NAMES if name != "instructions")
"""Those that a relay of somebody else's has too."""


def metric(name: MetricName) -> GateMetric:
    """Return the metric of this name."""
    return next(one for one in METRICS if one.name == name)
