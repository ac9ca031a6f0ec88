"""Sealing and opening: the stamp, the padding, and the only place in the harness that has keys.

A sealed payload (relay/PROTOCOL.md section 4; golden vectors: tests/golden/envelope.json):

| suite | name              | after version u8 and suite u8                               | around the plaintext |
|-------|-------------------|-------------------------------------------------------------|----------------------|
| 0     | none              | key id 4, plaintext                                         | 6 bytes              |
| 1     | sender key        | key id 4, nonce 24, secretbox under the sender's key        | 46                   |
| 2     | box               | nonce 24, box between the two members                       | 42                   |
| 3     | sealed box        | sealed box to the stream's key; only the stamp names a sender | 50                 |
| 4     | signed sender key | as 1, then the sender's Ed25519 signature over all before   | 110                  |

The plaintext is the stamp (32 bytes, big-endian), the body, and zeros up to the padded size:

    kind u8 | flags u8 | clock u16 | sender u32 | counter u32 | body_bytes u32 | intended_ns i64 | sent_ns i64

What a payload belongs to is authenticated through its key: each key is derived for one suite, stream and sender, so
that a payload moved to another stream, suite or sender does not open. The key id is the sender, masked per stream.

The keys are TEST keys: anyone who knows the seed has them, which is what lets workers share them without an exchange.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from hashlib import blake2b
from struct import Struct as Layout
from typing import Final, Protocol

from nacl.bindings import (
    crypto_box_beforenm,
    crypto_box_seal,
    crypto_box_seal_open,
    crypto_scalarmult_base,
    crypto_secretbox,
    crypto_secretbox_open,
    crypto_sign,
    crypto_sign_open,
)
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.exceptions import TypeError as NaclTypeError
from nacl.signing import SigningKey

from loadtests.sealing.records import KIND_NAMES, Stamp
from relay import capability
from relay.limits import SEALED_BYTES_MIN, padme_bytes

VERSION: Final = 1


class Suite(IntEnum):
    NONE = 0
    """The baseline of the overhead benchmark: nothing is encrypted."""
    SENDER_KEY = 1
    BOX = 2
    SEALED_BOX = 3
    SIGNED_SENDER_KEY = 4


class OpenError(Exception):
    """A payload that is not whole, not for this stream, or not from whom it says."""


_STAMP: Final = Layout(">BBHIIIqq")
STAMP_BYTES: Final = _STAMP.size
_HEADER: Final = Layout(">BBI")
_NONCE_BYTES: Final = 24
_MAC_BYTES: Final = 16
_SIGNATURE_BYTES: Final = 64
_SEALED_BOX_BYTES: Final = 48
_KEYED_BYTES: Final = _HEADER.size + _NONCE_BYTES
_SIGNED_CONTEXT: Final = b"relaymark.v1 sealed\x00"

_OVERHEAD: Final = {
    Suite.NONE: _HEADER.size,
    Suite.SENDER_KEY: _KEYED_BYTES + _MAC_BYTES,
    Suite.BOX: 2 + _NONCE_BYTES + _MAC_BYTES,
    Suite.SEALED_BOX: 2 + _SEALED_BOX_BYTES,
    Suite.SIGNED_SENDER_KEY: _KEYED_BYTES + _MAC_BYTES + _SIGNATURE_BYTES,
}


class Sealer(Protocol):
    """One sender's side of one stream."""

    def seal(
        self,
        kind: int,
        counter: int,
        intended_ns: int,
        sent_ns: int,
        body: bytes = ...,
        *,
        clock: int = ...,
        flags: int = ...,
    ) -> bytes:
        """Return the padded, sealed payload. `counter`: the sender's own in this stream, from 1."""
        ...


class Opener(Protocol):
    """One member's side of one stream. Both methods raise OpenError."""

    def open(self, sealed: bytes) -> tuple[Stamp, bytes]:
        """Return stamp and body."""
        ...

    def stamp(self, sealed: bytes) -> Stamp:
        """Return the stamp alone, for a recipient who only measures. The whole payload is authenticated."""
        ...


