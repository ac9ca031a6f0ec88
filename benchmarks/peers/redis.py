"""Redis and Valkey Pub/Sub over plain TCP, as the load starts them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtests.target.relays import redis, valkey

HOW_TO_GET: Final = {"redis": redis.HOW_TO_GET, "valkey": valkey.HOW_TO_GET}


def find(name: str) -> str | None:
    """Return the path of redis-server or valkey-server, None if it is not installed."""
    return valkey.find() if name == "valkey" else redis.find()


def command(binary: str, directory: Path, port: int) -> list[str]:
    """Return what starts the server on `port`."""
    return redis.command(binary, directory, port, None)
