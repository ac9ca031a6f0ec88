"""Fixed work for two relays of any dialect in turn, and what it costs each: a few records in every room, then the next.

As in lockstep.py every step is the same work, so that costs compare; what is sent and read goes through the dialects. The
rooms have a publisher each, because relays bound what one connection may send.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmarks.fast_load.members import LoadError, Member, attach_of, joined
from benchmarks.fast_load.window_work import RING, keyring, rings
from benchmarks.rig.in_turn import costs_in_turn
from benchmarks.rig.usage import run_time_ns, tree_of
from loadtests.dialects.base import Published
from loadtests.settings import Settings
from relay.capability import Right

ROOMS: Final = 16
SUBSCRIBERS: Final = 4
BATCH: Final = 4
"""Records that a publisher sends at once: of a single one, most of the cost would be being woken for it."""
STEPS: Final = 4
DELIVERIES: Final = STEPS * BATCH * ROOMS * SUBSCRIBERS
"""What one block delivers."""
_STEP_S_MAX: Final = 20.0


class DialectSteps:
    """The rooms of one relay; `publishers` are in the order of their rooms."""

    def __init__(
        self, subscribers: Sequence[Member], publishers: Sequence[Member], records: Sequence[Sequence[bytes]], pid: int
    ) -> None:
        self._subscribers = subscribers
        self._publishers = publishers
        self._records = records
        self._pid = pid
        self._published = 0
        """By each publisher."""
        self._acknowledged = 0
        self._acknowledges = publishers[0].dialect.features.acknowledges
        self._members = {member.socket.fileno(): member for member in (*subscribers, *publishers)}
        self._epoll = select.epoll()
        for descriptor in self._members:
            self._epoll.register(descriptor, select.EPOLLIN)

    def close(self) -> None:
        self._epoll.close()

    def block(self) -> float:
        """Do a block, and return what a delivery of it cost the relay, ns. Raises LoadError, ServerError."""
        before_ns = self._used_ns()
        for _ in range(STEPS):
            self._do_step()
        return (self._used_ns() - before_ns) / DELIVERIES

    def _used_ns(self) -> int:
        return sum(map(run_time_ns, tree_of(self._pid)))

    def _do_step(self) -> None:
        ids = range(self._published + 1, self._published + BATCH + 1)
        self._published += BATCH
        for member, records in zip(self._publishers, self._records, strict=True):
            member.send(b"".join(member.dialect.publish(member.stream, each, records[each % RING]) for each in ids))
        deadline = time.monotonic() + _STEP_S_MAX
        while not self._came():
            if time.monotonic() > deadline:
                raise LoadError(f"a step's records did not arrive within {_STEP_S_MAX:.0f} s")
            for descriptor, _ in self._epoll.poll(0.1):
                self._take(self._members[descriptor])

    def _came(self) -> bool:
        acknowledged = not self._acknowledges or self._acknowledged == self._published * ROOMS
        return acknowledged and all(member.position == self._published for member in self._subscribers)

    def _take(self, member: Member) -> None:
        for event in member.dialect.receive(member.read()):
            if type(event) is tuple:
                member.position += 1
                sealed: bytes = event[3]  # type: ignore[misc, assignment]  # the only event that is a plain tuple
                if sealed != self._records[member.stream][member.position % RING]:
                    raise LoadError("a record came that was not the next one")
            elif isinstance(event, Published):
                self._acknowledged += 1
            else:
                member.other(event)
        if member.waiting:
            member.send(b"")


@contextmanager
def _steps(settings: Settings, pid: int) -> Iterator[DialectSteps]:
    keys = keyring(settings.seed, f"steps {settings.run}")
    attaches = [attach_of(keys, room, Right.SUBSCRIBE) for room in range(ROOMS) for _ in range(SUBSCRIBERS)]
    attaches += [attach_of(keys, room, Right.PUBLISH) for room in range(ROOMS)]
    with joined(settings, attaches) as members:
        steps = DialectSteps(members[:-ROOMS], members[-ROOMS:], rings(keys, streams=ROOMS), pid)
        try:
            yield steps
        finally:
            steps.close()


def costs_ns(relays: Sequence[tuple[Settings, int]], seconds: float) -> tuple[float, float]:
    """Return the processor time a delivery of two relays, each given with its process. Raises LoadError, ServerError."""
    (first, first_pid), (second, second_pid) = relays
    with _steps(first, first_pid) as one, _steps(second, second_pid) as two:
        return costs_in_turn(one.block, two.block, seconds)
