"""What a client says to each kind of server, sans-IO: how it joins a stream, publishes, and what is to come back.

All publish the same 1,024 payloads in turn, one WebSocket message a publish, each masked with random bytes; the relay's
publishers count their ids up for as long as they run, as real ones do. Publishers
are connections of their own, and get acknowledgements but no records.
"""

from __future__ import annotations

import random
import time
from base64 import b64encode
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final, Protocol

import numpy as np
from nacl.signing import SigningKey

from benchmarks.fast_load.counting import (
    CYCLE,
    INDEX_AT,
    PAYLOAD_BYTES,
    Answer,
    Counter,
    CountingError,
    Frames,
    NatsAcks,
    NatsRecords,
    RelayAcks,
    Unframed,
    Units,
    frame,
    relay_records,
    split_frame,
)
from relay import wire
from relay.capability import Right, mint
from relay.errors import ProtocolError

FIRST_ID: Final = 1 << 16
"""Ids are of four bytes from here on, so that frames have one length."""
_MASKED_AT: Final = 8
"""Where the payload of a client's frame begins: behind its header of four bytes and its mask."""
_CAPABILITY_S: Final = 86_400


class Role(Enum):
    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedStream:
    """The connection has joined: the stream's number, and the sequence number after which records follow."""

    number: int
    head: int


