"""What a stranger can do to others: latency of honest clients beside each attack, on each transport.

    python -m benchmarks.hostile [--transports pump ...] [--attacks ...] [--connections 1 20 100] [--seconds 3]

Every row is a relay of its own: a quiet phase, then the same schedule beside the attack. The bound: the p99 of a private
chat beside the attack is at most three times the quiet one of the same row, or 20 ms if that is more. Exit code 1: a row
missed it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.fast_load.clients import RelayClient
from benchmarks.fast_load.counting import CountingError
from benchmarks.hostile.attacks import ALONE, ATTACKS, attack
from benchmarks.hostile.honest import Latencies, honest
from benchmarks.rig.priority import preferred
from benchmarks.rig.processes import (
    Cores,
    Server,
    ServerError,
    choose_cores,
    ended_by_signal,
    raise_file_limit,
    running,
)
from loadtests.results.exit_codes import EXIT_INTERRUPTED
from relaymark import child

TRANSPORTS: Final = ("pump", "uvloop", "trio-websocket")
CONNECTIONS: Final = (1, 20, 100)
RATIO_MAX: Final = 3.0
ALLOWED_NS: Final = 20_000_000
SETTLE_S: Final = 0.5
_SET_UP_S_MAX: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRow:
    """One attack on one relay."""

    transport: str
    attack: str
    connections: int
    quiet: Latencies
    beside: Latencies
    sent_bytes: int
    before_bytes: int
    after_bytes: int

    @property
    def held(self) -> bool:
        """Whether the private chats were served as they must be."""
        return self.beside.chat_p99_ns <= max(ALLOWED_NS, RATIO_MAX * self.quiet.chat_p99_ns)


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory. Source: proc_pid_status(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def attackers(name: str, server: Server, number: int) -> Iterator[Connection[object, object]]:
    """Start the attackers' process; it waits for a word to begin, and is gone on the way out."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=attack, args=(theirs, name, server, number), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_SET_UP_S_MAX) or ours.recv() != "ready":
            raise CountingError("the attackers did not get ready")
        yield ours
    except EOFError:
        raise CountingError("the attackers' process ended") from None
    finally:
        ours.close()
        process.terminate()
        process.join(5.0)
        if process.is_alive():
            process.kill()
            process.join()


def measure(transport: str, name: str, number: int, seconds: float, cores: Cores) -> AttackRow:
    """Measure one row. Raises CountingError, ServerError, OSError."""
    with TemporaryDirectory(prefix="relaymark-hostile-") as folder:
        store = f"sqlite:{folder}/store.db" if name.startswith("ERASE") else "memory"
        command = child("serve", "--listen", "127.0.0.1:0", "--store", store, "--transport", transport)
        client = RelayClient()
        with running(command, cores) as server, honest(client, server) as clients:
            clients.run(SETTLE_S)
            with attackers(name, server, number) as words:
                clients.run(SETTLE_S)
                quiet = clients.run(seconds)
                before_bytes = resident_bytes(server.pid)
                words.send("begin")
                clients.run(SETTLE_S)
                beside = clients.run(seconds)
                after_bytes = resident_bytes(server.pid)
                words.send("end")
                sent = words.recv() if words.poll(10.0) else 0
    assert isinstance(sent, int)
    return AttackRow(
        transport=transport,
        attack=name,
        connections=number,
        quiet=quiet,
        beside=beside,
        sent_bytes=sent,
        before_bytes=before_bytes,
        after_bytes=after_bytes,
    )


def line(row: AttackRow) -> str:
    """Return a row of the Markdown table."""
    quiet, beside = row.quiet, row.beside
    cells = [
        row.transport,
        row.attack,
        str(row.connections),
        *(f"{value / 1e6:.1f}" for value in (quiet.chat_p50_ns, quiet.chat_p99_ns)),
        *(f"{value / 1e6:.1f}" for value in (beside.chat_p50_ns, beside.chat_p99_ns)),
        *(f"{value / 1e6:.1f}" for value in (beside.room_p50_ns, beside.room_p99_ns)),
        f"{row.before_bytes / 2**20:.0f} -> {row.after_bytes / 2**20:.0f}",
        "yes" if row.held else "NO",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD: Final = (
    "| transport | attack | connections | quiet chat p50, ms | p99 | beside it p50 | p99 | room p50 | p99 "
    "| relay, MiB | held |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|"
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=TRANSPORTS)
    parser.add_argument("--attacks", nargs="+", choices=tuple(ATTACKS), default=tuple(ATTACKS))
    parser.add_argument("--connections", nargs="+", type=int, default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    cores = choose_cores()
    raise_file_limit(4_000)
    held = True
    print(HEAD, flush=True)
    with ended_by_signal(), preferred():
        for transport in options.transports:
            for name in options.attacks:
                for number in (1,) if name in ALONE else options.connections:
                    try:
                        row = measure(transport, name, number, options.seconds, cores)
                    except (CountingError, ServerError, OSError) as error:
                        print(f"| {transport} | {name} | {number} | {error} |", flush=True)
                        held = False
                        continue
                    print(line(row), flush=True)
                    held &= row.held
    return 0 if held else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
