"""The outbox: what waits, in which order it leaves, and what goes when a lane is full."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import wire
from relay.counters import Counters
from relay.limits import (
    CONTROL_QUEUE_BYTES_MAX,
    DURABLE_QUEUE_BYTES_MAX,
    EPHEMERAL_QUEUE_BYTES_MAX,
    REPLAY_BYTES,
)
from relay.outbox import DURABLE, EPHEMERAL, ORDERED, Chunk, Outbox, frame_of, published_frame

ROOM, CHAT = object(), object()


@pytest.fixture
def box() -> Outbox:
    return Outbox(Counters())


def record(seq: int, size: int = 10, stream: object = ROOM) -> Chunk:
    return Chunk(bytes([seq % 256]) * size, DURABLE, stream, seq, seq)


def state(key: object, fill: bytes, size: int = 10) -> Chunk:
    return Chunk(fill * size, EPHEMERAL, ROOM, state=key)


def leave(box: Outbox, count: int) -> bytes:
    """Write up to `count` bytes as a transport does; return what left."""
    data = bytes(box.gather())
    if count >= len(data):
        box.pending.clear()
    else:
        box.wrote(count)
    return data[:count]


def drain(box: Outbox, step: int = 1 << 30) -> bytes:
    parts = []
    while part := leave(box, step):
        parts.append(part)
        if box.standing is None and not box.pending:
            break
    return b"".join(parts)


def test_everything_accepted_leaves_nothing_behind(box: Outbox) -> None:
    box.pending += [b"answer", record(1), b"more"]
    assert leave(box, 1000) == b"answer" + b"\x01" * 10 + b"more"
    assert box.standing is None
    assert box.queued_bytes == 0


def test_one_chunk_leaves_without_a_copy(box: Outbox) -> None:
    chunk = record(1)
    box.pending.append(chunk)
    assert box.gather() is chunk.data


def test_acknowledgements_leave_as_one_record(box: Outbox) -> None:
    box.acks += (7, 1, 8, 2)
    data = box.gather()
    assert data == published_frame([7, 1, 8, 2]) == frame_of(wire.Published([7, 1, 8, 2]))
    assert box.acks == []


def test_a_begun_frame_ends_before_anything_else_and_control_comes_next(box: Outbox) -> None:
    box.pending += [record(1), record(2)]
    assert leave(box, 4) == b"\x01" * 4
    box.pending.append(b"answer")
    box.acks += (7, 1)
    box.stand()
    assert drain(box) == b"\x01" * 6 + published_frame([7, 1]) + b"answer" + b"\x02" * 10
    assert box.standing is None


def test_a_begun_frame_that_stands_again_stays_in_front(box: Outbox) -> None:
    box.pending += [record(1)]
    leave(box, 4)
    box.pending.append(b"answer")
    box.stand()
    assert leave(box, 0) == b""
    box.pending.append(b"later")
    box.stand()
    assert leave(box, 3) == b"\x01" * 3
    assert drain(box, 2) == b"\x01" * 3 + b"answer" + b"later"


def test_what_keeps_the_order_of_records_stays_behind_them(box: Outbox) -> None:
    box.stand()
    box.pending += [record(1), Chunk(b"erased", ORDERED, ROOM), b"answer", record(2)]
    box.stand()
    assert drain(box) == b"answer" + b"\x01" * 10 + b"erased" + b"\x02" * 10


def test_the_newest_state_replaces_the_older(box: Outbox) -> None:
    box.stand()
    box.pending += [state("typing", b"a"), state("presence", b"b"), state("typing", b"c")]
    box.stand()
    assert box.queued_bytes == 20
    assert drain(box) == b"b" * 10 + b"c" * 10
    assert box.counters.ephemeral_superseded == 1


def test_a_state_that_was_written_in_part_only_keeps_the_newest(box: Outbox) -> None:
    box.pending += [b"x", state("typing", b"a"), state("typing", b"b")]
    assert leave(box, 1) == b"x"
    assert drain(box) == b"b" * 10
    assert box.counters.ephemeral_superseded == 1


def test_states_past_the_limit_drop_the_oldest(box: Outbox) -> None:
    size = EPHEMERAL_QUEUE_BYTES_MAX // 4
    box.stand()
    box.pending += [state(key, bytes([key]), size) for key in range(6)]
    box.stand()
    assert box.queued_bytes == 4 * size <= EPHEMERAL_QUEUE_BYTES_MAX
    assert box.counters.ephemeral_dropped == 2
    assert drain(box)[:1] == b"\x02"


def test_one_state_larger_than_the_limit_is_kept(box: Outbox) -> None:
    box.stand()
    box.pending += [state("a", b"a"), state("media", b"m", EPHEMERAL_QUEUE_BYTES_MAX + 1)]
    box.stand()
    assert drain(box) == b"m" * (EPHEMERAL_QUEUE_BYTES_MAX + 1)


def test_control_past_its_limit_chokes_and_loses_nothing(box: Outbox) -> None:
    box.stand()
    box.pending += [bytes(1000)] * (CONTROL_QUEUE_BYTES_MAX // 1000)
    box.stand()
    assert not box.choked
    box.pending.append(bytes(1000))
    box.stand()
    assert box.choked
    assert len(drain(box, 70_000)) == 1000 * (CONTROL_QUEUE_BYTES_MAX // 1000 + 1)
    assert not box.choked


def test_records_past_their_limit_overflow_and_say_from_where(box: Outbox) -> None:
    size = DURABLE_QUEUE_BYTES_MAX // 4
    box.stand()
    box.pending += [record(seq, size) for seq in (5, 6, 7, 8)]
    box.stand()
    assert not box.overflowing
    box.pending += [record(3, 10, CHAT), b"answer", Chunk(b"erased", ORDERED, CHAT), record(9, size)]
    box.stand()
    assert box.overflowing
    assert box.drop_records() == {ROOM: 5}, "what was pushed before ERASED was of another epoch, and stays"
    assert drain(box) == b"answer" + b"\x03" * 10 + b"erased"


def test_records_of_one_stream_are_dropped_alone(box: Outbox) -> None:
    box.stand()
    box.pending += [record(1), record(7, 10, CHAT), record(2)]
    box.stand()
    assert box.drop_records(ROOM) == {ROOM: 1}
    assert drain(box) == b"\x07" * 10


def test_records_of_a_subscription_that_ended_are_not_dropped(box: Outbox) -> None:
    """UNSUBSCRIBED told the client that it was sent everything up to there; nobody would replay it."""
    box.stand()
    box.pending += [record(1), Chunk(b"unsubscribed", ORDERED, ROOM), Chunk(b"subscribed", ORDERED, ROOM), record(9)]
    box.stand()
    assert box.drop_records() == {ROOM: 9}
    assert drain(box) == b"\x01" * 10 + b"unsubscribed" + b"subscribed"


def test_states_of_a_stream_that_is_left_are_dropped_and_counted(box: Outbox) -> None:
    other = Chunk(b"other", EPHEMERAL, CHAT, state="c")
    box.stand()
    box.pending += [state("a", b"a"), record(1), other]
    box.stand()
    box.pending += [state("b", b"b"), record(2)]
    box.drop_states(ROOM)
    assert isinstance(box.counters, Counters)
    assert box.counters.ephemeral_dropped == 2
    assert box.queued_bytes == 10 + len(other.data)
    assert drain(box) == b"\x01" * 10 + b"\x02" * 10 + b"other"


def test_what_may_not_be_dropped_chokes(box: Outbox) -> None:
    box.stand()
    box.pending += [Chunk(bytes(1000), ORDERED, CHAT)] * (DURABLE_QUEUE_BYTES_MAX // 1000 + 1)
    box.stand()
    assert box.overflowing
    box.drop_records()
    assert box.choked


def test_dropping_reaches_what_this_turn_pushed(box: Outbox) -> None:
    box.pending += [record(4), b"answer"]
    assert box.drop_records(ROOM) == {ROOM: 4}
    assert drain(box) == b"answer"


def test_an_outbox_that_does_not_stand_has_nothing_to_drop(box: Outbox) -> None:
    assert box.drop_records() == {}
    assert not box.choked


def test_a_refill_is_bounded(box: Outbox) -> None:
    size = REPLAY_BYTES // 2
    box.stand()
    box.pending += [record(seq, size) for seq in range(1, 6)]
    box.stand()
    assert len(box.gather()) == 2 * size
    box.pending.clear()
    assert box.standing is not None


Step = tuple[str, Any]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("control"), st.integers(1, 40)),
        st.tuples(st.just("record"), st.integers(1, 400)),
        st.tuples(st.just("ack"), st.integers(0, 9)),
        st.tuples(st.just("state"), st.integers(0, 3)),
        st.tuples(st.just("write"), st.integers(0, 600)),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=150, deadline=None)
def test_any_short_writes_lose_nothing_and_keep_the_order(script: list[Step]) -> None:
    """Control and records come out whole, each lane in its order; frames are never mixed."""
    from relay import framing

    box = Outbox(Counters())
    written = bytearray()
    control: list[bytes] = []
    records: list[bytes] = []
    newest: dict[int, bytes] = {}
    acks: list[int] = []

    def framed(kind: bytes, index: int, size: int) -> bytes:
        return framing.encode(framing.BINARY, kind + index.to_bytes(4, "big") + bytes(size))

    for index, (what, value) in enumerate(script):
        if what == "control":
            control.append(framed(b"c", index, value))
            box.pending.append(control[-1])
        elif what == "record":
            records.append(framed(b"r", index, value))
            box.pending.append(Chunk(records[-1], DURABLE, ROOM, len(records), len(records)))
        elif what == "ack":
            box.acks += (value, index)
            acks += (value, index)
        elif what == "state":
            newest[value] = framed(b"s", index, 8)
            box.pending.append(Chunk(newest[value], EPHEMERAL, ROOM, state=value))
        elif box.standing is not None and value % 3 == 0:
            box.stand()
        else:
            written += leave(box, value)
    written += drain(box)
    written += drain(box, 7)
    payloads = framing.split(bytes(written))
    assert [p for p in payloads if p[:1] == b"c"] == [frame[2:] if len(frame) < 128 else frame[4:] for frame in control]
    assert [p for p in payloads if p[:1] == b"r"] == framing.split(b"".join(records))
    states = [p for p in payloads if p[:1] == b"s"]
    assert {p for frame in newest.values() for p in framing.split(frame)} <= set(states)
    told: list[int] = []
    for payload in payloads:
        if payload[:1] not in (b"c", b"r", b"s"):
            published = wire.decode_one_relay(payload)
            assert isinstance(published, wire.Published)
            told += published.acks
    assert told == acks
