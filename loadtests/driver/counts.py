"""What a worker counts beside its ledger and its series: records, who is there, and attempts to get there."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from loadtests.sealing.records import KIND_NAMES


def _per_kind() -> list[int]:
    return [0] * len(KIND_NAMES)


@dataclass(slots=True)
class RunningCounts:
    """The counts of one worker so far; the lists are indexed by kind."""

    due: list[int] = field(default_factory=_per_kind)
    """Records that the plan, or a receipt's delay, made due."""
    sent: list[int] = field(default_factory=_per_kind)
    acknowledged: list[int] = field(default_factory=_per_kind)
    refused: list[int] = field(default_factory=_per_kind)
    sealed_bytes: list[int] = field(default_factory=_per_kind)
    received: int = 0
    skipped: int = 0
    """States that were due while their sender was not connected."""
    unopened: int = 0
    """Payloads that did not open."""
    cuts: int = 0
    events: Counter[str] = field(default_factory=Counter)

    def count(self, what: str) -> None:
        self.events[what] += 1

    def to_wire(self) -> dict[str, Any]:
        return {**{name.name: getattr(self, name.name) for name in fields(self)}, "events": dict(self.events)}


class AttemptTimes:
    """When participants began to join, or to resume, and when each had done it."""

    __slots__ = ("done_ns", "first_ns", "tried")

    def __init__(self) -> None:
        self.tried = 0
        self.first_ns = 0
        self.done_ns: array[int] = array("q")

    def begin(self, at_ns: int) -> None:
        self.tried += 1
        self.first_ns = min(self.first_ns or at_ns, at_ns)

    def to_wire(self, start_ns: int) -> dict[str, Any]:
        """Times are from `start_ns`, so that those of several hosts can be put together."""
        return {
            "tried": self.tried,
            "first_ns": self.first_ns - start_ns,
            "done_ns": array("q", [at_ns - start_ns for at_ns in self.done_ns]).tobytes(),
        }


class Presence:
    """Who of a worker's participants is there, and how they came. `on_joined` is called for each that joins."""

    __slots__ = ("attached", "expected_first", "joined", "joined_first", "joins", "on_joined", "resumes")

    def __init__(self, on_joined: Callable[[], None] | None = None) -> None:
        self.on_joined = on_joined
        self.attached = 0
        """Participants that have their connections and all their streams now."""
        self.joined = 0
        """Participants that were attached once, and ..."""
        self.joined_first = 0
        """... those of them, and ..."""
        self.expected_first = 0
        """... of all, who join before the load begins."""
        self.joins = AttemptTimes()
        self.resumes = AttemptTimes()

    def enter(self, *, late: bool, now_ns: int) -> None:
        """One more has joined."""
        self.joined += 1
        self.joined_first += not late
        self.joins.done_ns.append(now_ns)
        if self.on_joined is not None:
            self.on_joined()
