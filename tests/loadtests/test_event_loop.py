"""The loop against real sockets on loopback: order, short writes, closes, timers, TLS."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns
from typing import ClassVar

import pytest
from websockets.sync.server import ServerConnection, serve

import loadtests
from loadtests.driver import event_loop as swarm_module
from loadtests.driver.connection import Connection
from loadtests.driver.event_loop import TICK_NS, EventLoop

CERTIFICATE = Path(loadtests.__file__).parent / "certificate" / "cert.pem"
KEY = CERTIFICATE.with_name("key.pem")
PATIENCE_S = 10.0


class Recorder:
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.opened = 0
        self.data = bytearray()
        self.reasons: list[str] = []
        self.on_data: Callable[[bytes], None] = lambda data: None

    def connected(self, now_ns: int) -> None:
        self.opened += 1

    def received(self, data: bytes, now_ns: int) -> None:
        self.data += data
        self.on_data(data)

    def closed(self, reason: str, now_ns: int) -> None:
        self.reasons.append(reason)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.stop()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def run_until(loop: EventLoop, done: Callable[[], bool]) -> None:
    end_ns = monotonic_ns() + int(PATIENCE_S * 1e9)
    while not done():
        assert monotonic_ns() < end_ns, "not done in time"
        select.select([loop.epoll.fileno()], [], [], 0 if loop.busy else 0.1)
        loop.turn()


def join(loop: EventLoop, listener: socket.socket) -> tuple[Recorder, Connection, socket.socket]:
    handler = Recorder()
    connection = loop.connect(handler, listener.getsockname())
    run_until(loop, lambda: handler.opened == 1)
    peer, _ = listener.accept()
    peer.settimeout(PATIENCE_S)
    return handler, connection, peer


def test_bytes_go_both_ways(loop: EventLoop, listener: socket.socket) -> None:
    handler, connection, peer = join(loop, listener)
    with peer:
        connection.send(b"ping")
        assert peer.recv(10) == b"ping"
        peer.sendall(b"pong")
        run_until(loop, lambda: handler.data == b"pong")


def test_a_full_socket_queues_the_rest_in_order(loop: EventLoop, listener: socket.socket) -> None:
    _, connection, peer = join(loop, listener)
    sent = b"".join(index.to_bytes(4, "big") * 250 for index in range(8000))
    for start in range(0, len(sent), 100_000):
        connection.send(sent[start : start + 100_000])
    assert connection.blocked
    got = bytearray()

    def read() -> None:
        while len(got) < len(sent):
            got.extend(peer.recv(1 << 20))

    reader = threading.Thread(target=read)
    reader.start()
    run_until(loop, lambda: len(got) == len(sent))
    reader.join()
    peer.close()
    assert got == sent
    assert not connection.blocked


def test_what_is_sent_while_receiving_leaves_in_one_piece(loop: EventLoop, listener: socket.socket) -> None:
    handler, connection, peer = join(loop, listener)
    handler.on_data = lambda data: [connection.send(part) for part in (b"a", b"b", b"c")] and None
    with peer:
        peer.sendall(b"go")
        run_until(loop, lambda: handler.data == b"go")
        assert peer.recv(10) == b"abc"


def test_a_peer_that_closes_is_told_once(loop: EventLoop, listener: socket.socket) -> None:
    handler, connection, peer = join(loop, listener)
    peer.close()
    run_until(loop, lambda: bool(handler.reasons))
    connection.send(b"into the void")
    loop.turn()
    assert handler.reasons == ["closed by the peer"]
    assert len(loop) == 0


def test_a_reset_is_told_with_its_reason(loop: EventLoop, listener: socket.socket) -> None:
    handler, _, peer = join(loop, listener)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    run_until(loop, lambda: bool(handler.reasons))
    assert handler.reasons == ["Connection reset by peer"]


def test_a_refused_connection_is_told(loop: EventLoop, listener: socket.socket) -> None:
    address = listener.getsockname()
    listener.close()
    handler = Recorder()
    loop.connect(handler, address)
    run_until(loop, lambda: bool(handler.reasons))
    assert handler.reasons == ["Connection refused"]
    assert handler.opened == 0


def test_ones_own_close_and_abort_are_not_told(loop: EventLoop, listener: socket.socket) -> None:
    first, one, peer_one = join(loop, listener)
    second, two, peer_two = join(loop, listener)
    with peer_one, peer_two:
        one.close()
        two.abort()
        loop.turn()
        assert peer_one.recv(1) == b""
        with pytest.raises(ConnectionResetError):
            peer_two.recv(1)
    assert first.reasons == second.reasons == []


def test_a_new_socket_with_the_number_of_a_closed_one_gets_none_of_its_events(
    loop: EventLoop, listener: socket.socket
) -> None:
    first, one, peer_one = join(loop, listener)
    second, two, peer_two = join(loop, listener)
    replacement = Recorder()

    def swap(data: bytes) -> None:
        other = two if data == b"1" else one
        other.close()
        loop.connect(replacement, listener.getsockname())

    first.on_data = second.on_data = swap
    with peer_one, peer_two:
        peer_one.sendall(b"1")
        peer_two.sendall(b"2")
        run_until(loop, lambda: replacement.opened == 1)
    assert bytes(first.data + second.data) in (b"1", b"2")
    assert replacement.reasons == []


def test_what_was_read_before_the_end_is_handed_out_before_it(loop: EventLoop, listener: socket.socket) -> None:
    handler, _, peer = join(loop, listener)
    peer.sendall(bytes(200_000))
    peer.close()
    run_until(loop, lambda: bool(handler.reasons))
    assert len(handler.data) == 200_000


def test_what_was_read_is_forgotten_when_its_connection_is_closed_meanwhile(
    loop: EventLoop, listener: socket.socket
) -> None:
    first, one, peer_one = join(loop, listener)
    second, two, peer_two = join(loop, listener)
    first.on_data = lambda data: two.close()
    second.on_data = lambda data: one.close()
    with peer_one, peer_two:
        peer_one.sendall(b"1")
        peer_two.sendall(b"2")
        run_until(loop, lambda: bool(first.data or second.data))
        run_until(loop, lambda: not loop.busy)
    assert bytes(first.data + second.data) in (b"1", b"2")
    assert first.reasons == second.reasons == []


def test_a_full_inbox_stops_the_reading(
    loop: EventLoop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_module, "INBOX_BYTES_MAX", 1)
    monkeypatch.setattr(swarm_module, "WORK_NS_MAX", -1)
    handlers = [join(loop, listener) for _ in range(3)]
    for _, _, peer in handlers:
        peer.sendall(b"x")
    run_until(loop, lambda: sum(len(handler.data) for handler, _, _ in handlers) == 1)
    loop.turn()
    assert sum(len(handler.data) for handler, _, _ in handlers) == 2
    run_until(loop, lambda: all(handler.data == b"x" for handler, _, _ in handlers))
    for _, _, peer in handlers:
        peer.close()


def test_paused_connections_are_not_read(loop: EventLoop, listener: socket.socket) -> None:
    handler, connection, peer = join(loop, listener)
    with peer:
        connection.pause()
        peer.sendall(b"later")
        for _ in range(3):
            loop.turn()
        assert handler.data == b""
        connection.resume()
        run_until(loop, lambda: handler.data == b"later")


def test_pieces_are_read_one_at_a_time(loop: EventLoop, listener: socket.socket) -> None:
    handler = Recorder()
    connection = loop.connect(handler, listener.getsockname(), piece_bytes=4)
    run_until(loop, lambda: handler.opened == 1)
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"onetwo")
        run_until(loop, lambda: bool(handler.data))
        for _ in range(3):
            loop.turn()
        assert handler.data == b"onet"
        connection.resume()
        run_until(loop, lambda: handler.data == b"onetwo")


def test_only_so_many_connects_are_under_way(listener: socket.socket) -> None:
    loop = EventLoop(connects_max=3)
    handlers = [Recorder() for _ in range(20)]
    for handler in handlers:
        loop.connect(handler, listener.getsockname())
    most = 0

    def done() -> bool:
        nonlocal most
        opened = sum(handler.opened for handler in handlers)
        most = max(most, len(loop) - opened)
        return opened == 20

    run_until(loop, done)
    loop.stop()
    assert 1 <= most <= 3


class FewPorts(socket.socket):
    """A socket of a system on which each source address has but two ports left."""

    left: ClassVar[dict[str, int]] = {}

    def connect_ex(self, address: object) -> int:
        source = self.getsockname()[0]
        if self.left.setdefault(source, 2) == 0:
            return errno.EADDRNOTAVAIL
        self.left[source] -= 1
        return super().connect_ex(address)


def test_when_ports_run_out_the_next_source_address_is_taken(
    loop: EventLoop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_module, "_Socket", FewPorts)
    monkeypatch.setattr(FewPorts, "left", {})
    handlers = [Recorder() for _ in range(5)]
    for handler in handlers:
        loop.connect(handler, listener.getsockname())
    run_until(loop, lambda: all(handler.opened for handler in handlers))
    assert [source for source, left in FewPorts.left.items() if left < 2] == ["0.0.0.0", "127.0.0.2", "127.0.0.3"]
    assert loop.ports_exhausted == 0


def test_no_port_on_any_address_is_counted_and_told(
    loop: EventLoop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm_module, "_Socket", FewPorts)
    monkeypatch.setattr(swarm_module, "SOURCES_MAX", 1)
    monkeypatch.setattr(FewPorts, "left", {"0.0.0.0": 0, "127.0.0.2": 0})
    handler = Recorder()
    loop.connect(handler, listener.getsockname())
    run_until(loop, lambda: bool(handler.reasons))
    assert loop.ports_exhausted == 1
    assert handler.reasons == ["Cannot assign requested address"]


def test_no_descriptor_left_is_counted_and_told(
    loop: EventLoop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(swarm_module, "_Socket", none_left)
    handler = Recorder()
    loop.connect(handler, listener.getsockname())
    run_until(loop, lambda: bool(handler.reasons))
    assert loop.descriptors_exhausted == 1
    assert handler.reasons == ["Too many open files"]


def test_due_times_run_in_order_and_never_early(loop: EventLoop) -> None:
    start_ns = monotonic_ns()
    ran: list[tuple[int, int]] = []
    for delay_ms in (5, 1, 3, 0, 1):
        loop.at(start_ns + delay_ms * 1_000_000, lambda due_ns, now_ns: ran.append((due_ns, now_ns)))
    run_until(loop, lambda: len(ran) == 5)
    assert [(due_ns - start_ns) // 1_000_000 for due_ns, _ in ran] == [0, 1, 1, 3, 5]
    assert all(now_ns >= due_ns for due_ns, now_ns in ran)


def test_an_earlier_due_time_replaces_the_armed_one(loop: EventLoop) -> None:
    ran: list[str] = []
    loop.at(monotonic_ns() + 3_600_000_000_000, lambda due_ns, now_ns: ran.append("in an hour"))
    loop.at(monotonic_ns() + 1_000_000, lambda due_ns, now_ns: ran.append("soon"))
    run_until(loop, lambda: bool(ran))
    assert ran == ["soon"]


class SlowToRead:
    """A timer that fires twice more while it is read: the process had lost its core."""

    def __init__(self, clock: list[int]) -> None:
        self.clock = clock

    def expirations(self) -> int:
        self.clock[0] += 2 * TICK_NS
        return 3


def test_a_tick_that_comes_while_the_timer_is_read_is_not_early(monkeypatch: pytest.MonkeyPatch) -> None:
    lags: list[int] = []
    clock = [1_000_000_000]
    loop = EventLoop(on_tick=lags.append)
    with monkeypatch.context() as patched:
        patched.setattr(swarm_module, "monotonic_ns", lambda: clock[0])
        patched.setattr(loop, "_ticker", SlowToRead(clock))
        loop._tick_ns = clock[0]
        loop._tick()
    loop.stop()
    assert lags == [2 * TICK_NS, TICK_NS, 0]


def test_the_lag_of_the_loop_is_sampled_also_for_ticks_that_were_missed() -> None:
    lags: list[int] = []
    loop = EventLoop(on_tick=lags.append)
    loop._tick_ns = monotonic_ns() - 20_000_000
    loop._ticker.arm(loop._tick_ns, 5_000_000)
    loop.turn()
    loop.stop()
    assert len(lags) >= 4
    assert lags == sorted(lags, reverse=True)
    assert lags[0] >= 20_000_000


def test_a_websocket_server_answers_the_upgrade(loop: EventLoop) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        handler = Recorder()
        connection = loop.connect(handler, server.socket.getsockname())
        run_until(loop, lambda: handler.opened == 1)
        connection.send(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        run_until(loop, lambda: b"\r\n\r\n" in handler.data)
        assert handler.data.startswith(b"HTTP/1.1 101 ")
        connection.send(b"\x82\x85\0\0\0\0hello")
        run_until(loop, lambda: handler.data.endswith(b"\x82\x05hello"))
        connection.close()
        server.shutdown()
        thread.join()


def serve_tls(listener: socket.socket) -> threading.Thread:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)

    def run() -> None:
        raw, _ = listener.accept()
        raw.settimeout(PATIENCE_S)
        try:
            with context.wrap_socket(raw, server_side=True) as peer:
                while data := peer.recv(65_536):
                    peer.sendall(data)
        except OSError:
            raw.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_tls_carries_more_than_a_record_each_way(listener: socket.socket) -> None:
    thread = serve_tls(listener)
    loop = EventLoop(tls=ssl.create_default_context(cafile=str(CERTIFICATE)), server_name="localhost")
    handler = Recorder()
    connection = loop.connect(handler, listener.getsockname())
    run_until(loop, lambda: handler.opened == 1)
    sent = bytes(range(256)) * 4000
    connection.send(sent)
    run_until(loop, lambda: len(handler.data) == len(sent))
    assert handler.data == sent
    loop.stop()
    thread.join()


def test_pieces_of_a_tls_record_go_on_by_themselves(listener: socket.socket) -> None:
    thread = serve_tls(listener)
    loop = EventLoop(tls=ssl.create_default_context(cafile=str(CERTIFICATE)), server_name="localhost")
    handler = Recorder()
    connection = loop.connect(handler, listener.getsockname(), piece_bytes=16)
    run_until(loop, lambda: handler.opened == 1)
    connection.send(bytes(500))
    run_until(loop, lambda: len(handler.data) == 500)
    loop.stop()
    thread.join()


def test_a_certificate_that_does_not_verify_ends_the_connection(listener: socket.socket) -> None:
    thread = serve_tls(listener)
    loop = EventLoop(tls=ssl.create_default_context(), server_name="localhost")
    handler = Recorder()
    loop.connect(handler, listener.getsockname())
    run_until(loop, lambda: bool(handler.reasons))
    loop.stop()
    thread.join()
    assert handler.opened == 0
    assert "certificate verify failed" in handler.reasons[0].lower()
