"""Real runs for the tests: a relay, plain Locust or `relaymark run`, and the result that they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from loadtests.results.exit_codes import EXIT_INVALID, EXIT_OK
from loadtests.results.files import load
from loadtests.results.schema import Result
from loadtests.target.reference_relay import ReferenceRelay

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "loadtests" / "scenarios"
WAIT_S = 60.0
NOISE = {"schedule-lag", "loop-lag", "generator-cpu", "uniform-ceiling"}
"""Findings that a busy machine brings about, and that say nothing of what these tests look at."""


def locust(
    scenario: str, url: str, out: Path, *options: str, users: int, seconds: int, headless: bool = True
) -> subprocess.Popen[str]:
    """Start plain Locust on a scenario's file; its result goes below `out`."""
    file = SCENARIOS / f"{scenario.replace('-', '_')}.py"
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(file),
        "--only-summary",
        "--host",
        url,
        *(["--headless"] * headless),
    ]
    command += ["-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--out", str(out), *options]
    return _start(command)


def relaymark(*arguments: str, out: Path) -> subprocess.Popen[str]:
    """Start `relaymark run` with these arguments."""
    return _start([sys.executable, "-m", "relay.cli", "run", *arguments, "--quiet", "--out", str(out)])


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a run and return its exit code, stdout and stderr; kill it if it does not end."""
    try:
        stdout, stderr = process.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"the run did not end\n{stdout}\n{stderr}") from None
    return process.returncode, stdout, stderr


def result_in(out: Path) -> Result:
    """Return the only result below `out`."""
    (found,) = out.glob("*/result.json")
    return load(found)


def finished(process: subprocess.Popen[str], out: Path) -> Result:
    """Wait for a run that is to go well, up to the noise of the machine, and return its result."""
    code, stdout, stderr = finish(process)
    assert code in (EXIT_OK, EXIT_INVALID), f"{code}\n{stdout}\n{stderr}"
    result = result_in(out)
    assert code == result.exit_code
    return result


def serious(result: Result) -> list[str]:
    """Return the findings that no noise explains."""
    return [finding.sentence for finding in result.findings if finding.code not in NOISE]


def sums(result: Result, columns: Iterable[str]) -> dict[str, int]:
    """Return columns of the ledger, summed over kinds."""
    return {column: sum(getattr(kind.ledger, column) for kind in result.kinds.values()) for column in columns}


def started_relay(folder: Path) -> tuple[ReferenceRelay, str]:
    """Return a relay that serves, and its address."""
    relay = ReferenceRelay(folder)
    return relay, relay.start().url.rstrip("/")
