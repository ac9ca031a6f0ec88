"""The pump's door, on a mock clock: who gives way when the slots for handshakes run out, and who does not."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
import trio.testing

from relay.limits import HANDSHAKE_GRACE_S, HANDSHAKES_MAX
from relay.store import MemoryStore
from relay.transports.accepting import Door
from relay.transports.base import Relay


class SilentClients:
    """A pump whose clients say nothing; tells when each came and went."""

    def __init__(self) -> None:
        self.came: list[float] = []
        self.went: list[float] = []

    async def greet(self, sock: Any, context: object) -> None:
        self.came.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            self.went.append(trio.current_time())


class Socket:
    def __init__(self, descriptor: int = 5) -> None:
        self.descriptor = descriptor
        self.closed = False

    def fileno(self) -> int:
        return self.descriptor

    def close(self) -> None:
        self.closed = True


class Listener:
    """Gives sockets at once; then, or where an errno stands, none."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)

    def accept(self) -> tuple[Socket, None]:
        if not self.answers:
            raise OSError(errno.ENFILE, "the test has no more")
        number = self.answers.pop(0)
        if number:
            raise OSError(number, "refused")
        return Socket(), None


def run(listener: Listener, seconds: float) -> tuple[SilentClients, Relay]:
    pump, relay = SilentClients(), Relay(MemoryStore(bytes(32)))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            door = Door(pump, relay, nursery, clock=trio.current_time)
            accepted: Any = listener
            nursery.start_soon(door.accept, accepted, None)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return pump, relay


def test_the_oldest_gives_way_once_it_is_old_enough() -> None:
    pump, relay = run(Listener(*[0] * (HANDSHAKES_MAX + 10)), HANDSHAKE_GRACE_S + 0.05)
    assert len(pump.came) == HANDSHAKES_MAX + 10
    start = pump.came[0]
    assert pump.came[HANDSHAKES_MAX - 1] == start, "as many as there are slots come in at once"
    assert pump.came[HANDSHAKES_MAX] - start > HANDSHAKE_GRACE_S - 1e-6, "nobody gives way who has just come"
    assert relay.gave_way >= 10


def test_without_descriptors_the_oldest_gives_way_and_it_is_counted() -> None:
    pump, relay = run(Listener(*[0] * 5, errno.EMFILE, errno.ECONNABORTED, 0), 3 * HANDSHAKE_GRACE_S)
    assert len(pump.came) == 6, "accepting went on"
    assert relay.accepts_refused > 1
    assert relay.gave_way > 0


def test_a_listener_that_is_none_ends_the_relay() -> None:
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        run(Listener(errno.EINVAL), 1.0)
