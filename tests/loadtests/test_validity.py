"""Each way to lie is found at its bound, alone, with a remedy; an honest run has no finding."""

from __future__ import annotations

import msgspec
import pytest

from loadtests.results.validity import (
    CPU_MAX,
    LAG_P99_NS_MAX,
    LOOP_LAG_P99_NS_MAX,
    RELAY_BUSY,
    Facts,
    Finding,
    Verdict,
    WorkerFacts,
    check,
    verdict,
)


def worker(name: str = "worker-0", cpu: float = 0.5, due: int = 1_000, sent: int = 1_000) -> WorkerFacts:
    return WorkerFacts(name=name, cpu=cpu, due=due, sent=sent)


HONEST = Facts(
    workers=(worker("worker-0"), worker("worker-1", cpu=CPU_MAX)),
    lag_p99_ns=LAG_P99_NS_MAX,
    loop_lag_p99_ns=LOOP_LAG_P99_NS_MAX,
    clock_error_ns=2_000_000,
    one_way_p50_ns=2_000_000,
    unreconciled=0,
    samples=1,
    relay_cpu=0.3,
)


def test_a_run_at_all_bounds_is_valid() -> None:
    assert check(HONEST) == []
    assert verdict(check(HONEST)) is Verdict.VALID


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"workers": (worker(), worker("worker-7", cpu=0.97))}, "generator-cpu", ["worker-7", "97%", "add workers"]),
        ({"lag_p99_ns": LAG_P99_NS_MAX + 1}, "schedule-lag", ["10 ms", "offer less"]),
        ({"loop_lag_p99_ns": LOOP_LAG_P99_NS_MAX * 2}, "loop-lag", ["40 ms", "--workers"]),
        ({"clock_error_ns": 3_000_000}, "clock-error", ["3 ms", "2 ms", "synchronise"]),
        ({"clock_error_ns": None}, "clock-error", ["could not be estimated", "TIME"]),
        ({"unreconciled": 3}, "ledger", ["3 places", "--drain"]),
        ({"samples": 0}, "no-samples", ["No delivery was measured", "check"]),
        ({"silent_kinds": ("tip", "media")}, "no-samples", ["tip, media", "check"]),
        (
            {"workers": (worker(sent=700), worker("worker-1", sent=702))},
            "uniform-ceiling",
            ["All 2 workers", "70%", "more hosts"],
        ),
        ({"ports_exhausted": 4}, "exhausted", ["4 connections", "ip_local_port_range"]),
        ({"descriptors_exhausted": 5}, "exhausted", ["5 connections", "ulimit -n"]),
    ],
)
def test_each_lie_is_found_alone(change: dict[str, object], code: str, says: list[str]) -> None:
    (finding,) = check(msgspec.structs.replace(HONEST, **change))
    assert finding.code == code
    for words in says:
        assert words in finding.sentence
    assert finding.sentence.endswith(".")
    assert "  " not in finding.sentence
    assert verdict([finding]) is Verdict.INVALID


def test_all_lies_are_found_at_once() -> None:
    facts = msgspec.structs.replace(
        HONEST,
        workers=(worker(cpu=1.0, sent=500), worker(cpu=1.0, sent=500)),
        lag_p99_ns=10**9,
        loop_lag_p99_ns=10**9,
        clock_error_ns=10**9,
        unreconciled=1,
        samples=0,
        ports_exhausted=1,
        descriptors_exhausted=1,
    )
    codes = [finding.code for finding in check(facts)]
    assert codes == [
        "generator-cpu",
        "schedule-lag",
        "loop-lag",
        "clock-error",
        "ledger",
        "no-samples",
        "uniform-ceiling",
        "exhausted",
        "exhausted",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"workers": (worker(sent=700),)},
        {"workers": (worker(sent=700), worker(sent=600))},
        {"workers": (worker(sent=960), worker(sent=960))},
        {"workers": (worker(due=0, sent=0), worker(sent=700))},
        {"workers": (worker(sent=700), worker(sent=700)), "relay_cpu": RELAY_BUSY},
        {"clock_error_ns": 10**9, "one_way_p50_ns": 0},
        {"clock_error_ns": 0},
        {"workers": ()},
    ],
)
def test_what_only_looks_like_a_lie_is_not_found(change: dict[str, object]) -> None:
    assert check(msgspec.structs.replace(HONEST, **change)) == []


def test_a_ceiling_is_suspected_where_the_relay_cannot_be_seen() -> None:
    facts = msgspec.structs.replace(HONEST, workers=(worker(sent=400), worker(sent=401)), relay_cpu=None)
    assert [finding.code for finding in check(facts)] == ["uniform-ceiling"]


def test_findings_are_compared_by_value() -> None:
    assert Finding("ledger", "x") == Finding("ledger", "x")
