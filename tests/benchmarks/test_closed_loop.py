"""The load against real servers: exact counts, and an error where a record is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from benchmarks.fast_load.clients import BunClient, RelayClient, Role, client_of
from benchmarks.fast_load.closed_loop import Shape, Throughput, loaded, measure, measure_in_turn
from benchmarks.fast_load.connections import open_connections
from benchmarks.fast_load.counting import CountingError
from benchmarks.fast_load.serving import serving
from benchmarks.rig.processes import Cores, Server, ServerError, choose_cores, raise_file_limit, running
from benchmarks.rig.usage import cpu_ns
from benchmarks.throughput.idle import measure_idle
from loadtests.target.catalogue import CATALOGUE

SMALL = Shape(name="small", streams=3, subscribers=2, window=4)


@pytest.fixture
def cores() -> Iterator[Cores]:
    """Measuring pins this process: put it back for the tests that follow."""
    before = os.sched_getaffinity(0)
    yield choose_cores()
    os.sched_setaffinity(0, before)


@pytest.mark.process
@pytest.mark.parametrize("name", ["reference", "reference@sqlite", "nats"])
def test_all_that_was_acknowledged_is_delivered(name: str, cores: Cores) -> None:
    with serving(CATALOGUE[name], cores) as server:
        measured = measure(client_of(name), server, SMALL, cores, seconds=0.05, warmup_s=0.02)
    assert measured.acknowledged > 0
    assert measured.delivered == 2 * measured.acknowledged
    assert measured.deliveries_per_s > 0


@pytest.mark.process
def test_idle_connections_are_subscribed(cores: Cores) -> None:
    with serving(CATALOGUE["reference"], cores) as server:
        idle = measure_idle(RelayClient(), server, count=120, own_streams=True)
    assert (idle.connections, idle.streams) == (120, 120)
    assert idle.after_bytes > idle.before_bytes


class BunLike:
    """A server of the test's own that speaks as bun_server.js does and, if told so, loses or repeats one record."""

    def __init__(self, copies: int) -> None:
        self._copies = copies
        self._subscribers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.server = Server(pid=os.getpid(), host="127.0.0.1", port=self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(one,)))
            self._threads[-1].start()

    def _serve(self, one: socket.socket) -> None:
        with one:
            request = one.recv(4096)
            if b"/subscribe/" in request:
                self._subscribers.append(one)
            one.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + BunClient.ACK)
            data, seen = b"", 0
            try:
                while more := one.recv(65536):
                    data += more
                    while len(data) >= 264:
                        message, data = data[:264], data[264:]
                        seen += 1
                        self._relay(message, self._copies if seen == 20 else 1)
                        one.sendall(BunClient.ACK)
            except OSError:
                return

    def _relay(self, message: bytes, copies: int) -> None:
        mask, masked = message[4:8], message[8:]
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
        for subscriber in self._subscribers:
            subscriber.sendall((b"\x82\x7e\x01\x00" + payload) * copies)


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_one_lost_or_repeated_record_fails_the_measurement(copies: int, cores: Cores) -> None:
    shape = Shape(name="one", streams=1, subscribers=2, window=1)
    fake = BunLike(copies)
    try:
        if copies == 1:
            assert measure(BunClient(), fake.server, shape, cores, seconds=0.1, warmup_s=0.0).acknowledged > 20
        else:
            with pytest.raises(CountingError):
                measure(BunClient(), fake.server, shape, cores, seconds=0.5, warmup_s=0.0)
    finally:
        fake.close()


def test_loads_in_turn_get_their_own_figures_and_one_that_fails_does_not_stop_the_others(cores: Cores) -> None:
    shape = Shape(name="one", streams=1, subscribers=2, window=1)
    sound, losing = BunLike(1), BunLike(0)
    try:
        with loaded(BunClient(), sound.server, shape) as first, loaded(BunClient(), losing.server, shape) as second:
            loads = [(losing.server, second), (sound.server, first)]
            failed, measured = measure_in_turn(loads, cores, blocks=3, block_s=0.05, warmup_s=0.0)
    finally:
        sound.close()
        losing.close()
    assert isinstance(failed, CountingError)
    assert isinstance(measured, Throughput)
    assert measured.delivered == 2 * measured.acknowledged
    counted = measured.deliveries_per_s * 3 * 0.05
    assert 0 < counted < measured.delivered, (
        "what comes while the load turns to a server is delivered, but not measured"
    )


def test_a_record_lost_at_the_very_end_is_missed_in_the_total(cores: Cores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fast_load.closed_loop.SETTLE_S_MAX", 0.05)
    fake = BunLike(1)
    relay, lost = fake._relay, []

    def lose_from_the_twentieth(message: bytes, copies: int) -> None:
        lost.append(message)
        if len(lost) < 20:
            relay(message, copies)

    monkeypatch.setattr(fake, "_relay", lose_from_the_twentieth)
    shape = Shape(name="one", streams=1, subscribers=1, window=1)
    try:
        with pytest.raises(CountingError, match="19 delivered where"):
            measure(BunClient(), fake.server, shape, cores, seconds=0.1, warmup_s=0.0)
    finally:
        fake.close()


def test_a_refused_upgrade_is_an_error(cores: Cores) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        one, _ = listener.accept()
        with one:
            one.recv(4096)
            one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=refuse)
    thread.start()
    server = Server(pid=os.getpid(), host="127.0.0.1", port=listener.getsockname()[1])
    try:
        with pytest.raises(CountingError, match="400 Bad Request"):
            open_connections(BunClient(), server, [(0, Role.PUBLISH)])
    finally:
        thread.join()
        listener.close()


def test_a_server_that_ends_at_once_is_an_error_that_shows_what_it_said(cores: Cores) -> None:
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"]
    with pytest.raises(ServerError, match=r"(?s)ended: 3.*no such option"), running(command, cores):
        pass


@pytest.mark.process
def test_a_server_is_pinned_and_ended_though_the_measurement_fails(cores: Cores) -> None:
    script = "import time; print('ws://127.0.0.1:1', flush=True); time.sleep(60)"
    started: list[Server] = []

    def interrupted() -> None:
        with running([sys.executable, "-c", script], cores) as server:
            assert os.sched_getaffinity(server.pid) == {cores.server}
            assert cpu_ns(server.pid) >= 0
            started.append(server)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


@pytest.mark.process
def test_sigterm_ends_the_servers_too() -> None:
    script = (
        "import sys, os, time\n"
        "from benchmarks.rig.processes import *\n"
        "with ended_by_signal(), running([sys.executable, '-c', "
        "\"import time; print('ws://127.0.0.1:1', flush=True); time.sleep(60)\"], choose_cores()) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGINT, "as after Ctrl-C"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_too_few_files_are_an_error_that_names_the_remedy() -> None:
    with pytest.raises(ServerError, match="ulimit -Hn 1000000000"):
        raise_file_limit(1_000_000_000)
