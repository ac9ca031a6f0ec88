"""Olm and Megolm by vodozemac, and the Double Ratchet by doubleratchet, where these libraries are installed.

Their plaintext is the same as the suites', padded; how long a message becomes is the library's doing. Sessions are set
up once; both sides of Olm have sent, so that what is timed are ordinary messages. In the steady state of one direction
the Diffie-Hellman ratchet does not turn: what is timed is the symmetric chain, as for a run of messages of one member.
"""

from __future__ import annotations

import importlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from nacl.bindings import crypto_box_keypair
from nacl.utils import random as random_bytes

from benchmarks.overhead.schemes import Ends, Joining, Scheme, padded
from loadtests.sealing.envelope import STAMP_BYTES

vodozemac: Any
try:
    vodozemac = importlib.import_module("vodozemac")
except ImportError:
    vodozemac = None
try:
    import doubleratchet
    from doubleratchet.recommended import aead_aes_hmac, diffie_hellman_ratchet_curve25519, kdf_hkdf, kdf_separate_hmacs
except ImportError:
    doubleratchet = None

HOW_TO_GET = "pip install 'relaymark[ratchets]'"
_T = TypeVar("_T")


def _finish(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that never waits: the library is async by interface only."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: _T = done.value
        return value
    raise AssertionError("doubleratchet waited for something")


def _olm_accounts() -> tuple[Any, Any]:
    sender, recipient = vodozemac.Account(), vodozemac.Account()
    recipient.generate_one_time_keys(1)
    return sender, recipient


def _olm_sessions() -> tuple[Any, Any]:
    sender, recipient = _olm_accounts()
    one_time_key = next(iter(recipient.one_time_keys.values()))
    outbound = sender.create_outbound_session(recipient.curve25519_key, one_time_key)
    first = outbound.encrypt(b"first").to_pre_key()
    inbound, _ = recipient.create_inbound_session(sender.curve25519_key, first)
    outbound.decrypt(inbound.encrypt(b"answer"))
    return outbound, inbound


class Olm:
    def __init__(self) -> None:
        self._outbound, self._inbound = _olm_sessions()

    def seal(self, body: bytes) -> bytes:
        sealed: bytes = self._outbound.encrypt(padded(body, 0)).to_parts()[1]
        return sealed

    def open(self, sealed: bytes) -> bytes:
        plain: bytes = self._inbound.decrypt(vodozemac.AnyOlmMessage.normal(sealed))
        return plain[STAMP_BYTES:]


class Megolm:
    def __init__(self) -> None:
        self._outbound = vodozemac.GroupSession()
        self._inbound = vodozemac.InboundGroupSession(self._outbound.session_key)

    def seal(self, body: bytes) -> bytes:
        sealed: bytes = self._outbound.encrypt(padded(body, 0)).to_bytes()
        return sealed

    def open(self, sealed: bytes) -> bytes:
        plain: bytes = self._inbound.decrypt(vodozemac.MegolmMessage.from_bytes(sealed)).plaintext
        return plain[STAMP_BYTES:]


class OlmJoining:
    """A member opens a session to the joining one by a one-time key; the first message carries what to share."""

    def __init__(self) -> None:
        self._member, self._joining = _olm_accounts()
        self._one_time_key = next(iter(self._joining.one_time_keys.values()))

    def shared(self) -> bytes:
        return b"joined"

    def give(self) -> bytes:
        session = self._member.create_outbound_session(self._joining.curve25519_key, self._one_time_key)
        given: bytes = session.encrypt(self.shared()).to_parts()[1]
        return given

    def take(self, given: bytes) -> object:
        message = vodozemac.AnyOlmMessage.pre_key(given).to_pre_key()
        _, plain = self._joining.create_inbound_session(self._member.curve25519_key, message)
        return plain


class MegolmJoining(OlmJoining):
    """The member's Megolm session key comes through a fresh Olm session."""

    def __init__(self) -> None:
        super().__init__()
        self._group = vodozemac.GroupSession()

    def shared(self) -> bytes:
        key: str = self._group.session_key.to_base64()
        return key.encode()

    def take(self, given: bytes) -> object:
        plain = super().take(given)
        assert isinstance(plain, bytes)
        return vodozemac.InboundGroupSession(vodozemac.SessionKey(plain.decode()))


def _ratchet_classes() -> tuple[type, dict[str, Any]]:
    hashes = doubleratchet.recommended.HashFunction.SHA_256

    class RootKdf(kdf_hkdf.KDF):  # type: ignore[misc]  # the library is untyped where it is not installed
        @staticmethod
        def _get_hash_function() -> Any:
            return hashes

        @staticmethod
        def _get_info() -> bytes:
            return b"relaymark root"

    class ChainKdf(kdf_separate_hmacs.KDF):  # type: ignore[misc]
        @staticmethod
        def _get_hash_function() -> Any:
            return hashes

    class Aead(aead_aes_hmac.AEAD):  # type: ignore[misc]
        @staticmethod
        def _get_hash_function() -> Any:
            return hashes

        @staticmethod
        def _get_info() -> bytes:
            return b"relaymark message"

    class _Configured(doubleratchet.DoubleRatchet):  # type: ignore[misc]
        @staticmethod
        def _build_associated_data(associated_data: bytes, header: Any) -> bytes:
            numbers = header.sending_chain_length.to_bytes(8, "big") + header.previous_sending_chain_length.to_bytes(
                8, "big"
            )
            return bytes(associated_data + header.ratchet_pub + numbers)

    return _Configured, {
        "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
        "root_chain_kdf": RootKdf,
        "message_chain_kdf": ChainKdf,
        "message_chain_constant": b"\x01\x02",
        "dos_protection_threshold": 1000,
        "max_num_skipped_message_keys": 1000,
        "aead": Aead,
        "associated_data": b"",
    }


_HEADER_BYTES = 32 + 8 + 8
"""The ratchet's public key and two counters, which travel beside the ciphertext."""


def _packed(message: Any) -> bytes:
    header = message.header
    return bytes(
        header.ratchet_pub
        + header.sending_chain_length.to_bytes(8, "big")
        + header.previous_sending_chain_length.to_bytes(8, "big")
        + message.ciphertext
    )


def _unpacked(sealed: bytes) -> Any:
    return doubleratchet.EncryptedMessage(
        header=doubleratchet.Header(
            ratchet_pub=sealed[:32],
            sending_chain_length=int.from_bytes(sealed[32:40], "big"),
            previous_sending_chain_length=int.from_bytes(sealed[40:48], "big"),
        ),
        ciphertext=sealed[_HEADER_BYTES:],
    )


class RatchetJoining:
    """The first message of a Double Ratchet; the secret that both begin with came from elsewhere (X3DH, say)."""

    def __init__(self) -> None:
        self._class, self._settings = _ratchet_classes()
        self._secret = random_bytes(32)
        self._public, self._private = crypto_box_keypair()
        self.outbound: Any = None
        self.inbound: Any = None

    def give(self) -> bytes:
        self.outbound, first = _finish(
            self._class.encrypt_initial_message(  # type: ignore[attr-defined]
                shared_secret=self._secret, recipient_ratchet_pub=self._public, message=b"joined", **self._settings
            )
        )
        return _packed(first)

    def take(self, given: bytes) -> object:
        self.inbound, plain = _finish(
            self._class.decrypt_initial_message(  # type: ignore[attr-defined]
                shared_secret=self._secret, own_ratchet_priv=self._private, message=_unpacked(given), **self._settings
            )
        )
        return plain


class Ratchet:
    def __init__(self) -> None:
        joining = RatchetJoining()
        joining.take(joining.give())
        self._outbound, self._inbound = joining.outbound, joining.inbound

    def seal(self, body: bytes) -> bytes:
        return _packed(_finish(self._outbound.encrypt_message(padded(body, 0), b"")))

    def open(self, sealed: bytes) -> bytes:
        plain: bytes = _finish(self._inbound.decrypt_message(_unpacked(sealed), b""))
        return plain[STAMP_BYTES:]


def _scheme(name: str, title: str, each: bool, make: type[Ends], joining: type[Joining]) -> Scheme:
    return Scheme(name=name, title=title, each=each, make=make, overhead_bytes=None, joining=joining)


def installed() -> tuple[list[Scheme], list[str]]:
    """Return the schemes whose libraries are here, and a line on each that is not."""
    found: list[Scheme] = []
    missing = []
    if vodozemac is not None:
        found.append(_scheme("olm", "Olm (vodozemac), to each", True, Olm, OlmJoining))
        found.append(_scheme("megolm", "Megolm (vodozemac)", False, Megolm, MegolmJoining))
    else:
        missing.append(f"Olm and Megolm are left out: vodozemac is not installed; {HOW_TO_GET}")
    if doubleratchet is not None:
        found.append(_scheme("double-ratchet", "Double Ratchet, to each", True, Ratchet, RatchetJoining))
    else:
        missing.append(f"the Double Ratchet is left out: doubleratchet is not installed; {HOW_TO_GET}")
    return found, missing
