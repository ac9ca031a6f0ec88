"""Capabilities: golden bytes, every refusal with its code, and what the verifier remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from relay import capability
from relay.capability import ALL_RIGHTS, CAPABILITY_BYTES, Right, Verifier
from relay.errors import Code, Refused

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "capability.json").read_text())
STREAM = SigningKey(bytes(range(32)))
HOLDER = SigningKey(bytes(range(32, 64)))
NOW_S = 1_700_000_000
LATER_S = NOW_S + 3600
CHALLENGE = bytes(range(100, 132))


def unhex(value: str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)


def bare(serial: int = 0, rights: int = ALL_RIGHTS) -> bytes:
    return capability.mint(STREAM, rights=rights, expires_s=LATER_S, serial=serial.to_bytes(8, "big"))


def held() -> bytes:
    return capability.mint(
        STREAM, rights=ALL_RIGHTS, expires_s=LATER_S, serial=bytes(8), holder=bytes(HOLDER.verify_key)
    )


def refusal(verifier: Verifier, what: bytes, **changes: Any) -> Code | None:
    """Return the code with which the verifier refuses, or None."""
    arguments: dict[str, Any] = {"use": 1, "proof": None, "challenge": CHALLENGE, "now_s": NOW_S, **changes}
    try:
        verifier.check(what, **arguments)
    except Refused as error:
        return error.code
    return None


# -- golden vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", GOLDEN["minted"], ids=lambda vector: vector["name"])
def test_golden_minted(vector: dict[str, Any]) -> None:
    key = SigningKey(bytes.fromhex(vector["stream_seed"]))
    fields = {name: vector[name] for name in ("rights", "quorum", "expires_s")}
    serial, holder = bytes.fromhex(vector["serial"]), unhex(vector["holder"])
    minted = capability.mint(key, serial=serial, holder=holder, **fields)
    assert minted.hex() == vector["capability"]
    assert capability.parse(minted) == capability.Capability(
        stream=bytes(key.verify_key), serial=serial, holder=holder, **fields
    )


@pytest.mark.parametrize("vector", GOLDEN["minted"], ids=lambda vector: vector["name"])
def test_golden_layout(vector: dict[str, Any]) -> None:
    """PROTOCOL.md section 5, field by field."""
    data = bytes.fromhex(vector["capability"])
    assert len(data) == CAPABILITY_BYTES == 148
    assert data[0] == 1
    assert data[1] == vector["rights"]
    assert int.from_bytes(data[2:4], "big") == vector["quorum"]
    assert int.from_bytes(data[4:12], "big") == vector["expires_s"]
    assert data[12:20].hex() == vector["serial"]
    assert data[52:84].hex() == (vector["holder"] or "00" * 32)
    key = SigningKey(bytes.fromhex(vector["stream_seed"])).verify_key
    assert data[20:52] == bytes(key)
    assert key.verify(b"relaymark.v1 capability\0" + data[:84], data[84:])


@pytest.mark.parametrize("vector", GOLDEN["proofs"], ids=["proof"])
def test_golden_proof(vector: dict[str, Any]) -> None:
    key = SigningKey(bytes.fromhex(vector["holder_seed"]))
    challenge, what = bytes.fromhex(vector["challenge"]), bytes.fromhex(vector["capability"])
    proof = capability.prove(key, challenge, what)
    assert proof.hex() == vector["proof"]
    assert key.verify_key.verify(b"relaymark.v1 holder\0" + challenge + what, proof)


@pytest.mark.parametrize("vector", GOLDEN["checks"], ids=lambda vector: vector["name"])
def test_golden_checks(vector: dict[str, Any]) -> None:
    arguments = {
        "use": vector["use"],
        "proof": unhex(vector["proof"]),
        "challenge": bytes.fromhex(vector["challenge"]),
        "now_s": vector["now_s"],
    }
    verifier = Verifier()
    what = bytes.fromhex(vector["capability"])
    assert refusal(verifier, what, **arguments) == vector["code"]
    assert refusal(verifier, what, **arguments) == vector["code"], "the second time, perhaps from memory"
    assert verifier.refusals == (0 if vector["code"] is None else 2)


@pytest.mark.parametrize("vector", GOLDEN["handles"], ids=["serial", "holder"])
def test_golden_handles(vector: dict[str, Any]) -> None:
    known = capability.parse(bytes.fromhex(vector["capability"]))
    assert capability.handle_of(known, bytes.fromhex(vector["secret"])).hex() == vector["handle"]


@pytest.mark.parametrize("vector", GOLDEN["franking_tags"], ids=["small", "large"])
def test_golden_franking_tags(vector: dict[str, Any]) -> None:
    tag = capability.franking_tag(
        bytes.fromhex(vector["secret"]),
        commitment=bytes.fromhex(vector["commitment"]),
        stream=bytes.fromhex(vector["stream"]),
        seq=vector["seq"],
        at_ns=vector["at_ns"],
        handle=bytes.fromhex(vector["handle"]),
    )
    assert tag.hex() == vector["tag"]


# -- forgery ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("byte", range(CAPABILITY_BYTES))
def test_no_byte_can_be_changed(byte: int) -> None:
    forged = bytearray(bare())
    forged[byte] ^= 1 << byte % 8
    verifier = Verifier()
    assert refusal(verifier, bytes(forged)) == Code.CAPABILITY
    assert len(verifier._known) == 0, "what was refused is not remembered"


@pytest.mark.parametrize("length", [0, 1, 83, 84, 147])
def test_truncated(length: int) -> None:
    assert refusal(Verifier(), bare()[:length]) == Code.CAPABILITY


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(min_size=147, max_size=147).map(lambda rest: b"\x01" + rest))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert refusal(Verifier(), data) == Code.CAPABILITY


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 15), st.integers(0, 255))
def test_rights_are_those_given_and_no_more(rights: int, use: int) -> None:
    allowed = use != 0 and use & ~rights == 0
    assert refusal(Verifier(), bare(rights=rights), use=use) == (None if allowed else Code.RIGHT)


# -- holders -----------------------------------------------------------------------------------------------


def test_a_proof_is_good_for_its_own_connection_only() -> None:
    verifier, what = Verifier(), held()
    proof = capability.prove(HOLDER, CHALLENGE, what)
    assert refusal(verifier, what, proof=proof) is None
    assert refusal(verifier, what, proof=proof, challenge=CHALLENGE[::-1]) == Code.HOLDER
    assert refusal(verifier, what, proof=None) == Code.HOLDER, "a remembered capability needs its proof too"
    assert refusal(verifier, what, proof=capability.prove(STREAM, CHALLENGE, what)) == Code.HOLDER


@pytest.mark.parametrize("byte", range(0, 64, 7))
def test_a_proof_with_a_flipped_bit(byte: int) -> None:
    proof = bytearray(capability.prove(HOLDER, CHALLENGE, held()))
    proof[byte] ^= 0x10
    assert refusal(Verifier(), held(), proof=bytes(proof)) == Code.HOLDER


def test_a_capability_signature_is_not_a_proof() -> None:
    """The stream's key is its own holder, and still each signature serves one purpose."""
    what = capability.mint(STREAM, rights=1, expires_s=LATER_S, serial=bytes(8), holder=bytes(STREAM.verify_key))
    assert refusal(Verifier(), what, proof=what[84:]) == Code.HOLDER


