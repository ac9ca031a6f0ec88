"""What a stranger does at the door, on each transport: silent sockets, large headers, TLS where there is none."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator

import pytest
from processes import WAIT_S, Closed, Member, RelayProcess, relay_process

from relay import wire
from relay.limits import DESCRIPTORS_RESERVED, HANDSHAKE_S_MAX, HANDSHAKES_MAX

pytestmark = pytest.mark.process

TRANSPORTS = ("pump", "trio-websocket", "uvloop")
SILENT = HANDSHAKES_MAX + 100


@pytest.fixture(scope="module", params=TRANSPORTS)
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    with relay_process("--transport", request.param) as relay:
        yield relay


def test_sockets_that_send_nothing_shut_nobody_out(relay: RelayProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    silent = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(SILENT)]
    try:
        for one in silent[::2]:
            one.sendall(b"GET")
        began = time.monotonic()
        with Member(relay.port) as client:
            client.send(wire.Time(1))
            client.expect(wire.Timed)
        assert time.monotonic() - began < HANDSHAKE_S_MAX / 2, "it waits for nobody's time to be up"
    finally:
        for one in silent:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def answer(relay: RelayProcess, data: bytes) -> bytes:
    """Send bytes, and return what comes until the head of an answer is there, or the relay closes."""
    with socket.create_connection(("127.0.0.1", relay.port), timeout=HANDSHAKE_S_MAX / 2) as sock:
        sock.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received and (part := sock.recv(4096)):
            received += part
        return received


@pytest.mark.parametrize("line_bytes", [9_000, 15_000])
def test_a_long_header_works(relay: RelayProcess, line_bytes: int) -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: relaymark.v1\r\n"
        b"Authorization: " + b"x" * line_bytes + b"\r\n\r\n"
    )
    assert answer(relay, request).startswith(b"HTTP/1.1 101 ")


def test_a_tls_hello_on_a_plain_port_is_answered_at_once(relay: RelayProcess) -> None:
    hello = bytes.fromhex("1603010100010000fc0303") + bytes(200)
    assert answer(relay, hello)[:12] in (b"HTTP/1.1 400", b""), "said, or closed"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_metrics_answer_when_descriptors_run_out(transport: str) -> None:
    few = DESCRIPTORS_RESERVED + 60
    with relay_process(
        "--transport", transport, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
    ) as relay:
        clients = [socket.create_connection(("127.0.0.1", relay.port)) for _ in range(few)]
        try:
            deadline = time.monotonic() + WAIT_S
            while not (refused := relay.metrics()["relay_refused_accepts_total"]) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert refused > 0
            assert relay.page("/readyz") == "ready\n"
            assert relay.metrics()["process_open_fds"] < few
            while "raise `ulimit -n`" not in relay.log() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert relay.log().count("raise `ulimit -n`") == 1
        finally:
            for one in clients:
                one.close()
        while True:  # It may not have seen yet that they are gone.
            try:
                with Member(relay.port) as client:
                    client.send(wire.Time(1))
                    client.expect(wire.Timed)
                    return
            except (OSError, Closed, AssertionError):  # refused in the middle of its handshake, too
                assert time.monotonic() < deadline
