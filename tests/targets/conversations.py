"""A relay of the catalogue as a process, and blocking clients that speak a dialect with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from loadtests.dialects.base import Attach, Dialect, Event, Ready, Reply, Subscribed

CERTIFICATE = Path(__file__).parents[2] / "loadtests" / "certificate" / "cert.pem"
WAIT_S = 30.0
"""How long a client waits before the test fails; nothing that goes well comes near it."""
RECEIVE, PUBLISH = 1, 2


@contextlib.contextmanager
def started(
    relay: ModuleType, make: Callable[[str], Dialect], directory: Path, *, tls: bool = False
) -> Iterator[Callable[[], Client]]:
    """Run a relay on a free port, and yield what connects a client to it; nothing of them is left."""
    clients: list[Client] = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = relay.command(relay.find(), directory, port, CERTIFICATE if tls else None)
    environment = os.environ | relay.environment(directory, port)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        end_s = time.monotonic() + WAIT_S
        while True:
            assert process.poll() is None, (directory / "log").read_text()[-2000:]
            assert time.monotonic() < end_s, "it does not listen"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)

        def connect() -> Client:
            clients.append(Client(make(f"127.0.0.1:{port}"), port, tls=tls))
            return clients[-1]

        yield connect
    finally:
        for client in clients:
            client.socket.close()
        process.terminate()
        try:
            process.wait(WAIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Client:
    """One connection, whose replies are sent at once; `events` are all others, in order."""

    def __init__(self, dialect: Dialect, port: int, *, tls: bool) -> None:
        self.dialect = dialect
        self.events: list[Event] = []
        self.socket = socket.create_connection(("127.0.0.1", port), WAIT_S)
        if tls:
            context = ssl.create_default_context(cafile=str(CERTIFICATE))
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.send(dialect.opening())
        self.until(lambda events: any(isinstance(event, Ready) for event in events))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> None:
        data = self.socket.recv(262_144)
        assert data, f"the relay hung up after {self.events[-3:]!r:.300}"
        for event in self.dialect.receive(data):
            if isinstance(event, Reply):
                self.send(event.data)
            else:
                self.events.append(event)

    def hear_out(self, wait_s: float = 0.05) -> None:
        """Hear all that comes until nothing came for `wait_s`."""
        self.socket.settimeout(wait_s)
        with contextlib.suppress(TimeoutError):
            while True:
                self.hear()

    def until(self, done: Callable[[list[Event]], bool]) -> None:
        while not done(self.events):
            self.hear()

    def join(self, attach: Attach, after: int | None = None, epoch: int | None = None) -> Subscribed:
        self.send(self.dialect.subscribe(attach, after=after, epoch=epoch))
        self.until(lambda events: any(isinstance(event, Subscribed) for event in events))
        return next(event for event in self.events if isinstance(event, Subscribed))

    @property
    def delivered(self) -> list[tuple[int | None, bytes]]:
        return [(event[1], event[3]) for event in self.events if type(event) is tuple]  # type: ignore[misc]


def settle(clients: list[Client], done: Callable[[], bool]) -> None:
    """Let all hear whatever comes until `done`."""
    end_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < end_s, [repr(client.events[-2:])[:200] for client in clients]
        of = {client.socket: client for client in clients}
        pending = [one for one in clients if isinstance(one.socket, ssl.SSLSocket) and one.socket.pending()]
        readable = [of[one] for one in select.select(list(of), [], [], 0 if pending else 0.2)[0]]
        for client in {*pending, *readable}:
            client.hear()
