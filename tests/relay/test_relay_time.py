"""Steps of the wall clock: what follows them, what does not, and what is said."""

from __future__ import annotations

import pytest
from scripted import ALL, Net, capability_of, errors

from relay import wire
from relay.errors import Code
from relay.store import MemoryStore
from relay.transports.base import Relay

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
START_NS = 20_000 * DAY_NS


class Store(MemoryStore):
    """Notes what it was asked to forget."""

    def __init__(self, swept_ns: int | None = None) -> None:
        super().__init__(bytes(32))
        self.swept_ns = swept_ns  # type: ignore[assignment] - the memory store has none
        self.expired: list[tuple[int, int]] = []

    def expire(self, before_ns: int, now_ns: int) -> list[tuple[int, int]]:
        self.expired.append((before_ns, now_ns))
        return super().expire(before_ns, now_ns)


class Clocks:
    """A relay whose clocks the test sets: `now_ns` runs evenly, `wall_ns` may step."""

    def __init__(self, store: Store) -> None:
        self.now_ns = self.wall_ns = START_NS
        self.lines: list[str] = []
        self.relay = Relay(
            store, clock=lambda: self.now_ns, wall=lambda: self.wall_ns, retain_s=86_400, log=self.lines.append
        )

    def tick(self, seconds: int = 1, step_ns: int = 0) -> None:
        self.now_ns += seconds * SECOND_NS
        self.wall_ns += seconds * SECOND_NS + step_ns
        self.relay.tick()


@pytest.mark.parametrize(("step_ns", "word"), [(3 * DAY_NS, "forward"), (-3 * DAY_NS, "back")])
def test_a_step_is_followed_by_stamps_and_not_by_timers(step_ns: int, word: str) -> None:
    clocks = Clocks(Store())
    clocks.tick()
    clocks.tick(step_ns=step_ns)
    assert clocks.relay.hub.wall_ns == clocks.wall_ns
    assert clocks.relay.hub.now_ns == clocks.now_ns
    assert clocks.lines == [f"the clock was set {word} by 259200 s: expiry and stamps follow"]
    clocks.tick()
    assert len(clocks.lines) == 1


def test_noise_of_the_clocks_is_no_step() -> None:
    clocks = Clocks(Store())
    clocks.tick(step_ns=900_000)
    assert clocks.relay.hub.step_ns == 0


def test_the_first_sweep_is_soon_and_does_not_believe_a_clock_ten_days_ahead() -> None:
    store = Store(START_NS - 10 * DAY_NS)
    clocks = Clocks(store)
    clocks.tick()
    ((before_ns, now_ns),) = store.expired
    assert START_NS - 10 * DAY_NS < now_ns < START_NS - 9.9 * DAY_NS
    assert before_ns == now_ns - DAY_NS
    (line,) = clocks.lines
    assert line.startswith(
        "the clock is 10.0 days ahead of the last sweep of old records: they are deleted at 60 times"
    )
    assert line.endswith("for 4.0 hours; if it is wrong, set it")
    clocks.tick(60)
    assert store.expired[1][1] == pytest.approx(now_ns + 3600 * SECOND_NS, abs=61 * 60 * SECOND_NS)
    assert len(clocks.lines) == 1


def test_a_step_forward_under_a_running_relay_deletes_at_a_bounded_pace() -> None:
    store = Store()
    clocks = Clocks(store)
    clocks.tick()
    clocks.tick(60, step_ns=365 * DAY_NS)
    (_, first), (_, second) = store.expired
    assert second - first <= 3600 * SECOND_NS + SECOND_NS


def test_an_expired_capability_is_refused_when_the_clock_was_set_right(net: Net) -> None:
    soon = net.hub.now_ns // SECOND_NS + 60
    client = net.connect()
    assert isinstance(client.subscribe(cap=capability_of(expires_s=soon))[0], wire.Subscribed)
    net.hub.step_ns = 3600 * SECOND_NS
    came = client.subscribe(2, cap=capability_of(2, expires_s=soon))
    assert [code for code, _, _ in errors(came)] == [Code.EXPIRED]


def test_stamps_do_not_go_back_within_a_stream(net: Net) -> None:
    client, number = net.attached(use=ALL)
    stamps = []
    for step_ns in (0, 3600 * SECOND_NS, 0, -3600 * SECOND_NS, 2 * 3600 * SECOND_NS):
        net.hub.step_ns = step_ns
        came = client.publish(number, *range(10 * len(stamps), 10 * len(stamps) + 3))
        stamps += [record.at_ns for record in came if isinstance(record, wire.Message)]
    assert stamps == sorted(stamps)
    assert stamps[-1] == net.hub.wall_ns
    held = net.store.open(net.hub._numbers[number].key, new_epoch=1, recent_max=0)
    assert held.stamped_ns == stamps[-1], "so that a restart goes on from it"
    assert client.send(wire.Time(5))[0].received_ns == net.hub.wall_ns
