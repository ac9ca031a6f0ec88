"""What time retention goes by: it does not believe one reading of the clock, for what it deletes is gone.

A clock that is suddenly ahead is followed at a bounded pace, also over a restart, so that somebody can notice and set it
right. A clock that was set back is followed at once: nothing is deleted by that. Sans-IO.
"""

from __future__ import annotations

from typing import Final

PACE: Final = 60
"""Seconds that retention may go on in one second: ten days take four hours."""


class RetentionClock:
    """The time as retention believes it. `swept_ns` is what it believed last, None if it never did."""

    def __init__(self, swept_ns: int | None) -> None:
        self._believed_ns = swept_ns
        self.behind_ns = 0
        """How far the clock is ahead of what is believed."""

    def believe(self, wall_ns: int, elapsed_ns: int) -> int:
        """Return the time to go by, `elapsed_ns` after the last call, when the clock shows `wall_ns`."""
        if self._believed_ns is None:
            self._believed_ns = wall_ns
        self._believed_ns = min(wall_ns, self._believed_ns + PACE * elapsed_ns)
        self.behind_ns = wall_ns - self._believed_ns
        return self._believed_ns
