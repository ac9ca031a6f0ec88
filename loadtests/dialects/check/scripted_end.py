"""The other end of a dialect under check: a relay of a few lines, without a socket, that a test or a user writes.

Behind a WebSocket it is an `OverWebSocket` that fills in `answers`, `delivery` and, where the relay speaks first,
`greeting`. Anything else is a `ScriptedEnd`.
"""

from __future__ import annotations

from typing import Protocol

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from loadtests.dialects.base import Attach


class ScriptedEnd(Protocol):
    """The relay's side of one connection: bytes in, bytes out."""

    def hear(self, data: bytes) -> bytes:
        """Take what the client sent, and return what is sent back."""
        ...

    def deliver(self, attach: Attach, sealed: bytes) -> bytes:
        """Return the delivery of a record of a stream that was joined."""
        ...

    def nonsense(self) -> bytes:
        """Return bytes that break the protocol, after which a client can only give up."""
        ...


class OverWebSocket:
    """A relay behind the handshake and frames of the library websockets. `text`: its messages are text."""

    subprotocol: str | None = None
    text = False

    def __init__(self) -> None:
        offered = [Subprotocol(self.subprotocol)] if self.subprotocol else None
        self.websocket = ServerProtocol(subprotocols=offered)
        self.path = ""

    def hear(self, data: bytes) -> bytes:
        """Take what the client sent, and return what is sent back."""
        self.websocket.receive_data(data)
        for event in self.websocket.events_received():
            if isinstance(event, Request):
                self.path = event.path
                self.websocket.send_response(self.websocket.accept(event))
                self.say(*self.greeting())
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self.say(*self.answers(bytes(event.data)))
        return self._to_send()

    def say(self, *messages: bytes) -> None:
        """Frame whole messages; they leave with what is sent next."""
        for message in messages:
            if self.text:
                self.websocket.send_text(message)
            else:
                self.websocket.send_binary(message)

    def deliver(self, attach: Attach, sealed: bytes) -> bytes:
        """Return the delivery of a record of a stream."""
        self.say(self.delivery(attach, sealed))
        return self._to_send()

    def ping(self, payload: bytes) -> bytes:
        self.websocket.send_ping(payload)
        return self._to_send()

    def close(self, code: int, reason: str) -> bytes:
        self.websocket.send_close(code, reason)
        return self._to_send()

    def nonsense(self) -> bytes:
        """Return a message that breaks the carried protocol."""
        self.say(b"\xff\xfe\xfd nonsense \r\n")
        return self._to_send()

    def _to_send(self) -> bytes:
        return b"".join(self.websocket.data_to_send())

    def greeting(self) -> list[bytes]:
        """Return the messages that the relay sends first."""
        return []

    def answers(self, message: bytes) -> list[bytes]:
        """Return the messages that answer one of the client's."""
        raise NotImplementedError

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        """Return the message that delivers a record."""
        raise NotImplementedError
