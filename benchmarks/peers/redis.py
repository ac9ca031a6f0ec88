"""Redis and Valkey Pub/Sub over plain TCP: where their binaries are, and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.peers.daemons import which

HOW_TO_GET: Final = {"redis": "apt-get install redis-server", "valkey": "apt-get install valkey-server"}


def find(name: str) -> str | None:
    """Return the path of redis-server or valkey-server, None if it is not installed."""
    return which(f"{name}-server")


def command(binary: str, directory: Path, port: int) -> list[str]:
    """Return what starts the server on `port`: nothing is saved, and no subscriber is cut off for being slow."""
    return [
        *(binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--daemonize", "no"),
        *("--save", "", "--appendonly", "no", "--maxclients", "30000", "--tcp-backlog", "511"),
        *("--client-output-buffer-limit", "pubsub 0 0 0"),
    ]
