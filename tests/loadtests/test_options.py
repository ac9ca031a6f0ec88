"""All that cannot work about a run is found together, before anything is started or written."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from loadtests import options as options_module
from loadtests.address import CERTIFICATE
from loadtests.options import CannotRun, CheckedRun, RunOptions, check, without_secrets
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


def test_too_few_open_files_are_told_before_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module.resource, "getrlimit", lambda which: (256, 500))
    with pytest.raises(CannotRun, match="500: reference would need 600 open files, and the limit is 500: raise it by"):
        checked(tmp_path, participants=500)
    assert checked(tmp_path, participants=400).descriptors == 500
    with pytest.raises(CannotRun, match=r"a worker would need 600 open files.* or more --workers"):
        checked(tmp_path, target="ws://127.0.0.1:1", participants=500, workers=1)
    assert checked(tmp_path, target="ws://127.0.0.1:1", participants=500, workers=2).descriptors == 350
    with pytest.raises(CannotRun, match="need 780 open files"):  # two directions
        checked(tmp_path, target="redis-streams@tcp://127.0.0.1:1", participants=340, workers=1)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"target": "nats://127.0.0.1"}, "is no address of a relay"),
        ({"target": "nast"}, "There is no target 'nast'. Did you mean nats?"),
        ({"target": "smtp@ws://127.0.0.1:1"}, "There is no dialect 'smtp'"),
        ({"target": "nats", "store": "sqlite"}, "--store is for the reference relay"),
        ({"target": "nats", "target_pid": 1}, "--target-pid is for a target that runs"),
        ({"target": "redis@redis://127.0.0.1", "origin": "x"}, "--origin is for relays over WebSocket"),
        ({"target_metrics": "file:///etc/passwd"}, "--target-metrics must be http://"),
        ({"target": "nats", "target_series": ["x"]}, "--target-metrics names"),
        ({"header": ["Authorization Bearer"]}, "--header must be"),
        ({"header": ["Host: x"]}, "--header Host: the handshake has its own"),
        ({"header": ["Sec-WebSocket-Key: x"]}, "the handshake has its own"),
        ({"header": ["X: a\r\nY: b"]}, "--header must be"),
        ({"query": ["secret"]}, "--query must be NAME=VALUE"),
        ({"token_file": "/no/such/file"}, "--token-file: /no/such/file cannot be read"),
        ({"header": ["X: €"]}, "--header must be"),
        ({"origin": "https://bücher.example"}, "--origin must be one word"),
        ({"target": "ws://127.0.0.1:0"}, "has no valid port"),
        ({"target": "ws://a..b"}, "is not the name of a host"),
        ({"target": "nats", "target_metrics": "http://h/ä"}, "--target-metrics must be http://"),
        ({"origin": "two words"}, "--origin must be one word"),
        ({"targets": "/no/such.toml", "target": "mine"}, "/no/such.toml cannot be read"),
        ({"target": "ws://127.0.0.1:99999"}, "port"),
        ({"target": "ws://127.0.0.1:1", "tls": True}, "--tls is for a relay that is started here"),
        (
            {"target": "ws://127.0.0.1:1", "store": "sqlite"},
            "--store is for the reference relay that is started here, not for reference@ws://127.0.0.1:1",
        ),
        ({"target": "ws://127.0.0.1:1", "transport": "uvloop"}, "--transport is for the reference relay"),
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


def test_what_opens_the_connections_is_in_the_settings_and_no_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    found = checked(
        tmp_path,
        target="nats@wss://relay.example/chat",
        header=["X-Tenant: blue"],
        token_file=str(tmp_path / "token"),
        query=["key=a b"],
        origin="https://app.example",
        subprotocol="nats",
    )
    place = found.settings.place()
    assert (place.host, place.path, place.query) == ("relay.example:443", "/chat", "key=a%20b")
    assert place.headers == (("X-Tenant", "blue"), ("Authorization", "Bearer abc"))
    assert (place.origin, place.subprotocol) == ("https://app.example", "nats")
    assert found.target.name == "nats@wss://relay.example:443/chat"
    command = ["relaymark", "run", "--header", "X: secret", "--query=key=secret", "--header=Y: secret", "--seed", "3"]
    assert "secret" not in " ".join(without_secrets(command))
    assert without_secrets(command)[-2:] == ["--seed", "3"]


def test_a_wrong_secret_is_told_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(CannotRun) as error:
        checked(tmp_path, header=["hunter2"], query=["hunter2"])
    assert "hunter2" not in str(error.value)


def test_the_reference_relay_has_variants(tmp_path: Path) -> None:
    assert checked(tmp_path).target.name == "reference"
    assert checked(tmp_path, target="reference@uvloop").target.name == "reference@uvloop"
    both = checked(tmp_path, target="reference@uvloop", store="sqlite").target
    assert both.name == "reference@uvloop@sqlite"
    assert both.promises.survives == "kill"
