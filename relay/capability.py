"""Capabilities: who may do what on a stream, as a statement signed by the stream's own key.

A stream is named by an Ed25519 public key, so a capability proves itself: the relay keeps no table of users. With a
holder key in it, the client must also sign the connection's challenge, and a stolen capability alone is worth nothing.

Layout, 148 bytes, big-endian (relay/PROTOCOL.md section 5):

    version u8 = 1 | rights u8 | quorum u16 | expires_s u64 | serial 8 | stream 32 | holder 32 or zeros | signature 64
"""

from __future__ import annotations

from collections import OrderedDict
from enum import IntFlag
from hashlib import blake2b
from struct import Struct as Layout
from typing import Final

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from relay.errors import Code, Refused
from relay.limits import CAPABILITIES_REMEMBERED_MAX, HANDLE_BYTES

VERSION: Final = 1
_STATEMENT: Final = Layout(">BBHQ8s32s32s")
SERIAL_BYTES: Final = 8
SIGNATURE_BYTES: Final = 64
CAPABILITY_BYTES: Final = _STATEMENT.size + SIGNATURE_BYTES
_NO_HOLDER: Final = bytes(32)

# Signatures are over a context and the content, so that none can be replayed as another kind of statement.
_CAPABILITY_CONTEXT: Final = b"relaymark.v1 capability\x00"
_HOLDER_CONTEXT: Final = b"relaymark.v1 holder\x00"


class Right(IntFlag):
    SUBSCRIBE = 1
    PUBLISH = 2
    ERASE = 4
    EXPORT = 8


# A plain integer: the complement of an IntFlag has only the bits that the flag knows, so it masks no unknown ones.
ALL_RIGHTS: Final = int(Right.SUBSCRIBE | Right.PUBLISH | Right.ERASE | Right.EXPORT)


class Capability(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a stream's key states. `quorum`: members whose ACK lets a record be forgotten; 0: age alone decides."""

    stream: bytes
    rights: int
    quorum: int
    expires_s: int
    serial: bytes
    holder: bytes | None


def mint(
    key: SigningKey,
    *,
    rights: int,
    expires_s: int,
    serial: bytes,
    holder: bytes | None = None,
    quorum: int = 0,
) -> bytes:
    """Sign a capability with the stream's key. `expires_s` is Unix time; `serial` 8 random bytes, one a member."""
    # The layout would silently cut or fill up what has another length.
    assert len(serial) == SERIAL_BYTES
    assert holder is None or len(holder) == len(_NO_HOLDER)
    assert rights
    assert not rights & ~ALL_RIGHTS
    statement = _STATEMENT.pack(VERSION, rights, quorum, expires_s, serial, bytes(key.verify_key), holder or _NO_HOLDER)
    return statement + key.sign(_CAPABILITY_CONTEXT + statement).signature


def prove(holder_key: SigningKey, challenge: bytes, capability: bytes) -> bytes:
    """Sign this connection's challenge as the holder of `capability`: the `proof` of SUBSCRIBE, 64 bytes."""
    return holder_key.sign(_HOLDER_CONTEXT + challenge + capability).signature


def parse(capability: bytes) -> Capability:
    """Return what `capability` states, its signature checked. Raises Refused(CAPABILITY)."""
    if len(capability) != CAPABILITY_BYTES or capability[0] != VERSION:
        raise Refused(Code.CAPABILITY, "not a capability of version 1")
    statement, signature = capability[: _STATEMENT.size], capability[_STATEMENT.size :]
    _, rights, quorum, expires_s, serial, stream, holder = _STATEMENT.unpack(statement)
    if not rights or rights & ~ALL_RIGHTS:
        raise Refused(Code.CAPABILITY, "unknown rights")
    try:
        VerifyKey(stream).verify(_CAPABILITY_CONTEXT + statement, signature)
    except (BadSignatureError, ValueError):
        raise Refused(Code.CAPABILITY, "not signed by the stream's key") from None
    return Capability(
        stream=stream,
        rights=rights,
        quorum=quorum,
        expires_s=expires_s,
        serial=serial,
        holder=None if holder == _NO_HOLDER else holder,
    )


class Verifier:
    """Checks capabilities, and remembers those it has verified, so that a reconnect storm costs no signatures."""

    __slots__ = ("_known", "_known_max", "hits", "misses", "refusals")

    def __init__(self, known_max: int = CAPABILITIES_REMEMBERED_MAX) -> None:
        self._known: OrderedDict[bytes, Capability] = OrderedDict()
        self._known_max = known_max
        self.hits = 0
        self.misses = 0
        self.refusals = 0

    def signatures(self, capability: bytes) -> int:
        """Return how many signatures a `check` verifies: none for what it remembers or what has not the form."""
        if len(capability) != CAPABILITY_BYTES:
            return 0
        holder = capability[_STATEMENT.size - len(_NO_HOLDER) : _STATEMENT.size]
        return (capability not in self._known) + (holder != _NO_HOLDER)

    def check(self, capability: bytes, *, use: int, proof: bytes | None, challenge: bytes, now_s: int) -> Capability:
        """Return the capability if it gives every right in `use` to the client of this challenge. Raises Refused.

        The answer depends on the capability alone, never on the stream: a refusal tells nothing of what exists.
        """
        try:
            return self._check(capability, use, proof, challenge, now_s)
        except Refused:
            self.refusals += 1
            raise

    def _check(self, capability: bytes, use: int, proof: bytes | None, challenge: bytes, now_s: int) -> Capability:
        known = self._known.get(capability)
        if known is None:
            known = parse(capability)
            self.misses += 1
            self._known[capability] = known
            if len(self._known) > self._known_max:
                self._known.popitem(last=False)
        else:
            self.hits += 1
            self._known.move_to_end(capability)
        if known.expires_s <= now_s:
            raise Refused(Code.EXPIRED)
        if not use or use & ~known.rights:
            raise Refused(Code.RIGHT)
        if known.holder is not None:
            # Every connection has a challenge of its own, so this one is checked every time.
            try:
                VerifyKey(known.holder).verify(_HOLDER_CONTEXT + challenge + capability, proof or b"")
            except (BadSignatureError, ValueError):
                raise Refused(Code.HOLDER) from None
        return known


def handle_of(capability: Capability, secret: bytes) -> bytes:
    """Return the member's pseudonym in this stream: stable over reconnects, unlinkable across streams and relays.

    16 bytes of BLAKE2b, keyed with the relay's secret, over the stream and the holder key or, without one, the serial.
    """
    member = capability.holder or capability.serial
    return blake2b(
        capability.stream + member, digest_size=HANDLE_BYTES, key=secret, person=b"relaymark.handle"
    ).digest()


def franking_tag(secret: bytes, *, commitment: bytes, stream: bytes, seq: int, at_ns: int, handle: bytes) -> bytes:
    """Return the tag by which the relay later recognises what it relayed, though it never read it (32 bytes).

    Source: Grubbs, Lu, Ristenpart, "Message Franking via Committing Authenticated Encryption", 2017.
    """
    content = b"".join((commitment, stream, seq.to_bytes(8, "big"), at_ns.to_bytes(8, "big"), handle))
    return blake2b(content, digest_size=32, key=secret, person=b"relaymark.tag\0\0\0").digest()
