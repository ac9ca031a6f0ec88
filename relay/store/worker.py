"""One thread for a store's blocking calls, and the way back of their results to the event loop.

    worker.submit(lambda: store.commit(batch), committed)
    ...                 the loop waits until worker.fileno() is readable
    worker.drain()      runs committed(result, error) on the loop's thread

Calls run in the order of `submit`. However many results wait, one byte in the pipe says so.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
_Done: TypeAlias = Callable[[Any, Exception | None], None]


class Worker:
    """Runs blocking calls one after the other in a daemon thread."""

    __slots__ = ("_calls", "_closed", "_read_fd", "_results", "_thread", "_woken", "_write_fd")

    def __init__(self, name: str) -> None:
        """Start the thread; `name` is what a thread dump shows."""
        self._calls: SimpleQueue[tuple[Callable[[], Any], _Done] | None] = SimpleQueue()
        self._results: deque[tuple[_Done, Any, Exception | None]] = deque()
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._woken = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Run `call` in the thread, and `done(result, None)` or `done(None, exception)` in a later `drain`."""
        assert not self._closed, "submit after close"
        self._calls.put((call, done))

    def fileno(self) -> int:
        """Return a descriptor that is readable when results wait."""
        return self._read_fd

    def drain(self) -> None:
        """Run the `done` of every finished call. What one raises comes out here; the next drain goes on."""
        with suppress(BlockingIOError):
            os.read(self._read_fd, 64)
        # First lower the flag, then take results: a result that comes after the last look writes a byte again.
        self._woken = False
        results = self._results
        try:
            while results:
                done, result, error = results.popleft()
                done(result, error)
        finally:
            if results:
                self._wake()

    def close(self, timeout_s: float) -> bool:
        """Finish the submitted calls, end the thread and drain. Returns False if it is not done in time.

        No `done` may submit by now.
        """
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            # The thread may still write to the pipe, so its descriptors stay open.
            return False
        if self._read_fd >= 0:
            try:
                self.drain()
            finally:
                os.close(self._read_fd)
                os.close(self._write_fd)
                self._read_fd = self._write_fd = -1
        return True

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, done = item
            result = error = None
            try:
                result = call()
            except Exception as raised:  # it is `done`'s to judge, on the loop's thread
                error = raised
            self._results.append((done, result, error))
            if not self._woken:
                self._wake()
            # While the thread waits for the next call it must not keep the last one's data alive.
            del item, call, done, result, error

    def _wake(self) -> None:
        self._woken = True
        with suppress(BlockingIOError):  # a full pipe is readable
            os.write(self._write_fd, b"\0")
