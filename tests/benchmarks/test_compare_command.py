"""Real comparisons: a relay that runs already beside one that dies; Ctrl-C leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from loadtests.results.exit_codes import EXIT_INTERRUPTED, EXIT_TARGET
from loadtests.results.files import load
from relaymark import child
from tests.benchmarks.bare_relay import bare_relay

TARGETS = """
[dying]
dialect = "raw"
command = ["false", "{port}"]

[lossy]
dialect = "raw"
url = "ws://127.0.0.1:%d"

[stranger]
dialect = "reference"
url = "ws://127.0.0.1:%d"
"""


@pytest.mark.process
def test_a_relay_that_runs_is_compared_and_one_that_dies_is_named(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    with bare_relay(lambda number: 0 if number == 50 else 1) as server:
        file.write_text(TARGETS % (server.port, server.port))
        command = child(
            "compare", "lossy", "dying", "stranger", "--targets", str(file), "--out", str(tmp_path / "runs")
        )
        command += ["--rounds", "3", "--duration", "1s", "--participants", "4", "--rate", "30"]
        command += ["--threshold", "deliver: lost==0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == EXIT_TARGET, done.stderr
    assert "FAILED dying: dying ended with code 1" in done.stdout
    assert "lossy: deliver: lost==0: not met, 1" in done.stdout
    (folder,) = (tmp_path / "runs").iterdir()
    results = [load(path.parent) for path in sorted(folder.glob("*/result.json"))]
    assert [result.target.name for result in results] == ["lossy"] * 3
    assert len({result.run for result in results}) == 3
    found = msgspec.json.decode((folder / "compare.json").read_bytes())
    assert found["failures"].keys() == {"dying", "stranger"}
    assert "subprotocol" in found["failures"]["stranger"], "it was greeted before any load"
    assert [turn["ledger"]["lost"] for turn in found["turns"]].count(1) == 1


@pytest.mark.process
def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    with subprocess.Popen(
        child("compare", "reference", "--quick", "--out", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        started: list[psutil.Process] = []
        while not list(tmp_path.glob("*/probe-reference/relay.log")) and time.monotonic() < deadline:
            time.sleep(0.05)
        while len(started) < 3 and time.monotonic() < deadline:  # a worker, the closed window, the relay
            started = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED
    assert b"Interrupted" in out
    assert len(started) >= 3
    assert not any(one.is_running() for one in started)
