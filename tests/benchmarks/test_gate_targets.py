"""`relaymark gate --target`: options that cannot work, and one real pair of two relays that are spoken to by their dialect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from test_gate_report import report

from benchmarks import cli
from benchmarks.gate.report import ReportError, compare, load
from benchmarks.gate.runs import TargetWork
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INCONCLUSIVE, EXIT_TARGET
from relaymark import HOME

SHORT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import relaymark
from benchmarks.gate import session
session.CALIBRATION_PAIRS = session.WHOLE_PAIRS = 1
relaymark.main()
"""


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a gate with one A/A pair and no time for more."""
    command = [sys.executable, "-P", "-c", SHORT, str(HOME), "gate", "--budget", "0.1", "--seconds", "0.2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("second", "said"),
    [("refrence", "Did you mean reference?"), ("raw@ws://127.0.0.1:1", "starts a fresh one for every run")],
)
def test_every_problem_is_said_at_once(capsys: pytest.CaptureFixture[str], second: str, said: str) -> None:
    code = cli.gate(target=("reference", second), metrics=["instructions", "cpu"], scenario="riot", participants=0)
    assert code == EXIT_CONFIGURATION
    told = capsys.readouterr().err
    for part in (said, "counted of the reference", "no scenario 'riot'"):
        assert part in told


@pytest.mark.process
def test_two_relays_are_measured_by_their_dialects(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    work = ("--participants", "20", "--rate", "50")
    done = gate("--target", "reference", "reference@uvloop", *work, "--json", str(path))
    assert done.returncode == EXIT_INCONCLUSIVE, done.stderr
    assert "whether reference@uvloop" in done.stdout
    stored = load(path)
    assert (stored.base.ref, stored.head.ref) == ("reference", "reference@uvloop")
    assert stored.work == "mix, 20 participants, 50 chat messages a second"
    assert stored.metrics == ("cpu", "throughput", "p50", "p99")
    assert [run.figures.keys() for run in stored.runs] == [{"cpu", "throughput", "p50", "p99"}] * 2
    for run in stored.runs:
        assert 0 < run.figures["cpu"] < 1000
        assert 0 < run.figures["p50"] <= run.figures["p99"]


@pytest.mark.process
def test_a_relay_that_does_not_start_is_named(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('[dying]\ndialect = "raw"\ncommand = ["false", "{port}"]\n')
    done = gate("--target", "reference", "dying", "--targets", str(file), "--metrics", "cpu")
    assert done.returncode == EXIT_TARGET
    assert "dying: dying ended with code 1" in done.stderr


def test_results_of_other_work_do_not_compare() -> None:
    one = replace(report(), work="mix, 20 participants")
    for other in (report(), replace(report(), work="room, 20 participants")):
        with pytest.raises(ReportError, match="one was measured under mix, 20 participants"):
            compare(one, other)


def test_work_in_words() -> None:
    assert TargetWork(scenario="room", participants=9, rate=None).in_words() == "room, 9 participants"
