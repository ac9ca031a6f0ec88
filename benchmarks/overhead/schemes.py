"""The ways to seal that are compared, each as a pair of ends: the harness's suites, and no encryption.

All carry the same plaintext, a stamp of 32 bytes and the body, padded to PADME sizes of at least 256 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct
from nacl.bindings import (
    crypto_box_beforenm,
    crypto_box_keypair,
    crypto_box_seal,
    crypto_box_seal_open,
    crypto_secretbox,
    crypto_secretbox_open,
)
from nacl.signing import SigningKey
from nacl.utils import random as random_bytes

from loadtests.sealing.envelope import STAMP_BYTES, Keyring, Suite
from loadtests.sealing.records import Kind
from relay.limits import SEALED_BYTES_MIN, padme_bytes

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 24


class Ends(Protocol):
    """A sender and a recipient that have their keys."""

    def seal(self, body: bytes) -> bytes: ...

    def open(self, sealed: bytes) -> bytes: ...


class Joining(Protocol):
    """One member of a group and somebody who joins it."""

    def give(self) -> bytes:
        """The member's part, for one who joins: what it sends."""

    def take(self, given: bytes) -> object:
        """The joining one's part, for one member."""


class Scheme(Struct, frozen=True, kw_only=True):
    """One way. `each`: a message is sealed for each recipient apart, else once for the group.

    `overhead_bytes` around the plaintext before padding; None where a library says only how long its message became.
    `joining` makes the key set-up between one member and a joining one; `once` says that one member does it for all.
    """

    name: str
    title: str
    each: bool
    make: Callable[[], Ends]
    overhead_bytes: int | None
    joining: Callable[[], Joining] | None
    once: bool = False


def padded(body: bytes, overhead_bytes: int) -> bytes:
    """Return the plaintext for schemes that bring no padding of their own."""
    content = bytes(STAMP_BYTES) + body
    return content.ljust(max(padme_bytes(len(content) + overhead_bytes), SEALED_BYTES_MIN) - overhead_bytes, b"\0")


class _Suite:
    def __init__(self, suite: Suite) -> None:
        keyring = Keyring(1)
        peer = 2 if suite is Suite.BOX else None
        self._sealer = keyring.sealer(suite, 1, 1, peer=peer)
        self._opener = keyring.opener(suite, 1, 2, peer=1 if suite is Suite.BOX else None)
        self._counter = 0

    def seal(self, body: bytes) -> bytes:
        self._counter += 1
        return self._sealer.seal(Kind.MESSAGE, self._counter, 1, 1, body)

    def open(self, sealed: bytes) -> bytes:
        return self._opener.open(sealed)[1]


class _Boxed:
    """A secret goes from a member to the joining one in a box between the two: both derive its key by X25519."""

    def __init__(self, secret_bytes: int) -> None:
        self._secret = random_bytes(secret_bytes)
        self._public, self._private = crypto_box_keypair()
        self._joining_public, self._joining_private = crypto_box_keypair()

    def give(self) -> bytes:
        nonce = random_bytes(_NONCE_BYTES)
        return nonce + crypto_secretbox(self._secret, nonce, crypto_box_beforenm(self._joining_public, self._private))

    def take(self, given: bytes) -> object:
        key = crypto_box_beforenm(self._public, self._joining_private)
        return crypto_secretbox_open(given[_NONCE_BYTES:], given[:_NONCE_BYTES], key)


class _PublicKey:
    """Pairwise boxes need nothing but the other's public key."""

    def __init__(self) -> None:
        self._public, _ = crypto_box_keypair()
        _, self._joining_private = crypto_box_keypair()

    def give(self) -> bytes:
        return self._public

    def take(self, given: bytes) -> object:
        return crypto_box_beforenm(given, self._joining_private)


class _Mailbox:
    """One member hands over the key of those who read."""

    def __init__(self) -> None:
        self._secret = random_bytes(KEY_BYTES)
        self._public, self._private = crypto_box_keypair()

    def give(self) -> bytes:
        return crypto_box_seal(self._secret, self._public)

    def take(self, given: bytes) -> object:
        return crypto_box_seal_open(given, self._public, self._private)


class _Signed(_Boxed):
    """The sender's key, and the key that its signatures are checked with."""

    def __init__(self) -> None:
        super().__init__(KEY_BYTES + len(bytes(SigningKey.generate().verify_key)))


SUITES: Final = (
    Scheme(
        name="none",
        title="none",
        each=False,
        make=lambda: _Suite(Suite.NONE),
        overhead_bytes=6,
        joining=None,
    ),
    Scheme(
        name="sender-key",
        title="secretbox, sender key",
        each=False,
        make=lambda: _Suite(Suite.SENDER_KEY),
        overhead_bytes=46,
        joining=lambda: _Boxed(KEY_BYTES),
    ),
    Scheme(
        name="box",
        title="box, sent to each",
        each=True,
        make=lambda: _Suite(Suite.BOX),
        overhead_bytes=42,
        joining=_PublicKey,
    ),
    Scheme(
        name="sealed-box",
        title="sealed box",
        each=False,
        make=lambda: _Suite(Suite.SEALED_BOX),
        overhead_bytes=50,
        joining=_Mailbox,
        once=True,
    ),
    Scheme(
        name="signed-sender-key",
        title="signed sender key",
        each=False,
        make=lambda: _Suite(Suite.SIGNED_SENDER_KEY),
        overhead_bytes=110,
        joining=_Signed,
    ),
)
