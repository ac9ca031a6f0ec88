"""A small relay in a thread that speaks the bare protocol, and loses or repeats what it is told to."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from benchmarks.rig.processes import Server

Copies = Callable[[int], int]
"""How many copies of the n-th delivery, from 1, are sent."""


class _Connection:
    def __init__(self, own: socket.socket) -> None:
        self.socket = own
        self.websocket = ServerProtocol()

    def flush(self) -> None:
        for data in self.websocket.data_to_send():
            if data:
                self.socket.sendall(data)


class _Relay:
    def __init__(self, listener: socket.socket, copies: Copies) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._listener = listener
        self._copies = copies
        self._subscribers: dict[bytes, list[_Connection]] = {}
        self._delivered = 0
        self.stopped = threading.Event()

    def serve(self) -> None:
        while not self.stopped.is_set():
            for key, _ in self._selector.select(0.05):
                if key.data is None:
                    own, _address = self._listener.accept()
                    self._selector.register(own, selectors.EVENT_READ, _Connection(own))
                    continue
                try:
                    data = key.data.socket.recv(65_536)
                    if data:
                        self._take(key.data, data)
                except OSError:
                    data = b""
                if not data:
                    self._selector.unregister(key.data.socket)
                    key.data.socket.close()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.data.socket.close()
        self._selector.close()

    def _take(self, connection: _Connection, data: bytes) -> None:
        connection.websocket.receive_data(data)
        for event in connection.websocket.events_received():
            if isinstance(event, Request):
                connection.websocket.send_response(connection.websocket.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                message = bytes(event.data)
                if message[:1] == b"S":
                    self._subscribers.setdefault(message[1:9], []).append(connection)
                elif message[:1] == b"P":
                    self._fan_out(message)
                connection.websocket.send_binary(b"A" + message[1:13] if message[:1] == b"P" else message)
        connection.flush()

    def _fan_out(self, message: bytes) -> None:
        for subscriber in self._subscribers.get(message[1:9], ()):
            self._delivered += 1
            for _ in range(self._copies(self._delivered)):
                subscriber.websocket.send_binary(message)
            subscriber.flush()


@contextmanager
def bare_relay(copies: Copies = lambda _: 1) -> Iterator[Server]:
    """Serve on loopback while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = _Relay(listener, copies)
        thread = threading.Thread(target=relay.serve)
        thread.start()
        try:
            yield Server(pid=os.getpid(), host="127.0.0.1", port=listener.getsockname()[1])
        finally:
            relay.stopped.set()
            thread.join()
