"""ejabberd, XMPP over WebSocket: where its program is, and its configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "apt-get install ejabberd"
_LIBRARIES: Final = Path("/usr/lib")
_PATTERN: Final = "*-linux-gnu*/ejabberd-*/ebin/ejabberd.app"
VERSION: Final = (
    "-noshell",
    "-eval",
    (
        f'{{ok, [{{_, _, About}}]}} = file:consult(hd(filelib:wildcard("{_LIBRARIES}/{_PATTERN}"))), '
        'io:put_chars(["ejabberd ", proplists:get_value(vsn, About), "\\n"]), halt().'
    ),
)

CONFIGURATION: Final = """\
loglevel: warning
hosts: [localhost]
auth_method: anonymous
anonymous_protocol: both
{certificate}
listen:
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_http
    backlog: 1024
    tls: {tls}
    request_handlers:
      /xmpp-websocket: ejabberd_http_ws
modules:
  mod_muc:
    max_users: 100000
    max_user_conferences: 100000
    history_size: 0
    default_room_options:
      max_users: 100000
      presence_broadcast: []
"""
"""Any name and password may log in. Nothing is stored, no archive is kept, a room does not tell who comes and goes.

By itself a room takes 200 people and a user enters 100 rooms; `max_users` stands twice, because a room takes the default
of its options before the module's bound. Of connections that wait to be accepted it holds 5.
"""


def find() -> str | None:
    """Return the path of Erlang's runtime, None unless it and ejabberd are installed."""
    return shutil.which("erl") if _library() else None


def _library() -> str | None:
    return next((str(found.parents[2]) for found in _LIBRARIES.glob(_PATTERN)), None)


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return what starts the server on `port` with its files in `directory`.

    The runtime gets no name, so that it starts no epmd, which would outlive it.
    """
    lines = ""
    if certificate is not None:
        both = directory / "certificate.pem"
        both.write_text(certificate.read_text() + certificate.with_name("key.pem").read_text())
        both.chmod(0o600)
        lines = f'certfiles: ["{both}"]'
    file = directory / "ejabberd.yml"
    file.write_text(CONFIGURATION.format(port=port, tls=str(certificate is not None).lower(), certificate=lines))
    return [binary, "-noinput", "+P", "1000000", "-mnesia", "dir", f'"{directory}/mnesia"', "-s", "ejabberd"]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return where Erlang finds ejabberd, and ejabberd its files."""
    return {
        "ERL_LIBS": _library() or "",
        "EJABBERD_CONFIG_PATH": str(directory / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(directory / "ejabberd.log"),
        "ERL_CRASH_DUMP": str(directory / "crash.dump"),
        "ERL_MAX_PORTS": "65536",
        "HOME": str(directory),
    }
