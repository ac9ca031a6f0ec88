"""What only the dialect redis-streams has to do: records in pieces, gaps, epochs, the way out of a blocked read."""

from __future__ import annotations

import pytest

from loadtests.dialects.base import (
    Attach,
    Event,
    Failed,
    Gap,
    Place,
    Published,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.redis_streams import RedisStreams
from loadtests.dialects.resp import command

TOPIC = bytes(range(1, 9)).hex().encode()
READ = b"XREAD", b"BLOCK", b"1000", b"COUNT", b"256", b"STREAMS", TOPIC


def attach_to(use: int) -> Attach:
    return Attach(stream=7, name=bytes(range(1, 33)), use=use, capability=b"")


def extent(head: int, first: int | None) -> bytes:
    kept = b"_\r\n" if first is None else b"*2\r\n" + bulk(b"0-%d" % first) + b"*2\r\n" + bulk(b"s") + bulk(b"x")
    return b"%2\r\n" + bulk(b"last-generated-id") + bulk(b"0-%d" % head) + bulk(b"first-entry") + kept


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def records(*numbers: int) -> bytes:
    each = [b"*2\r\n" + bulk(b"0-%d" % one) + b"*2\r\n" + bulk(b"s") + bulk(b"r%d" % one) for one in numbers]
    return b"%1\r\n" + bulk(TOPIC) + b"*%d\r\n" % len(each) + b"".join(each)


def ready() -> RedisStreams:
    dialect = RedisStreams(Place(host="h"), random_bits=lambda bits: 99)
    dialect.opening()
    dialect.receive(b"%0\r\n")
    return dialect


def joined(
    use: int, stands: bytes, after: int | None = None, epoch: int | None = None
) -> tuple[RedisStreams, list[Event]]:
    dialect = ready()
    dialect.subscribe(attach_to(use), after=after, epoch=epoch)
    return dialect, dialect.receive(b"$2\r\n77\r\n" + stands)


def reads_after(number: int) -> Reply:
    return Reply(command(*READ, b"0-%d" % number))


def test_a_new_stream_gets_the_epoch_that_was_offered() -> None:
    dialect = ready()
    dialect.subscribe(attach_to(2))
    assert dialect.receive(b"_\r\n-ERR no such key\r\n") == [Subscribed(7, 99, 0, False)]


@pytest.mark.parametrize(
    ("after", "epoch", "first", "expected"),
    [
        (None, None, 1, [Subscribed(7, 77, 9, False), reads_after(9)]),
        (4, 77, 1, [Subscribed(7, 77, 9, True), reads_after(4)]),
        (4, 77, 5, [Subscribed(7, 77, 9, True), reads_after(4)]),
        (4, 77, 7, [Subscribed(7, 77, 9, False), Gap(7, 5, 6), reads_after(6)]),
        (4, 77, None, [Subscribed(7, 77, 9, False), Gap(7, 5, 9), reads_after(9)]),
        (4, 78, 1, [Subscribed(7, 77, 9, False), reads_after(0)]),
        (12, 77, 1, [Subscribed(7, 77, 9, False), reads_after(9)]),
    ],
)
def test_where_a_reader_begins(after: int | None, epoch: int | None, first: int | None, expected: list[Event]) -> None:
    assert joined(1, extent(9, first), after, epoch)[1] == expected


def test_records_are_told_as_they_come_and_deleted_ones_are_gaps() -> None:
    dialect, _ = joined(1, extent(2, 1))
    data = records(3, 4, 7)
    cut = data.index(b"0-7")
    assert dialect.receive(data[:cut]) == [(7, 3, None, b"r3"), (7, 4, None, b"r4")]
    assert dialect.receive(data[cut:]) == [Gap(7, 5, 6), (7, 7, None, b"r7"), reads_after(7)]
    assert dialect.receive(b"_\r\n") == [reads_after(7)]


def test_who_leaves_still_gets_what_it_is_owed() -> None:
    dialect, _ = joined(1, extent(2, 1))
    assert dialect.unsubscribe(7) == command(b"XINFO", b"STREAM", TOPIC)
    unblocked = Reply(command(b"XREAD", b"COUNT", b"256", b"STREAMS", TOPIC, b"0-3"))
    assert dialect.receive(records(3) + extent(6, 1)) == [(7, 3, None, b"r3"), unblocked]
    events = dialect.receive(records(4, 5))
    assert events[:2] == [(7, 4, None, b"r4"), (7, 5, None, b"r5")]
    no_states = Reply(command(b"UNSUBSCRIBE", TOPIC + b":s"))
    assert dialect.receive(b"_\r\n") == [Gap(7, 6, 6), no_states, Unsubscribed(7, 6)]


def test_states_come_through_a_blocked_read() -> None:
    dialect, _ = joined(1, extent(2, 1))
    push = b">3\r\n" + bulk(b"message") + bulk(TOPIC + b":s") + bulk(b"typing")
    assert dialect.receive(push + records(3)) == [State(7, b"", 0, b"typing"), (7, 3, None, b"r3"), reads_after(3)]


def test_a_refused_publish_has_no_number() -> None:
    dialect, _ = joined(2, extent(2, 1))
    dialect.publish(7, 5, b"x")
    dialect.publish(7, 6, b"y")
    assert dialect.receive(b"-OOM command not allowed\r\n" + bulk(b"0-3")) == [
        Refused(0, "publish", 5),
        Published(6, 3),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        records(2),
        records(3).replace(TOPIC, TOPIC[::-1]),
        records(3).replace(b"0-3", b"5-3"),
        records(3).replace(b"$1\r\ns", b"$1\r\nt"),
        b"%1\r\n" + bulk(TOPIC) + b"*0\r\n",
        b"-ERR\r\n",
        b":3\r\n",
    ],
)
def test_what_is_no_answer_to_a_read_fails(wrong: bytes) -> None:
    dialect, _ = joined(1, extent(2, 1))
    assert [type(event) for event in dialect.receive(wrong)] == [Failed]


def test_an_older_redis_is_named() -> None:
    dialect = ready()
    dialect.subscribe(attach_to(2))
    (failed,) = dialect.receive(b"-ERR syntax error\r\n")
    assert failed == Failed("this is not what Redis 7 answers: ERR syntax error")


def test_a_connection_is_for_one_stream_and_one_way() -> None:
    with pytest.raises(ValueError, match="cannot publish meanwhile"):
        ready().subscribe(attach_to(3))
    dialect, _ = joined(1, extent(2, 1))
    with pytest.raises(LookupError):
        dialect.subscribe(attach_to(1))
