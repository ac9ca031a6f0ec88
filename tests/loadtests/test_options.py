"""All that cannot work about a run is found together, before anything is started or written."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtests import options as plans
from loadtests.address import CERTIFICATE
from loadtests.options import Plan, Refused, check
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.settings import Settings


def plan(tmp_path: Path, **changes: Any) -> Plan:
    settings = Settings(scenario="room", url="", participants=10)
    return msgspec.structs.replace(Plan(settings=settings, out=str(tmp_path / "runs")), **changes)


def test_a_good_plan_gives_its_thresholds(tmp_path: Path) -> None:
    found = check(plan(tmp_path, thresholds=("deliver{kind=message}: p(99)<50ms",)))
    assert [str(threshold) for threshold in found] == ["deliver{kind=message}: p(99)<50ms"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"target": "nats://127.0.0.1"}, "--target"),
        ({"target": "ws://127.0.0.1:99999"}, "port"),
        ({"target": "ws://127.0.0.1:1", "tls": True}, "--tls is for the relay"),
        ({"target": "ws://127.0.0.1:1", "store": "sqlite"}, "--store is for the relay"),
        ({"target": "ws://127.0.0.1:1", "transport": "uvloop"}, "--transport is for the relay"),
        ({"store": "paper"}, "--store"),
        ({"transport": "pigeon"}, "--transport"),
        ({"workers": 0}, "--workers"),
        ({"workers": 1000}, "--workers"),
        ({"linger_s": -1.0}, "--linger"),
        ({"linger_s": 5.0}, "--linger keeps what --metrics or --ui serves"),
        ({"metrics": "nowhere"}, "--metrics"),
        ({"settings": Settings(scenario="room", url="", participants=10, ca=str(CERTIFICATE))}, "--tls-ca is for"),
        ({"thresholds": ("deliver p(99)<1",)}, "threshold"),
        ({"thresholds": ("deliver{kind=mesage}: p(99)<1ms",)}, "mesage"),
        ({"problems": ("--duration: never.",)}, "--duration: never."),
    ],
)
def test_each_problem_is_told_with_its_option(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        check(plan(tmp_path, **changes))
    assert refused.value.code == EXIT_CONFIGURATION
    assert any(part in problem for problem in refused.value.problems)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        check(plan(tmp_path, store="paper", transport="pigeon", workers=0, thresholds=("x", "y"), metrics="z"))
    assert len(refused.value.problems) == 6


def test_a_file_in_the_way_of_the_results_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(Refused, match="--out"):
        check(plan(tmp_path))


def test_ports_that_are_taken_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(plans, "UI_PORT", port)
        with pytest.raises(Refused) as refused:
            check(plan(tmp_path, ui=True, metrics=f"127.0.0.1:{port}"))
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["--metrics", "--ui"]


def test_ports_that_are_free_are_none(tmp_path: Path) -> None:
    assert check(plan(tmp_path, metrics="127.0.0.1:0", linger_s=5.0)) == []
