"""Envelopes: what was sealed opens to itself, for whom it was sealed and nobody else; golden vectors pin the layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from loadtests.sealing.envelope import Keyring, OpenError, Suite, suite_for
from loadtests.sealing.records import KIND_NAMES, Kind, Stamp
from relay import capability
from relay.limits import SEALED_SIZES

GOLDEN = Path(__file__).parents[1] / "golden" / "envelope.json"
RING = Keyring(7, "test")
ALL = tuple(Suite)


def counting_nonces(size: int) -> bytes:
    return bytes(range(size))


@given(
    suite=st.sampled_from(ALL),
    kind=st.sampled_from(Kind),
    counter=st.integers(1, 2**32 - 1),
    times=st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1)),
    body=st.binary(max_size=2000),
    clock=st.integers(0, 2**16 - 1),
    flags=st.integers(0, 255),
)
@settings(max_examples=150, deadline=None)
def test_what_was_sealed_opens_to_itself(
    suite: Suite, kind: Kind, counter: int, times: tuple[int, int], body: bytes, clock: int, flags: int
) -> None:
    sealer = RING.sealer(suite, 3, 41, peer=42)
    sealed = sealer.seal(kind, counter, *times, body, clock=clock, flags=flags)
    assert len(sealed) in SEALED_SIZES
    assert sealed[:2] == bytes((1, suite))
    opener = RING.opener(suite, 3, 42, peer=41)
    expected = Stamp(kind, flags, clock, 41, counter, len(body), *times)
    assert opener.open(sealed) == (expected, body)
    assert opener.stamp(sealed) == expected, "again, with the key known"


@pytest.mark.parametrize("suite", [suite for suite in ALL if suite is not Suite.NONE])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_changed_byte_is_found(suite: Suite, data: st.DataObject) -> None:
    sealed = RING.sealer(suite, 3, 41, peer=42).seal(Kind.MESSAGE, 1, 5, 6, b"hello")
    opener = RING.opener(suite, 3, 42, peer=41)
    if data.draw(st.booleans()):
        opener.stamp(sealed)  # with the sender's key already known
    position = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytearray(sealed)
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(OpenError):
        opener.open(bytes(changed))


@pytest.mark.parametrize("suite", ALL)
@given(garbage=st.binary(max_size=400), cut=st.integers(0, 255))
@settings(max_examples=40, deadline=None)
def test_garbage_and_cuts_are_refused_with_one_error(suite: Suite, garbage: bytes, cut: int) -> None:
    opener = RING.opener(suite, 3, 42, peer=41)
    sealed = RING.sealer(suite, 3, 41, peer=42).seal(Kind.MESSAGE, 1, 5, 6)
    for known in (False, True):
        if known:
            opener.stamp(sealed)
        for wrong in (garbage, sealed[:cut], sealed[:2] + garbage):
            with pytest.raises(OpenError):
                opener.open(wrong)


@pytest.mark.parametrize("suite", [suite for suite in ALL if suite is not Suite.NONE])
def test_a_payload_belongs_to_its_stream_its_suite_and_its_run(suite: Suite) -> None:
    sealed = RING.sealer(suite, 3, 41, peer=42).seal(Kind.MESSAGE, 1, 5, 6)
    for opener in (
        RING.opener(suite, 4, 42, peer=41),
        Keyring(8, "test").opener(suite, 3, 42, peer=41),
        Keyring(7, "other").opener(suite, 3, 42, peer=41),
    ):
        with pytest.raises(OpenError):
            opener.stamp(sealed)
    for other in ALL:
        if other is not suite and other is not Suite.NONE:
            with pytest.raises(OpenError):
                RING.opener(other, 3, 42, peer=41).stamp(bytes((1, other)) + sealed[2:])


def test_a_member_cannot_seal_as_another() -> None:
    # Member 9 seals with its own sender key, but writes 41 into the stamp.
    forged = RING.sealer(Suite.SENDER_KEY, 3, 9)
    forged._sender = 41  # type: ignore[attr-defined]
    with pytest.raises(OpenError, match="another sender"):
        RING.opener(Suite.SENDER_KEY, 3, 42).stamp(forged.seal(Kind.MESSAGE, 1, 0, 0))
    # With the symmetric key of 41, which members have, only the signature is missing.
    thief = RING.sealer(Suite.SIGNED_SENDER_KEY, 3, 41)
    own = RING.signing_key(3, 9)
    thief._secret = bytes(own) + bytes(own.verify_key)  # type: ignore[attr-defined]
    with pytest.raises(OpenError, match="not signed"):
        RING.opener(Suite.SIGNED_SENDER_KEY, 3, 42).stamp(thief.seal(Kind.MESSAGE, 1, 0, 0))
    stranger = RING.sealer(Suite.BOX, 3, 41, peer=42)
    stranger._sender = 9  # type: ignore[attr-defined]
    with pytest.raises(OpenError, match="none of the two"):
        RING.opener(Suite.BOX, 3, 42, peer=41).stamp(stranger.seal(Kind.MESSAGE, 1, 0, 0))


def test_forged_key_ids_are_not_remembered() -> None:
    opener = RING.opener(Suite.SENDER_KEY, 3, 42)
    for sender in range(50):
        with pytest.raises(OpenError):
            opener.stamp(bytes((1, 1)) + sender.to_bytes(4, "big") + bytes(250))
    assert not opener._keys  # type: ignore[attr-defined]


def test_a_box_needs_a_peer_and_rooms_get_sender_keys() -> None:
    with pytest.raises(ValueError, match="peer"):
        RING.sealer(Suite.BOX, 3, 41)
    assert suite_for(Suite.BOX, private=True) is Suite.BOX
    assert suite_for(Suite.BOX, private=False) is Suite.SENDER_KEY
    assert suite_for(Suite.NONE, private=False) is Suite.NONE


def test_nothing_of_the_body_or_the_sender_shows() -> None:
    body = b"relaymark-canary" * 4
    for suite in ALL:
        sealed = RING.sealer(suite, 3, 41, peer=42).seal(Kind.TYPING, 1, 0, 0, body)
        assert (b"canary" in sealed) is (suite is Suite.NONE)
    first, second = (RING.sealer(Suite.SENDER_KEY, stream, 41).seal(Kind.TYPING, 1, 0, 0) for stream in (3, 4))
    assert first[2:6] != second[2:6], "the key id of a sender differs from stream to stream"


def test_the_capability_is_one_that_the_relay_takes() -> None:
    minted = RING.capability(3, 41, capability.Right.SUBSCRIBE, expires_s=100, quorum=2, bound=True)
    verifier = capability.Verifier()
    challenge = bytes(32)
    proof = capability.prove(RING.holder_key(3, 41), challenge, minted)
    known = verifier.check(minted, use=1, proof=proof, challenge=challenge, now_s=50)
    assert known.stream == RING.stream_name(3)
    assert known.quorum == 2
    serials = {capability.parse(RING.capability(3, member, 1, expires_s=100)).serial for member in range(20)}
    assert len(serials) == 20, "members do not share a handle"
    assert isinstance(RING.gateway_key(), SigningKey)


def test_golden_vectors() -> None:
    """The layout and every derivation. A change needs another version byte."""
    golden = json.loads(GOLDEN.read_text())
    ring = Keyring(golden["seed"], golden["run"], random_bytes=counting_nonces)
    assert ring.stream_name(3).hex() == golden["stream_name"]
    assert tuple(golden["kinds"]) == KIND_NAMES
    for vector in golden["vectors"]:
        suite = Suite(vector["suite"])
        stamp = Stamp(**vector["stamp"])
        sealed, body = bytes.fromhex(vector["sealed"]), bytes.fromhex(vector["body"])
        assert ring.opener(suite, 3, 42, peer=41).open(sealed) == (stamp, body)
        if suite is not Suite.SEALED_BOX:  # its ephemeral key is libsodium's own
            sealer = ring.sealer(suite, 3, stamp.sender, peer=42)
            again = sealer.seal(
                stamp.kind, stamp.counter, stamp.intended_ns, stamp.sent_ns, body, clock=stamp.clock, flags=stamp.flags
            )
            assert again.hex() == vector["sealed"]
