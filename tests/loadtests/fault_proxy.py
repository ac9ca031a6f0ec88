"""A proxy between harness and relay that drops, repeats, swaps and holds back sealed records, and counts what it did.

It reads the frames that the relay sends and knows the records in them; what the client sends passes unchanged, except
that an UNSUBSCRIBE is noticed. Faults are chosen by a `decide` function, called for every durable record and state.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from relay import wire

PASS, DROP, REPEAT, SWAP, HOLD = "pass", "drop", "repeat", "swap", "hold"
PATIENCE_S = 30.0


class Sight(NamedTuple):
    """A record on its way to a client. `index` counts those of its class on the connection, from 1."""

    connection: int
    index: int
    durable: bool


class FaultProxy:
    """Listens on loopback; `done` counts the faults that really happened."""

    def __init__(self, relay: tuple[str, int], decide: Callable[[Sight], str], *, hold_s: float = 0.0) -> None:
        """A held record, and all after it on that connection, go on `hold_s` after the client unsubscribes; 0: after
        a quarter of a second."""
        self._relay = relay
        self._decide = decide
        self._hold_s = hold_s
        self.done: Counter[str] = Counter()
        self.passed_states = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            relay = socket.create_connection(self._relay)
            for sock in (client, relay):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(sock)
            number += 1
            leaving = threading.Event()
            self._start(self._upstream, client, relay, leaving)
            self._start(_Downstream(self, number, relay, client, leaving).run)

    def _upstream(self, client: socket.socket, relay: socket.socket, leaving: threading.Event) -> None:
        shaken, buffer = False, b""
        while data := _receive(client):
            if not _send(relay, data):
                break
            buffer += data
            if not shaken:
                _, separator, rest = buffer.partition(b"\r\n\r\n")
                if not separator:
                    continue
                shaken, buffer = True, rest
            while (cut := _frame_end(buffer)) is not None:
                payload = _unmasked(buffer[:cut])
                buffer = buffer[cut:]
                if payload[:2] == b"\x92\x03":
                    leaving.set()
        _shut(relay)

    def count(self, fault: str) -> None:
        with self._lock:
            self.done[fault] += 1

    def count_state(self) -> None:
        with self._lock:
            self.passed_states += 1

    def close(self) -> None:
        _shut(self._listener)
        self._listener.close()
        for sock in self._sockets:
            _shut(sock)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for sock in self._sockets:
            sock.close()


class _Downstream:
    """From the relay to one client."""

    def __init__(
        self, proxy: FaultProxy, number: int, relay: socket.socket, client: socket.socket, leaving: threading.Event
    ) -> None:
        self._proxy = proxy
        self._number = number
        self._relay = relay
        self._client = client
        self._leaving = leaving
        self._seen: Counter[bool] = Counter()
        self._swapped = b""
        self._holding = False

    def run(self) -> None:
        buffer = b""
        while b"\r\n\r\n" not in buffer:
            data = _receive(self._relay)
            if not data:
                _shut(self._client)
                return
            buffer += data
        head, separator, buffer = buffer.partition(b"\r\n\r\n")
        _send(self._client, head + separator)
        while True:
            while (cut := _frame_end(buffer)) is not None:
                self._pass_on(buffer[:cut])
                buffer = buffer[cut:]
            data = _receive(self._relay)
            if not data:
                break
            buffer += data
        _shut(self._client)

    def _pass_on(self, frame: bytes) -> None:
        payload = frame[_header_bytes(frame) :]
        durable = payload[:2] == b"\x96\x13"
        if not durable and payload[:2] != b"\x95\x14":
            if payload[:2] == b"\x93\x1b":  # UNSUBSCRIBED: nothing may come after it
                self._forward(self._swapped)
                self._swapped = b""
            self._forward(frame)
            return
        record = wire.decode_one_relay(payload)
        assert isinstance(record, wire.Message | wire.Ephemeral)
        self._seen[durable] += 1
        fault = self._proxy._decide(Sight(self._number, self._seen[durable], durable))
        if self._swapped and durable:
            frame, self._swapped = frame + self._swapped, b""
            self._proxy.count(SWAP)
        elif fault == DROP:
            self._proxy.count(DROP if durable else "drop-state")
            return
        elif fault == REPEAT:
            frame += frame
            self._proxy.count(REPEAT)
        elif fault == SWAP:
            self._swapped = frame
            return
        elif fault == HOLD or self._holding:
            self._proxy.count(HOLD)
            self._hold()
        if not durable:
            self._proxy.count_state()
        self._forward(frame)

    def _hold(self) -> None:
        if self._holding:
            return
        self._holding = self._proxy._hold_s > 0
        if self._holding:
            self._leaving.wait(PATIENCE_S)
        time.sleep(self._proxy._hold_s or 0.25)

    def _forward(self, data: bytes) -> None:
        if data:
            _send(self._client, data)


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65_536)
    except OSError:
        return b""


def _send(sock: socket.socket, data: bytes) -> bool:
    try:
        sock.sendall(data)
    except OSError:
        return False
    return True


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _header_bytes(frame: bytes) -> int:
    length = frame[1] & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if frame[1] & 0x80 else 0)


def _frame_end(buffer: bytes) -> int | None:
    """Return where the first frame ends, None while it is not whole."""
    if len(buffer) < 2:
        return None
    header = _header_bytes(buffer)
    if len(buffer) < header:
        return None
    length = buffer[1] & 0x7F
    if length == 126:
        length = int.from_bytes(buffer[2:4], "big")
    elif length == 127:
        length = int.from_bytes(buffer[2:10], "big")
    return header + length if len(buffer) >= header + length else None


def _unmasked(frame: bytes) -> bytes:
    header = _header_bytes(frame)
    mask = frame[header - 4 : header]
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(frame[header : header + 8]))
