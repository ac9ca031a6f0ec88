"""One client's state machine: every refusal and close code of PROTOCOL.md section 7, rates, window, time limits, /echo."""

from __future__ import annotations

from typing import Any

import pytest
from nacl.signing import SigningKey
from scripted import (
    ALL,
    ERASE,
    EXPORT,
    NOW_NS,
    PUBLISH,
    SECOND_NS,
    SUBSCRIBE,
    Client,
    Later,
    Net,
    capability_of,
    sealed_of,
)

from relay import capability, hub, wire
from relay.errors import Code, close_code
from relay.limits import (
    EPHEMERAL_SLOT_MAX,
    ERASE_PER_S_MAX,
    KEEPALIVE_S,
    MESSAGE_BYTES_MAX,
    PUBLISH_WINDOW,
    RECORDS_PER_MESSAGE_MAX,
    SEALED_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
)
from relay.session import Rates

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def refused(code: Code, record: int = 0, about: int = 0) -> list[wire.Error]:
    return [wire.Error(code, record, about)]


def closed(client: Client, code: Code) -> bool:
    """Whether the client was told the code, and closed with it; answers the close as a client does."""
    told = client.pop() == refused(code) and client.closed == close_code(code)
    client.give(client.frame(client.closed.to_bytes(2, "big") if client.closed else b"", CLOSE))
    client.net.settle()
    return told and client.gone


# -- what ends the connection ------------------------------------------------------------------------

