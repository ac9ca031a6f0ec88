"""prosody, XMPP over WebSocket: where its program is, and its configuration."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "apt-get install prosody"
VERSION: Final = ("about",)
"""Arguments of prosodyctl: prosody itself has no such argument, and starts whatever it is given."""

CONFIGURATION: Final = """\
run_as_root = {root}
data_path = "{directory}"
log = {{ {{ levels = {{ min = "warn" }}, to = "console" }} }}
modules_enabled = {{ "saslauth", "presence", "message", "iq", "websocket" }}
modules_disabled = {{ "s2s", "offline" }}
storage = "memory"

authentication = "insecure"
insecure_open_authentication = "Yes please, I know what I'm doing!"
allow_unencrypted_plain_auth = true
consider_websocket_secure = true

c2s_ports = {{ }}
{listener}
c2s_stanza_size_limit = 4194304
network_settings = {{ tcp_backlog = 1024 }}

VirtualHost "localhost"
Component "conference.localhost" "muc"
muc_room_locking = false
muc_room_cache_size = 100000
muc_room_default_history_length = 0
muc_room_default_presence_broadcast = {{ visitor = false, participant = false, moderator = false }}
"""
"""Any name and password may log in. Nothing is stored, nothing paced (Debian's `limits` is not loaded), no archive kept.

A room is open as soon as somebody enters it, and does not tell who comes and goes: that alone was four fifths of the
work of filling a room of 1,000. prosody by itself holds 100 rooms in memory, and with more in use reads a room from
storage for each message, at six to fourteen times its cost (findings/prosody-room-cache.sh).
"""
_PLAIN: Final = 'http_ports = {{ {port} }}\nhttp_interfaces = {{ "127.0.0.1" }}\nhttps_ports = {{ }}'
_TLS: Final = """\
https_ports = {{ {port} }}
https_interfaces = {{ "127.0.0.1" }}
https_ssl = {{ certificate = "{certificate}", key = "{key}" }}
http_ports = {{ }}"""


def find() -> str | None:
    """Return the path of prosodyctl, None if it is not installed; the server lies beside it."""
    return shutil.which("prosodyctl")


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return what starts the server on `port` with a configuration file in `directory`."""
    if certificate is None:
        listener = _PLAIN.format(port=port)
    else:
        listener = _TLS.format(port=port, certificate=certificate, key=certificate.with_name("key.pem"))
    (directory / "certs").mkdir()  # looked through at the start, with a complaint where there is none
    file = directory / "prosody.cfg.lua"
    root = "true" if os.getuid() == 0 else "false"
    file.write_text(CONFIGURATION.format(root=root, directory=directory, listener=listener))
    return [str(Path(binary).with_name("prosody")), "--config", str(file), "-F"]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what the process's environment needs besides: nothing."""
    return {}
