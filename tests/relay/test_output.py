"""A stdout that takes nothing more: one sentence, and the code that the command gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERDICT = 99
COMMAND = f"""
import relay.cli
def app(**_):
    for at in range(3):
        print("a figure " * 10_000)
    return {VERDICT}
relay.cli.app = app
relay.cli.main()
"""
SENTENCE = "relaymark: stdout takes nothing more: {}; the rest of the output is not shown.\n"
WHERE = {
    ">/dev/full": "No space left on device",
    ">&-": "it is closed",
    ">&- <&-": "it is closed",
    "| :": "its reader has gone",
}

pytestmark = pytest.mark.process


def shell(where: str) -> subprocess.CompletedProcess[str]:
    command = f'"{sys.executable}" -c "$COMMAND"'
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {{ sleep 0.1; exec {command}; }} {where}"],
        env={"COMMAND": COMMAND, "PATH": "/usr/bin:/bin"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("where", WHERE)
def test_what_cannot_be_shown_is_told_once_and_changes_no_verdict(where: str) -> None:
    done = shell(where)
    assert (done.returncode, done.stderr) == (VERDICT, SENTENCE.format(WHERE[where]))


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_a_stderr_that_takes_nothing_changes_nothing(where: str) -> None:
    done = shell(where)
    assert (done.returncode, done.stdout) == (VERDICT, ("a figure " * 10_000 + "\n") * 3)


def test_without_both_the_verdict_remains() -> None:
    assert shell(">&- 2>&-").returncode == VERDICT


def test_the_next_file_does_not_become_stdout(tmp_path: Path) -> None:
    """A closed descriptor's number goes to the next file that is opened: a result, or a socket."""
    code = (
        "from relay.output import guard; guard()\n"
        f"file = open({str(tmp_path / 'result')!r}, 'w'); print('shown'); file.write('result')"
    )
    subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{code}" >&- 2>&- <&-'], cwd=ROOT, check=True)
    assert (tmp_path / "result").read_text() == "result"
