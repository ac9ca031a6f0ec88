"""Where every process begins: children that find our packages, and that end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

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
    "a module": relaymark.child_module("relay.cli", "serve", "--listen", "127.0.0.1:0"),
    "a program of others": relaymark.child_program(["sh", "-c", "echo up; exec sleep 60"]),
}


def is_gone(process: psutil.Process) -> bool:
    """Wait for the end of a process that is not ours; whoever adopted it may be slow to collect it."""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


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
    assert is_gone(child)


TREE = """
import subprocess, relaymark
command = relaymark.child_program(["sh", "-c", {script!r}])
child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
print(child.pid, child.stdout.readline().decode(), flush=True)
child.wait()
"""
TREES = {
    "which does not end its own children": "sleep 60 & echo $!; wait; true",
    "which takes no SIGTERM": "trap '' TERM; sleep 60 & echo $!; wait; true",
    "whose first process is gone": "sleep 60 >/dev/null & echo $!",
}


@pytest.mark.process
@pytest.mark.parametrize("script", TREES.values(), ids=TREES.keys())
def test_all_processes_of_a_program_end_with_a_parent_that_was_killed(script: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TREE.format(script=script) + "import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        _, number = parent.stdout.readline().split()
        grandchild = psutil.Process(int(number))
        assert grandchild.is_running()
        parent.send_signal(signal.SIGKILL)
    assert is_gone(grandchild)


@pytest.mark.process
def test_nothing_stays_to_watch_a_program_that_ended() -> None:
    def watchers() -> set[int]:
        return {one.pid for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == command}

    command = relaymark.child_program(["sh", "-c", "read line"])
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        end_s = time.monotonic() + WAIT_S
        # Who forks the watcher looks like it and goes at once: two looks one after the other may see one of them each.
        while not (found := watchers() - {process.pid}) and time.monotonic() < end_s:
            time.sleep(0.01)
        assert found
        assert not psutil.Process(process.pid).children()
    while watchers() and time.monotonic() < end_s:
        time.sleep(0.01)
    assert not watchers()


@pytest.mark.process
def test_a_program_that_is_not_there_is_named() -> None:
    done = subprocess.run(relaymark.child_program(["no-such-relay"]), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "relaymark: no-such-relay could not be started: No such file or directory\n"
