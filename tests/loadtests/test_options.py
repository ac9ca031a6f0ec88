"""All that cannot work about a run is found together, before anything is started or written."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from loadtests import options as options_module
from loadtests.address import CERTIFICATE
from loadtests.options import CannotRun, CheckedRun, RunOptions, check
from loadtests.results.exit_codes import EXIT_CONFIGURATION


def checked(tmp_path: Path, **changes: Any) -> CheckedRun:
    options: dict[str, Any] = {"participants": 10, "out": str(tmp_path / "runs"), **changes}
    return check("room", RunOptions(**options), run="1")


def test_good_options_give_settings_and_thresholds(tmp_path: Path) -> None:
    found = checked(tmp_path, threshold=["deliver{kind=message}: p(99)<50ms"], duration="1m", drain="2", seed=7)
    assert [str(threshold) for threshold in found.thresholds] == ["deliver{kind=message}: p(99)<50ms"]
    settings = found.settings
    assert (settings.duration_s, settings.drain_s, settings.seed, settings.run) == (60.0, 2.0, 7, "1")
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
        ({"linger": "1d"}, "--linger"),
        ({"linger": "25h", "metrics": "127.0.0.1:0"}, "less than a day"),
        ({"linger": "5"}, "--linger keeps what --metrics or --ui serves"),
        ({"metrics": "nowhere"}, "--metrics"),
        ({"tls_ca": str(CERTIFICATE)}, "--tls-ca is for"),
        ({"threshold": ["deliver p(99)<1"]}, "threshold"),
        ({"threshold": ["deliver{kind=mesage}: p(99)<1ms"]}, "mesage"),
        ({"duration": "never"}, "--duration: 'never' is no time"),
        ({"drain": "soon"}, "--drain: 'soon' is no time"),
    ],
)
def test_each_problem_is_told_with_its_option(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(CannotRun) as refused:
        checked(tmp_path, **changes)
    assert refused.value.code == EXIT_CONFIGURATION
    assert any(part in problem for problem in refused.value.problems)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CannotRun) as refused:
        checked(tmp_path, store="paper", transport="pigeon", workers=0, threshold=["x", "y"], metrics="z")
    assert len(refused.value.problems) == 6


def test_a_file_in_the_way_of_the_results_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(CannotRun, match="--out"):
        checked(tmp_path)


def test_ports_that_are_taken_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(options_module, "UI_PORT", port)
        with pytest.raises(CannotRun) as refused:
            checked(tmp_path, ui=True, metrics=f"127.0.0.1:{port}")
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["--metrics", "--ui"]


def test_ports_that_are_free_are_none(tmp_path: Path) -> None:
    assert checked(tmp_path, metrics="127.0.0.1:0", linger="5").linger_s == 5.0
