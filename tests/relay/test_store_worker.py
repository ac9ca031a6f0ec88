"""The worker thread: order, wake-ups, errors, and its end."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from relay.errors import StoreUnavailable
from relay.store import Worker

WAIT_S = 10.0


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test")
    yield made
    assert made.close(WAIT_S)


def readable(worker: Worker, timeout_s: float = WAIT_S) -> bool:
    return bool(select.select([worker.fileno()], [], [], timeout_s)[0])


def drain_until(worker: Worker, seen: list[object], count: int) -> None:
    while len(seen) < count:
        assert readable(worker)
        worker.drain()


def test_calls_run_in_order_in_the_thread_and_done_here(worker: Worker) -> None:
    threads = []
    seen: list[object] = []

    def call(index: int) -> int:
        threads.append(threading.current_thread())
        return index

    for index in range(100):
        worker.submit(lambda index=index: call(index), lambda result, error: seen.append((result, error)))
    drain_until(worker, seen, 100)
    assert seen == [(index, None) for index in range(100)]
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_an_exception_goes_to_done_and_the_next_call_runs(worker: Worker) -> None:
    seen: list[object] = []
    error = StoreUnavailable("full")

    def fail() -> None:
        raise error

    worker.submit(fail, lambda result, raised: seen.append((result, raised)))
    worker.submit(lambda: 1, lambda result, raised: seen.append((result, raised)))
    drain_until(worker, seen, 2)
    assert seen == [(None, error), (1, None)]


def test_one_drain_takes_all_results_and_leaves_the_descriptor_unreadable(worker: Worker) -> None:
    seen: list[object] = []
    finished = threading.Event()
    for index in range(50):
        worker.submit(lambda index=index: index, lambda result, _: seen.append(result))
    worker.submit(finished.set, lambda *_: None)
    assert finished.wait(WAIT_S)
    # The thread takes this call only after it has left the result of the one before.
    later = threading.Event()
    worker.submit(later.set, lambda *_: None)
    assert later.wait(WAIT_S)
    worker.drain()
    assert seen == list(range(50))


def test_a_byte_wakes_once_and_again_after_a_drain(worker: Worker) -> None:
    seen: list[object] = []
    for round_ in range(1, 4):
        worker.submit(lambda: None, lambda *_: seen.append(0))
        drain_until(worker, seen, round_)
    worker.drain()  # nothing waits: no error
    assert not readable(worker, 0)


def test_a_done_that_raises_leaves_the_others_for_the_next_drain(worker: Worker) -> None:
    seen: list[object] = []
    entered = threading.Event()
    release = threading.Event()

    def bad(result: object, error: Exception | None) -> None:
        raise LookupError

    def wait() -> None:
        entered.set()
        assert release.wait(WAIT_S)

    worker.submit(lambda: 1, bad)
    worker.submit(lambda: 2, lambda result, _: seen.append(result))
    worker.submit(wait, lambda *_: seen.append(3))
    assert entered.wait(WAIT_S)
    with pytest.raises(LookupError):
        worker.drain()
    assert readable(worker, 0)
    worker.drain()
    assert seen == [2]
    release.set()
    drain_until(worker, seen, 2)


def test_close_finishes_what_was_submitted() -> None:
    worker = Worker("test")
    seen: list[object] = []
    for index in range(10):
        worker.submit(lambda index=index: index, lambda result, _: seen.append(result))
    assert worker.close(WAIT_S)
    assert seen == list(range(10))
    assert worker.close(WAIT_S), "closing twice is harmless"


def test_close_tells_when_a_call_hangs() -> None:
    worker = Worker("test")
    release = threading.Event()
    seen: list[object] = []
    worker.submit(lambda: release.wait(WAIT_S), lambda result, _: seen.append(result))
    assert not worker.close(0)
    release.set()
    assert worker.close(WAIT_S)
    assert seen == [True]
