"""Fixed work for one relay: a batch of publishes in one send, and the next when everything has come back.

Under a full window a relay's cost a delivery hangs on how many records a read happens to bring, and so on how fast the
load and its neighbours are. Here every batch is the same work, so a cost a delivery compares between runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.fast_load.clients import RelayClient, Role
from benchmarks.fast_load.closed_loop import Opened, connections
from benchmarks.fast_load.counting import CYCLE, READ_BYTES_MAX, Counter
from benchmarks.rig.processes import Server, ServerError, cpu_ns

SUBSCRIBERS: Final = 8
BATCH: Final = 16
DELIVERIES: Final = CYCLE * SUBSCRIBERS
"""Of one block."""
_STEP_S_MAX: Final = 20.0


class LockStep:
    """One publisher and the subscribers of one room."""

    def __init__(self, client: RelayClient, opened: list[Opened]) -> None:
        *subscribers, publisher = opened
        frames = client.frames(0, publisher.ready)
        self._frames = bytearray(b"".join(frames))
        self._batch_bytes = BATCH * len(frames[0])
        self._client, self._ready, self._cycle = client, publisher.ready, 0
        self._publisher = publisher.socket
        self._buffer = bytearray(READ_BYTES_MAX)
        acks: Counter = client.acknowledgements(0, publisher.ready, publisher.socket.send)
        self._readers = [(publisher.socket, acks)]
        for one in subscribers:
            self._readers.append((one.socket, client.deliveries(0, one.ready, one.socket.send)))
        for connected in opened:
            connected.socket.settimeout(_STEP_S_MAX)

    def block(self) -> None:
        """Publish a cycle, batch by batch. Raises CountingError, ServerError, OSError."""
        self._client.renew(self._ready, self._frames, self._cycle)
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


def run_time_ns(pid: int) -> int:
    """Return the processor time of a process's threads so far, to the ns where the kernel tells it.

    Source: proc_pid_schedstat(5); without it, in steps of a clock tick.
    """
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    try:
        return sum(int(thread.read_text().split()[0]) for thread in threads) or cpu_ns(pid)
    except (OSError, IndexError, ValueError):
        return cpu_ns(pid)
