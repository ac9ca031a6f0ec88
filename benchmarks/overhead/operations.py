"""What one seal, one open and one joining cost, and what that makes for groups.

A time is the median of several rounds of one core's processor time. Of a group, at most 50 members are really made and
timed; a cost that grows by the member is reckoned from theirs, which the tables say.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Final

from msgspec import Struct

from benchmarks.overhead.schemes import Scheme, padded
from loadtests.sealing.envelope import STAMP_BYTES

PAYLOADS: Final = (32, 256, 1024, 4096, 16_384, 65_000)
"""Bytes of the body. The largest is what fits a record of 64 KiB with every suite."""
GROUPS: Final = (2, 10, 100, 1000, 10_000)
GROUP_PAYLOAD: Final = 256
MEMBERS_MADE_MAX: Final = 50
ROUND_NS: Final = 10_000_000
_MESSAGES_MIN, _MESSAGES_MAX = 8, 1000
"""The upper one: a ratchet keeps keys of messages that it has not seen, and gives up beyond a thousand."""


class Operation(Struct, frozen=True, kw_only=True):
    """One scheme and payload. `padding_share` of the sealed bytes; None where the library's share is not told apart."""

    scheme: str
    payload_bytes: int
    seal_ns: int
    open_ns: int
    sealed_bytes: int
    padding_share: float


class GroupCost(Struct, frozen=True, kw_only=True):
    """One message to a group of `members`, sender included: CPU of the sender and of one recipient, bytes sent."""

    scheme: str
    members: int
    sender_ns: int
    recipient_ns: int
    sent_bytes: int
    made: int


class Setup(Struct, frozen=True, kw_only=True):
    """Until a member that joins a group of `members` can read all of them."""

    scheme: str
    members: int
    joining_ns: int
    each_member_ns: int
    received_bytes: int
    made: int


@contextmanager
def _steady() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _time(calls: Sequence[Callable[[], object]]) -> float:
    """Return ns of processor time a call."""
    started = time.thread_time_ns()
    for call in calls:
        call()
    return (time.thread_time_ns() - started) / len(calls)


def operation(scheme: Scheme, payload_bytes: int, *, rounds: int) -> Operation:
    """Time seal and open of one payload size."""
    ends = scheme.make()
    body = bytes(range(256)) * (payload_bytes // 256 + 1)
    body = body[:payload_bytes]
    sealed = ends.seal(body)
    assert ends.open(sealed)[:payload_bytes] == body, f"{scheme.name} opens what it sealed"
    with _steady():
        once_ns = max(1.0, _time([lambda: ends.open(ends.seal(body))] * 4))
        count = max(_MESSAGES_MIN, min(_MESSAGES_MAX, int(ROUND_NS / once_ns)))
        seals, opens = [], []
        for _ in range(rounds):
            messages: list[bytes] = []
            append, seal, unseal = messages.append, ends.seal, ends.open
            seals.append(_time([lambda append=append, seal=seal: append(seal(body))] * count))  # type: ignore[misc]
            opens.append(_time([lambda one=one, unseal=unseal: unseal(one) for one in messages]))  # type: ignore[misc]
    length = len(sealed)
    # Where only the library knows its own share, everything beyond the plaintext is its own, and the rest is padding.
    content = STAMP_BYTES + payload_bytes
    extra = scheme.overhead_bytes if scheme.overhead_bytes is not None else length - len(padded(body, 0))
    return Operation(
        scheme=scheme.name,
        payload_bytes=payload_bytes,
        seal_ns=round(median(seals)),
        open_ns=round(median(opens)),
        sealed_bytes=length,
        padding_share=max(0, length - content - extra) / length,
    )


def group(scheme: Scheme, members: int, *, rounds: int) -> GroupCost:
    """Time one message to all others of a group."""
    others = members - 1
    made = min(others, MEMBERS_MADE_MAX) if scheme.each else 1
    ends = [scheme.make() for _ in range(made)]
    # Fifty messages each time, or reading the clock would be most of it.
    timed = ends * max(1, MEMBERS_MADE_MAX // made)
    body = bytes(GROUP_PAYLOAD)
    seals, opens = [], []
    length = 0
    with _steady():
        for _ in range(rounds + 1):
            started = time.thread_time_ns()
            messages = [one.seal(body) for one in timed]
            sealed = time.thread_time_ns()
            for one, message in zip(timed, messages, strict=True):
                one.open(message)
            opens.append((time.thread_time_ns() - sealed) / len(timed))
            seals.append((sealed - started) / len(timed))
            length = len(messages[0])
    sends = others if scheme.each else 1
    return GroupCost(
        scheme=scheme.name,
        members=members,
        sender_ns=round(median(seals[1:]) * sends),
        recipient_ns=round(median(opens[1:])),
        sent_bytes=length * sends,
        made=made,
    )


def setup(scheme: Scheme, members: int) -> Setup:
    """Time what it takes until somebody who joins can read every member of a group of `members`, itself included."""
    others = members - 1
    if scheme.joining is None:
        return Setup(scheme=scheme.name, members=members, joining_ns=0, each_member_ns=0, received_bytes=0, made=0)
    needed = 1 if scheme.once else others
    made = min(MEMBERS_MADE_MAX, max(needed, 9))
    joining = [scheme.joining() for _ in range(made)]
    with _steady():
        gives, takes = [], []
        length = 0
        for one in joining:
            started = time.thread_time_ns()
            given = one.give()
            given_at = time.thread_time_ns()
            one.take(given)
            takes.append(time.thread_time_ns() - given_at)
            gives.append(given_at - started)
            length = len(given)
    # The library's first call loads and warms; the median leaves it out.
    return Setup(
        scheme=scheme.name,
        members=members,
        joining_ns=round(median(takes) * needed),
        each_member_ns=round(median(gives)),
        received_bytes=length * needed,
        made=made,
    )