ENDS = {
    "not MessagePack": (b"\xc1", Code.MALFORMED),
    "an empty message": (b"", Code.MALFORMED),
    "a record cut short": (b"\x92\x08", Code.MALFORMED),
    "an element too many": (b"\x93\x08\x00\x00", Code.MALFORMED),
    "a wrong type": (b"\x92\x08\xc0", Code.MALFORMED),
    "a negative number": (b"\x92\x08\xff", Code.MALFORMED),
    "an unknown record": (b"\x92\x63\x00", Code.MALFORMED),
    "a record of the relay": (wire.encode(wire.GoAway(1)), Code.MALFORMED),
    "a map": (b"\x81\x08\x00", Code.MALFORMED),
    "nested beyond any stack": (b"\x91" * 200_000, Code.MALFORMED),
    "a commitment of 31 bytes": (b"\x96\x04\x01\x00\x07\xc4\x1f" + bytes(31) + b"\xc4\x00", Code.MALFORMED),
    "rubbish behind a record": (wire.encode(wire.Time(1)) + b"\xc1", Code.MALFORMED),
    "too many records": (wire.encode(wire.Time(1)) * (RECORDS_PER_MESSAGE_MAX + 1), Code.TOO_MANY_RECORDS),
    "a second HELLO": (wire.encode(wire.Hello(1)), Code.UNEXPECTED),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_ends_the_connection(net: Net, what: str) -> None:
    message, code = ENDS[what]
    client, other = net.connect(), net.connect()
    client.give(client.frame(message))
    net.settle()
    assert closed(client, code)
    assert net.hub.counters.refused == {code.name: 1}
    assert other.send(wire.Time(1))


def test_nothing_counts_behind_what_ended_the_connection(net: Net) -> None:
    author, number = net.attached()
    publish = wire.encode(wire.Publish(number, 0, 1, None, sealed_of()))
    author.give(author.frame(b"\xc1") + author.frame(publish) + author.frame(publish + publish))
    net.settle()
    assert closed(author, Code.MALFORMED)
    assert net.store.read(number, 0, 1) == []


def test_text_is_closed(net: Net) -> None:
    client = net.connect()
    client.give(client.frame(b"hello", TEXT))
    net.settle()
    assert closed(client, Code.TEXT)


@pytest.mark.parametrize("record", [wire.Time(1), wire.Publish(1, 0, 1, None, sealed_of()), wire.Unsubscribe(1)])
def test_anything_before_hello_is_closed(net: Net, record: Any) -> None:
    client = net.connect(hello=False)
    client.give(client.frame(wire.encode(record)))
    net.settle()
    assert closed(client, Code.UNEXPECTED)


def test_another_version_is_closed(net: Net) -> None:
    client = net.connect(hello=False)
    client.give(client.frame(wire.encode(wire.Hello(2))))
    net.settle()
    assert client.pop() == refused(Code.VERSION, 1)
    assert client.closed == 4012


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x00", 1002),
        (b"\xc2\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x88\x82\0\0\0\0\x03\xee", 1002),
        (b"\x82\xff" + (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big") + bytes(4), 1009),
    ],
    ids=["unmasked", "reserved bit", "opcode", "continuation", "not UTF-8", "close code", "too big"],
)
def test_faults_of_the_framing_close_with_their_code(net: Net, data: bytes, code: int) -> None:
    author, number = net.attached()
    author.give(author.frame(wire.encode(wire.Publish(number, 0, 1, None, sealed_of()))) + data)
    net.settle()
    assert author.closed == code
    assert author.gone
    assert [record.seq for record in net.store.read(number, 0, 1_000)] == [1], "what was whole before the fault counts"


# -- HELLO, TIME, ping, close ------------------------------------------------------------------------


def test_welcome_tells_the_limits(net: Net) -> None:
    client = net.connect(hello=False, rates=Rates(durable_per_s=5, ephemeral_per_s=6, control_per_s=7))
    (welcome,) = client.send(wire.Hello(1))
    limits = wire.Limits(
        SEALED_BYTES_MAX,
        MESSAGE_BYTES_MAX,
        RECORDS_PER_MESSAGE_MAX,
        STREAMS_PER_CONNECTION_MAX,
        PUBLISH_WINDOW,
        5,
        6,
        int(KEEPALIVE_S * 1000),
        7,
    )
    assert welcome == wire.Welcome(1, client.peer.challenge, NOW_NS, limits)  # type: ignore[attr-defined]


def test_several_records_in_a_message_are_taken_in_order(net: Net) -> None:
    client = net.connect(hello=False)
    welcome, subscribed, timed = client.send(
        wire.Hello(1), wire.Subscribe(9, capability_of(), 1, None, None, None), wire.Time(5)
    )
    assert isinstance(welcome, wire.Welcome)
    assert subscribed.request == 9
    assert timed == wire.Timed(5, NOW_NS, NOW_NS)


def test_a_full_message_of_records_is_taken(net: Net) -> None:
    client = net.connect()
    assert len(client.send(*[wire.Time(1)] * RECORDS_PER_MESSAGE_MAX)) == RECORDS_PER_MESSAGE_MAX


def test_time_comes_back_with_the_relays_clock(net: Net) -> None:
    client = net.connect()
    net.hub.now_ns += 17
    assert client.send(wire.Time(2**64 - 1)) == [wire.Timed(2**64 - 1, NOW_NS + 17, NOW_NS + 17)]


def test_pings_are_answered_between_fragments_too(net: Net) -> None:
    client = net.connect()
    payload = wire.encode(wire.Time(3))
    first, second = client.frame(payload[:2]), client.frame(payload[2:], 0)
    client.give(bytes((first[0] & 0x7F,)) + first[1:] + client.frame(b"are you there?", PING) + second)
    net.settle()
    assert client.pongs == [b"are you there?"]
    assert client.pop() == [wire.Timed(3, NOW_NS, NOW_NS)]


@pytest.mark.parametrize(("payload", "code"), [(b"\x03\xe8bye", 1000), (b"\x0f\xa1", 4001), (b"", 1000)])
def test_a_close_is_answered_with_its_code(net: Net, payload: bytes, code: int) -> None:
    client, number = net.attached()
    client.give(client.frame(payload, CLOSE) + client.frame(wire.encode(wire.Time(1))))
    net.settle()
    assert client.closed == code
    assert client.gone
    assert client.pop() == []
    assert net.hub._numbers[number].attached == 0


def test_nothing_follows_the_close_frame(net: Net) -> None:
    """RFC 6455 section 5.5.1; the test's client minds what does. What is begun is ended, and answers are not lost."""
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    reader.room = 70_000
    for label in range(3):
        author.publish(number, label, size=65_536)
    author.send(wire.Publish(number, 1, 0, None, sealed_of()))
    reader.give(reader.frame(wire.encode(wire.Time(1))) + reader.frame(b"\x03\xe8", CLOSE))
    net.settle()
    assert [type(record) for record in reader.take()] == [wire.Message, wire.Message, wire.Timed]
    assert reader.closed == 1000
    assert reader.gone


@pytest.mark.parametrize(("room", "came"), [(0, []), (10, [wire.Subscribed]), (None, [wire.Subscribed])])
def test_what_is_asked_for_with_the_close_does_not_follow_it(net: Net, room: int | None, came: list[type]) -> None:
    client = net.connect()
    client.room = room
    subscribe = wire.encode(wire.Subscribe(1, capability_of(), SUBSCRIBE, None, None, None))
    client.give(client.frame(subscribe) + client.frame(b"", CLOSE))
    net.settle()
    assert [type(record) for record in client.take()] == came
    assert client.closed == 1000


@pytest.mark.parametrize("stands", [False, True])
def test_an_acknowledgement_that_comes_after_the_close_frame_is_not_sent(stands: bool) -> None:
    writes = Later()
    net = Net(write=writes.submit)
    author, number = net.attached(use=PUBLISH | ERASE)
    if stands:
        author.stop()
    author.publish(number, 1)
    author.send(wire.Erase(number))
    author.peer.drain()
    net.settle()
    writes.run()
    net.settle()
    assert author.take() == []
    assert author.closed == close_code(Code.DRAINING)


def test_a_connection_that_is_gone_leaves_nothing_behind(net: Net) -> None:
    client = net.connect()
    numbers = [client.subscribe(index)[0].number for index in (1, 2, 3)]
    client.cut()
    for number in numbers:
        stream = net.hub._numbers[number]
        assert (stream.attached, len(stream.live), len(stream.catching)) == (0, 0, 0)


# -- what is refused ---------------------------------------------------------------------------------


def good_form(change: int) -> bytes:
    made = bytearray(capability_of())
    made[change] ^= 1
    return bytes(made)


BAD_CAPABILITIES = {
    "empty": b"",
    "short": capability_of()[:-1],
    "long": capability_of() + b"\0",
    "another version": b"\x02" + capability_of()[1:],
    "rights added": good_form(1),
    "quorum changed": good_form(3),
    "expiry changed": good_form(11),
    "serial changed": good_form(19),
    "another stream": good_form(20),
    "a holder added": good_form(60),
    "signature changed": good_form(147),
    "a key that is no point": capability_of()[:20] + b"\xff" * 32 + capability_of()[52:],
}


@pytest.mark.parametrize("what", BAD_CAPABILITIES)
def test_a_capability_that_the_stream_did_not_sign(net: Net, what: str) -> None:
    client = net.connect()
    assert client.subscribe(cap=BAD_CAPABILITIES[what]) == refused(Code.CAPABILITY, 2, 1)
    assert not net.hub.streams
    assert isinstance(client.subscribe()[0], wire.Subscribed), "the connection goes on"


def test_an_expired_capability(net: Net) -> None:
    client = net.connect()
    now_s = NOW_NS // SECOND_NS
    assert client.subscribe(cap=capability_of(expires_s=now_s)) == refused(Code.EXPIRED, 2, 1)
    assert isinstance(client.subscribe(cap=capability_of(expires_s=now_s + 1))[0], wire.Subscribed)


@pytest.mark.parametrize("use", [0, 2, 3, 16, 2**32 - 1])
def test_a_right_that_the_capability_does_not_give(net: Net, use: int) -> None:
    client = net.connect()
    assert client.subscribe(use=use, cap=capability_of(rights=SUBSCRIBE)) == refused(Code.RIGHT, 2, 1)


HOLDER = SigningKey(b"h" * 32)


def held() -> bytes:
    return capability_of(holder=bytes(HOLDER.verify_key))


def test_the_holder_of_a_capability_proves_it(net: Net) -> None:
    client = net.connect()
    proof = capability.prove(HOLDER, client.peer.challenge, held())  # type: ignore[attr-defined]
    assert isinstance(client.subscribe(cap=held(), proof=proof)[0], wire.Subscribed)


@pytest.mark.parametrize("what", ["missing", "empty", "another key", "another challenge", "another capability"])
def test_a_proof_that_does_not_prove(net: Net, what: str) -> None:
    client = net.connect()
    challenge = client.peer.challenge  # type: ignore[attr-defined]
    proof = {
        "missing": None,
        "empty": b"",
        "another key": capability.prove(SigningKey(b"x" * 32), challenge, held()),
        "another challenge": capability.prove(HOLDER, bytes(32), held()),
        "another capability": capability.prove(HOLDER, challenge, capability_of()),
    }[what]
    assert client.subscribe(cap=held(), proof=proof) == refused(Code.HOLDER, 2, 1)


def test_refusals_tell_nothing_of_whether_a_stream_exists(net: Net) -> None:
    net.attached(1)
    client = net.connect()
    answers = []
    for index in (1, 2):
        bad = capability_of(index)[:-1] + b"\0"
        expired = capability_of(index, expires_s=1)
        answers.append(
            [
                client.subscribe(cap=bad)[0].code,
                client.subscribe(cap=expired)[0].code,
                client.subscribe(use=PUBLISH, cap=capability_of(index, rights=SUBSCRIBE))[0].code,
            ]
        )
    assert answers[0] == answers[1] == [Code.CAPABILITY, Code.EXPIRED, Code.RIGHT]


PUBLISHES = {
    "nobody's number": (wire.Publish(99, 0, 7, None, sealed_of()), Code.NOT_SUBSCRIBED),
    "empty": (wire.Publish(1, 0, 7, None, b""), Code.SEALED_SIZE),
    "a version without a suite": (wire.Publish(1, 0, 7, None, b"\x01"), Code.SEALED_SIZE),
    "too short": (wire.Publish(1, 0, 7, None, sealed_of(size=255)), Code.SEALED_SIZE),
    "not a padded size": (wire.Publish(1, 0, 7, None, sealed_of(size=257)), Code.SEALED_SIZE),
    "above the largest": (wire.Publish(1, 0, 7, None, sealed_of(size=131_072 + 4096)), Code.SEALED_SIZE),
    "another version": (wire.Publish(1, 0, 7, None, b"\x02\x01" + bytes(254)), Code.SEALED_FORM),
    "not encrypted": (wire.Publish(1, 0, 7, None, b"\x01\x00" + bytes(254)), Code.SEALED_FORM),
    "an unknown suite": (wire.Publish(1, 0, 7, None, b"\x01\x80" + bytes(254)), Code.SEALED_FORM),
    "a commitment to a state": (wire.Publish(1, 1, 7, bytes(32), sealed_of()), Code.COMMITMENT),
    "a class above 1": (wire.Publish(1, 2, 7, None, sealed_of()), Code.ID),
    "a slot above 255": (wire.Publish(1, 1, EPHEMERAL_SLOT_MAX + 1, None, sealed_of()), Code.ID),
    "a state that is too short": (wire.Publish(1, 1, 7, None, b"\x01\x01"), Code.SEALED_SIZE),
}


@pytest.mark.parametrize("what", PUBLISHES)
def test_a_publish_that_is_refused(net: Net, what: str) -> None:
    author, number = net.attached()
    reader, _ = net.attached(member=2)
    record, code = PUBLISHES[what]
    assert author.send(record) == refused(code, 4, record.id)
    assert author.publish(number, 1)[0] == wire.Published([1, 1]), "the connection goes on, no number is lost"
    assert len(reader.pop()) == 1
    assert author.peer.unacked == 0  # type: ignore[attr-defined]


def test_the_largest_payload_is_taken(net: Net) -> None:
    author, number = net.attached()
    assert author.publish(number, 1, size=SEALED_BYTES_MAX)[0] == wire.Published([1, 1])


def test_suite_0_is_taken_where_it_is_allowed() -> None:
    author, number = Net(suites=range(128)).attached(use=PUBLISH)
    assert author.send(wire.Publish(number, 0, 7, None, b"\x01\x00" + bytes(254))) == [wire.Published([7, 1])]


@pytest.mark.parametrize(
    ("use", "record", "kind"),
    [
        (SUBSCRIBE | ERASE | EXPORT, wire.Publish(1, 0, 1, None, sealed_of()), 4),
        (SUBSCRIBE | ERASE | EXPORT, wire.Publish(1, 1, 1, None, sealed_of()), 4),
        (PUBLISH | ERASE | EXPORT, wire.Ack(1, 0), 5),
        (SUBSCRIBE | PUBLISH | EXPORT, wire.Erase(1), 6),
        (SUBSCRIBE | PUBLISH | ERASE, wire.Export(1, 0), 7),
    ],
)
def test_a_right_that_is_not_in_use_is_not_had(net: Net, use: int, record: Any, kind: int) -> None:
    client, number = net.attached(use=use)
    assert number == 1
    assert client.send(record) == refused(Code.RIGHT, kind, 1)


@pytest.mark.parametrize("record", [wire.Unsubscribe(9), wire.Ack(9, 1), wire.Erase(9), wire.Export(9, 0)])
def test_a_number_that_is_none_of_the_connections(net: Net, record: Any) -> None:
    net.attached(1, ALL)
    client = net.connect()
    kind = {wire.Unsubscribe: 3, wire.Ack: 5, wire.Erase: 6, wire.Export: 7}[type(record)]
    assert client.send(record) == refused(Code.NOT_SUBSCRIBED, kind, 9)
    number_of_others = type(record)(1, *([] if kind in (3, 6) else [0]))
    assert client.send(number_of_others) == refused(Code.NOT_SUBSCRIBED, kind, 1)


def test_too_many_streams(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "STREAMS_PER_CONNECTION_MAX", 2)
    client = net.connect()
    client.subscribe(1)
    number = client.subscribe(2)[0].number
    assert client.subscribe(3) == refused(Code.TOO_MANY_STREAMS, 2, 3)
    assert isinstance(client.subscribe(2)[0], wire.Subscribed), "one that it has may be replaced"
    client.send(wire.Unsubscribe(number))
    assert isinstance(client.subscribe(3)[0], wire.Subscribed)


def test_too_many_streams_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "STREAMS_PER_CONNECTION_MAX", 2)
    reads = Later()
    net = Net(read=reads.submit)
    client = net.connect()
    for index in (1, 2, 3):
        client.subscribe(index)
    reads.run()
    net.settle()
    assert [type(record) for record in client.pop()] == [wire.Subscribed, wire.Subscribed, wire.Error]


