"""Where every process begins: children that find our packages, and that end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

import relaymark

WAIT_S = 20.0

PARENT = """
import subprocess, relaymark
child = subprocess.Popen({command}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
child.stdout.readline()  # it is up
print(child.pid, flush=True)
child.wait()
"""
COMMANDS = {
    "a command of ours": relaymark.child("serve", "--listen", "127.0.0.1:0"),
    "a module": relaymark.child_module("http.server", "--bind", "127.0.0.1", "0"),
    "a program of others": relaymark.child_program(["sh", "-c", "echo up; exec sleep 60"]),
}


@pytest.mark.process
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_child_ends_with_a_parent_that_was_killed(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(command=command)],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.send_signal(signal.SIGKILL)
    with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        child.wait(WAIT_S)
    assert not child.is_running()


@pytest.mark.process
def test_a_program_that_is_not_there_is_named() -> None:
    done = subprocess.run(relaymark.child_program(["no-such-relay"]), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "relaymark: no-such-relay could not be started: No such file or directory\n"