class Keyring:
    """All keys of a run, derived from `seed` and `run`, so that every worker has the same ones.

    `run` keeps streams of repeated runs apart on a relay that remembers. `random_bytes` makes nonces.
    """

    __slots__ = ("_random_bytes", "_root")

    def __init__(self, seed: int, run: str = "", *, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._root = blake2b(f"{seed}|{run}".encode(), digest_size=32, person=b"relaymark.tests").digest()
        self._random_bytes = random_bytes

    def _derive(self, purpose: bytes, *parts: int, size: int = 32) -> bytes:
        content = b"".join(part.to_bytes(8, "big") for part in parts)
        return blake2b(content, digest_size=size, key=self._root, person=purpose).digest()

    # -- what the relay checks ---------------------------------------------------------------------

    def _stream_key(self, stream: int) -> SigningKey:
        return SigningKey(self._derive(b"stream", stream))

    def stream_name(self, stream: int) -> bytes:
        """Return the stream's public key, 32 bytes: its name on the relay."""
        return bytes(self._stream_key(stream).verify_key)

    def holder_key(self, stream: int, participant: int) -> SigningKey:
        """Return the key that a bound capability names: one a member and stream, so that streams are not linked."""
        return SigningKey(self._derive(b"holder", stream, participant))

    def capability(
        self, stream: int, participant: int, rights: int, *, expires_s: int, quorum: int = 0, bound: bool = False
    ) -> bytes:
        """Mint what lets `participant` use `stream`. `bound`: only together with a proof by its holder key."""
        return capability.mint(
            self._stream_key(stream),
            rights=rights,
            expires_s=expires_s,
            serial=self._derive(b"serial", stream, participant, size=8),
            holder=bytes(self.holder_key(stream, participant).verify_key) if bound else None,
            quorum=quorum,
        )

    def gateway_key(self) -> SigningKey:
        """Return the payment gateway's key, which signs the vouchers of tips."""
        return SigningKey(self._derive(b"gateway"))

    # -- what only members have --------------------------------------------------------------------

    def sender_key(self, suite: Suite, stream: int, sender: int) -> bytes:
        """Return the symmetric key of one sender in one stream and suite, 32 bytes."""
        return self._derive(b"sender key", suite, stream, sender)

    def sender_mask(self, stream: int) -> int:
        """Return what turns a sender into its key id in this stream, and back, by exclusive or."""
        return int.from_bytes(self._derive(b"key id", stream, size=4), "big")

    def signing_key(self, stream: int, sender: int) -> SigningKey:
        """Return the key with which a sender signs its records in a stream (suite 4)."""
        return SigningKey(self._derive(b"sender sign", stream, sender))

    def shared_key(self, stream: int, member: int, peer: int) -> bytes:
        """Return the key that two members agree on: X25519 between their key pairs of this stream (suite 2)."""
        public = crypto_scalarmult_base(self._derive(b"member", stream, peer))
        return crypto_box_beforenm(public, self._derive(b"member", stream, member))

    def mailbox_key(self, stream: int) -> tuple[bytes, bytes]:
        """Return public and private key of those who read a stream (suite 3)."""
        private = self._derive(b"mailbox", stream)
        return crypto_scalarmult_base(private), private

    def sealer(self, suite: Suite, stream: int, sender: int, *, peer: int | None = None) -> Sealer:
        """Return `sender`'s sealer for `stream`. `peer`, the other member, is needed for Suite.BOX alone."""
        header = _HEADER.pack(VERSION, suite, sender ^ self.sender_mask(stream))
        if suite is Suite.SENDER_KEY:
            return _SecretSealer(suite, sender, header, self.sender_key(suite, stream, sender), self._random_bytes)
        if suite is Suite.BOX:
            key = self.shared_key(stream, sender, _the_peer(peer))
            return _SecretSealer(suite, sender, header[:2], key, self._random_bytes)
        if suite is Suite.SIGNED_SENDER_KEY:
            key = self.sender_key(suite, stream, sender)
            return _SignedSealer(sender, header, key, self.signing_key(stream, sender), self._random_bytes)
        if suite is Suite.SEALED_BOX:
            return _MailboxSealer(sender, header[:2], self.mailbox_key(stream)[0])
        return _PlainSealer(suite, sender, header)

    def opener(self, suite: Suite, stream: int, member: int, *, peer: int | None = None) -> Opener:
        """Return `member`'s opener for `stream`. But for Suite.BOX one opener can serve all members of a worker."""
        if suite is Suite.SENDER_KEY:
            return _SenderKeyOpener(self, stream)
        if suite is Suite.BOX:
            other = _the_peer(peer)
            return _BoxOpener(self.shared_key(stream, member, other), frozenset((member, other)))
        if suite is Suite.SIGNED_SENDER_KEY:
            return _SignedOpener(self, stream)
        if suite is Suite.SEALED_BOX:
            return _MailboxOpener(*self.mailbox_key(stream))
        return _PlainOpener(self.sender_mask(stream))


def suite_for(requested: Suite, *, private: bool) -> Suite:
    """Return the suite for a stream of a run that asks for `requested`: a box has two ends, a room gets sender keys."""
    return Suite.SENDER_KEY if requested is Suite.BOX and not private else requested


def _the_peer(peer: int | None) -> int:
    if peer is None:
        raise ValueError("suite 2 (box) is between two members: name the peer")
    return peer


# -- sealing -----------------------------------------------------------------------------------------


class _PlainSealer:
    """Suite 0, and what all suites share: stamp, body and padding."""

    __slots__ = ("_header", "_overhead", "_sender")

    def __init__(self, suite: Suite, sender: int, header: bytes) -> None:
        self._overhead = _OVERHEAD[suite]
        self._sender = sender
        self._header = header

    def seal(
        self,
        kind: int,
        counter: int,
        intended_ns: int,
        sent_ns: int,
        body: bytes = b"",
        *,
        clock: int = 0,
        flags: int = 0,
    ) -> bytes:
        plain_bytes = padme_bytes(STAMP_BYTES + len(body) + self._overhead) - self._overhead
        stamp = _STAMP.pack(kind, flags, clock, self._sender, counter, len(body), intended_ns, sent_ns)
        return self._wrap((stamp + body).ljust(plain_bytes, b"\0"))

    def _wrap(self, plain: bytes) -> bytes:
        return self._header + plain


class _SecretSealer(_PlainSealer):
    """Suites 1 and 2: the same primitive, XSalsa20-Poly1305, under keys that come about differently."""

    __slots__ = ("_key", "_random_bytes")

    def __init__(
        self, suite: Suite, sender: int, header: bytes, key: bytes, random_bytes: Callable[[int], bytes]
    ) -> None:
        super().__init__(suite, sender, header)
        self._key = key
        self._random_bytes = random_bytes

    def _wrap(self, plain: bytes) -> bytes:
        nonce = self._random_bytes(_NONCE_BYTES)
        return self._header + nonce + crypto_secretbox(plain, nonce, self._key)


class _SignedSealer(_SecretSealer):
    """Suite 4: encrypted, then signed; members hold the symmetric key too, so only the signature says who."""

    __slots__ = ("_secret",)

    def __init__(
        self, sender: int, header: bytes, key: bytes, signing: SigningKey, random_bytes: Callable[[int], bytes]
    ) -> None:
        super().__init__(Suite.SIGNED_SENDER_KEY, sender, header, key, random_bytes)
        self._secret = bytes(signing) + bytes(signing.verify_key)

    def _wrap(self, plain: bytes) -> bytes:
        boxed = super()._wrap(plain)
        return boxed + crypto_sign(_SIGNED_CONTEXT + boxed, self._secret)[:_SIGNATURE_BYTES]


class _MailboxSealer(_PlainSealer):
    """Suite 3."""

    __slots__ = ("_public",)

    def __init__(self, sender: int, header: bytes, public: bytes) -> None:
        super().__init__(Suite.SEALED_BOX, sender, header)
        self._public = public

    def _wrap(self, plain: bytes) -> bytes:
        return self._header + crypto_box_seal(plain, self._public)


# -- opening -----------------------------------------------------------------------------------------


class _Opening:
    """From an authenticated plaintext to stamp and body; `_plain` returns it, and the sender its key belongs to."""

    __slots__ = ()

    def open(self, sealed: bytes) -> tuple[Stamp, bytes]:
        plain = self._plain(sealed)
        stamp = _read(plain)
        self._check_sender(sealed, stamp[3])
        return stamp, plain[STAMP_BYTES : STAMP_BYTES + stamp[5]]

    def stamp(self, sealed: bytes) -> Stamp:
        stamp = _read(self._plain(sealed))
        self._check_sender(sealed, stamp[3])
        return stamp

    def _plain(self, sealed: bytes) -> bytes:
        raise NotImplementedError

    def _check_sender(self, sealed: bytes, sender: int) -> None:
        """Raise OpenError unless the key that opened `sealed` is one that `sender` has."""


def _read(plain: bytes) -> Stamp:
    stamp = Stamp._make(_STAMP.unpack_from(plain))
    if stamp[5] > len(plain) - STAMP_BYTES or not 0 < stamp[0] < len(KIND_NAMES):
        raise OpenError("a stamp that no sealer writes")
    return stamp


def _unbox(boxed: bytes, nonce: bytes, key: bytes) -> bytes:
    try:
        return crypto_secretbox_open(boxed, nonce, key)
    except (CryptoError, ValueError):
        raise OpenError("not sealed with this key, or changed on the way") from None


def _check_form(sealed: bytes, suite: Suite) -> None:
    if len(sealed) < SEALED_BYTES_MIN or sealed[0] != VERSION or sealed[1] != suite:
        raise OpenError(f"not a sealed payload of version {VERSION} and suite {suite.value}")


class _SenderKeyOpener(_Opening):
    """Suite 1. Keys of senders are derived when their first record has come, and kept once it has opened."""

    __slots__ = ("_keyring", "_keys", "_mask", "_stream")

    suite = Suite.SENDER_KEY

    def __init__(self, keyring: Keyring, stream: int) -> None:
        self._keyring = keyring
        self._stream = stream
        self._mask = keyring.sender_mask(stream)
        self._keys: dict[bytes, bytes] = {}

    def _plain(self, sealed: bytes) -> bytes:
        return self._unbox(sealed[:6], sealed)

    def _unbox(self, header: bytes, boxed: bytes) -> bytes:
        # The six bytes hold version, suite and key id, so the look-up checks all three.
        key = self._keys.get(header)
        if key is not None:
            return _unbox(boxed[_KEYED_BYTES:], boxed[6:_KEYED_BYTES], key)
        if header[:2] != bytes((VERSION, self.suite)) or len(header) < _HEADER.size:
            raise OpenError(f"not a sealed payload of version {VERSION} and suite {self.suite.value}")
        key = self._keyring.sender_key(self.suite, self._stream, self._sender(boxed))
        plain = _unbox(boxed[_KEYED_BYTES:], boxed[6:_KEYED_BYTES], key)
        self._keys[header] = key
        return plain

    def _sender(self, sealed: bytes) -> int:
        return int.from_bytes(sealed[2:6], "big") ^ self._mask

    def _check_sender(self, sealed: bytes, sender: int) -> None:
        if sender != self._sender(sealed):
            raise OpenError("the stamp names another sender than the key")


class _SignedOpener(_SenderKeyOpener):
    """Suite 4."""

    __slots__ = ("_verify_keys",)

    suite = Suite.SIGNED_SENDER_KEY

    def __init__(self, keyring: Keyring, stream: int) -> None:
        super().__init__(keyring, stream)
        self._verify_keys: dict[bytes, bytes] = {}

    def _plain(self, sealed: bytes) -> bytes:
        _check_form(sealed, self.suite)
        header, boxed, signature = sealed[:6], sealed[:-_SIGNATURE_BYTES], sealed[-_SIGNATURE_BYTES:]
        verify_key = self._verify_keys.get(header)
        if verify_key is None:
            verify_key = bytes(self._keyring.signing_key(self._stream, self._sender(sealed)).verify_key)
        try:
            crypto_sign_open(signature + _SIGNED_CONTEXT + boxed, verify_key)
        except BadSignatureError:
            raise OpenError("not signed by its sender") from None
        self._verify_keys[header] = verify_key
        return self._unbox(header, boxed)


class _BoxOpener(_Opening):
    """Suite 2. Both ends have the same key, so a member can open its own records too."""

    __slots__ = ("_key", "_members")

    def __init__(self, key: bytes, members: frozenset[int]) -> None:
        self._key = key
        self._members = members

    def _plain(self, sealed: bytes) -> bytes:
        _check_form(sealed, Suite.BOX)
        return _unbox(sealed[2 + _NONCE_BYTES :], sealed[2 : 2 + _NONCE_BYTES], self._key)

    def _check_sender(self, sealed: bytes, sender: int) -> None:
        if sender not in self._members:
            raise OpenError("the stamp names none of the two members")


class _MailboxOpener(_Opening):
    """Suite 3. A sealed box does not authenticate its sender: the stamp is believed."""

    __slots__ = ("_private", "_public")

    def __init__(self, public: bytes, private: bytes) -> None:
        self._public = public
        self._private = private

    def _plain(self, sealed: bytes) -> bytes:
        _check_form(sealed, Suite.SEALED_BOX)
        try:
            return crypto_box_seal_open(sealed[2:], self._public, self._private)
        except (CryptoError, NaclTypeError):
            raise OpenError("not sealed to this stream, or changed on the way") from None


class _PlainOpener(_Opening):
    """Suite 0."""

    __slots__ = ("_mask",)

    def __init__(self, mask: int) -> None:
        self._mask = mask

    def _plain(self, sealed: bytes) -> bytes:
        _check_form(sealed, Suite.NONE)
        return sealed[_HEADER.size :]

    def _check_sender(self, sealed: bytes, sender: int) -> None:
        if sender != int.from_bytes(sealed[2:6], "big") ^ self._mask:
            raise OpenError("the stamp names another sender than the key id")
