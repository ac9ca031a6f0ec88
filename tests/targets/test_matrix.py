"""Every scenario of the matrix against every relay that is installed, to the last record."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.targets.matrix import SCENARIOS, TARGETS, missing, problems_of

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
AT_ONCE = 4
"""Processes that mostly wait: for the load's two seconds, for relays to start."""


def matrix(name: str, *options: str) -> list[dict[str, object]]:
    """Run the matrix of one target, and return a line a run."""
    command = [sys.executable, "-m", "tests.targets.matrix", name, "--seconds", "2", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, f"{name}: {done.stderr}"
    return lines


def test_every_installed_relay_is_accounted_for_in_every_scenario() -> None:
    installed = [name for name in TARGETS if missing(name) is None]
    assert "reference" in installed
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # The slow ones first.
        found = dict(zip(installed[::-1], pool.map(matrix, installed[::-1]), strict=True))
    for name, lines in found.items():
        assert [line["scenario"] for line in lines] == list(SCENARIOS)
        for line in lines:
            assert line["problems"] == [], f"{name}, {line['scenario']}: {line['notes']}"


def test_the_matrix_convicts_what_breaks_a_promise() -> None:
    whole = {"sent": 2, "expected": 9, "delivered": 9, "lost": 0, "duplicated": 0, "reordered": 0, "missed_away": 0}
    run = {"findings": [], "ordered": "stream", "resumes": True, "ledger": {"message": whole}}
    assert problems_of(run) == []
    for column in ("lost", "duplicated", "reordered", "missed_away"):
        (problem,) = problems_of({**run, "ledger": {"message": {**whole, column: 1}}})
        assert column.partition("_")[0] in problem
    assert (
        problems_of({**run, "ordered": "none", "resumes": False, "ledger": {"message": {**whole, "reordered": 1}}})
        == []
    )
    assert problems_of({**run, "ledger": {"message": {**whole, "boundary": -1}}}) == ["message: boundary is -1"]
    assert problems_of({**run, "ledger": {}}) == ["nothing was delivered"]
    assert problems_of({**run, "findings": ["The ledger does not add up."]}) == ["The ledger does not add up."]
