"""RabbitMQ with its web-stomp plug-in, as a plain process: where it is, its configuration and its surroundings.

All that it writes is in its folder, and nothing of /etc/rabbitmq is read. An Erlang node wants a port mapper, epmd: it
gets one of its own, which belongs to its process group and ends with it.
"""

from __future__ import annotations

import shlex
import shutil
import socket
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = "apt-get install rabbitmq-server"

_LIBRARIES: Final = Path("/usr/lib/rabbitmq/lib")
_PLUGIN: Final = "rabbitmq_web_stomp"
_ABOUT: Final = f"{_LIBRARIES}/rabbitmq_server-*/plugins/rabbit-*/ebin/rabbit.app"
VERSION: Final = (
    "-noshell",
    "-eval",
    (
        f'{{ok, [{{_, _, About}}]}} = file:consult(lists:last(filelib:wildcard("{_ABOUT}"))), '
        'io:put_chars(["RabbitMQ ", proplists:get_value(vsn, About), "\\n"]), halt().'
    ),
)
"""The server's own script starts a server whatever it is asked, and its tools leave a port mapper behind."""
_CONFIGURATION: Final = """\
listeners.tcp = none
stomp.listeners.tcp = none
web_stomp.ws_frame = binary
web_stomp.cowboy_opts.idle_timeout = 3600000
log.console = true
log.console.level = warning
log.file = false
{listener}
"""
"""As it comes, it ends a connection that sends nothing for a minute, though it reads."""
_PLAIN: Final = "web_stomp.tcp.listener = 127.0.0.1:{port}"
_TLS: Final = """\
web_stomp.tcp.listener = none
web_stomp.ssl.listener = 127.0.0.1:{port}
web_stomp.ssl.certfile = {certificate}
web_stomp.ssl.keyfile = {key}"""

_START: Final = """\
export HOME={directory} RABBITMQ_NODENAME=relaymark@localhost RABBITMQ_DIST_PORT={node_port}
export RABBITMQ_MNESIA_BASE={directory}/mnesia RABBITMQ_LOG_BASE={directory}/logs RABBITMQ_LOGS=-
export RABBITMQ_CONF_ENV_FILE={directory}/none RABBITMQ_ADVANCED_CONFIG_FILE={directory}/none
export RABBITMQ_CONFIG_FILE={directory}/rabbitmq RABBITMQ_ENABLED_PLUGINS_FILE={directory}/plugins
export RABBITMQ_ALLOW_INPUT=1 RABBITMQ_PID_FILE={directory}/pid
export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput +S 1:1 -kernel inet_dist_use_interface {{127,0,0,1}}"
export ERL_EPMD_PORT={mapper_port} ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP_SECONDS=0
epmd &
exec {script} < /dev/null
"""
"""ALLOW_INPUT: the script becomes the server instead of starting it and waiting. One scheduler: one core, as every target."""


def find() -> str | None:
    """Return the path of Erlang, None unless the server with its plug-in is there too."""
    return shutil.which("erl") if _script() is not None else None


def _script() -> Path | None:
    """Return the newest server's own start script: that of its name on the PATH insists on a user of its own."""
    scripts = sorted(_LIBRARIES.glob("rabbitmq_server-*/sbin/rabbitmq-server"), reverse=True)
    return next((one for one in scripts if any(one.parents[1].glob(f"plugins/{_PLUGIN}-*"))), None)


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Write the server's configuration and start script into `directory`, and return what runs that."""
    script = _script()
    assert script is not None, "find() says whether it is installed"
    listener = _PLAIN.format(port=port)
    if certificate is not None:
        listener = _TLS.format(port=port, certificate=certificate, key=certificate.with_name("key.pem"))
    (directory / "rabbitmq.conf").write_text(_CONFIGURATION.format(listener=listener))
    (directory / "plugins").write_text(f"[{_PLUGIN}].\n")
    start = directory / "start.sh"
    node_port, mapper_port = _free_ports()
    where = {"directory": shlex.quote(str(directory)), "script": shlex.quote(str(script))}
    start.write_text(_START.format(node_port=node_port, mapper_port=mapper_port, **where))
    return ["sh", str(start)]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what is added to the server's environment: nothing, its start script says it."""
    return {}


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
