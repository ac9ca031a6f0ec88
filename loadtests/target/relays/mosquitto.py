"""mosquitto, MQTT over WebSocket: where its binary is, and its configuration."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Final

from loadtests.target.relays.programs import which

HOW_TO_GET: Final = "apt-get install mosquitto"
VERSION: Final = ("-h",)

CONFIGURATION: Final = """\
listener {port} 127.0.0.1
protocol websockets
{security}
listener 0 {directory}/mqtt.socket
user {user}
allow_anonymous true
persistence false
set_tcp_nodelay true
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 0
log_dest stderr
log_type error
log_type warning
"""
"""The second listener is there because mosquitto 2.0 does not start with WebSocket alone.

Nothing bounds what is queued for a slow reader, so nothing is dropped within a measurement.
"""


def find() -> str | None:
    """Return the path of the binary, None if it is not installed."""
    return which("mosquitto")


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return what starts the server on `port` with a configuration file in `directory`."""
    security = ""
    if certificate is not None:
        security = f"certfile {certificate}\nkeyfile {certificate.with_name('key.pem')}"
    file = directory / "mosquitto.conf"
    file.write_text(CONFIGURATION.format(port=port, security=security, directory=directory, user=getpass.getuser()))
    return [binary, "-c", str(file)]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what is added to the server's environment: nothing."""
    return {}
