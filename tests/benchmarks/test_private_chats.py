"""The private chats' schedule, and their latency on a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.fast_load.clients import RelayClient
from benchmarks.fast_load.private_chats import PAIRS, private_chats, schedule
from benchmarks.fast_load.serving import serving
from benchmarks.rig.processes import Cores, choose_cores
from loadtests.target.catalogue import CATALOGUE


def test_the_schedule_is_seeded_ordered_and_near_its_rate() -> None:
    due = schedule(1, 5.0)
    assert due == schedule(1, 5.0) == sorted(due)
    assert due != schedule(2, 5.0)
    assert 4_500 < len(due) < 5_500
    assert {pair for _, pair in due} == set(range(PAIRS))
    assert all(0 <= offset_ns < 5_000_000_000 for offset_ns, _ in due)


@pytest.fixture
def cores() -> Iterator[Cores]:
    """Measuring pins this process: put it back for the tests that follow."""
    before = os.sched_getaffinity(0)
    yield choose_cores()
    os.sched_setaffinity(0, before)


@pytest.mark.process
def test_every_message_arrives_and_is_timed(cores: Cores) -> None:
    due = schedule(1, 0.1)
    with serving(CATALOGUE["reference"], cores) as server, private_chats(RelayClient(), server) as chats:
        latency = chats.run(due)
    assert latency.count == len(due)
    assert 0 < latency.p50_ns <= latency.p99_ns <= latency.intended_p99_ns
