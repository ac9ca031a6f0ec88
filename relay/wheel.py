"""One timer wheel for all connections' time limits: a second a slot, and no task or timer a connection. Sans-IO."""

from __future__ import annotations

from typing import Protocol


class Scheduled(Protocol):
    """What turns on the wheel: `due_slot` is its one valid place; 0: none."""

    due_slot: int


class Wheel:
    """Holds each member once; scheduling again moves it."""

    __slots__ = ("_now_slot", "_slots")

    def __init__(self, now_s: float) -> None:
        self._now_slot = int(now_s)
        self._slots: dict[int, list[Scheduled]] = {}

    def schedule(self, member: Scheduled, delay_s: float) -> None:
        """Make `member` due after `delay_s`, at least a second."""
        slot = self._now_slot + max(1, int(delay_s + 0.999))
        member.due_slot = slot
        self._slots.setdefault(slot, []).append(member)

    def advance(self, now_s: float) -> list[Scheduled]:
        """Return the members that have become due, and turn to `now_s`."""
        due: list[Scheduled] = []
        while self._now_slot < int(now_s):
            self._now_slot += 1
            slot = self._now_slot
            for member in self._slots.pop(slot, ()):
                if member.due_slot == slot:
                    member.due_slot = 0  # It may be in this slot more than once.
                    due.append(member)
        return due
