"""The WebSocket opening handshake, server side: HTTP bytes in, an answer out. Sans-IO.

HTTP is parsed, and the answer made, by the `websockets` library (RFC 6455 section 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from websockets import http11
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from relay.limits import HANDSHAKE_BYTES_MAX, HANDSHAKE_HEADERS_MAX
from relay.wire import SUBPROTOCOL

# The library would answer 400 above 8 KiB a line; here the bound is on all lines together.
http11.MAX_LINE_LENGTH = HANDSHAKE_BYTES_MAX
http11.MAX_NUM_HEADERS = HANDSHAKE_HEADERS_MAX

_TLS_HANDSHAKE: Final = b"\x16"
"""The first byte of a client that speaks TLS (RFC 8446 section 5.1)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`response` is to be sent. With a `path` the connection is open, and `rest` are its first bytes."""

    response: bytes
    path: str | None
    rest: bytes


class Handshake:
    """One handshake. `feed` until it returns an Answer."""

    __slots__ = ("_echo", "_head")

    def __init__(self, *, echo: bool) -> None:
        self._echo = echo
        self._head = b""

    def feed(self, data: bytes) -> Answer | None:
        """Take bytes; None: more are needed."""
        self._head += data
        if self._head.startswith(_TLS_HANDSHAKE):
            return Answer(_failed("400 Bad Request", "this port speaks plain WebSocket: use ws://"), None, b"")
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if len(head) > HANDSHAKE_BYTES_MAX:
            return Answer(_failed("431 Request Header Fields Too Large", "use at most 16 KiB"), None, b"")
        if not found:
            return None
        return self._answer(head + found, rest)

    def _answer(self, head: bytes, rest: bytes) -> Answer:
        path = head.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1") if head.count(b" ") >= 2 else ""
        echo = self._echo and path == "/echo"
        protocol = ServerProtocol(subprotocols=None if echo else [Subprotocol(SUBPROTOCOL)])
        protocol.receive_data(head)
        requests = [event for event in protocol.events_received() if isinstance(event, Request)]
        if not requests:
            # The library has given up by now, and answers nothing.
            return Answer(_failed("400 Bad Request", "this is no WebSocket handshake"), None, b"")
        if path == "/" or echo:
            response = protocol.accept(requests[0])
        else:
            response = protocol.reject(HTTPStatus.NOT_FOUND, "this relay serves /\n")
        protocol.send_response(response)
        accepted = response.status_code == HTTPStatus.SWITCHING_PROTOCOLS
        return Answer(b"".join(protocol.data_to_send()), path if accepted else None, rest)


def _failed(status: str, text: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {len(text) + 1}\r\n"
    return f"{head}\r\n{text}\n".encode()
