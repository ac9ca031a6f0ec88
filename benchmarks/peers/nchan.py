"""nchan, publish and subscribe in nginx: where its binary and module are, and its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.peers.daemons import which

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
  nchan_store_messages off;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
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
"""One process, so that its processor time and memory are those of one pid. No message is stored."""


def find() -> str | None:
    """Return the path of nginx, None unless it and the module are installed."""
    return which("nginx") if _module() else None


def _module() -> Path | None:
    found = (Path(folder) / "ngx_nchan_module.so" for folder in _MODULES)
    return next((module for module in found if module.is_file()), None)


def command(binary: str, directory: Path, port: int) -> list[str]:
    """Return what starts the server on `port` with a configuration file in `directory`."""
    file = directory / "nginx.conf"
    file.write_text(CONFIGURATION.format(module=_module(), directory=directory, port=port))
    return [binary, "-p", str(directory), "-c", str(file), "-e", "stderr"]
