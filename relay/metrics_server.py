"""The listener for /metrics, /healthz and /readyz. It answers though others ask slowly and descriptors have run out.

Descriptors are kept in reserve by the relay, which accepts no client with the last of them (`descriptors_max`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from relay.metrics import RelayCollector
from relay.transports.base import Relay

REQUESTS_MAX: Final = 8
"""At once; a scraper, a few probes and a person are fewer."""
REQUEST_S_MAX: Final = 5.0
"""Without a byte."""
RETRY_S: Final = 0.1


class _QuietHandler(WSGIRequestHandler):
    """Logs nothing: a request line holds an address."""

    timeout = REQUEST_S_MAX

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass


class _HttpServer(ThreadingMixIn, WSGIServer):
    """A thread a request, and a bounded number of them: who takes long gives way to who is new."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, gave_way: Callable[[], None]) -> None:
        address = listener.getsockname()
        super().__init__(address[:2], _QuietHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = address[0], address[1]
        self.setup_environ()
        self._gave_way = gave_way
        self._lock = Lock()
        self._open: dict[socket.socket, None] = {}

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(
                RETRY_S
            )  # Without a descriptor the listener stays ready, and the server would ask at once again.
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= REQUESTS_MAX:
                oldest = next(iter(self._open))
                del self._open[oldest]
                self._gave_way()
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # Its thread sees the end, and closes it.
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away in the middle is no news."""


class MetricsServer:
    """Serves /metrics, /healthz and /readyz on a listening socket, from a thread of its own."""

    def __init__(self, relay: Relay, transport: str, listeners: list[socket.socket]) -> None:
        self._relay = relay
        registry = CollectorRegistry()
        registry.register(RelayCollector(relay, transport))
        self._registry = registry
        self._servers = []
        for listener in listeners:
            server = _HttpServer(listener, self._one_gave_way)
            server.set_app(self._answer)
            Thread(target=server.serve_forever, name="metrics", daemon=True).start()
            self._servers.append(server)

    def _one_gave_way(self) -> None:
        self._relay.scrapes_gave_way += 1

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                status, body = HTTPStatus.OK, generate_latest(self._registry)
            case "/healthz":
                status, body = HTTPStatus.OK, b"alive\n"
            case "/readyz" if self._relay.is_ready:
                status, body = HTTPStatus.OK, b"ready\n"
            case "/readyz":
                status, body = HTTPStatus.SERVICE_UNAVAILABLE, b"not ready\n"
            case _:
                status, body = HTTPStatus.NOT_FOUND, b"/metrics, /healthz or /readyz\n"
        kind = "text/plain; version=0.0.4; charset=utf-8"
        start_response(f"{status.value} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def close(self) -> None:
        """Stop serving."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
