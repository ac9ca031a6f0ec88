"""Settings of a run: their checks, the way to the workers, and times as people write them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loadtests.settings import Settings, problems_of, seconds

GOOD = Settings(scenario="room", url="ws://127.0.0.1:80", participants=10)


def test_good_settings_have_no_problems() -> None:
    assert problems_of(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"scenario": "rooom"}, "no scenario 'rooom'"),
        ({"participants": 1}, "at least 2"),
        ({"scenario": "evening-peak", "participants": 9}, "at least 10 for evening-peak"),
        ({"participants": 10**7}, "at most"),
        ({"rate": 0.0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
        ({"rate": float("inf")}, "--rate"),
        ({"duration_s": 0.5}, "--duration"),
        ({"duration_s": float("inf")}, "--duration"),
        ({"drain_s": 0.0}, "--drain"),
        ({"suite": "rot13"}, "no suite 'rot13'"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**63}, "--seed"),
        ({"rate": 1e9}, "at most 1000000 messages a second, not 1e+09"),
        ({"ca": "/no/such/file"}, "--tls-ca: there is no file"),
        ({"ca": __file__}, "holds no certificate"),
    ],
)
def test_each_problem_is_one_sentence(changes: dict[str, Any], part: str) -> None:
    (problem,) = problems_of(msgspec.structs.replace(GOOD, **changes))
    assert part in problem
    assert problem.endswith(".")


def test_all_problems_are_told_together() -> None:
    bad = msgspec.structs.replace(GOOD, scenario="x", rate=-1.0, suite="y", seed=-1)
    assert len(problems_of(bad)) == 4


def test_settings_travel_unchanged() -> None:
    settings = msgspec.structs.replace(GOOD, rate=2.5, clock_shift_ms=(0.0, 250.0), ca="x")
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(settings.to_wire()))
    assert Settings.from_wire(wire) == settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30), ("1.5", 1.5), ("30s", 30), ("2m", 120), ("1h", 3600), ("1h30m", 5400), ("1m30s", 90), (" 5s ", 5)],
)
def test_times_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "s", "soon", "-5", "5x", "1m2h", "1e3", "inf", "nan"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        seconds(text)
