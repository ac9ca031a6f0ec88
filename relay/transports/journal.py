"""What an operator should see in the log though it may happen a thousand times a second: a line a minute, with how often.

No line names a stream, a client or an address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

EVERY_NS: Final = 60_000_000_000


class _Watched:
    """A counter: how much of it was told, and until when nothing more is."""

    __slots__ = ("count", "quiet_until_ns", "text", "told")

    def __init__(self, text: str, count: Callable[[], int]) -> None:
        self.text = text
        self.count = count
        self.told = 0
        self.quiet_until_ns = 0


class Journal:
    """Looks at counters when it is asked to, and tells what has grown."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._watched: list[_Watched] = []

    def watch(self, text: str, count: Callable[[], int]) -> None:
        """Tell of a counter when it grows; the line is the growth and then `text`."""
        self._watched.append(_Watched(text, count))

    def look(self, now_ns: int) -> None:
        """Tell what has grown and was not told within a minute."""
        for one in self._watched:
            if now_ns < one.quiet_until_ns:
                continue
            count = one.count()
            if count > one.told:
                self._log(f"{count - one.told} {one.text}")
                one.told = count
                one.quiet_until_ns = now_ns + EVERY_NS