def test_the_window_of_unacknowledged_records() -> None:
    reads, writes = Later(), Later()
    net = Net(read=reads.submit, write=writes.submit)
    author = net.connect()
    author.subscribe(use=PUBLISH)
    reads.run()
    net.settle()
    (subscribed,) = author.pop()
    number = subscribed.number
    assert author.publish(number, *range(PUBLISH_WINDOW)) == []
    assert author.publish(number, 999) == refused(Code.WINDOW, 4, 999)
    while writes.waiting:
        writes.run()
        net.settle()
    assert sum(len(record.acks) for record in author.pop()) == 2 * PUBLISH_WINDOW
    author.publish(number, 999)
    writes.run()
    net.settle()
    assert author.pop() == [wire.Published([999, PUBLISH_WINDOW + 1])]


# -- rates -------------------------------------------------------------------------------------------


def limited(net: Net) -> tuple[Client, int]:
    client = net.connect(rates=Rates(durable_per_s=10, ephemeral_per_s=20, control_per_s=500))
    return client, client.subscribe()[0].number


def test_publishes_have_a_rate_by_class(net: Net) -> None:
    client, number = limited(net)
    publish = [wire.Publish(number, 0, id_, None, sealed_of()) for id_ in range(12)]
    came = client.send(*publish)
    assert [(e.code, e.about) for e in came if isinstance(e, wire.Error)] == [(Code.RATE, 10), (Code.RATE, 11)]
    assert [m.seq for m in came if isinstance(m, wire.Message)] == list(range(1, 11))
    states = [wire.Publish(number, 1, slot, None, sealed_of()) for slot in range(21)]
    assert [e.about for e in client.send(*states) if isinstance(e, wire.Error)] == [20]
    assert not client.closed


