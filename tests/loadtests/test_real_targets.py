"""Targets of a user's own, from their file to the result: started by a command, or running and observed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from real_runs import ROOT, finish, finished, relaymark, serious, started_relay, sums

from loadtests.results.exit_codes import EXIT_TARGET

pytestmark = pytest.mark.process

SMALL = ("room", "--participants", "12", "--duration", "2s", "--rate", "20")
TARGETS = f"""
[mine]
dialect = "mine.py:Mine"
command = ["{sys.executable}", "{ROOT}/relaymark.py", "serve", "--listen", "127.0.0.1:{{port}}", "--tls-cert", "{{cert}}",
           "--tls-key", "{{key}}"]
[mine.promises]
acknowledged = "committed"

[dies]
dialect = "raw"
command = ["sh", "-c", "echo no licence for {{port}}; exit 3"]
"""
MINE = """
from loadtests.dialects.reference import Reference


class Mine(Reference):
    pass
"""


@pytest.fixture
def targets(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    file = tmp_path / "mine.toml"
    file.write_text(TARGETS)
    return str(file)


def test_a_command_of_the_users_is_started_measured_and_ended(targets: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = relaymark(*SMALL, "--targets", targets, "--target", "mine", "--tls", "--workers", "2", out=out)
    result = finished(process, out)
    assert serious(result) == []
    assert sums(result, ["lost", "duplicated"]) == {"lost": 0, "duplicated": 0}
    assert sums(result, ["delivered"])["delivered"] > 100
    assert result.target.name == "mine"
    assert result.target.url.startswith("wss://127.0.0.1:")
    assert result.target.promises["acknowledged means"] == "committed"
    assert result.relay is not None
    assert result.relay.cpu_ns > 0
    assert result.calibration is not None, "an echo was started for it"
    assert any("the target has no echo" in note for note in result.notes)


def test_a_command_that_dies_is_told_with_its_last_words(targets: str, tmp_path: Path) -> None:
    code, stdout, stderr = finish(relaymark(*SMALL, "--targets", targets, "--target", "dies", out=tmp_path / "out"))
    assert (code, stdout) == (EXIT_TARGET, "")
    assert "dies ended with code 3. Its log ends: no licence for" in stderr
    assert not (tmp_path / "out").exists()


def test_a_relay_that_runs_is_observed_by_its_process_and_its_own_metrics(tmp_path: Path) -> None:
    relay, url = started_relay(tmp_path)
    try:
        options = (
            "--target",
            url,
            "--target-pid",
            str(relay.pid),
            "--target-metrics",
            f"http://{relay.metrics}/metrics",
        )
        series = ("--target-series", "relay_deliveries_total", "--target-series", "no_such_metric")
        result = finished(relaymark(*SMALL, *options, *series, out=tmp_path / "out"), tmp_path / "out")
    finally:
        relay.stop()
    assert serious(result) == []
    assert result.relay is not None
    assert result.relay.cpu_ns > 0
    assert result.relay.statistics["relay_deliveries_total"] > 0
    assert result.target_series["relay_deliveries_total"].value
    assert "the target's own metrics have no no_such_metric" in result.notes
