"""Clock offsets: the truth always lies within the stated error, however unfair the network."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.measuring.clock import (
    DRIFT_PPM,
    EXCHANGES_MIN,
    WINDOW_MAX,
    WINDOW_NS,
    OffsetEstimator,
    clock_id,
    one_way_error_ns,
)

SECOND_NS = 1_000_000_000
START_NS = 50 * SECOND_NS


def exchange(estimator: OffsetEstimator, at_ns: int, offset_ns: int, there_ns: int, held_ns: int, back_ns: int) -> None:
    """One exchange that begins at `at_ns` of the true time, on which our clock runs."""
    received = at_ns + there_ns
    replied = received + held_ns
    estimator.add(at_ns, received + offset_ns, replied + offset_ns, replied + back_ns)


delays = st.integers(0, SECOND_NS)


@settings(max_examples=200)
@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(delays, delays, delays), min_size=1, max_size=30))
def test_the_true_offset_lies_within_the_error(offset_ns: int, exchanges: list[tuple[int, int, int]]) -> None:
    estimator = OffsetEstimator()
    at_ns = START_NS
    for there_ns, held_ns, back_ns in exchanges:
        exchange(estimator, at_ns, offset_ns, there_ns, held_ns, back_ns)
        at_ns += 4 * SECOND_NS
        assert abs(estimator.offset_ns - offset_ns) <= estimator.error_ns
    assert estimator.valid is (len(exchanges) >= EXCHANGES_MIN)


@settings(max_examples=100)
@given(
    st.integers(-DRIFT_PPM, DRIFT_PPM),
    st.lists(st.tuples(delays, delays), min_size=1, max_size=60),
)
def test_it_does_so_while_the_clocks_drift_apart(ppm: int, exchanges: list[tuple[int, int]]) -> None:
    estimator = OffsetEstimator()

    def relay_ns(true_ns: int) -> int:
        return true_ns + 250_000_000 + (true_ns - START_NS) * ppm // 1_000_000

    at_ns = START_NS
    for there_ns, back_ns in exchanges:
        received = at_ns + there_ns
        arrived = received + back_ns
        estimator.add(at_ns, relay_ns(received), relay_ns(received), arrived)
        # The drift within an exchange counts too; it is at most its round trip's.
        slack_ns = 1 + 2 * SECOND_NS * DRIFT_PPM // 1_000_000
        assert abs(estimator.offset_ns - (relay_ns(arrived) - arrived)) <= estimator.error_ns + slack_ns
        at_ns += 5 * SECOND_NS


def test_a_clock_off_by_250_ms_is_found_within_a_small_error() -> None:
    estimator = OffsetEstimator()
    for index in range(20):
        congested_ns = 40_000_000 if index % 4 else 0
        exchange(estimator, START_NS + index * SECOND_NS, 250_000_000, 100_000 + congested_ns, 5_000_000, 100_000)
    assert estimator.valid
    assert abs(estimator.offset_ns - 250_000_000) <= estimator.error_ns
    # One clean exchange in four is enough: half of its 0.2 ms, and drift since then, three seconds and a slow answer.
    assert estimator.error_ns <= 100_000 + (3 * SECOND_NS + 50_000_000) * DRIFT_PPM // 1_000_000


def test_the_time_that_the_relay_holds_a_request_costs_no_accuracy() -> None:
    estimator = OffsetEstimator()
    exchange(estimator, START_NS, 7, there_ns=1_000, held_ns=SECOND_NS, back_ns=1_000)
    assert (estimator.offset_ns, estimator.error_ns) == (7, 1_001)


def test_old_exchanges_are_forgotten() -> None:
    estimator = OffsetEstimator()
    exchange(estimator, START_NS, 0, 10, 0, 10)
    exchange(estimator, START_NS + WINDOW_NS + SECOND_NS, 900, 1_000_000, 0, 1_000_000)
    assert (estimator.offset_ns, estimator.error_ns) == (900, 1_000_001)
    for index in range(2 * WINDOW_MAX):
        exchange(estimator, START_NS + 3 * WINDOW_NS + index, 900, 10, 0, 10)
    assert len(estimator._exchanges) == WINDOW_MAX


@pytest.mark.parametrize("stamps", [(10, 0, 20, 15), (10, 5, 4, 20), (10, 0, 0, 5)])
def test_impossible_stamps_are_refused_and_counted(stamps: tuple[int, int, int, int]) -> None:
    estimator = OffsetEstimator()
    estimator.add(*stamps)
    assert (estimator.count, estimator.rejected, estimator.valid) == (0, 1, False)
    assert (estimator.offset_ns, estimator.error_ns) == (0, 0)


def test_errors_of_one_way_times() -> None:
    assert one_way_error_ns([]) == 0
    assert one_way_error_ns([(1, None), (1, 50)]) == 0, "one clock needs no estimate"
    assert one_way_error_ns([(1, 10), (2, 30), (3, 20)]) == 50
    assert one_way_error_ns([(1, 10), (1, 40), (2, 30)]) == 70, "a clock counts with its worst estimate, once"
    assert one_way_error_ns([(1, 10), (2, None)]) is None
    assert one_way_error_ns([(1, 10), (2, 20), (2, None)]) is None


def test_the_clock_of_this_boot_is_the_same_in_every_process() -> None:
    program = "from loadtests.measuring.clock import clock_id; print(clock_id())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) == clock_id() < 2**63
    assert clock_id(250_000_000) != clock_id()
