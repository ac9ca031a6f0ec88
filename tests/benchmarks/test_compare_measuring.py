"""Saturation and pacing count every delivery: what is lost or comes twice shows, and nothing else does."""

from __future__ import annotations

import pytest

from benchmarks.compare import links, pace, saturate
from benchmarks.compare.workload import keyring
from benchmarks.rig.processes import choose_cores
from loadtests.dialects.base import Attach, Dialect, Event, Place
from loadtests.dialects.raw import Raw
from loadtests.dialects.reference import Reference
from relay.capability import Right
from tests.benchmarks.bare_relay import Copies, bare_relay

SUBSCRIBERS = (3, 1)


def raw(host: str, _: Attach) -> Dialect:
    return Raw(Place(host=host))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    def alternating(_seed: int, _purpose: str):  # type: ignore[no-untyped-def]
        while True:
            yield from (0, 1)

    for module in (saturate, pace):
        monkeypatch.setattr(module, "SUBSCRIBERS", SUBSCRIBERS)
        monkeypatch.setattr(module, "QUIET_S", 0.3)
    monkeypatch.setattr(saturate, "sequence", alternating)
    monkeypatch.setattr(saturate, "WINDOW", 4)
    monkeypatch.setattr(
        pace, "schedule", lambda _seed, _rate, _seconds: [(at * 1_000_000, at % 2) for at in range(100)]
    )


def saturated(copies: Copies = lambda _: 1) -> saturate.Saturation:
    with bare_relay(copies) as server:
        return saturate.saturate(server, raw, choose_cores(), seed=1, seconds=0.15, warmup_s=0.05)


def paced(copies: Copies = lambda _: 1) -> pace.Pace:
    with bare_relay(copies) as server:
        return pace.pace(server, raw, choose_cores(), seed=1, publishes_per_s=1000, seconds=0.08)


def test_a_relay_that_loses_nothing_has_no_losses() -> None:
    measured = saturated()
    assert measured.delivered > 0
    assert measured.deliveries_per_s > 0
    assert (measured.lost, measured.wrong) == (0, 0)


def test_a_lost_record_is_lost() -> None:
    measured = saturated(lambda number: 0 if number == 20 else 1)
    assert measured.lost == 1
    assert measured.wrong == 1, "the one after it is not the one that was due"


def test_a_record_that_comes_twice_is_wrong_and_not_counted() -> None:
    measured = saturated(lambda number: 2 if number == 20 else 1)
    assert (measured.lost, measured.wrong) == (0, 1)


def test_the_pace_is_the_schedule_and_the_ledger_is_exact() -> None:
    measured = paced()
    (kind,) = measured.totals.kinds.values()
    assert (measured.due, measured.sent, measured.acknowledged) == (100, 100, 100)
    assert (kind.sent, kind.expected, kind.delivered, kind.lost) == (100, 200, 200, 0)
    assert measured.totals.reconciled
    # The first fifth of the time is not timed.
    assert 0 < measured.deliver.count < 200
    assert measured.deliver.count == measured.deliver_sent.count
    assert measured.deliver.min_ns >= measured.deliver_sent.min_ns > 0


def test_the_ledger_tells_what_the_relay_lost_and_repeated() -> None:
    measured = paced(lambda number: {20: 0, 60: 2}.get(number, 1))
    (kind,) = measured.totals.kinds.values()
    assert (kind.expected, kind.delivered, kind.lost, kind.duplicated) == (200, 199, 1, 1)


def test_an_acknowledgement_of_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Raw._answer

    def twice(dialect: Raw, stream: int, item: bytes, events: list[Event]) -> bool:
        return answer(dialect, stream, item, events) and (item[:1] != b"A" or answer(dialect, stream, item, events))

    monkeypatch.setattr(Raw, "_answer", twice)
    with pytest.raises(links.LoadError, match="which was not under way"):
        paced()


def test_a_server_that_speaks_something_else_is_an_error() -> None:
    attach = links.attach_of(keyring(1, "test"), 0, Right.SUBSCRIBE)
    with (
        bare_relay() as server,
        pytest.raises(links.LoadError, match="subprotocol"),
        links.joined(server, lambda host, _: Reference(Place(host=host)), [attach]),
    ):
        pytest.fail("it joined")


def test_a_port_without_a_server_is_an_error() -> None:
    with bare_relay() as server:
        pass
    attach = links.attach_of(keyring(1, "test"), 0, Right.SUBSCRIBE)
    with pytest.raises(links.LoadError, match="cannot connect"), links.joined(server, raw, [attach]):
        pytest.fail("it joined")
