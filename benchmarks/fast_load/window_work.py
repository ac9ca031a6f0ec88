"""The work of the closed window: rooms and private chats, one publisher a stream, drawn from a seed. Pure.

Most publishes are private, most deliveries are in rooms. The mix of streams is part of the work, not of the relay's
answer: the next publish is drawn from one sequence for all streams, so a relay that is quick with rooms cannot make
more of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from loadtests.sealing.envelope import Keyring, Suite
from loadtests.sealing.records import Kind
from loadtests.workload.arrivals import generator

RING: Final = 64
"""Sealed records of a stream in the closed window, used in turn: sealing is not to be what limits it."""


class StreamGroup(Struct, frozen=True, kw_only=True):
    """Streams of one size. `share`: of all publishes."""

    purpose: str
    streams: int
    subscribers: int
    share: float


GROUPS: Final = (
    StreamGroup(purpose="large room", streams=1, subscribers=100, share=0.01),
    StreamGroup(purpose="room", streams=30, subscribers=20, share=0.29),
    StreamGroup(purpose="private chat", streams=150, subscribers=1, share=0.70),
)
SUBSCRIBERS: Final = tuple(group.subscribers for group in GROUPS for _ in range(group.streams))
"""By stream."""
DELIVERIES_PER_PUBLISH: Final = sum(group.subscribers * group.share for group in GROUPS)
CONNECTIONS: Final = sum(SUBSCRIBERS) + len(SUBSCRIBERS)


def describe() -> str:
    """Return the work in one sentence."""
    parts = [f"{g.streams} {g.purpose}{'s' * (g.streams > 1)} of {g.subscribers} ({g.share:.0%})" for g in GROUPS]
    return f"{', '.join(parts)}: {DELIVERIES_PER_PUBLISH:.1f} deliveries a publish over {CONNECTIONS} connections"


def sequence(seed: int, purpose: str) -> Iterator[int]:
    """Yield the stream of each publish, without end; equal for equal arguments."""
    source = generator(seed, "compare", purpose)
    weights = [group.share / group.streams for group in GROUPS for _ in range(group.streams)]
    streams = range(len(weights))
    while True:
        yield from source.choices(streams, weights, k=1024)


def keyring(seed: int, purpose: str) -> Keyring:
    """Return the keys of one part of the measurement, with nonces drawn from the seed: equal work is equal bytes."""
    return Keyring(seed, f"compare {purpose}", random_bytes=random.Random(f"{seed} {purpose}").randbytes)


def rings(keys: Keyring, streams: int = len(SUBSCRIBERS)) -> list[list[bytes]]:
    """Return sealed records by stream, to be used in turn: a message of 100 bytes each, padded to 256."""
    return [
        [
            sealer.seal(Kind.MESSAGE, counter, 0, 0, b"relaymark compares sealed work. " * 3)
            for counter in range(1, RING + 1)
        ]
        for stream in range(streams)
        for sealer in (keys.sealer(Suite.SENDER_KEY, stream, stream),)
    ]
