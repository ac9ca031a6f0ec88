"""What only the dialect jetstream has to do: streams that others made, gaps, refusals, who leaves before it has all."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha1

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
from loadtests.dialects.jetstream import JetStream

TOPIC = bytes(range(1, 9)).hex()
INBOX = "_INBOX.0000000000000005"
CREATED = "2026-11-27T23:37:58.3274633Z"
EPOCH = 1_795_822_678_327_463_300


def attach_to(use: int) -> Attach:
    return Attach(stream=7, name=bytes(range(1, 33)), use=use, capability=b"")


class Connected:
    """A dialect behind its handshake; `said` is what the last replies hold, unmasked."""

    def __init__(self) -> None:
        self.dialect = JetStream(Place(host="h"), random_bits=lambda bits: 5)
        key = self.dialect.opening().split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.dialect.receive(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.said: list[bytes] = []
        self.hear(b"INFO {}\r\n")
        self.hear(b"PONG\r\n")

    def hear(self, *lines: bytes) -> list[Event]:
        data = b"".join(lines)
        events = self.dialect.receive(b"\x82\x7f" + len(data).to_bytes(8, "big") + data)
        self.said = [unmasked(event.data) for event in events if isinstance(event, Reply)]
        return [event for event in events if not isinstance(event, Reply)]


def unmasked(frame: bytes) -> bytes:
    start = {0xFE: 4, 0xFF: 10}.get(frame[1], 2)
    key, payload = frame[start : start + 4], frame[start + 4 :]
    return bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def answer(tail: str, about: object) -> bytes:
    body = json.dumps(about).encode()
    return b"MSG %b.%b r %d\r\n%b\r\n" % (INBOX.encode(), tail.encode(), len(body), body)


def stands(first: int, last: int) -> dict[str, object]:
    return {"created": CREATED, "state": {"first_seq": first, "last_seq": last}}


def record(seq: int, consumer_seq: int) -> bytes:
    return b"MSG %b 7 $JS.ACK.%b.c.1.%d.%d.99.0 1\r\nx\r\n" % (TOPIC.encode(), TOPIC.encode(), seq, consumer_seq)


def joined(first: int = 0, last: int = 0, after: int | None = None, epoch: int | None = None) -> Connected:
    connected = Connected()
    connected.dialect.subscribe(attach_to(3), after=after, epoch=epoch)
    assert connected.hear(answer("c7", stands(first, last))) == []
    return connected


def refusal(code: int) -> dict[str, object]:
    return {"error": {"code": 400, "err_code": code, "description": "no"}}


def test_a_reader_begins_behind_the_head_in_the_epoch_of_the_creation() -> None:
    connected = joined(1, 4)
    assert b'"opt_start_seq":5' in connected.said[0]
    assert connected.hear(answer("k7", {})) == [Subscribed(7, EPOCH, 4, False)]


def test_a_reader_that_comes_back_gets_what_is_kept_and_a_gap_before() -> None:
    connected = joined(6, 9, after=3, epoch=EPOCH)
    assert b'"opt_start_seq":6' in connected.said[0]
    # The first delivery may come before the answer to the consumer's creation.
    events = connected.hear(record(6, 1), answer("k7", {}), record(7, 2))
    assert events == [Subscribed(7, EPOCH, 9, False), Gap(7, 4, 5), (7, 6, 99, b"x"), (7, 7, 99, b"x")]


def test_a_stream_that_others_made_is_used_as_it_is() -> None:
    connected = Connected()
    connected.dialect.subscribe(attach_to(1))
    assert connected.hear(answer("c7", refusal(10_058))) == []
    assert connected.said == [b"PUB $JS.API.STREAM.INFO.%b %b.i7 0\r\n\r\n" % (TOPIC.encode(), INBOX.encode())]
    assert connected.hear(answer("i7", stands(1, 4)), answer("k7", {})) == [Subscribed(7, EPOCH, 4, False)]


def test_a_refused_stream_is_not_subscribed() -> None:
    connected = Connected()
    connected.dialect.subscribe(attach_to(1))
    assert connected.hear(answer("c7", refusal(10_065))) == [Refused(10_065, "subscribe", 7)]
    with pytest.raises(LookupError):
        connected.dialect.publish(7, 1, b"x")


def test_numbers_that_are_gone_are_a_gap_and_those_lost_on_the_way_are_not() -> None:
    connected = joined()
    connected.hear(answer("k7", {}), record(1, 1))
    assert connected.hear(record(4, 2)) == [Gap(7, 2, 3), (7, 4, 99, b"x")]
    assert connected.hear(record(7, 5)) == [(7, 7, 99, b"x")]


def test_publishes_are_numbered_or_refused() -> None:
    connected = joined()
    for number in (1, 2, 3):
        connected.dialect.publish(7, number, b"x")
    no_responders = b"HMSG %b.p3 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % INBOX.encode()
    acks = answer("p2", {"stream": TOPIC, "seq": 1, "duplicate": True}), answer("p1", refusal(10_077))
    events = connected.hear(answer("k7", {}), *acks, no_responders)[1:]
    assert events == [Published(2, 1), Refused(10_077, "publish", 1), Refused(503, "publish", 3)]


def test_states_are_told_and_forgotten_by_who_left() -> None:
    connected = joined()
    connected.hear(answer("k7", {}))
    state = b"MSG %b.3 s7 6\r\ntyping\r\n" % TOPIC.encode()
    assert connected.hear(state) == [State(7, b"", 3, b"typing")]
    connected.dialect.unsubscribe(7)
    assert connected.hear(answer("u7", stands(0, 0)), state, record(1, 1)) == [Unsubscribed(7, 0)]


def test_who_leaves_still_gets_what_it_is_owed() -> None:
    connected = joined()
    connected.hear(answer("k7", {}), record(1, 1))
    connected.dialect.unsubscribe(7)
    assert connected.hear(answer("u7", stands(1, 2))) == []
    assert connected.hear(record(2, 2)) == [(7, 2, 99, b"x"), Unsubscribed(7, 2)]
    assert connected.said == [b"UNSUB 7\r\nUNSUB s7\r\n"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"HMSG %b.c7 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n" % INBOX.encode(),
        answer("p9", {"seq": 1}),
        answer("c8", {}),
        answer("c7", {"created": "yesterday"}),
        answer("x7", {}),
        answer("", {}),
        b"MSG %b.c7 r 1\r\n{\r\n" % INBOX.encode(),
        b"MSG a 7 b 1\r\nx\r\n",
        b"HMSG a 7 $JS.ACK.s.c.1.1.1.1.0 9 1\r\nx\r\n",
        b"MSG a 7 $JS.ACK.s.c.1.1.1.1.0 1\r\nx\r\n",
        b"-ERR 'Permissions Violation for Subscription'\r\n",
    ],
)
def test_what_is_no_answer_fails(wrong: bytes) -> None:
    connected = Connected()
    connected.dialect.subscribe(attach_to(1))
    assert [type(event) for event in connected.hear(wrong)] == [Failed]


def test_a_retry_has_the_same_name_on_every_connection() -> None:
    one, other = (joined().dialect for _ in range(2))
    assert one.publish(7, 1, b"x") == other.publish(7, 1, b"x")
    assert one.publish(7, 2, b"x")[-50:] != other.publish(7, 3, b"x")[-50:]
