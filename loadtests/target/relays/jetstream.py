"""nats-server with JetStream over WebSocket: its configuration; the rest is as without."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtests.target.relays import nats

HOW_TO_GET: Final = nats.HOW_TO_GET
VERSION: Final = nats.VERSION

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


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Write the server's configuration into `directory`, and return what starts it."""
    file = directory / "nats.conf"
    file.write_text(_CONFIGURATION.format(port=port, security=nats.security(certificate), directory=directory))
    return [binary, "-c", str(file)]


find = nats.find
environment = nats.environment
