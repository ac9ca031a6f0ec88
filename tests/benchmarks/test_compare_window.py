"""The closed window counts every delivery: what is lost or comes twice shows, and nothing else does."""

from __future__ import annotations

import pytest

from benchmarks.fast_load import members, saturate
from benchmarks.fast_load.counting_process import CountedRelay, CountingProcess
from benchmarks.fast_load.dialect_steps import DELIVERIES, costs_ns
from benchmarks.fast_load.window_work import keyring
from benchmarks.rig.processes import Server, choose_cores
from loadtests.settings import Settings
from relay.capability import Right
from tests.benchmarks.bare_relay import Copies, bare_relay

SUBSCRIBERS = (3, 1)


def settings(server: Server, dialect: str = "raw") -> Settings:
    return Settings(scenario="mix", url=f"ws://{server.host}:{server.port}", dialect=dialect, participants=4)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    def alternating(_seed: int, _purpose: str):  # type: ignore[no-untyped-def]
        while True:
            yield from (0, 1)

    monkeypatch.setattr(saturate, "SUBSCRIBERS", SUBSCRIBERS)
    monkeypatch.setattr(saturate, "QUIET_S", 0.3)
    monkeypatch.setattr(saturate, "sequence", alternating)
    monkeypatch.setattr(saturate, "WINDOW", 4)


def saturated(copies: Copies = lambda _: 1) -> saturate.Saturation:
    with bare_relay(copies) as server:
        return saturate.saturate(settings(server), server.pid, choose_cores(), seconds=0.15, warmup_s=0.05)


@pytest.mark.usefixtures("_small")
def test_a_relay_that_loses_nothing_has_no_losses() -> None:
    measured = saturated()
    assert measured.delivered > 0
    assert measured.deliveries_per_s > 0
    assert (measured.lost, measured.wrong) == (0, 0)


@pytest.mark.usefixtures("_small")
def test_a_lost_record_is_lost() -> None:
    measured = saturated(lambda number: 0 if number == 20 else 1)
    assert measured.lost == 1
    assert measured.wrong == 1, "the one after it is not the one that was due"


@pytest.mark.usefixtures("_small")
def test_a_record_that_comes_twice_is_wrong_and_not_counted() -> None:
    measured = saturated(lambda number: 2 if number == 20 else 1)
    assert (measured.lost, measured.wrong) == (0, 1)


def test_a_server_that_speaks_something_else_is_an_error() -> None:
    attach = members.attach_of(keyring(1, "test"), 0, Right.SUBSCRIBE)
    with (
        bare_relay() as server,
        pytest.raises(members.LoadError, match="subprotocol"),
        members.joined(settings(server, "reference"), [attach]),
    ):
        pytest.fail("it joined")


def test_a_port_without_a_server_is_an_error() -> None:
    with bare_relay() as server:
        pass
    attach = members.attach_of(keyring(1, "test"), 0, Right.SUBSCRIBE)
    with pytest.raises(members.LoadError, match="cannot connect"), members.joined(settings(server), [attach]):
        pytest.fail("it joined")


@pytest.mark.process
def test_the_process_that_counts_does_all_of_it_and_tells_what_went_wrong() -> None:
    cores = choose_cores()
    with bare_relay() as server, bare_relay() as other, CountingProcess(cores.load) as counting:
        relay = CountedRelay(settings=settings(server), pid=server.pid)
        counting.hold(relay.settings, 3)
        with pytest.raises(members.LoadError, match="subprotocol"):
            counting.hold(settings(server, "reference"), 1)
        measured = counting.saturate(relay, cores, seconds=0.2, warmup_s=0.0)
        assert measured.delivered > 0
        assert (measured.lost, measured.wrong) == (0, 0)
        second = CountedRelay(settings=settings(other), pid=other.pid)
        assert min(counting.costs_ns((relay, second), 0.0)) > 0
        counting.interrupt()
        with pytest.raises(members.LoadError, match="the process that counts ended"):
            counting.hold(relay.settings, 1)


def test_steps_cost_the_relay_s_processor_time_and_miss_nothing() -> None:
    with bare_relay() as one, bare_relay() as other:
        costs = costs_ns([(settings(one), one.pid), (settings(other), other.pid)], 0.0)
    assert all(1_000 < cost < 10_000_000 for cost in costs), "of a relay in this very process, in Python"


@pytest.mark.parametrize("copies", [0, 2])
def test_a_record_that_is_lost_or_repeated_ends_the_steps(monkeypatch: pytest.MonkeyPatch, copies: int) -> None:
    monkeypatch.setattr("benchmarks.fast_load.dialect_steps._STEP_S_MAX", 0.3)
    with bare_relay(lambda number: copies if number == DELIVERIES - 1 else 1) as server, bare_relay() as other:
        relays = [(settings(server), server.pid), (settings(other), other.pid)]
        with pytest.raises(members.LoadError, match=r"not the next one|did not arrive"):
            costs_ns(relays, 0.0)
