"""How long a message takes to the first, the median and the last recipient of a room, exactly, across workers.

No worker sees all recipients of a room, so medians cannot be taken there. Some messages of each room are chosen by
their number alone; every worker notes the latencies of its own recipients for these, and the master puts them together.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from loadtests.measuring.recorder import Recorder
from loadtests.measuring.series import series_name, size_decade

MEMBERS_MIN: Final = 3
"""Smaller streams have no spread to speak of."""
MEMBERS_PER_STEP: Final = 100
"""A room of ten times as many has a tenth of its messages chosen: the cost stays that of a hundred recipients."""

Key: TypeAlias = tuple[int, int, int]
"""Stream, sender and counter of a message."""


def step_of(members: int) -> int:
    """Return n such that every n-th message of a room of so many is chosen; 0 for none."""
    return max(1, members // MEMBERS_PER_STEP) if members >= MEMBERS_MIN else 0


class SpreadNotes:
    """The latencies (ns) of the chosen messages at one worker."""

    __slots__ = ("_notes",)

    def __init__(self) -> None:
        self._notes: dict[Key, array[int]] = {}

    def note(self, stream: int, sender: int, counter: int, latency_ns: int) -> None:
        key = (stream, sender, counter)
        notes = self._notes.get(key)
        if notes is None:
            notes = self._notes[key] = array("q")
        notes.append(latency_ns)

    def take(self) -> list[tuple[int, int, int, bytes]]:
        """Return what was noted since the last call, for a message to the master."""
        taken = [(*key, notes.tobytes()) for key, notes in self._notes.items()]
        self._notes.clear()
        return taken


class SpreadMerger:
    """The chosen messages of all workers. `finish` records each one's three figures by the size of its room."""

    def __init__(self) -> None:
        self._latencies: dict[Key, array[int]] = {}

    def add(self, taken: Iterable[Any]) -> None:
        for stream, sender, counter, noted in taken:
            self._latencies.setdefault((stream, sender, counter), array("q")).frombytes(noted)

    def finish(self, recorder: Recorder, members: Mapping[int, int]) -> None:
        """Append to the fan-out series of `recorder`; `members` gives the size of each stream's room."""
        for (stream, _, _), latencies in self._latencies.items():
            ordered = sorted(latencies)
            size = size_decade(members[stream])
            for metric, latency_ns in (
                ("fanout_first", ordered[0]),
                ("fanout_median", ordered[(len(ordered) - 1) // 2]),
                ("fanout_last", ordered[-1]),
            ):
                recorder.series(series_name(metric, size=size)).append(latency_ns)
        self._latencies.clear()
