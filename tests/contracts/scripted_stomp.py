"""The other end of the dialect stomp: frames of STOMP 1.2, an end of line behind each, and a receipt for what asks."""

from __future__ import annotations

from loadtests.dialects.base import Attach
from loadtests.dialects.check.scripted_end import OverWebSocket


class StompServer(OverWebSocket):
    subprotocol = "v12.stomp"

    def __init__(self) -> None:
        super().__init__()
        self.buffered = b""
        self.subscriptions: dict[str, str] = {}
        self.sent = 0

    def answers(self, message: bytes) -> list[bytes]:
        self.buffered += message
        found = []
        while self.buffered:
            if self.buffered[:1] == b"\n":  # a heart-beat
                self.buffered = self.buffered[1:]
                continue
            head, _, rest = self.buffered.partition(b"\n\n")
            command, *lines = head.decode().split("\n")
            headers = dict(line.split(":", 1) for line in lines)
            size = int(headers.get("content-length", rest.index(b"\0")))
            if len(rest) <= size:
                break
            assert rest[size] == 0
            self.buffered = rest[size + 1 :]
            found.append(self.answer(command, headers))
        return [b"".join(found)]

    def answer(self, command: str, headers: dict[str, str]) -> bytes:
        match command:
            case "CONNECT":
                assert headers["accept-version"] == "1.2"
                return b"CONNECTED\nserver:X/1\nsession:s-1\nheart-beat:5000,0\nversion:1.2\n\n\0\n"
            case "SUBSCRIBE":
                self.subscriptions[headers["destination"]] = headers["id"]
            case "SEND":
                assert headers["destination"].startswith("/topic/")
            case _:
                assert command in ("UNSUBSCRIBE", "BEGIN", "ABORT")
        return f"RECEIPT\nreceipt-id:{headers['receipt']}\n\n\0\n".encode() if "receipt" in headers else b""

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        self.sent += 1
        destination = f"/topic/{attach.topic}"
        head = (
            f"MESSAGE\nsubscription:{self.subscriptions[destination]}\ndestination:{destination}\n"
            f"message-id:T_1@@s-1@@{self.sent}\nredelivered:false\ncontent-length:{len(sealed)}\n\n"
        )
        return head.encode() + sealed + b"\0\n"
