"""Resident memory of idle connections: connected, subscribed, silent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from benchmarks.fast_load.clients import ClientSide, Role
from benchmarks.fast_load.connections import connections
from benchmarks.rig.processes import Server
from benchmarks.rig.usage import resident_bytes

CONNECTIONS: Final = 8_000
SETTLE_S: Final = 2.0
"""Until buffers of the handshakes have been given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Growth of the server's resident memory over what it had with one connection, by connection."""

    connections: int
    streams: int
    before_bytes: int
    after_bytes: int

    @property
    def bytes_each(self) -> float:
        return (self.after_bytes - self.before_bytes) / self.connections


def measure_idle(client: ClientSide, server: Server, *, count: int, own_streams: bool) -> Idle:
    """Join `count` connections to one stream or to a stream each. Every one of them has seen that it is subscribed."""
    members = [(stream if own_streams else 0, Role.SUBSCRIBE) for stream in range(count)]
    # What a first connection makes the server load once is not what a connection costs.
    with connections(client, server, [(count, Role.SUBSCRIBE)]):
        time.sleep(SETTLE_S / 4)
        before_bytes = resident_bytes(server.pid)
        with connections(client, server, members):
            time.sleep(SETTLE_S)
            after_bytes = resident_bytes(server.pid)
    return Idle(
        connections=count, streams=count if own_streams else 1, before_bytes=before_bytes, after_bytes=after_bytes
    )
