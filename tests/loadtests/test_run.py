"""The engine keeps its workers for many runs; a run that does not begin leaves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.results.files import load

ROOT = Path(__file__).parents[2]

TWO_RUNS = """
import sys
from pathlib import Path
from loadtests.engine import Engine
from loadtests.control.facts import RunFacts
from loadtests.results import files
from loadtests.results.environment import machine
from loadtests.settings import Settings
from loadtests.target.reference_relay import ReferenceRelay

folder = Path(sys.argv[1])
with Engine(folder, workers=2) as engine:
    for number, scenario in enumerate(("room", "private-chat")):
        (folder / str(number)).mkdir()
        relay = ReferenceRelay(folder / str(number))
        url = relay.start().url
        try:
            settings = Settings(
                scenario=scenario, url=url, participants=10, rate=20.0, duration_s=1.0, drain_s=1.0, run=str(number)
            )
            facts = RunFacts(target="reference", relay=relay, machine=machine(), commit=None, command=["two"])
            result = engine.run(settings, facts)
        finally:
            relay.stop()
        files.write(folder / str(number), result, engine.intervals())
"""
"""In a process of its own: Locust patches the one that it is loaded into."""


@pytest.mark.process
def test_one_engine_runs_two_scenarios_against_two_relays(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", TWO_RUNS, str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    for number, scenario in enumerate(("room", "private-chat")):
        result = load(tmp_path / str(number))
        assert (result.scenario, result.run, result.options["workers"]) == (scenario, str(number), 2)
        assert [worker.connections for worker in result.workers] == [5, 5]
        ledger = result.kinds["message"].ledger
        assert ledger.delivered > 0
        assert (ledger.lost, ledger.duplicated) == (0, 0)
        assert not {finding.code for finding in result.findings} & {"ledger", "worker-lost", "joins"}
    assert len(list(tmp_path.glob("worker-*.log"))) == 2
