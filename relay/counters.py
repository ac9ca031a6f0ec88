"""What the relay counts: plain integers on the hot path, turned into Prometheus samples when somebody asks."""

from __future__ import annotations


class Counters:
    """Counts since start; `refused` by the name of its code."""

    __slots__ = (
        "commit_failures",
        "deliveries",
        "ephemeral_dropped",
        "ephemeral_superseded",
        "erased",
        "gaps",
        "lagging",
        "published_durable",
        "published_ephemeral",
        "read_failures",
        "received_bytes",
        "refused",
        "replayed",
        "sent_bytes",
        "slow_closed",
    )

    def __init__(self) -> None:
        self.published_durable = self.published_ephemeral = 0
        self.deliveries = self.replayed = self.gaps = 0
        self.ephemeral_superseded = self.ephemeral_dropped = 0
        self.received_bytes = self.sent_bytes = 0
        self.lagging = self.slow_closed = self.erased = 0
        self.commit_failures = self.read_failures = 0
        self.refused: dict[str, int] = {}
