"""Bun's WebSocket publish (uWebSockets): where its binary is, and how a client talks to `bun_server.js`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "make peers (installs the npm package @oven/bun-linux-x64 into .peers)"
_SCRIPT: Final = Path(__file__).with_name("bun_server.js")
_INSTALLED: Final = Path(__file__).parents[2] / ".peers/node_modules/@oven/bun-linux-x64/bin/bun"


def find() -> str | None:
    """Return the path of the binary, None if it is not installed."""
    return str(_INSTALLED) if _INSTALLED.is_file() else shutil.which("bun")


def command(binary: str, _directory: Path) -> list[str]:
    """Return what starts the server; it prints its address."""
    return [binary, "run", str(_SCRIPT)]
