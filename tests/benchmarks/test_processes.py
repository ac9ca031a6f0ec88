"""What is started is ended: whatever signal comes, and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rig import processes
from benchmarks.rig.processes import Cores, choose_cores, ended_by_signal, finish, running, stop, uninterrupted

ENDING = (signal.SIGTERM, signal.SIGHUP)
SERVES = (sys.executable, "-c", "import time; print('serving ws://127.0.0.1:9', flush=True); time.sleep(60)")
_STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('serving ws://127.0.0.1:9', flush=True)
time.sleep(60)
"""
STUBBORN = (sys.executable, "-c", _STUBBORN)
POLITE = """
import os, signal, sys, time
try:
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)  # to end its servers: longer than subprocess.run would wait
    open(sys.argv[1], 'w').write('ended its own')
"""


@pytest.fixture
def cores() -> object:
    before = os.sched_getaffinity(0)
    yield choose_cores()
    os.sched_setaffinity(0, before)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_leaves_once_and_another_does_not_disturb_that(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in ENDING]
    cleaned = []

    def leave() -> None:
        with ended_by_signal():
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(signal.SIGTERM)
                cleaned.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert cleaned == ["all of it"]
    assert [signal.getsignal(one) for one in ENDING] == before


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signal(), uninterrupted():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_put_off(number: signal.Signals) -> None:
    done = []

    def whole() -> None:
        with ended_by_signal(), uninterrupted():
            with uninterrupted():
                signal.raise_signal(number)
            done.append("the whole block")

    with pytest.raises(KeyboardInterrupt):
        whole()
    assert done == ["the whole block"]


@pytest.mark.process
def test_a_server_that_will_not_end_is_killed_though_ctrl_c_comes_again(
    cores: Cores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "stop", lambda process: stop(process, seconds=0.2))
    send_signal = subprocess.Popen.send_signal

    def impatient(process: subprocess.Popen[bytes], number: int) -> None:
        send_signal(process, number)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess.Popen, "send_signal", impatient)
    pids = []

    def interrupted() -> None:
        with running(STUBBORN, cores) as one, running(SERVES, cores) as other:
            pids.extend((one.pid, other.pid))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 2
    assert all(map(gone, pids))


@pytest.mark.process
@pytest.mark.parametrize("seen", [None, ConnectionResetError("reset by peer")])
def test_a_server_that_ends_by_itself_is_told(cores: Cores, seen: Exception | None) -> None:
    def dies() -> None:
        with running(SERVES, cores) as server:
            os.kill(server.pid, signal.SIGKILL)
            if seen:
                raise seen
            os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(processes.ServerError, match="ended by itself: -9") as told:
        dies()
    assert told.value.__cause__ is seen


@pytest.mark.process
def test_what_goes_wrong_beside_a_server_that_is_well_is_told_as_it_is(cores: Cores) -> None:
    with pytest.raises(OSError, match="no route"), running(SERVES, cores):
        raise OSError("no route")


@pytest.mark.process
def test_a_command_that_is_given_up_may_end_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        finish([sys.executable, "-c", POLITE, str(tmp_path / "word")])
    assert (tmp_path / "word").read_text() == "ended its own"


@pytest.mark.process
def test_what_a_command_printed(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['WORD']); sys.exit(3)"
    done = finish([sys.executable, "-c", code], directory=tmp_path, environment={"WORD": "yes"})
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path} yes\n", "")
