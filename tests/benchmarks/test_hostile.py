"""The hostile benchmark: attacks are what PROTOCOL.md allows to send, and a row says whether the bound was held."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.hostile.__main__ import ALLOWED_NS, AttackRow, line
from benchmarks.hostile.attacks import ALONE, ATTACKS
from benchmarks.hostile.honest import Latencies
from relay import wire
from relay.framing import FrameReader, Ping, Pong


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - ALONE))
def test_an_attack_is_well_formed(name: str) -> None:
    """What is refused for its form would close the connection, and attack nobody."""
    events = FrameReader().feed(next(ATTACKS[name]([])))
    assert len(events) > 50
    for event in events:
        if isinstance(event, bytes):
            assert wire.decode_client(event)
        else:
            assert isinstance(event, Ping | Pong)


QUIET = Latencies(chat_p50_ns=1_000_000, chat_p99_ns=5_000_000, room_p50_ns=1, room_p99_ns=2, count=100)
ROW = AttackRow(
    transport="pump",
    attack="TIME",
    connections=20,
    quiet=QUIET,
    beside=QUIET,
    sent_bytes=1,
    before_bytes=40 << 20,
    after_bytes=42 << 20,
)


@pytest.mark.parametrize(
    ("quiet_p99_ns", "beside_p99_ns", "held"),
    [
        (1_000_000, ALLOWED_NS, True),
        (1_000_000, ALLOWED_NS + 1, False),
        (30_000_000, 90_000_000, True),
        (30_000_000, 90_000_001, False),
    ],
)
def test_the_bound_is_three_times_the_quiet_p99_or_20_ms(quiet_p99_ns: int, beside_p99_ns: int, held: bool) -> None:
    row = replace(ROW, quiet=replace(QUIET, chat_p99_ns=quiet_p99_ns), beside=replace(QUIET, chat_p99_ns=beside_p99_ns))
    assert row.held is held
    assert line(row).endswith("| yes |" if held else "| NO |")


def test_a_row_tells_all_its_figures() -> None:
    assert line(ROW) == "| pump | TIME | 20 | 1.0 | 5.0 | 1.0 | 5.0 | 0.0 | 0.0 | 40 -> 42 | yes |"
