"""nchan, publish and subscribe in nginx: where its binary and module are, and its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtests.target.relays.programs import which

HOW_TO_GET: Final = "apt-get install nginx-light libnginx-mod-nchan"
_MODULES: Final = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")

CONFIGURATION: Final = """\
load_module {module};
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  nchan_shared_memory_size 256M;
  nchan_message_buffer_length 10;
  nchan_message_timeout 10s;
  server {{
    listen 127.0.0.1:{port} backlog=1024{ssl};
    {security}
    location ~ ^/publish/(\\w+)$ {{ nchan_publisher websocket; nchan_channel_id $1; }}
    location ~ ^/subscribe/(\\w+)$ {{
      nchan_subscriber websocket;
      nchan_channel_id $1;
      nchan_subscriber_first_message newest;
      nchan_websocket_ping_interval 0;
    }}
  }}
}}
"""
"""One process, so that its processor time and memory are those of one pid.

It keeps the last ten messages of a channel: with none kept, each message holds a block of the shared memory for 8 to 10 s
all the same, and when that is full publishers of every channel are refused; with a buffer, blocks come back at once.
"""


def find() -> str | None:
    """Return the path of nginx, None unless it and the module are installed."""
    return which("nginx") if _module() else None


def _module() -> Path | None:
    found = (Path(folder) / "ngx_nchan_module.so" for folder in _MODULES)
    return next((module for module in found if module.is_file()), None)


VERSION: Final = ("-v",)
"""Tells nginx's: the module does not tell its own."""


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return what starts the server on `port` with a configuration file in `directory`."""
    ssl, security = "", ""
    if certificate is not None:
        ssl = " ssl"
        security = f"ssl_certificate {certificate}; ssl_certificate_key {certificate.with_name('key.pem')};"
    file = directory / "nginx.conf"
    file.write_text(CONFIGURATION.format(module=_module(), directory=directory, port=port, ssl=ssl, security=security))
    return [binary, "-p", str(directory), "-c", str(file), "-e", "stderr"]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what is added to the server's environment: nothing."""
    return {}
