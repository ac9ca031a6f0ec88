"""What a stranger can send who knows only PROTOCOL.md and an address: one class of cheap input each.

An attack gives every connection its blocks of bytes; the attacker's process sends them as fast as the relay takes them,
and throws away what comes back. It runs at a lower priority than the honest clients, whose core it shares.
"""

from __future__ import annotations

import os
import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from itertools import count, repeat
from multiprocessing.connection import Connection
from typing import Final, TypeAlias

from nacl.signing import SigningKey

from benchmarks.fast_load.clients import RelayClient, Role
from benchmarks.fast_load.counting import frame
from benchmarks.rig.processes import Server
from relay import wire
from relay.capability import Right, mint

BLOCK_BYTES: Final = 65_536
BELOW: Final = 10
"""The attacker's nice value, above the honest clients'."""
OWN_STREAMS: Final = 4_000
MEMBERS: Final = 20_000
_CONNECT_S_MAX: Final = 30.0
_FAR_S: Final = 2**40
_NO_STREAM: Final = 999_999_999

Blocks: TypeAlias = Iterator[bytes]


class Stranger:
    """One connection of an attacker, and what it sends."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection((server.host, server.port), _CONNECT_S_MAX)
        self.rest = b""

    def upgrade(self) -> None:
        """Do the handshakes, WELCOME included."""
        self.socket.sendall(RelayClient().request(0, Role.PUBLISH))
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.socket.recv(4096)
        self.say(wire.Hello(wire.VERSION))

    def say(self, *records: wire.ClientRecord) -> None:
        self.socket.sendall(b"".join(map(framed, records)))

    def hear(self, kind: type[wire.RelayRecord], number: int) -> list[wire.RelayRecord]:
        """Return so many records of a kind, the next ones that come; everything else is thrown away."""
        found: list[wire.RelayRecord] = []
        while len(found) < number:
            data = self.socket.recv(BLOCK_BYTES)
            if not data:
                raise ConnectionResetError("closed in the set-up of an attack")
            self.rest += data
            payloads, self.rest = _payloads(self.rest)
            records = [record for payload in payloads for record in wire.decode_relay(payload)]
            found += [record for record in records if isinstance(record, kind)]
        return found


def framed(record: wire.ClientRecord) -> bytes:
    return frame(wire.encode(record), mask=bytes(4))


def _payloads(data: bytes) -> tuple[list[bytes], bytes]:
    payloads = []
    position = 0
    while len(data) - position >= 4:
        length, start = data[position + 1], position + 2
        if length == 126:
            length, start = int.from_bytes(data[position + 2 : position + 4], "big"), position + 4
        elif length == 127:
            length, start = int.from_bytes(data[position + 2 : position + 10], "big"), position + 10
        if start + length > len(data):
            break
        if data[position] == 0x82:
            payloads.append(data[start : start + length])
        position = start + length
    return payloads, data[position:]


def _filled(piece: bytes) -> Blocks:
    """Return blocks of one piece again and again."""
    return repeat(piece * max(1, BLOCK_BYTES // len(piece)))


def _time(_: list[Stranger]) -> Blocks:
    return _filled(framed(wire.Time(1)))


def _many_times(_: list[Stranger]) -> Blocks:
    return _filled(frame(wire.encode(wire.Time(1)) * 64, mask=bytes(4)))


def _unsubscribe(_: list[Stranger]) -> Blocks:
    return _filled(framed(wire.Unsubscribe(_NO_STREAM)))


def _pings(_: list[Stranger]) -> Blocks:
    return _filled(b"\x89\x80" + bytes(4))


def _pongs(_: list[Stranger]) -> Blocks:
    return _filled(b"\x8a\x80" + bytes(4))


def _fragments(_: list[Stranger]) -> Blocks:
    """Messages of 128 fragments whose record is refused."""
    record = wire.encode(wire.Publish(_NO_STREAM, wire.DURABLE, 1, None, b"\x01\x01" + bytes(254)))
    parts = [record[at : at + 1] for at in range(127)] + [record[127:]]
    message = b""
    for at, part in enumerate(parts):
        head = (0x80 if at == 127 else 0) | (0x02 if at == 0 else 0)
        message += bytes((head,)) + frame(part, mask=bytes(4))[1:]
    return _filled(message)


def _new_capabilities(_: list[Stranger]) -> Blocks:
    source = random.Random(os.urandom(8))
    for serial in count(1):
        records = []
        for _member in range(64):
            key = SigningKey(source.randbytes(32))
            known = mint(key, rights=Right.SUBSCRIBE, expires_s=_FAR_S, serial=serial.to_bytes(8, "big"))
            records.append(framed(wire.Subscribe(serial, known, Right.SUBSCRIBE, None, None, None)))
        yield b"".join(records)


def _wrong_signatures(_: list[Stranger]) -> Blocks:
    known = mint(SigningKey(bytes(32)), rights=Right.SUBSCRIBE, expires_s=_FAR_S, serial=bytes(8))
    return _filled(framed(wire.Subscribe(1, known[:-64] + bytes(64), Right.SUBSCRIBE, None, None, None)))


def _refused_publishes(_: list[Stranger]) -> Blocks:
    return _filled(framed(wire.Publish(_NO_STREAM, wire.DURABLE, 1, None, b"\x01\x01" + bytes(254))))


def _erase(strangers: list[Stranger]) -> Blocks:
    one = strangers[0]
    use = Right.PUBLISH | Right.ERASE
    numbers: list[int] = []
    for start in range(0, OWN_STREAMS, 200):
        keys = [SigningKey((start + at + 1).to_bytes(32, "big")) for at in range(200)]
        capabilities = [mint(key, rights=use, expires_s=_FAR_S, serial=bytes(8)) for key in keys]
        one.say(*[wire.Subscribe(at, known, use, None, None, None) for at, known in enumerate(capabilities)])
        came = [record.number for record in one.hear(wire.Subscribed, 200) if isinstance(record, wire.Subscribed)]
        one.say(*[wire.Publish(n, 0, n, None, b"\x01\x01" + bytes(254)) for n in came])
        numbers += came
        time.sleep(0.05)
    return repeat(b"".join(framed(wire.Erase(number)) for number in numbers))


def _acks(strangers: list[Stranger]) -> Blocks:
    key = SigningKey(b"\x07" * 32)
    rights = Right.SUBSCRIBE | Right.PUBLISH
    one = strangers[0]

    def join(member: int) -> wire.Subscribe:
        known = mint(key, rights=rights, expires_s=_FAR_S, serial=member.to_bytes(8, "big"), quorum=MEMBERS // 2)
        return wire.Subscribe(member, known, rights, None, None, None)

    one.say(join(1))
    (found,) = one.hear(wire.Subscribed, 1)
    assert isinstance(found, wire.Subscribed)
    number = found.number
    for first in range(1, 4001, 200):
        one.say(*[wire.Publish(number, 0, id_, None, b"\x01\x01" + bytes(254)) for id_ in range(first, first + 200)])
        one.hear(wire.Message, 200)
    for start in range(2, MEMBERS, 100):
        for member in range(start, min(start + 100, MEMBERS)):
            one.say(join(member), wire.Ack(number, 1))
        one.hear(wire.Subscribed, min(100, MEMBERS - start))
    rounds = [b"".join(framed(wire.Ack(number, upto)) for upto in range(2, 4001))]
    return iter(rounds * 1)


ATTACKS: Final[dict[str, Callable[[list[Stranger]], Blocks]]] = {
    "TIME": _time,
    "TIME, 64 a message": _many_times,
    "refused UNSUBSCRIBE": _unsubscribe,
    "refused PUBLISH": _refused_publishes,
    "new capabilities": _new_capabilities,
    "wrong signatures": _wrong_signatures,
    "pings": _pings,
    "pongs": _pongs,
    "messages of 128 fragments": _fragments,
    "ERASE of 4,000 own streams": _erase,
    "ACK among 20,000 members": _acks,
}
ALONE: Final = {"ERASE of 4,000 own streams", "ACK among 20,000 members"}
"""Attacks of one connection: their set-up is what makes them."""


def attack(parent: Connection[object, object], name: str, server: Server, number: int) -> None:
    """Connect, say so, send until the parent says stop. The main function of the attacker's process."""
    os.nice(BELOW)
    strangers = [Stranger(server) for _ in range(number)]
    for one in strangers:
        one.upgrade()
    blocks = ATTACKS[name](strangers)
    parent.send("ready")
    parent.recv()
    sent = _flood(parent, strangers, blocks)
    parent.send(sent)


