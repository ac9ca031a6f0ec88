"""Centrifugo: where its binary is, and its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from loadtests.target.relays.programs import which

HOW_TO_GET: Final = "put the binary `centrifugo` of a release (github.com/centrifugal/centrifugo) on the PATH"
VERSION: Final = ("version",)


def find() -> str | None:
    """Return the path of the binary, None if it is not on the PATH."""
    return which("centrifugo")


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return what starts the server with its files in `directory`; TLS in the names of versions 3 to 5 and of 6."""
    options: dict[str, object] = {}
    if certificate is not None:
        files = {"cert": str(certificate), "key": str(certificate.with_name("key.pem"))}
        options = {
            "tls": True,
            "tls_cert": files["cert"],
            "tls_key": files["key"],
            "http_server": {"tls": {"enabled": True, "cert_pem_file": files["cert"], "key_pem_file": files["key"]}},
        }
    file = directory / "centrifugo.json"
    file.write_text(json.dumps(options))
    return [binary, "--config", str(file)]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return the options, in the names of versions 3 to 5 and of 6: everybody may publish and subscribe anywhere."""
    queue_bytes = str(1 << 30)
    return {
        "GOMAXPROCS": "1",
        "CENTRIFUGO_ADDRESS": "127.0.0.1",
        "CENTRIFUGO_PORT": str(port),
        "CENTRIFUGO_HTTP_SERVER_ADDRESS": "127.0.0.1",
        "CENTRIFUGO_HTTP_SERVER_PORT": str(port),
        "CENTRIFUGO_CLIENT_INSECURE": "true",
        "CENTRIFUGO_CLIENT_QUEUE_MAX_SIZE": queue_bytes,
        "CENTRIFUGO_ALLOWED_ORIGINS": "*",
        "CENTRIFUGO_CLIENT_ALLOWED_ORIGINS": "*",
    }
