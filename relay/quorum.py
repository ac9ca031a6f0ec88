"""What a quorum of a stream's members has acknowledged, kept up to date with each ACK. Sans-IO."""

from __future__ import annotations

from bisect import bisect_left, insort


class Quorum:
    """Up to where each member acknowledged. An ACK costs two binary searches, however many members there are."""

    __slots__ = ("_ordered", "_upto")

    def __init__(self, upto: dict[bytes, int]) -> None:
        self._upto = upto
        self._ordered = sorted(upto.values())

    def note(self, handle: bytes, upto: int) -> bool:
        """Take up an ACK; False if it says nothing new."""
        before = self._upto.get(handle, 0)
        if upto <= before:
            return False
        if before:
            del self._ordered[bisect_left(self._ordered, before)]
        self._upto[handle] = upto
        insort(self._ordered, upto)
        return True

    def floor(self, members: int) -> int:
        """Return the number up to which at least so many members acknowledged; 0 if there are not so many."""
        return self._ordered[-members] if members <= len(self._ordered) else 0
