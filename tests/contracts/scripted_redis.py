"""The other end of the dialect redis: RESP3 over plain TCP."""

from __future__ import annotations

from loadtests.dialects.base import Attach


class RedisServer:
    def __init__(self) -> None:
        self.buffered = b""

    def hear(self, data: bytes) -> bytes:
        self.buffered += data
        answers = b""
        while (command := self._command()) is not None:
            answers += self.answer(command)
        return answers

    def answer(self, words: list[bytes]) -> bytes:
        match words:
            case [b"HELLO", b"3"]:
                return b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*1\r\n_\r\n"
            case [b"SUBSCRIBE" | b"UNSUBSCRIBE" as verb, topic]:
                return b">3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(verb), verb.lower(), len(topic), topic)
            case [b"PUBLISH", _, _]:
                return b":2\r\n"
            case [b"QUIT"]:
                return b"+OK\r\n"
            case [b"PING"]:
                return b"+PONG\r\n"
        return b"-ERR unknown command\r\n"

    def _command(self) -> list[bytes] | None:
        words = []
        head, separator, rest = self.buffered.partition(b"\r\n")
        if not separator:
            return None
        for _ in range(int(head[1:])):
            size, separator, rest = rest.partition(b"\r\n")
            if not separator or len(rest) < int(size[1:]) + 2:
                return None
            words.append(rest[: int(size[1:])])
            rest = rest[int(size[1:]) + 2 :]
        self.buffered = rest
        return words

    def deliver(self, attach: Attach, sealed: bytes) -> bytes:
        return b">3\r\n$7\r\nmessage\r\n$16\r\n%b\r\n$%d\r\n%b\r\n" % (attach.topic.encode(), len(sealed), sealed)

    def nonsense(self) -> bytes:
        return b"\xff\xfe\xfd nonsense \r\n"