def _flood(parent: Connection[object, object], strangers: list[Stranger], blocks: Blocks) -> int:
    sent = 0
    waiting: dict[int, memoryview] = {}
    by_descriptor = {one.socket.fileno(): one.socket for one in strangers}
    buffer = bytearray(1 << 20)
    with select.epoll() as epoll:
        for descriptor, one in by_descriptor.items():
            one.setblocking(False)
            waiting[descriptor] = memoryview(next(blocks, b""))
            epoll.register(descriptor, select.EPOLLIN | select.EPOLLOUT)
        while not parent.poll(0):
            if not by_descriptor:
                time.sleep(0.05)
                continue
            for descriptor, mask in epoll.poll(0.05):
                one = by_descriptor[descriptor]
                try:
                    if mask & select.EPOLLIN and not one.recv_into(buffer):
                        raise ConnectionResetError
                    if mask & select.EPOLLOUT:
                        gone = one.send(waiting[descriptor])
                        sent += gone
                        rest = waiting[descriptor][gone:]
                        if not rest:
                            rest = memoryview(next(blocks, b""))
                            if not rest:
                                epoll.modify(descriptor, select.EPOLLIN)
                        waiting[descriptor] = rest
                except BlockingIOError:
                    pass
                except OSError:
                    epoll.unregister(descriptor)
                    del by_descriptor[descriptor]
    parent.recv()
    return sent
