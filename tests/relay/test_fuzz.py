"""Any bytes, at any split, before or after the upgrade: a code and a close, never a crash, and no other client notices.

The long run of the same attacks is tests/relay/fuzz_relay.py (`make fuzz`).
"""

from __future__ import annotations

import random

import pytest
from fuzz_relay import REQUEST, Witness, attack, case, conversation, frame_of_hello, upgrade
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Net

from loadtests.dialects.frames import client_frame

cuts = st.lists(st.integers(0, 400), max_size=8)


@given(st.binary(max_size=400), cuts, st.booleans(), st.sampled_from([None, 0, 50]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_after_the_upgrade(data: bytes, where: list[int], echo: bool, room: int | None) -> None:
    net = Net()
    witness = Witness(net)
    attack(net, data, where, echo=echo, room=room)
    witness.check()


@given(st.binary(max_size=400), st.integers(0, 4), cuts, st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_any_message_after_hello(payload: bytes, opcode: int, where: list[int], mask: int) -> None:
    """Well framed, so that the bytes get as far as the records."""
    net = Net()
    witness = Witness(net)
    data = frame_of_hello(random.Random(mask)) + client_frame(payload, mask, opcode)
    client = attack(net, data, where)
    assert client.records, "WELCOME came"
    witness.check()


@given(st.binary(max_size=400), cuts)
@settings(max_examples=150, deadline=None)
def test_any_bytes_before_the_upgrade(data: bytes, where: list[int]) -> None:
    parts = [data[a:b] for a, b in zip([0, *sorted(where)], [*sorted(where), len(data)], strict=True)]
    assert upgrade(parts) == (False, b"")


def test_the_request_of_the_fuzz_target_is_a_good_one() -> None:
    assert upgrade([REQUEST[:20], REQUEST[20:] + b"rest"]) == (True, b"rest")


@pytest.mark.parametrize("block", range(5))
def test_some_cases_of_the_long_run(block: int) -> None:
    witness = Witness(Net())
    for seed in range(block * 60, block * 60 + 60):
        case(seed, witness)
        witness.check()


def test_the_conversations_get_somewhere() -> None:
    """Else the long run would test nothing but the first refusal."""
    seen: set[str] = set()
    for seed in range(300):
        client = attack(Net(), conversation(random.Random(seed)), [])
        seen |= {type(record).__name__ for record in client.records}
    assert seen >= {"Welcome", "Subscribed", "Published", "Message", "Ephemeral", "Erased", "Exported", "Error"}
