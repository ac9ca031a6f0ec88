"""Real relay processes on ephemeral ports, and a blocking client that reads only when it is told to."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from prometheus_client.parser import text_string_to_metric_families
from scripted import capability_of

from loadtests.dialects.frames import CLOSE, PING, PONG, Control, Fault, FrameReader, Handshake, client_frame
from relay import wire

ROOT = Path(__file__).parents[1]
CERTIFICATE = ROOT / "loadtests" / "certificate"
SERVE = ("-m", "relay.cli", "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
WAIT_S = 20.0
"""How long a client waits before the test fails; nothing that goes well comes near it."""

R = TypeVar("R")


class RelayProcess:
    """`relaymark serve` with the given options; what it logs goes to a file."""

    def __init__(
        self, *options: str, command: tuple[str, ...] = SERVE, before: Callable[[], None] | None = None
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed with the relay
        self.process = subprocess.Popen(
            [sys.executable, *command, *options],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=ROOT,
            text=True,
            preexec_fn=before,
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], WAIT_S)[0], "the relay says nothing"
        self.line = self.process.stdout.readline()
        assert self.line.startswith("relaymark: serving ws"), self.log()
        words = self.line.split()
        self.url = words[2]
        self.port = int(self.url.rpartition(":")[2])
        self.metrics_url = words[4] if len(words) > 4 else ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def metrics(self) -> dict[str, float]:
        text = self.page("/metrics")
        return {
            sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def page(self, path: str) -> str:
        with urllib.request.urlopen(self.metrics_url.replace("/metrics", path), timeout=WAIT_S) as response:
            return str(response.read().decode())

    def log(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self, timeout_s: float = WAIT_S) -> int:
        """Wait for the exit, and return its code."""
        assert self.process.stdout is not None
        try:
            return self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def close(self) -> None:
        if self.process.poll() is None:
            self.terminate()
        self.end()
        self._stderr.close()


@contextlib.contextmanager
def relay_process(*options: str, **rest: Any) -> Iterator[RelayProcess]:
    relay = RelayProcess(*options, **rest)
    try:
        yield relay
    finally:
        relay.close()


class Closed(Exception):
    """The relay closed the connection; `code` None: without a close frame."""

    def __init__(self, code: int | None) -> None:
        super().__init__(str(code))
        self.code = code


class Member:
    """One client of a relay. Reads only inside its methods; answers pings then."""

    def __init__(
        self,
        port: int,
        *,
        tls: bool = False,
        hello: bool = True,
        receive_buffer_bytes: int | None = None,
        path: str = "/",
        subprotocol: str | None = wire.SUBPROTOCOL,
    ) -> None:
        self.sock: socket.socket = socket.socket()
        if receive_buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.sock.settimeout(WAIT_S)
        try:
            self.sock.connect(("127.0.0.1", port))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                context = ssl.create_default_context(cafile=str(CERTIFICATE / "cert.pem"))
                self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
            self._frames = FrameReader()
            self._came: deque[Any] = deque()
            self._requests = itertools.count(1)
            self.pongs: list[bytes] = []
            self.welcome: wire.Welcome | None = None
            handshake = Handshake("localhost", path, subprotocol, random.getrandbits)
            self.sock.sendall(handshake.request)
            rest = None
            while rest is None:
                data = self.sock.recv(65_536)
                assert data, "closed in the handshake"
                rest = handshake.feed(data)
            self._take(rest)
            if hello:
                self.send(wire.Hello(1))
                self.welcome = self.expect(wire.Welcome)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def give(self, payload: bytes, opcode: int = 2) -> None:
        self.sock.sendall(client_frame(payload, random.getrandbits(32), opcode))

    def send(self, *records: Any) -> None:
        self.give(b"".join(map(wire.encode, records)))

    def receive(self, timeout_s: float = WAIT_S) -> Any:
        """Return the next record. Raises Closed and TimeoutError."""
        while not self._came:
            self.sock.settimeout(timeout_s)
            try:
                data = self.sock.recv(1 << 20)
            except (ConnectionResetError, BrokenPipeError):
                data = b""
            if not data:
                raise Closed(None)
            self._take(data)
        item = self._came.popleft()
        if isinstance(item, Closed):
            raise item
        return item

    def _take(self, data: bytes) -> None:
        for item in self._frames.feed(data):
            assert not isinstance(item, Fault), item
            if isinstance(item, Control):
                if item.opcode == PING:
                    self.give(item.payload, PONG)
                elif item.opcode == PONG:
                    self.pongs.append(item.payload)
                else:
                    with contextlib.suppress(OSError):
                        self.give(item.payload, CLOSE)
                    self._came.append(Closed(item.close()[0]))
            else:
                self._came += wire.decode_relay(item)

    def expect(self, kind: type[R]) -> R:
        """Return the next record, which is of this kind."""
        record = self.receive()
        assert isinstance(record, kind), record
        return record

    def next(self, kind: type[R]) -> R:
        """Return the next record of this kind; others are passed over."""
        while not isinstance(record := self.receive(), kind):
            pass
        return record

    def rest(self) -> tuple[list[Any], int | None]:
        """Read until the relay closes; return the records and its code."""
        records = []
        try:
            while True:
                records.append(self.receive())
        except Closed as closed:
            return records, closed.code

    def closed(self) -> int | None:
        """Read until the relay closes; return its code."""
        return self.rest()[1]

    def subscribe(
        self,
        index: int = 1,
        use: int = 3,
        *,
        member: int = 1,
        epoch: int | None = None,
        after: int | None = None,
        cap: bytes | None = None,
        proof: bytes | None = None,
    ) -> wire.Subscribed:
        self.send(wire.Subscribe(next(self._requests), cap or capability_of(index, member), use, proof, epoch, after))
        return self.next(wire.Subscribed)

    def messages(self, count: int) -> list[wire.Message]:
        return [self.next(wire.Message) for _ in range(count)]


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
