"""The other end of the dialect jetstream: one stream, and what the server answers about it."""

from __future__ import annotations

import json

from loadtests.dialects.base import Attach
from loadtests.dialects.check.scripted_end import OverWebSocket


class JetStreamServer(OverWebSocket):
    def __init__(self) -> None:
        super().__init__()
        self.buffered = b""
        self.sids: dict[bytes, bytes] = {}  # subject -> sid
        self.inbox = b""
        self.head = 0

    def greeting(self) -> list[bytes]:
        return [b'INFO {"server_id":"X","version":"2","headers":true,"jetstream":true}\r\n']

    def answers(self, message: bytes) -> list[bytes]:
        self.buffered += message
        found = []
        while b"\r\n" in self.buffered:
            line, _, rest = self.buffered.partition(b"\r\n")
            verb, *words = line.split()
            payload = b""
            if verb in (b"PUB", b"HPUB"):
                size = int(words[-1])
                if len(rest) < size + 2:
                    break
                assert rest[size : size + 2] == b"\r\n"
                payload, rest = rest[:size], rest[size + 2 :]
            found.append(self.answer(verb, words, payload))
            self.buffered = rest
        return [b"".join(found)]

    def answer(self, verb: bytes, words: list[bytes], payload: bytes) -> bytes:
        match verb, words:
            case b"CONNECT", _:
                assert json.loads(b" ".join(words))["headers"]
            case b"SUB", [subject, sid]:
                self.sids[subject] = sid
            case b"PING", []:
                return b"PONG\r\n"
            case b"HPUB", [_, reply, head_bytes, _]:
                assert payload[: int(head_bytes)].startswith(b"NATS/1.0\r\nNats-Msg-Id: ")
                self.head += 1
                return self.reply(reply, {"stream": "x", "seq": self.head})
            case b"PUB", [subject, reply, _]:
                about = {"created": "1970-01-01T00:00:00.000000077Z", "state": {"first_seq": 0, "last_seq": self.head}}
                if subject.startswith(b"$JS.API.CONSUMER.CREATE."):
                    self.inbox = json.loads(payload)["config"]["deliver_subject"].encode()
                    about = {"stream_name": "x", "name": "c", "created": "2026-11-27T23:37:58Z"}
                return self.reply(reply, about)
        return b""

    def reply(self, subject: bytes, answer: object) -> bytes:
        body = json.dumps(answer).encode()
        sid = self.sids[subject.rpartition(b".")[0] + b".*"]
        return b"MSG %b %b %d\r\n%b\r\n" % (subject, sid, len(body), body)

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        self.head += 1
        topic, header = attach.topic.encode(), b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"
        place = b"$JS.ACK.%b.c.1.%d.%d.1795822679131021289.0" % (topic, self.head, self.head)
        sizes = len(header), len(header) + len(sealed)
        return b"HMSG %b %b %b %d %d\r\n%b%b\r\n" % (topic, self.sids[self.inbox], place, *sizes, header, sealed)
