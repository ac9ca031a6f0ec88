"""What travels inside a sealed payload: the kinds of records, and the stamp that each carries."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

EPHEMERAL_FLAG: Final = 1
"""In `Stamp.flags`: a state, whose counters are apart from those of durable records."""


class Kind(IntEnum):
    """What a sealed record is; only the members can tell."""

    MESSAGE = 1
    RECEIPT_DELIVERED = 2
    RECEIPT_READ = 3
    TYPING = 4
    TIP = 5
    MEDIA = 6


KIND_NAMES: Final = ("unknown", *(kind.name.lower().replace("_", "-") for kind in Kind))
"""Names for tables and labels, indexed by kind."""


class Stamp(NamedTuple):
    """What travels in front of every body. Times are nanoseconds of the clock that `clock` names."""

    kind: int
    flags: int
    clock: int
    sender: int
    counter: int
    body_bytes: int
    intended_ns: int
    sent_ns: int
