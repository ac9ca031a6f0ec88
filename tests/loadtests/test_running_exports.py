"""The names that the running modules export. Read from the text: some of them import Locust, which changes a process."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import loadtests

EXPORTS = {
    "actors": "Actor Due",
    "calibration": "calibrate",
    "conductor": "Conductor",
    "crowd": "Crowd Tally Timekeeper allow_descriptors",
    "fanout": "FanoutNotes FanoutTally step_of",
    "gathering": "Gathering WorkerLine command_line",
    "locust_stats": "bucket_ms feed install",
    "plan": "Plan REFERENCE Refused UI_HOST UI_PORT cannot_write check read_thresholds",
    "plugin": "PLAN main scenario settings_of",
    "probe": "probe",
    "settings": "DRAIN_S_DEFAULT DURATION_S_DEFAULT PARTICIPANTS_DEFAULT SUITES Settings problems_of seconds",
    "swarm": "CONNECTS_MAX Connection Handler Swarm",
    "timerfd": "TimerFd",
    "worker": "CLOCKS DRAIN GO QUIET REPORT SETTLED STOP Worker",
}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_module_exports_just_what_it_did(name: str) -> None:
    tree = ast.parse((Path(loadtests.__file__).parent / f"{name}.py").read_text())
    assigned = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    exported = ast.literal_eval(assigned["__all__"])
    assert sorted(exported) == EXPORTS[name].split()
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    annotated = {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert set(exported) <= defined | annotated
