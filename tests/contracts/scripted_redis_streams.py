"""The other end of the dialect redis-streams: one stream, whose reader is blocked whenever nothing is sent to it."""

from __future__ import annotations

from loadtests.dialects.base import Attach
from tests.contracts.scripted_redis import RedisServer


class RedisStreamsServer(RedisServer):
    def __init__(self) -> None:
        super().__init__()
        self.head = 0
        self.blocked = False

    def answer(self, words: list[bytes]) -> bytes:
        timeout, self.blocked = b"_\r\n" if self.blocked else b"", False
        match words:
            case [b"SET", _, _, b"NX", b"GET"]:
                return b"$2\r\n77\r\n"
            case [b"XINFO", b"STREAM", _] if not self.head:
                return timeout + b"-ERR no such key\r\n"
            case [b"XINFO", b"STREAM", _]:
                first = b"*2\r\n$3\r\n0-1\r\n*2\r\n$1\r\ns\r\n$3\r\n\r\nx\r\n"
                last = b"0-%d" % self.head
                kept = b"$17\r\nlast-generated-id\r\n$%d\r\n%b\r\n$11\r\nfirst-entry\r\n%b" % (len(last), last, first)
                return timeout + b"%3\r\n$6\r\nlength\r\n:3\r\n" + kept
            case [b"XREAD", b"BLOCK", *_]:
                self.blocked = True
                return b""
            case [b"XADD", _, b"0-*", b"s", _]:
                self.head += 1
                name = b"0-%d" % self.head
                return b"$%d\r\n%b\r\n" % (len(name), name)
            case _:
                return timeout + super().answer(words)

    def deliver(self, attach: Attach, sealed: bytes) -> bytes:
        self.head += 1
        self.blocked = False
        name, topic = b"0-%d" % self.head, attach.topic.encode()
        entry = b"*2\r\n$%d\r\n%b\r\n*2\r\n$1\r\ns\r\n$%d\r\n%b\r\n" % (len(name), name, len(sealed), sealed)
        return b"%%1\r\n$16\r\n%b\r\n*1\r\n%b" % (topic, entry)
