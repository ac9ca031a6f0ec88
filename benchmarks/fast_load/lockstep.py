"""Fixed work for one relay: a batch of publishes in one send, and the next when everything has come back.

Under a full window a relay's cost a delivery hangs on how many records a read happens to bring, and so on how fast the
load and its neighbours are. Here every batch is the same work, so a cost a delivery compares between runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.fast_load.clients import RelayClient, Role
from benchmarks.fast_load.connections import Opened, connections
from benchmarks.fast_load.counting import CYCLE, READ_BYTES_MAX, Counter
from benchmarks.rig.instructions import Tool
from benchmarks.rig.processes import Cores, Server, ServerError, running

SUBSCRIBERS: Final = 8
BATCH: Final = 16
DELIVERIES: Final = CYCLE * SUBSCRIBERS
"""What one block delivers."""
COUNTED_BLOCKS: Final = 4
_STEP_S_MAX: Final = 20.0


class LockStep:
    """One publisher and the subscribers of one room."""

    def __init__(self, client: RelayClient, opened: list[Opened]) -> None:
        *subscribers, publisher = opened
        frames = client.frames(0, publisher.joined)
        self._frames = bytearray(b"".join(frames))
        self._batch_bytes = BATCH * len(frames[0])
        self._client, self._joined, self._cycle = client, publisher.joined, 0
        self._publisher = publisher.socket
        self._buffer = bytearray(READ_BYTES_MAX)
        acks: Counter = client.acknowledgements(0, publisher.joined, publisher.socket.send)
        self._readers = [(publisher.socket, acks)]
        for one in subscribers:
            self._readers.append((one.socket, client.deliveries(0, one.joined, one.socket.send)))
        for connected in opened:
            connected.socket.settimeout(_STEP_S_MAX)

    def block(self) -> None:
        """Publish a cycle, batch by batch. Raises CountingError, ServerError, OSError."""
        self._client.renew(self._joined, self._frames, self._cycle)
        self._cycle += 1
        for start in range(0, len(self._frames), self._batch_bytes):
            self._publisher.sendall(memoryview(self._frames)[start : start + self._batch_bytes])
            for one, counter in self._readers:
                due = counter.total + BATCH
                while counter.total < due:
                    length = one.recv_into(self._buffer)
                    if not length:
                        raise ServerError("it closed a connection")
                    counter.feed(self._buffer, length)


@contextmanager
def lock_step(server: Server) -> Iterator[LockStep]:
    """Connect; close on the way out."""
    client = RelayClient()
    members = [(0, Role.SUBSCRIBE)] * SUBSCRIBERS + [(0, Role.PUBLISH)]
    with connections(client, server, members) as opened:
        yield LockStep(client, opened)


def instructions_per_delivery(arguments: list[str], environment: Mapping[str, str], tool: Tool, cores: Cores) -> float:
    """Count the instructions of user space that the relay which `arguments` start spends on a delivery.

    It starts and warms up uncounted; then blocks are counted, and the middle one stands for the process.
    Raises ServerError, CountingError, OSError, ToolError.
    """
    # One order of every set and dictionary of strings, in every process.
    environment = {**environment, "PYTHONHASHSEED": "0"}
    with (
        tempfile.TemporaryDirectory(prefix="relaymark-count-") as name,
        running(tool.wrap(arguments, Path(name)), cores, environment) as server,
        lock_step(server) as step,
    ):
        step.block()
        tool.start(server.pid, Path(name))
        step.block()  # the first one under emulation translates the code
        tool.read(server.pid, Path(name))
        counts = []
        for _ in range(COUNTED_BLOCKS):
            step.block()
            counts.append(tool.read(server.pid, Path(name)))
    return median(counts) / DELIVERIES
