"""A Socket.IO server with rooms and binary attachments, from the Engine.IO 4 and Socket.IO 5 protocols' descriptions."""

from __future__ import annotations

import json
import re

from loadtests.dialects.base import Attach
from loadtests.dialects.check.scripted_end import OverWebSocket

PACKET = re.compile(rb"4([25])(?:(\d+)-)?(\d*)(\[.*\])")


class SocketIoServer(OverWebSocket):
    """Of its messages those that begin as sealed bytes do are attachments, and binary; all others are text."""

    def __init__(self) -> None:
        super().__init__()
        self.attachment_of: str | None = None

    def say(self, *messages: bytes) -> None:
        for message in messages:
            send = self.websocket.send_binary if message[:2] == b"\x01\x01" else self.websocket.send_text
            send(message)

    def greeting(self) -> list[bytes]:
        assert self.path == "/socket.io/?EIO=4&transport=websocket"
        return [
            b'0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
        ]

    def answers(self, message: bytes) -> list[bytes]:
        if self.attachment_of is not None:
            acknowledged, self.attachment_of = self.attachment_of, None
            return [f"43{acknowledged}[]".encode()] if acknowledged else []
        if message == b"40":
            return [b'40{"sid":"wZX3oN0bSVIhsaknAAAI"}']
        if message in (b"3", b"41"):
            return []
        packet = PACKET.fullmatch(message)
        assert packet is not None, message
        kind, attachments, acknowledgement, payload = packet.groups()
        match json.loads(payload):
            case ["join", str(), bool()] | ["leave", str()]:
                assert (kind, attachments) == (b"2", None)
                return [b"43" + acknowledgement + b"[]"]
            case ["publish", str(), {"_placeholder": True, "num": 0}]:
                assert (kind, attachments) == (b"5", b"1")
                assert acknowledgement
            case ["state", str(), int(), {"_placeholder": True, "num": 0}]:
                assert (kind, attachments, acknowledgement) == (b"5", b"1", b"")
            case other:
                raise AssertionError(other)
        self.attachment_of = acknowledgement.decode()
        return []

    def deliver(self, attach: Attach, sealed: bytes) -> bytes:
        self.say(self.delivery(attach, sealed), sealed)
        return b"".join(self.websocket.data_to_send())

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        return b'451-["message","%b",{"_placeholder":true,"num":0}]' % attach.topic.encode()
