"""nostr-relay from PyPI: an environment of its own, its SQLite file in the run's folder, its standard server (gunicorn).

What is not as it comes, and why: contents up to 1 MB instead of 4 KB and 100,000 subscriptions a connection instead of
32 (the scenarios need both); a client that only reads is kept for a day instead of half an hour; no log line an event.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Final

HOW_TO_GET: Final = (
    "make peers (installs the Python package nostr-relay into .peers/nostr); from a wheel also relaymark[nostr]"
)
VERSION: Final = ("-c", "import importlib.metadata as m; print(m.version('nostr-relay'))")
_PYTHON: Final = Path(__file__).parents[3] / ".peers/nostr/bin/python"
_VALIDATORS: Final = ("is_not_too_large", "is_signed", "is_recent")
_CONTENT_BYTES_MAX: Final = 1_000_000
_SUBSCRIPTIONS_MAX: Final = 100_000
_SILENCE_S_MAX: Final = 86_400


def find() -> str | None:
    """Return the interpreter that has the relay; None without it, or without the library that signs for the dialect."""
    found = _PYTHON.with_name("nostr-relay").is_file() and find_spec("coincurve") is not None
    return str(_PYTHON) if found else None


def command(binary: str, directory: Path, port: int, certificate: Path | None) -> list[str]:
    """Return the command line; the configuration, which is JSON and therefore YAML, goes into `directory`."""
    gunicorn: dict[str, object] = {
        "bind": f"127.0.0.1:{port}",
        "workers": 1,
        "loglevel": "warning",
        "control_socket_disable": True,  # it would be a file in the user's home
    }
    if certificate is not None:
        gunicorn |= {"certfile": str(certificate), "keyfile": str(certificate.with_name("key.pem"))}
    configuration = {
        "storage": {
            "sqlalchemy.url": f"sqlite+aiosqlite:///{directory / 'nostr.sqlite3'}",
            "num_concurrent_reqs": 10,
            "num_concurrent_adds": 2,
            "validators": [f"nostr_relay.validators.{name}" for name in _VALIDATORS],
        },
        "gunicorn": gunicorn,
        "logging": {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}},
        "authentication": {"enabled": False},
        "max_event_size": _CONTENT_BYTES_MAX,
        "subscription_limit": _SUBSCRIPTIONS_MAX,
        "message_timeout": _SILENCE_S_MAX,
    }
    file = directory / "nostr.yaml"
    file.write_text(json.dumps(configuration))
    return [binary, str(Path(binary).with_name("nostr-relay")), "-c", str(file), "serve"]


def environment(directory: Path, port: int) -> dict[str, str]:
    """Return nothing: the configuration says all."""
    return {}
