"""Socket.IO by Node: the package that npm brings, and the small relay in `socketio_server.js` on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "apt-get install nodejs npm, then make peers (installs the npm package socket.io into .peers)"
_SCRIPT: Final = Path(__file__).with_name("socketio_server.js")
_PACKAGES: Final = Path(__file__).parents[3] / ".peers/node_modules"
VERSION: Final = ("-p", f"require({str(_PACKAGES / 'socket.io/package.json')!r}).version")
"""Tells the version of Socket.IO, not of Node."""


def find() -> str | None:
    """Return the path of Node, None if it or the package is not installed."""
    return shutil.which("node") if (_PACKAGES / "socket.io/package.json").is_file() else None


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return the command line; the server has no configuration beside it."""
    encrypted = [str(certificate), str(certificate.with_name("key.pem"))] if certificate else []
    return [binary, str(_SCRIPT), str(port), *encrypted]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return where Node finds the package; in production mode, as it is run."""
    return {"NODE_PATH": str(_PACKAGES), "NODE_ENV": "production"}
