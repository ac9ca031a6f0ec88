"""Runs a fresh server of a peer for one measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.catalogue import Peer
from benchmarks.rig.processes import Cores, Server, free_port, running


@contextmanager
def serving(peer: Peer, cores: Cores, *arguments: str, log: Path | None = None) -> Iterator[Server]:
    """Run a fresh server, with files that are gone afterwards; `arguments` go to its command, its output to `log`.

    Raises ServerError.
    """
    assert peer.binary is not None, "only installed peers are started"
    port = free_port()
    with TemporaryDirectory(prefix="relaymark-") as directory:
        # mosquitto and nginx give up root for a user who must still be able to read this.
        Path(directory).chmod(0o755)
        command = [*peer.command(peer.binary, Path(directory), port), *arguments]
        with running(command, cores, peer.environment(port), port=None if peer.tells else port, log=log) as server:
            yield server
