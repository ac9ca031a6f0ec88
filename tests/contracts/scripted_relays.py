"""The other end of every dialect, as small as it can be: one connection, any stream, everybody may do everything.

Written from the protocols' descriptions, WebSocket framed by a library, and sharing nothing with the dialects: a fault
that both ends had in common would not show.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable

from loadtests.dialects.base import Attach, Place
from loadtests.dialects.centrifugo import Centrifugo
from loadtests.dialects.check.conversation import Subject, fixed
from loadtests.dialects.check.scripted_end import OverWebSocket
from loadtests.dialects.jetstream import JetStream
from loadtests.dialects.mqtt import Mqtt
from loadtests.dialects.nats import Nats
from loadtests.dialects.nchan import Nchan
from loadtests.dialects.nostr import Nostr
from loadtests.dialects.raw import Raw
from loadtests.dialects.redis import Redis
from loadtests.dialects.redis_streams import RedisStreams
from loadtests.dialects.reference import Reference
from loadtests.dialects.socketio import SocketIo
from loadtests.dialects.stomp import Stomp
from loadtests.dialects.xmpp import Xmpp
from relay import wire
from tests.contracts.scripted_jetstream import JetStreamServer
from tests.contracts.scripted_nostr import NostrServer
from tests.contracts.scripted_redis import RedisServer
from tests.contracts.scripted_redis_streams import RedisStreamsServer
from tests.contracts.scripted_socketio import SocketIoServer
from tests.contracts.scripted_stomp import StompServer
from tests.contracts.scripted_xmpp import XmppServer

LIMITS = wire.Limits(131072, 262144, 64, 4096, 256, 20000, 20000, 30000, 5000)


class ReferenceRelay(OverWebSocket):
    subprotocol = wire.SUBPROTOCOL

    def __init__(self) -> None:
        super().__init__()
        self.head = 0

    def answers(self, message: bytes) -> list[bytes]:
        found: list[wire.RelayRecord] = []
        for record in wire.decode_client(message):
            match record:
                case wire.Hello():
                    found.append(wire.Welcome(1, bytes(32), 5, LIMITS))
                case wire.Subscribe():
                    found.append(wire.Subscribed(record.request, 9, 77, self.head, True))
                case wire.Publish():
                    self.head += 1
                    found.append(wire.Published([record.id, self.head]))
                case wire.Unsubscribe():
                    found.append(wire.Unsubscribed(9, self.head))
        return [b"".join(wire.encode(record) for record in found)]

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        self.head += 1
        return wire.encode(wire.Message(9, self.head, 6, None, sealed))


class NatsServer(OverWebSocket):
    def __init__(self) -> None:
        super().__init__()
        self.buffered = b""
        self.subjects: dict[bytes, bytes] = {}

    def greeting(self) -> list[bytes]:
        return [b'INFO {"server_id":"X","version":"2","max_payload":1048576}\r\n']

    def answers(self, message: bytes) -> list[bytes]:
        self.buffered += message
        found = []
        while b"\r\n" in self.buffered:
            line, _, rest = self.buffered.partition(b"\r\n")
            verb, *words = line.split()
            if verb == b"PUB":
                size = int(words[-1])
                if len(rest) < size + 2:
                    break
                assert rest[size : size + 2] == b"\r\n"
                rest = rest[size + 2 :]
            elif verb == b"SUB":
                self.subjects[words[0]] = words[1]
            found.append(b"PONG\r\n" if verb == b"PING" else b"" if verb == b"PONG" else b"+OK\r\n")
            self.buffered = rest
        return [b"".join(found)]

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        subject = attach.topic.encode()
        return b"MSG %b %b %d\r\n%b\r\n" % (subject, self.subjects[subject], len(sealed), sealed)


class MqttServer(OverWebSocket):
    subprotocol = "mqtt"

    def answers(self, message: bytes) -> list[bytes]:
        start = 1
        while message[start] & 0x80:
            start += 1
        body = message[start + 1 :]
        match message[0] >> 4:
            case 1:
                assert body[:6] == b"\x00\x04MQTT"
                return [b"\x20\x02\x00\x00"]
            case 3:
                after = 2 + int.from_bytes(body[:2], "big")
                return [b"\x40\x02" + body[after : after + 2]] if message[0] & 0x06 else []
            case 8:
                return [b"\x90\x03" + body[:2] + b"\x00"]
            case 10:
                return [b"\xb0\x02" + body[:2]]
            case 12:
                return [b"\xd0\x00"]
        return []

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        body = len(attach.topic).to_bytes(2, "big") + attach.topic.encode() + sealed
        length, digits = len(body), b""
        while True:
            length, digit = divmod(length, 128)
            digits += bytes((digit | 0x80 if length else digit,))
            if not length:
                return b"\x30" + digits + body

    def nonsense(self) -> bytes:
        self.say(b"\x40\x02\x12\x34")  # an acknowledgement of nothing
        return b"".join(self.websocket.data_to_send())


class NchanServer(OverWebSocket):
    def nonsense(self) -> bytes:
        return b"\xf2\x00"  # reserved bits: nchan has no form of its own that a delivery could break

    def answers(self, message: bytes) -> list[bytes]:
        assert self.path.startswith("/publish/")
        lines = "queued messages: 0\r\nlast requested: 0 sec. ago\r\nactive subscribers: 2\r\nlast message id: 1:0"
        return [lines.encode()]

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        assert self.path == f"/subscribe/{attach.topic}"
        return sealed


class BareServer(OverWebSocket):
    def answers(self, message: bytes) -> list[bytes]:
        return [b"A" + message[1:13] if message[:1] == b"P" else message]

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        return b"P" + attach.name[:8] + b"\x00\x00\x00\x07" + sealed


class CentrifugoServer(OverWebSocket):
    text = True

    def answers(self, message: bytes) -> list[bytes]:
        found = []
        for line in message.splitlines():
            command = json.loads(line)
            if command:
                number = command.pop("id")
                ((what, _),) = command.items()
                found.append(json.dumps({"id": number, what: {}}).encode())
        return [b"\n".join(found)] if found else []

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        push = {"channel": attach.topic, "pub": {"data": b64encode(sealed).decode()}}
        return json.dumps({"push": push}).encode() + b"\n{}"


class _NostrAtOneTime(Nostr):
    """Nostr's events carry the time, which the golden bytes must not."""

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = fixed) -> None:
        super().__init__(place, random_bits=random_bits, now_s=lambda: 1_800_000_000.5)


MAKE: dict[str, Subject] = {
    "reference": Subject(Reference, ReferenceRelay),
    "jetstream": Subject(JetStream, JetStreamServer),
    "nats": Subject(Nats, NatsServer),
    "mqtt": Subject(Mqtt, MqttServer),
    "nchan": Subject(Nchan, NchanServer),
    "raw": Subject(Raw, BareServer),
    "redis": Subject(Redis, RedisServer),
    "redis-streams": Subject(RedisStreams, RedisStreamsServer),
    "centrifugo": Subject(Centrifugo, CentrifugoServer),
    "socketio": Subject(SocketIo, SocketIoServer),
    "nostr": Subject(_NostrAtOneTime, NostrServer),
    "stomp": Subject(Stomp, StompServer),
    "xmpp": Subject(Xmpp, XmppServer),
}
"""By name: the dialect and its other end."""
