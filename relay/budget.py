"""The relay's budget of work: what a turn may do, and whose turn it is to do it. Sans-IO.

Work is counted in the units of limits.py, not in bytes and not in connections. A connection is in one of three places:

    place      what of it waits                   goes on
    --------   --------------------------------   --------------------------------------------------
    (none)     nothing: the transport reads it    -
    backlog    what its last share was too        each turn serves some of the backlog, in turn, a
               small for                          share each
    resting    the same, but its rate, or that    to the backlog after REST_S
               of all signatures, is used up

Who waits is not read, so its socket fills up, and it gets no answers either.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from relay.errors import Code
from relay.limits import BACKLOG_WORK, INCOMPLETE_BYTES_MAX, REST_S, SIGNATURES_PER_S_MAX, TURN_WORK
from relay.outbox import Outbox

NS_PER_S: Final = 1_000_000_000


class Waiting(Protocol):
    """A connection of which something waits."""

    box: Outbox

    def go_on(self) -> None:
        """Take another share."""

    def fail(self, code: Code) -> None:
        """Tell it why, and close it."""


class Budget:
    """Work that this turn may still do, connections that wait for theirs, and signatures that may still be checked."""

    __slots__ = (
        "_backlog",
        "_incomplete",
        "_refilled_ns",
        "_resting",
        "_signatures",
        "caught_up",
        "incomplete_bytes",
        "incomplete_bytes_max",
        "left",
        "rests",
        "waiting",
    )

    def __init__(self, incomplete_bytes_max: int = INCOMPLETE_BYTES_MAX) -> None:
        self.left = TURN_WORK
        self.incomplete_bytes = 0
        self.incomplete_bytes_max = incomplete_bytes_max
        self._incomplete: dict[Waiting, None] = {}  # those that hold some of them, the longest first
        self._backlog: deque[Waiting] = deque()
        self._resting: deque[tuple[int, Waiting]] = deque()
        self._signatures = float(SIGNATURES_PER_S_MAX)
        self._refilled_ns = 0
        self.caught_up: list[Waiting] = []  # for the transport: nothing waits any more
        self.rests = 0
        self.waiting = 0  # connections

    def put_off(self, one: Waiting) -> None:
        """Let a connection go on when it is its turn."""
        self.waiting += 1
        self._backlog.append(one)

    def rest(self, one: Waiting, now_ns: int) -> None:
        """Let a connection go on after REST_S."""
        self.waiting += 1
        self.rests += 1
        self._resting.append((now_ns + int(REST_S * NS_PER_S), one))

    @property
    def resting(self) -> bool:
        """Whether a turn must be had within REST_S."""
        return bool(self._resting)

    def serve(self, now_ns: int) -> bool:
        """Serve some of the backlog; return whether more of it waits."""
        resting, backlog = self._resting, self._backlog
        while resting and resting[0][0] <= now_ns:
            backlog.append(resting.popleft()[1])
        self.left = BACKLOG_WORK
        while backlog and self.left > 0:
            self.waiting -= 1
            backlog.popleft().go_on()
        return bool(backlog)

    def take_signatures(self, number: int, now_ns: int) -> bool:
        """Take so many verifications out of the relay's rate; False if there are not so many now."""
        if self._signatures < number:
            elapsed_s = (now_ns - self._refilled_ns) / NS_PER_S
            self._signatures = min(self._signatures + elapsed_s * SIGNATURES_PER_S_MAX, SIGNATURES_PER_S_MAX)
            self._refilled_ns = now_ns
            if self._signatures < number:
                return False
        self._signatures -= number
        return True

    def hold(self, one: Waiting, more_bytes: int, *, is_new: bool) -> None:
        """Count what came of a message that is not whole; when that is too much in all, the oldest is closed."""
        if is_new:
            self._incomplete.pop(one, None)
            self._incomplete[one] = None
        self.incomplete_bytes += more_bytes
        while self.incomplete_bytes > self.incomplete_bytes_max and self._incomplete:
            next(iter(self._incomplete)).fail(Code.INCOMPLETE)  # which lets go of it

    def let_go(self, one: Waiting, held_bytes: int) -> None:
        """Nothing of a message is held any more."""
        self._incomplete.pop(one, None)
        self.incomplete_bytes -= held_bytes
