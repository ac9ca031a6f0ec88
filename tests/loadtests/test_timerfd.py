"""The timer descriptor, through Python's own functions and through the C library."""

from __future__ import annotations

import select
from time import monotonic_ns

import pytest

from loadtests.driver import timerfd
from loadtests.driver.timerfd import TimerFd


@pytest.fixture(params=["default", "libc"])
def timer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TimerFd:
    if request.param == "libc":
        monkeypatch.setattr(timerfd, "_create", timerfd._create_by_libc)
        monkeypatch.setattr(timerfd, "_set", timerfd._set_by_libc)
    return TimerFd()


def test_it_fires_not_before_its_time(timer: TimerFd) -> None:
    due_ns = monotonic_ns() + 2_000_000
    timer.arm(due_ns)
    assert select.select([timer.fd], [], [], 5)[0]
    assert monotonic_ns() >= due_ns
    assert timer.expirations() == 1
    assert timer.expirations() == 0
    timer.close()


def test_missed_intervals_are_counted(timer: TimerFd) -> None:
    timer.arm(monotonic_ns() - 10_000_000, 1_000_000)
    assert timer.expirations() >= 10
    timer.close()


def test_disarmed_it_never_fires(timer: TimerFd) -> None:
    timer.arm(monotonic_ns() - 1)
    timer.disarm()
    assert not select.select([timer.fd], [], [], 0)[0]
    timer.close()
    timer.close()
