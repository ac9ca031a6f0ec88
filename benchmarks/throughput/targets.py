"""What the throughput benchmark can measure: the relay's transports and stores, nats-server and Bun."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fast_load.clients import BunClient, Client, NatsClient, RelayClient
from benchmarks.peers import bun, nats
from benchmarks.rig.processes import Cores, Server, running
from relaymark import child


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server to start. `command` takes a directory for its files; None: it is not installed, see `how_to_get`."""

    name: str
    client: Callable[[], Client]
    command: Callable[[Path], list[str]] | None
    environment: Mapping[str, str] = field(default_factory=dict)
    how_to_get: str = ""


def relay_command(store: str, transport: str, directory: Path) -> list[str]:
    """Return what starts the reference relay; `store`: memory or sqlite."""
    place = f"sqlite:{directory / 'relay.db'}" if store == "sqlite" else "memory"
    return child("serve", "--listen", "127.0.0.1:0", "--store", place, "--transport", transport)


def all_targets() -> dict[str, Target]:
    """Return every target by name, installed or not."""
    nats_binary, bun_binary = nats.find(), bun.find()
    found = [
        Target(name="pump", client=RelayClient, command=partial(relay_command, "memory", "pump")),
        Target(name="pump-sqlite", client=RelayClient, command=partial(relay_command, "sqlite", "pump")),
        Target(name="trio-websocket", client=RelayClient, command=partial(relay_command, "memory", "trio-websocket")),
        Target(name="uvloop", client=RelayClient, command=partial(relay_command, "memory", "uvloop")),
        Target(
            name="nats-server",
            client=NatsClient,
            command=partial(nats.command, nats_binary) if nats_binary else None,
            environment=nats.ENVIRONMENT,
            how_to_get=nats.HOW_TO_GET,
        ),
        Target(
            name="bun",
            client=BunClient,
            command=partial(bun.command, bun_binary) if bun_binary else None,
            how_to_get=bun.HOW_TO_GET,
        ),
    ]
    return {target.name: target for target in found}


@contextmanager
def serving(target: Target, cores: Cores) -> Iterator[Server]:
    """Run a fresh server of this target, with files that are gone afterwards. Raises ServerError."""
    assert target.command is not None, "only installed targets are started"
    with (
        TemporaryDirectory(prefix="relaymark-") as directory,
        running(target.command(Path(directory)), cores, target.environment) as server,
    ):
        yield server
