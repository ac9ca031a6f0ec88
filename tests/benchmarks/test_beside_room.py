"""The ratio of latencies beside a room and without it."""

from __future__ import annotations

import pytest

from benchmarks.fast_load.private_chats import Latency
from benchmarks.throughput.beside_room import Beside, RoomLoad, median_ratio


def phase(p99_ns: int) -> Latency:
    return Latency(count=1, p50_ns=1, p99_ns=p99_ns, intended_p99_ns=p99_ns, lag_p50_ns=1, lag_p99_ns=1)


def test_the_ratio_is_over_the_mean_of_both_phases_without_the_room() -> None:
    room = RoomLoad(published=1, acknowledged=1, delivered=20, subscribers=20, per_s=20.0, lag_max_ns=0, delayed_acks=1)
    assert room.late_share == 0.05
    one = Beside(before=phase(100), beside=phase(400), after=phase(300), room=room, others_cpu=0.0)
    other = Beside(before=phase(100), beside=phase(100), after=phase(100), room=room, others_cpu=0.0)
    assert (one.ratio, one.noise) == (2.0, 3.0)
    assert median_ratio([one, other, other]) == pytest.approx(1.0)
