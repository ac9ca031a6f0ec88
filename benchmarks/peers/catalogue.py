"""The relays that can be compared: how each is started and spoken to, and what it promises for its speed.

Everything is in memory: no target writes a record to disk, but for `reference@sqlite`, which is there to show what
durability costs. Every publish is acknowledged by every peer. A target runs on one core.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers import bun, centrifugo, mosquitto, nats, nchan, redis
from loadtests.dialects.base import Attach, Dialect, Place
from loadtests.dialects.centrifugo import Centrifugo
from loadtests.dialects.mqtt import Mqtt
from loadtests.dialects.nats import Nats
from loadtests.dialects.nchan import Nchan
from loadtests.dialects.raw import Raw
from loadtests.dialects.redis import Redis
from loadtests.dialects.reference import Reference
from relaymark import child

VERSION_S_MAX: Final = 10.0
_MEMORY: Final = "none: memory"
_AT_MOST_ONCE: Final = "none: what passes while away is missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A relay. `binary` None: it is not installed, see `how_to_get`.

    `command(binary, directory, port)` and `environment(port)` start it; `tells`: it chooses a port of its own and prints
    it. `promises`: durability, order, resume and transport, as they hold in this comparison.
    """

    name: str
    binary: str | None
    command: Callable[[str, Path, int], list[str]]
    dialect: Callable[[str, Attach], Dialect]
    promises: Mapping[str, str]
    how_to_get: str = ""
    environment: Callable[[int], Mapping[str, str]] = field(default=lambda port: {})
    tells: bool = False
    version: tuple[str, ...] = ("--version",)
    """Arguments that make the binary tell its version."""


def _promises(
    durability: str, order: str, resume: str, acknowledged: str, transport: str = "WebSocket"
) -> dict[str, str]:
    return {
        "durability": durability,
        "order": order,
        "resume": resume,
        "acknowledged means": acknowledged,
        "transport": transport,
    }


def _reference_command(store: str, transport: str, directory: Path) -> list[str]:
    place = f"sqlite:{directory / 'relay.db'}" if store == "sqlite" else "memory"
    return child("serve", "--listen", "127.0.0.1:0", "--store", place, "--transport", transport)


def _reference(transport: str | None, store: str) -> Peer:
    variant = transport or ("sqlite" if store == "sqlite" else "")
    durable = store == "sqlite"
    return Peer(
        name=f"reference@{variant}" if variant else "reference",
        binary=sys.executable,
        command=lambda _binary, directory, _port: _reference_command(store, transport or "pump", directory),
        dialect=lambda host, _attach: Reference(Place(host=host)),
        promises=_promises(
            "on disk before it is acknowledged" if durable else _MEMORY,
            "numbered without gaps, per stream",
            "from the last number; gaps are told" + ("" if durable else "; until the relay ends"),
            "committed and numbered",
        ),
        tells=True,
        version=("-c", "import importlib.metadata as m; print(m.version('relaymark'))"),
    )


def _redis(name: str) -> Peer:
    return Peer(
        name=name,
        binary=redis.find(name),
        command=redis.command,
        dialect=lambda host, _attach: Redis(Place(host=host)),
        promises=_promises(_MEMORY, "per connection", _AT_MOST_ONCE, "queued for every subscriber", "plain TCP"),
        how_to_get=redis.HOW_TO_GET[name],
    )


def all_peers() -> dict[str, Peer]:
    """Return every target by name, installed or not."""
    found = [
        _reference(None, "memory"),
        _reference("trio-websocket", "memory"),
        _reference("uvloop", "memory"),
        _reference(None, "sqlite"),
        Peer(
            name="nats",
            binary=nats.find(),
            command=lambda binary, directory, _port: nats.command(binary, directory),
            dialect=lambda host, _attach: Nats(Place(host=host)),
            promises=_promises(_MEMORY, "per publisher", _AT_MOST_ONCE, "received"),
            how_to_get=nats.HOW_TO_GET,
            environment=lambda _port: nats.ENVIRONMENT,
            tells=True,
        ),
        Peer(
            name="bun",
            binary=bun.find(),
            command=lambda binary, directory, _port: bun.command(binary, directory),
            dialect=lambda host, _attach: Raw(Place(host=host)),
            promises=_promises(_MEMORY, "per publisher", _AT_MOST_ONCE, "queued for every subscriber"),
            how_to_get=bun.HOW_TO_GET,
            tells=True,
        ),
        Peer(
            name="nchan",
            binary=nchan.find(),
            command=nchan.command,
            dialect=lambda host, attach: Nchan(Place(host=host, attach=attach)),
            promises=_promises(_MEMORY, "per channel", "none here: its buffer is off", "queued for every subscriber"),
            how_to_get=nchan.HOW_TO_GET,
            version=("-v",),
        ),
        Peer(
            name="mosquitto",
            binary=mosquitto.find(),
            command=mosquitto.command,
            dialect=lambda host, _attach: Mqtt(Place(host=host)),
            promises=_promises(_MEMORY, "per publisher", _AT_MOST_ONCE, "taken over (QoS 1); delivered with QoS 0"),
            how_to_get=mosquitto.HOW_TO_GET,
            version=("-h",),
        ),
        _redis("redis"),
        _redis("valkey"),
        Peer(
            name="centrifugo",
            binary=centrifugo.find(),
            command=centrifugo.command,
            dialect=lambda host, _attach: Centrifugo(Place(host=host)),
            promises=_promises(
                _MEMORY, "per channel", "none here: history is off", "queued for every subscriber", "WebSocket, JSON"
            ),
            how_to_get=centrifugo.HOW_TO_GET,
            environment=centrifugo.environment,
            version=("version",),
        ),
    ]
    return {peer.name: peer for peer in found}


def version_of(peer: Peer) -> str:
    """Return the first number with a dot that the binary tells as its version; empty if it tells none."""
    assert peer.binary is not None, "only installed targets have one"
    try:
        told = subprocess.run(
            [peer.binary, *peer.version],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(rb"\d+\.\d+[\w.]*", told.stdout)
    return found[0].decode() if found else ""


def main() -> None:
    """Say what is installed, and how to get what is not."""
    for peer in all_peers().values():
        has = f"installed {version_of(peer)}" if peer.binary else f"missing: {peer.how_to_get}"
        print(f"{peer.name:26} {has}")


if __name__ == "__main__":
    main()
