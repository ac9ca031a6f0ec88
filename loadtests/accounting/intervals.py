"""A set of integers kept as closed intervals: the holes in a line of numbers that should have none."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Intervals:
    """Memory grows with the number of interruptions, not with the length of the holes."""

    __slots__ = ("_firsts", "_lasts", "count")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.count = 0
        """How many integers are in the set."""

    def add(self, first: int, last: int) -> None:
        """Add `first` to `last`, both included; none of them may be in the set."""
        at = bisect_left(self._firsts, first)
        assert first <= last
        assert at == 0 or self._lasts[at - 1] < first
        assert at == len(self._firsts) or last < self._firsts[at]
        self._firsts.insert(at, first)
        self._lasts.insert(at, last)
        self.count += last - first + 1

    def take(self, number: int) -> bool:
        """Remove `number`; return whether it was there."""
        at = bisect_right(self._firsts, number) - 1
        if at < 0 or self._lasts[at] < number:
            return False
        first, last = self._firsts[at], self._lasts[at]
        self.count -= 1
        if first == last:
            del self._firsts[at], self._lasts[at]
        elif number == first:
            self._firsts[at] += 1
        elif number == last:
            self._lasts[at] -= 1
        else:
            self._lasts[at] = number - 1
            self._firsts.insert(at + 1, number + 1)
            self._lasts.insert(at + 1, last)
        return True

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)
