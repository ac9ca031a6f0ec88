"""PADME sizes and the relations between bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import limits
from relay.limits import SEALED_BYTES_MAX, SEALED_BYTES_MIN, SEALED_SIZES, padme_bytes


def padme_of_the_paper(length: int) -> int:
    """PURBs, 2019, section 4, in the paper's own terms: floor and log2, no bit tricks."""
    exponent = math.floor(math.log2(length))
    size = math.floor(math.log2(exponent)) + 1
    step = 2 ** (exponent - size)
    return math.ceil(length / step) * step


def test_padme_agrees_with_the_paper_at_every_length() -> None:
    for length in range(SEALED_BYTES_MIN, SEALED_BYTES_MAX + 1):
        assert padme_bytes(length) == padme_of_the_paper(length), length


@pytest.mark.parametrize("length", [0, 1, 255, 256])
def test_short_payloads_look_alike(length: int) -> None:
    assert padme_bytes(length) == 256


def test_sealed_sizes_are_the_image_of_padme() -> None:
    assert {padme_of_the_paper(length) for length in range(SEALED_BYTES_MIN, SEALED_BYTES_MAX + 1)} == SEALED_SIZES


def test_known_sizes() -> None:
    assert [padme_bytes(n) for n in (257, 272, 273, 512, 513, 1000, 4097, 65_537, 131_072)] == [
        272, 272, 288, 512, 544, 1024, 4352, 67_584, 131_072,
    ]  # fmt: skip


@given(st.integers(257, 2**48))
def test_padme_costs_at_most_12_percent_and_is_stable(length: int) -> None:
    padded = padme_bytes(length)
    assert length <= padded < length * 1.12
    assert padme_bytes(padded) == padded


def test_a_page_of_export_and_a_replay_fit_their_queues() -> None:
    assert limits.EXPORT_BYTES_MAX < limits.MESSAGE_BYTES_MAX <= limits.DURABLE_QUEUE_BYTES_MAX
    assert limits.REPLAY_BYTES <= limits.DURABLE_QUEUE_BYTES_MAX
    assert limits.SEALED_BYTES_MAX < limits.MESSAGE_BYTES_MAX