class ClientSide(Protocol):
    """One kind of server, seen from its clients. `stream` counts from 0."""

    def request(self, stream: int, role: Role) -> bytes:
        """Return the HTTP upgrade."""

    def greeting(self, stream: int, role: Role) -> bytes:
        """Return what is sent after it."""

    def ready(self, stream: int, role: Role, received: bytes) -> JoinedStream | None:
        """Return what `received` says after the upgrade; None if more is to come. Raises CountingError."""

    def frames(self, stream: int, joined: JoinedStream) -> list[bytes]:
        """Return the 1,024 publishes of a publisher, all of one length."""

    def renew(self, joined: JoinedStream, frames: bytearray, cycle: int) -> None:
        """Make of the publishes of a cycle, one after the other, those of a later one: ids are not used twice."""

    def deliveries(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        """Return the counter of what a subscriber receives."""

    def acknowledgements(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        """Return the counter of what a publisher receives."""


@cache
def payloads() -> tuple[bytes, ...]:
    """Return the sealed payloads of a cycle: version 1, suite 1, the index, and random bytes; the same every time."""
    source = random.Random(20)
    rest = PAYLOAD_BYTES - INDEX_AT - 2
    return tuple(b"\x01\x01" + index.to_bytes(2, "big") + source.randbytes(rest) for index in range(CYCLE))


@cache
def _masks() -> tuple[bytes, ...]:
    source = random.Random(21)
    return tuple(source.randbytes(4) for _ in range(CYCLE))


def _framed(messages: list[bytes]) -> list[bytes]:
    return [frame(message, mask=mask) for message, mask in zip(messages, _masks(), strict=True)]


def _upgrade(path: str, *headers: str) -> bytes:
    key = b64encode(random.Random(path).randbytes(16)).decode()
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode()


class RelayClient:
    """The reference relay: durable records, one capability for all subscribers of a stream, one for its publisher."""

    def __init__(self) -> None:
        self._capabilities: dict[tuple[int, Role], bytes] = {}
        self._keys: dict[int, SigningKey] = {}

    def _capability(self, stream: int, role: Role) -> bytes:
        known = self._capabilities.get((stream, role))
        if known is None:
            key = self._keys.setdefault(stream, SigningKey.generate())
            right = Right.SUBSCRIBE if role is Role.SUBSCRIBE else Right.PUBLISH
            expires_s = int(time.time()) + _CAPABILITY_S
            known = mint(key, rights=right, expires_s=expires_s, serial=right.to_bytes(8, "big"))
            self._capabilities[stream, role] = known
        return known

    def request(self, stream: int, role: Role) -> bytes:
        return _upgrade("/", f"Sec-WebSocket-Protocol: {wire.SUBPROTOCOL}")

    def greeting(self, stream: int, role: Role) -> bytes:
        use = Right.SUBSCRIBE if role is Role.SUBSCRIBE else Right.PUBLISH
        subscribe = wire.Subscribe(
            request=1, capability=self._capability(stream, role), use=use, proof=None, epoch=None, after=None
        )
        hello = wire.encode(wire.Hello(version=wire.VERSION))
        return frame(hello, mask=bytes(4)) + frame(wire.encode(subscribe), mask=bytes(4))

    def ready(self, stream: int, role: Role, received: bytes) -> JoinedStream | None:
        position = 0
        while (found := split_frame(received, position, len(received))) is not None:
            opcode, start, position = found
            if opcode != 0x82:
                raise CountingError(f"the relay refused: {received[start:position]!r}")
            try:
                records = wire.decode_relay(received[start:position])
            except ProtocolError as error:
                raise CountingError(f"not a record: {error}") from None
            for record in records:
                if isinstance(record, wire.Subscribed):
                    return JoinedStream(number=record.number, head=record.head)
                if not isinstance(record, wire.Welcome):
                    raise CountingError(f"the relay refused {role.value} of stream {stream}: {record}")
        return None

    def frames(self, stream: int, joined: JoinedStream) -> list[bytes]:
        return _framed(
            [
                wire.encode(
                    wire.Publish(
                        number=joined.number, class_=wire.DURABLE, id=FIRST_ID + index, commitment=None, sealed=payload
                    )
                )
                for index, payload in enumerate(payloads())
            ]
        )

    def renew(self, joined: JoinedStream, frames: bytearray, cycle: int) -> None:
        first = wire.Publish(
            number=joined.number, class_=wire.DURABLE, id=FIRST_ID, commitment=None, sealed=payloads()[0]
        )
        message = wire.encode(first)
        id_at = message.rindex(b"\xce" + FIRST_ID.to_bytes(4, "big"), 0, -PAYLOAD_BYTES) + 1
        rows = np.frombuffer(frames, np.uint8).reshape(-1, _MASKED_AT + len(message))
        start = FIRST_ID + cycle * CYCLE
        ids = np.arange(start, start + len(rows)).astype(">u4").view(np.uint8).reshape(-1, 4)
        masks = rows[:, _MASKED_AT - 4 : _MASKED_AT]
        rows[:, _MASKED_AT + id_at : _MASKED_AT + id_at + 4] = ids ^ masks[:, [(id_at + byte) % 4 for byte in range(4)]]

    def deliveries(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        return relay_records(joined.number, joined.head, payloads(), answer)

    def acknowledgements(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        return RelayAcks(FIRST_ID, joined.head, answer)


class NatsClient:
    """NATS, `verbose` so that it acknowledges every PUB."""

    def request(self, stream: int, role: Role) -> bytes:
        return _upgrade("/")

    def greeting(self, stream: int, role: Role) -> bytes:
        verbose = "true" if role is Role.PUBLISH else "false"
        lines = f'CONNECT {{"verbose":{verbose},"pedantic":false,"echo":false,"headers":false,"protocol":0}}\r\n'
        if role is Role.SUBSCRIBE:
            lines += f"SUB {_subject(stream)} 1\r\n"
        return frame(f"{lines}PING\r\n".encode(), mask=bytes(4))

    def ready(self, stream: int, role: Role, received: bytes) -> JoinedStream | None:
        text = Unframed(lambda _: None).feed(received, len(received))
        if b"-ERR" in text:
            raise CountingError(f"NATS refused {role.value} of stream {stream}: {bytes(text)[-200:]!r}")
        return JoinedStream(number=stream, head=0) if b"\r\nPONG\r\n" in text else None

    def frames(self, stream: int, joined: JoinedStream) -> list[bytes]:
        line = f"PUB {_subject(stream)} {PAYLOAD_BYTES}\r\n".encode()
        return _framed([line + payload + b"\r\n" for payload in payloads()])

    def renew(self, joined: JoinedStream, frames: bytearray, cycle: int) -> None:
        """NATS has no ids."""

    def deliveries(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        return NatsRecords(f"MSG {_subject(stream)} 1 {PAYLOAD_BYTES}\r\n".encode(), payloads(), answer)

    def acknowledgements(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        return NatsAcks(answer)


def _subject(stream: int) -> str:
    return f"s{stream:05d}"


class BunClient:
    """Bun with `peers/bun_server.js`: topics in the path, eight bytes for every publish."""

    ACK: Final = frame(bytes(8))

    def request(self, stream: int, role: Role) -> bytes:
        return _upgrade(f"/{role.value}/{stream}")

    def greeting(self, stream: int, role: Role) -> bytes:
        return b""

    def ready(self, stream: int, role: Role, received: bytes) -> JoinedStream | None:
        if len(received) < len(self.ACK):
            return None
        if received != self.ACK:
            raise CountingError(f"Bun answered {received[:60]!r}")
        return JoinedStream(number=stream, head=0)

    def frames(self, stream: int, joined: JoinedStream) -> list[bytes]:
        return _framed(list(payloads()))

    def renew(self, joined: JoinedStream, frames: bytearray, cycle: int) -> None:
        """Bun has no ids."""

    def deliveries(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        return Frames(frame(bytes(PAYLOAD_BYTES))[:-PAYLOAD_BYTES], 0, payloads(), answer)

    def acknowledgements(self, stream: int, joined: JoinedStream, answer: Answer) -> Counter:
        return Units(self.ACK, answer)


CLIENTS: Final[dict[str, type[ClientSide]]] = {"reference": RelayClient, "nats": NatsClient, "bun": BunClient}
"""By the name of a peer, or what stands before its `@`; the fast load speaks to no others."""


def client_of(peer: str) -> ClientSide:
    """Return what speaks to `peer`. KeyError for one that the fast load cannot speak to."""
    return CLIENTS[peer.partition("@")[0]]()
