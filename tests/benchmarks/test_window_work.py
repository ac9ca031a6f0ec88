"""The work is a function of the seed, and is sealed."""

from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.fast_load.window_work import (
    DELIVERIES_PER_PUBLISH,
    GROUPS,
    RING,
    SUBSCRIBERS,
    keyring,
    rings,
    sequence,
)
from loadtests.sealing.envelope import Suite


def test_the_shares_are_whole_and_kept() -> None:
    assert sum(group.share for group in GROUPS) == pytest.approx(1)
    count = 200_000
    deliveries = sum(SUBSCRIBERS[stream] for stream in islice(sequence(1, "test"), count))
    assert deliveries / count == pytest.approx(DELIVERIES_PER_PUBLISH, rel=0.05)


def test_equal_seeds_give_equal_work() -> None:
    assert (
        list(islice(sequence(3, "x"), 50)) == list(islice(sequence(3, "x"), 50)) != list(islice(sequence(4, "x"), 50))
    )
    assert rings(keyring(3, "x"))[7] == rings(keyring(3, "x"))[7]
    assert rings(keyring(3, "x"))[7] != rings(keyring(4, "x"))[7]


def test_records_are_sealed_and_differ() -> None:
    keys = keyring(1, "x")
    ring = rings(keys)[2]
    assert len({bytes(sealed) for sealed in ring}) == RING
    assert {len(sealed) for sealed in ring} == {256}
    assert all(b"relaymark" not in sealed for sealed in ring)
    stamp, body = keys.opener(Suite.SENDER_KEY, 2, 0).open(ring[5])
    assert (stamp.counter, stamp.sender) == (6, 2)
    assert body.startswith(b"relaymark compares")
