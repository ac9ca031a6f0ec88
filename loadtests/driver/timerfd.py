"""A Linux timer as a file descriptor: wakes an epoll at an absolute time with a grain of microseconds.

epoll's own timeouts have a grain of a millisecond, more than a relay's latency. Python has timerfd from 3.13 on;
before, the C library is called through ctypes.
Source: timerfd_create(2).
"""

from __future__ import annotations

import ctypes
import os
import time

_NS_PER_S = 1_000_000_000


class TimerFd:
    """A non-blocking timer on CLOCK_MONOTONIC, the clock of `time.monotonic_ns()`."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = _create()

    def arm(self, due_ns: int, interval_ns: int = 0) -> None:
        """Become readable at `due_ns`, at once if that is past, and then every `interval_ns` if that is not 0."""
        _set(self.fd, max(due_ns, 1), interval_ns)  # zero would disarm

    def disarm(self) -> None:
        _set(self.fd, 0, 0)

    def expirations(self) -> int:
        """Return how often it fired since the last call, and make it unreadable."""
        try:
            return int.from_bytes(os.read(self.fd, 8), "little")
        except BlockingIOError:
            return 0

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


def _create_by_libc() -> int:
    fd = int(_libc().timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def _set_by_libc(fd: int, due_ns: int, interval_ns: int) -> None:
    spec = _Itimerspec(_Timespec(*divmod(interval_ns, _NS_PER_S)), _Timespec(*divmod(due_ns, _NS_PER_S)))
    if _libc().timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_library: ctypes.CDLL | None = None


def _libc() -> ctypes.CDLL:
    global _library
    if _library is None:
        _library = ctypes.CDLL(None, use_errno=True)
    return _library


def _create_by_os() -> int:
    return int(os.timerfd_create(time.CLOCK_MONOTONIC, flags=_TFD_NONBLOCK | _TFD_CLOEXEC))  # type: ignore[attr-defined,unused-ignore]  # from 3.13


def _set_by_os(fd: int, due_ns: int, interval_ns: int) -> None:
    os.timerfd_settime_ns(fd, flags=_TFD_TIMER_ABSTIME, initial=due_ns, interval=interval_ns)  # type: ignore[attr-defined,unused-ignore]  # from 3.13


_create, _set = (_create_by_os, _set_by_os) if hasattr(os, "timerfd_create") else (_create_by_libc, _set_by_libc)
