"""What can be measured here, and with what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests import catalogue_cli
from loadtests.dialects.find import NAMES
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.target.catalogue import CATALOGUE
from loadtests.target.target import Command, ReferenceVariant, version_of
from loadtests.workload.catalogue import SCENARIOS
from loadtests.workload.offered import offered
from loadtests.workload.traffic import Workload


def test_every_target_has_a_dialect_of_ours_and_a_way_to_get_it(tmp_path: Path) -> None:
    for name, target in CATALOGUE.items():
        assert target.name == name
        assert target.dialect in NAMES
        assert "not told" not in target.promises.words()["acknowledged means"]
        if not isinstance(target.program, ReferenceVariant):
            assert target.program is not None
            assert target.program.HOW_TO_GET
            assert target.program.environment(tmp_path, 1) is not None


def test_the_version_is_the_first_number_that_the_program_tells() -> None:
    assert version_of(Command(arguments=("sh",), version=("-c", "echo mine version 2.0.11 of 3.4"))) == "2.0.11"
    assert version_of(Command(arguments=("sh",), version=("-c", "echo none"))) == ""
    assert version_of(Command(arguments=("no-such-program",), version=("-c",))) == ""
    assert version_of(Command(arguments=("sh",))) == ""


def test_targets_are_listed_with_those_of_the_users_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue_cli, "CATALOGUE", {"reference": CATALOGUE["reference"]})
    file = tmp_path / "targets.toml"
    file.write_text(
        "[mine]\ndialect = 'raw'\nurl = 'ws://h:1'\n[gone]\ndialect = 'raw'\ncommand = ['no-such-program', '{port}']\n"
        "how_to_get = 'pip install it[fast]'\n"
    )
    assert catalogue_cli.targets(targets=str(file), json=True) == 0
    lines = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert set(lines) == {"mine", "gone", "reference"}
    assert lines["gone"]["how_to_get"] == "pip install it[fast]"
    assert lines["reference"]["how_to_get"] == ""
    assert lines["reference"]["promises"]["order"] == "numbered without gaps, per stream"
    assert catalogue_cli.targets(targets=str(file)) == 0
    shown = capsys.readouterr().out
    for part in ("missing", "to get it: pip install it[fast]", "running"):
        assert part in shown


def test_a_file_with_faults_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "targets.toml"
    file.write_text("[mine]\ncolour = 1\n")
    assert catalogue_cli.targets(targets=str(file)) == EXIT_CONFIGURATION
    assert "unknown key 'colour'" in capsys.readouterr().err


def test_scenarios_are_listed_with_what_they_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue_cli, "SIZES", (20, 40))
    assert catalogue_cli.scenarios(json=True) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in lines] == list(SCENARIOS)
    assert catalogue_cli.scenarios() == 0
    assert "evening-peak" in capsys.readouterr().out


def test_a_room_is_offered_a_delivery_a_member_for_each_message() -> None:
    load = offered(Workload("room", seed=1, participants=50, rate=20.0, duration_s=10.0))
    assert load.messages == load.records
    assert load.messages == pytest.approx(20.0, rel=0.3)
    assert load.deliveries == pytest.approx(50 * load.messages)
    assert load.streams == 1


def test_receipts_are_part_of_what_is_offered() -> None:
    workload = Workload("receipt-storm", seed=1, participants=11, rate=5.0, duration_s=10.0)
    load = offered(workload)
    # Each of ten viewers answers each message with two receipts, to the performer alone.
    assert load.records == pytest.approx(load.messages * 21)
    assert load.deliveries == pytest.approx(load.messages * (11 + 20))
