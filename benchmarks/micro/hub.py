"""The relay's core without I/O: a publish goes in as bytes, and what its subscribers get is taken out of their outboxes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle

from nacl.signing import SigningKey

from benchmarks.micro.codec import SEALED, publish
from relay import wire
from relay.capability import Right, Verifier, mint
from relay.hub import Hub
from relay.outbox import DURABLE, Chunk, Outbox
from relay.session import Rates, Session
from relay.store import MemoryStore
from relay.transports.base import Relay

_UNLIMITED_PER_S = 10**9
_NUMBER = 3
BATCH = 16


def _capability(rights: int) -> bytes:
    return mint(SigningKey(bytes(32)), rights=rights, expires_s=int(time.time()) + 86_400, serial=bytes(8))


class _Room:
    def __init__(self, subscribers: int) -> None:
        rates = Rates(durable_per_s=_UNLIMITED_PER_S, control_per_s=_UNLIMITED_PER_S)
        self._relay = Relay(MemoryStore(bytes(32)), rates=rates)
        self._hub: Hub = self._relay.hub
        subscribe = wire.Subscribe(
            request=1, capability=_capability(3), use=Right.SUBSCRIBE, proof=None, epoch=None, after=None
        )
        for _ in range(subscribers):
            self._join(subscribe)
        self._publisher = self._join(
            wire.Subscribe(request=1, capability=_capability(3), use=Right.PUBLISH, proof=None, epoch=None, after=None)
        )
        number = next(iter(self._publisher.attachments))
        messages = [
            wire.encode(
                wire.Publish(number=number, class_=wire.DURABLE, id=10_000 + at, commitment=None, sealed=SEALED)
            )
            for at in range(1024)
        ]
        self._messages = cycle([messages[at : at + BATCH] for at in range(0, 1024, BATCH)])
        self.turn()

    def _join(self, subscribe: wire.Subscribe) -> Session:
        session = self._relay.greet("/")
        assert isinstance(session, Session)
        session.box.owner = self
        session.receive_message(wire.encode(wire.Hello(version=wire.VERSION)))
        session.receive_message(wire.encode(subscribe))
        return session

    def turn(self) -> None:
        self._hub.now_ns = self._relay.clock()
        again = True
        while again:
            again = self._hub.turn()
            boxes, self._hub.fanout.dirty = self._hub.fanout.dirty, []
            for box in boxes:
                box.dirty = False
                box.wrote(len(box.gather()))

    def batch(self) -> None:
        receive = self._publisher.receive
        for message in next(self._messages):
            receive([message])
        self.turn()
        assert not self._hub.counters.refused, "every publish is within the bounds"


def fan_out(subscribers: int) -> Callable[[], object]:
    """Return what publishes sixteen records to so many subscribers and empties every outbox."""
    return _Room(subscribers).batch


fan_out_1, fan_out_100, fan_out_10_000 = (partial(fan_out, count) for count in (1, 100, 10_000))


def outbox_direct() -> Callable[[], object]:
    """Two records pushed, gathered and written whole: a socket that accepts."""
    hub = Relay(MemoryStore(bytes(32))).hub
    box = Outbox(hub.counters)
    chunks = [Chunk(wire.encode(publish()), DURABLE, _NUMBER, at, at) for at in (1, 2)]

    def turn() -> None:
        box.pending += chunks
        box.wrote(len(box.gather()))

    return turn


def outbox_standing() -> Callable[[], object]:
    """Two records pushed, a part written, the rest later: a socket that is full."""
    hub = Relay(MemoryStore(bytes(32))).hub
    box = Outbox(hub.counters)
    chunks = [Chunk(wire.encode(publish()), DURABLE, _NUMBER, at, at) for at in (1, 2)]

    def turn() -> None:
        box.pending += chunks
        box.gather()
        box.wrote(100)
        while data := box.gather():
            box.wrote(len(data))

    return turn


def capability_cold() -> Callable[[], object]:
    """A capability that was never seen: one Ed25519 verification."""
    capability, now_s = _capability(3), int(time.time())

    def check() -> None:
        Verifier().check(capability, use=Right.SUBSCRIBE, proof=None, challenge=b"", now_s=now_s)

    return check


def capability_remembered() -> Callable[[], object]:
    capability, now_s, verifier = _capability(3), int(time.time()), Verifier()
    verifier.check(capability, use=Right.SUBSCRIBE, proof=None, challenge=b"", now_s=now_s)

    def check() -> None:
        verifier.check(capability, use=Right.SUBSCRIBE, proof=None, challenge=b"", now_s=now_s)

    return check
