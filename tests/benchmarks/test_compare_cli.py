"""Options that cannot work are all told at once, before anything is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import benchmarks.compare
from benchmarks.compare import cli
from benchmarks.compare.measurements import ComparePlan
from loadtests.options import HandshakeOptions
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.target.target import Target


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], ComparePlan, dict[str, Any]]]:
    """Note what the command is asked to do, and import no gevent into this process."""
    found: list[tuple[list[str], ComparePlan, dict[str, Any]]] = []

    def run(targets: Sequence[Target], plan: ComparePlan, thresholds: object, **places: Any) -> int:
        found.append(([target.name for target in targets], plan, {"thresholds": thresholds, **places}))
        return 0

    command = ModuleType("benchmarks.compare.command")
    command.run = run  # type: ignore[attr-defined]
    monkeypatch.setattr(benchmarks.compare, "command", command, raising=False)
    return found


def test_every_problem_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.compare(
        *("refrence", "nats", "nats", "kafka@ws://h:1", "nats@gopher://h"),
        scenario="riot",
        duration="soon",
        rounds=2,
        threshold=("deliver: p(99)",),
        json=tmp_path / "nowhere" / "x.json",
        out=tmp_path / "runs",
    )
    assert code == EXIT_CONFIGURATION
    told = capsys.readouterr().err
    for part in (
        *("no target 'refrence'", "Did you mean reference?", "no dialect 'kafka'", "gopher://h", "nats is named twice"),
        *("--rounds must be 3", "--json", "no scenario 'riot'", "--duration", "a comparison"),
    ):
        assert part in told
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_what_was_asked_for(asked: list[Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {"scenario": "room", "participants": 20, "rate": 5.0, "duration": "4s", "seed": 7}
    assert (
        cli.compare("nats", "raw@ws://h:1", quick=True, threshold=("deliver: lost==0",), out=tmp_path, **options) == 0
    )
    ((names, plan, places),) = asked
    assert names == ["nats", "raw@ws://h:1/"]
    assert (plan.rounds, plan.run_s, plan.rate, plan.seed) == (5, 4.0, 5.0, 7)
    assert plan.settings("x").workload().name == "room"
    assert len(places["thresholds"]) == 1


def test_a_section_of_a_file_is_a_target(asked: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\ndialect = "raw"\nurl = "ws://127.0.0.1:1"\n')
    assert cli.compare("mine", "reference", targets=str(file), out=tmp_path) == 0
    assert asked[0][0] == ["mine", "reference"]


def test_more_time_gives_more_rounds(asked: list[Any], tmp_path: Path) -> None:
    assert cli.compare(out=tmp_path) == 0
    ((names, plan, _),) = asked
    assert names == list(cli.DEFAULT)
    assert (plan.rounds, plan.scenario) == (10, "mix")


def test_what_reaches_a_relay_behind_a_login_is_for_those_that_run(
    asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handshake = HandshakeOptions(header=["X-Key: secret"], origin="https://a.example")
    assert cli.compare("nats", "raw@ws://h:1", handshake=handshake, out=tmp_path) == 0
    assert asked[0][1].reached.headers == (("X-Key", "secret"),)
    assert cli.compare("nats", "reference", handshake=handshake, out=tmp_path) == EXIT_CONFIGURATION
    assert "for relays that run already" in capsys.readouterr().err
