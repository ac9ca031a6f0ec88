"""Redis over plain TCP: where its binary is, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from loadtests.target.relays.programs import which

HOW_TO_GET: Final = "apt-get install redis-server"
VERSION: Final = ("--version",)


def find() -> str | None:
    """Return the path of redis-server, None if it is not installed."""
    return which("redis-server")


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return what starts the server: nothing is saved, and no subscriber is cut off for being slow."""
    listen = ["--port", str(port)]
    if certificate is not None:
        key = certificate.with_name("key.pem")
        listen = ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"]
        listen += ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    return [
        *(binary, *listen, "--bind", "127.0.0.1", "--dir", str(directory), "--daemonize", "no"),
        *("--save", "", "--appendonly", "no", "--maxclients", "30000", "--tcp-backlog", "511"),
        *("--client-output-buffer-limit", "pubsub 0 0 0"),
    ]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return what is added to the server's environment: nothing."""
    return {}