# -- minting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [{"serial": bytes(7)}, {"serial": bytes(9)}, {"holder": bytes(31)}, {"rights": 0}, {"rights": 16}],
    ids=lambda parts: "-".join(f"{name} {value!r:.12}" for name, value in parts.items()),
)
def test_parts_of_the_wrong_form_are_not_filled_up(parts: dict[str, Any]) -> None:
    arguments = {"rights": 1, "expires_s": LATER_S, "serial": bytes(8), **parts}
    with pytest.raises(AssertionError):
        capability.mint(STREAM, **arguments)


# -- what the verifier remembers -----------------------------------------------------------------------------


def test_memory_is_bounded_and_forgets_the_longest_unused() -> None:
    verifier = Verifier(known_max=3)
    first, second, third, fourth = (bare(serial) for serial in range(4))
    for what in (first, second, third, first, fourth):  # first is used again, so second is the oldest
        assert refusal(verifier, what) is None
    assert list(verifier._known) == [third, first, fourth]
    assert (verifier.hits, verifier.misses) == (1, 4)
    assert refusal(verifier, second) is None
    assert (verifier.hits, verifier.misses) == (1, 5), "what was forgotten is verified anew"
    assert len(verifier._known) == 3


def test_a_reconnect_storm_costs_one_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, what = Verifier(), bare()
    parsed: list[bytes] = []
    parse = capability.parse

    def counting(data: bytes) -> capability.Capability:
        parsed.append(data)
        return parse(data)

    monkeypatch.setattr(capability, "parse", counting)
    assert [refusal(verifier, what) for _ in range(100)] == [None] * 100
    assert parsed == [what]
    assert (verifier.hits, verifier.misses, verifier.refusals) == (99, 1, 0)


def test_a_remembered_capability_still_expires() -> None:
    verifier, what = Verifier(), bare()
    assert refusal(verifier, what, now_s=LATER_S - 1) is None
    assert refusal(verifier, what, now_s=LATER_S) == Code.EXPIRED


# -- pseudonyms ------------------------------------------------------------------------------------------------


def test_handles_are_stable_and_unlinkable() -> None:
    secret = b"s" * 32
    one = capability.handle_of(capability.parse(bare(1)), secret)
    assert one == capability.handle_of(capability.parse(bare(1, rights=1)), secret), "rights are not identity"
    elsewhere = capability.mint(HOLDER, rights=1, expires_s=LATER_S, serial=(1).to_bytes(8, "big"))
    others = {
        capability.handle_of(capability.parse(bare(2)), secret),
        capability.handle_of(capability.parse(elsewhere), secret),
        capability.handle_of(capability.parse(bare(1)), b"t" * 32),
        capability.handle_of(capability.parse(held()), secret),
    }
    assert len(others) == 4
    assert one not in others
    assert len(one) == 16


def test_a_franking_tag_binds_every_field() -> None:
    fields: dict[str, Any] = {
        "commitment": b"c" * 32, "stream": b"s" * 32, "seq": 1, "at_ns": 2, "handle": b"h" * 16,
    }  # fmt: skip
    other: dict[str, Any] = {
        "commitment": b"d" * 32, "stream": b"t" * 32, "seq": 2, "at_ns": 3, "handle": b"i" * 16,
    }  # fmt: skip
    tags = {capability.franking_tag(b"k" * 32, **fields), capability.franking_tag(b"l" * 32, **fields)}
    tags |= {capability.franking_tag(b"k" * 32, **{**fields, name: other[name]}) for name in fields}
    assert len(tags) == 7
    assert {len(tag) for tag in tags} == {32}


def test_rights_have_the_numbers_of_the_protocol() -> None:
    assert {right.name: right.value for right in Right} == {"SUBSCRIBE": 1, "PUBLISH": 2, "ERASE": 4, "EXPORT": 8}
