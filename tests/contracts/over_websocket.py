"""What the scripted relays behind a WebSocket have in common: handshake and frames by a library."""

from __future__ import annotations

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from loadtests.dialects.base import Attach


class OverWebSocket:
    """A relay behind the library's handshake and frames. `text`: its messages are text."""

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
        return b"".join(self.websocket.data_to_send())

    def say(self, *messages: bytes) -> None:
        for message in messages:
            if self.text:
                self.websocket.send_text(message)
            else:
                self.websocket.send_binary(message)

    def deliver(self, attach: Attach, sealed: bytes) -> bytes:
        """Return the delivery of a record of a stream."""
        self.say(self.delivery(attach, sealed))
        return b"".join(self.websocket.data_to_send())

    def ping(self) -> bytes:
        self.websocket.send_ping(b"there?")
        return b"".join(self.websocket.data_to_send())

    def close(self) -> bytes:
        self.websocket.send_close(1001, "going")
        return b"".join(self.websocket.data_to_send())

    def nonsense(self) -> bytes:
        """Return a message that breaks the carried protocol."""
        self.say(b"\xff\xfe\xfd nonsense \r\n")
        return b"".join(self.websocket.data_to_send())

    def greeting(self) -> list[bytes]:
        return []

    def answers(self, message: bytes) -> list[bytes]:
        raise NotImplementedError

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        raise NotImplementedError