def test_erasures_have_a_rate_of_their_own(net: Net) -> None:
    client, number = net.attached(use=ALL)
    came = [record for _ in range(ERASE_PER_S_MAX + 2) for record in client.send(wire.Erase(number))]
    assert [record for record in came if isinstance(record, wire.Error)] == refused(Code.RATE, 6, number) * 2
    assert len([record for record in came if isinstance(record, wire.Erased)]) == ERASE_PER_S_MAX
    net.hub.now_ns += SECOND_NS
    assert len(client.send(wire.Erase(number))) == 1


def test_the_rate_comes_back_with_time(net: Net) -> None:
    client, number = limited(net)
    client.publish(number, *range(10))
    assert client.publish(number, 10) == refused(Code.RATE, 4, 10)
    net.hub.now_ns += SECOND_NS // 10
    assert client.publish(number, 10)[0] == wire.Published([10, 11])
    assert client.publish(number, 11) == refused(Code.RATE, 4, 11)
    net.hub.now_ns += 3600 * SECOND_NS
    came = client.publish(number, *range(11, 23))
    assert len([record for record in came if isinstance(record, wire.Message)]) == 10, "a second's worth, not an hour's"


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_who_sends_too_fast_still_gets_its_rate(net: Net, factor: int) -> None:
    client, number = limited(net)
    client.publish(number, *range(10))
    seconds, taken = 10, 0
    for id_ in range(100, 100 + 10 * factor * seconds):
        net.hub.now_ns += SECOND_NS // (10 * factor)
        taken += any(isinstance(record, wire.Published) for record in client.publish(number, id_))
    assert 10 * seconds - 1 <= taken <= 10 * seconds + 1
