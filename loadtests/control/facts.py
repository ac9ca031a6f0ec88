"""What is known of a run before it begins, besides its settings: told to the master whole, and never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from loadtests.measuring.histogram import Histogram
from loadtests.results.environment import Machine
from loadtests.results.thresholds import Threshold
from loadtests.target.process import ProcessUsage


class ObservedRelay(Protocol):
    """The relay's process, as far as a run looks at it."""

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        ...

    def usage(self) -> ProcessUsage | None:
        """Return what it has used so far, None when it is gone."""
        ...

    def statistics(self) -> dict[str, float]:
        """Return its own counters by name; empty where it tells none."""
        ...


class RunFacts(Struct, frozen=True, kw_only=True):
    """`target`: its name, `version` and what it promises; `relay`: its process, None where it cannot be observed."""

    target: str
    version: str = ""
    promises: Mapping[str, str] = {}
    relay: ObservedRelay | None = None
    thresholds: Sequence[Threshold] = ()
    calibration: Histogram | None = None
    """Round trips to the relay's echo before the load."""
    machine: Machine
    """As it was before this process bound itself to some of the cores."""
    commit: str | None
    """Commit of the harness."""
    command: Sequence[str]
    options: Mapping[str, Any] = {}
    """What a reader of the result wants to know of how it was asked for."""
    notes: Sequence[str] = ()
    series: Sequence[str] = ()
    """Names of the relay's own metrics that are kept over time."""
