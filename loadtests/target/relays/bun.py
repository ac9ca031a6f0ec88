"""Bun's WebSocket publish (uWebSockets): where its binary is; the relay on it is `bun_server.js`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "make peers (installs the npm package @oven/bun-linux-x64 into .peers)"
VERSION: Final = ("--version",)
_SCRIPT: Final = Path(__file__).with_name("bun_server.js")
_INSTALLED: Final = Path(__file__).parents[3] / ".peers/node_modules/@oven/bun-linux-x64/bin/bun"


def find() -> str | None:
    """Return the path of the binary, None if it is not installed."""
    return str(_INSTALLED) if _INSTALLED.is_file() else shutil.which("bun")


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return the command line; the server has no configuration beside it."""
    encrypted = [str(certificate), str(certificate.with_name("key.pem"))] if certificate else []
    return [binary, "run", str(_SCRIPT), str(port), *encrypted]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what keeps it from writing into the user's home."""
    return {"HOME": str(directory), "BUN_INSTALL_CACHE_DIR": str(directory)}
