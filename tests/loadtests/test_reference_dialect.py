"""The reference dialect: its bytes are golden, its events follow from any split of the relay's bytes."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from loadtests.dialects.base import (
    Attach,
    Closed,
    Dialect,
    Erased,
    Event,
    Failed,
    Gap,
    GoingAway,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Timed,
    Unsubscribed,
)
from loadtests.dialects.reference import Reference
from relay import wire
from relay.errors import Code

GOLDEN = Path(__file__).parents[1] / "golden" / "dialect_reference.json"
LIMITS = wire.Limits(131072, 262144, 64, 4096, 256, 20000, 20000, 30000, 5000)
WELCOME = wire.Welcome(1, bytes(range(32)), 5, LIMITS)
SEALED = b"\x01\x01" + bytes(254)
STREAM = 70_001


class Peer:
    """The relay's end, framed by the library."""

    def __init__(self, dialect: Dialect) -> None:
        self.protocol = ServerProtocol(subprotocols=[Subprotocol(wire.SUBPROTOCOL)])
        self.protocol.receive_data(dialect.opening())
        (request,) = self.protocol.events_received()
        assert isinstance(request, Request)
        self.protocol.send_response(self.protocol.accept(request))
        self.upgrade = b"".join(self.protocol.data_to_send())

    def say(self, *records: wire.RelayRecord) -> bytes:
        self.protocol.send_binary(b"".join(wire.encode(record) for record in records))
        return b"".join(self.protocol.data_to_send())

    def heard(self, data: bytes) -> list[wire.ClientRecord]:
        self.protocol.receive_data(data)
        return [
            record
            for frame in self.protocol.events_received()
            if getattr(frame, "opcode", None) == 2
            for record in wire.decode_client(bytes(frame.data))  # type: ignore[union-attr]
        ]


def connected() -> tuple[Reference, Peer]:
    dialect = Reference(Place(host="127.0.0.1:1"), random_bits=lambda bits: 0x1234)
    peer = Peer(dialect)
    (reply,) = dialect.receive(peer.upgrade)
    assert isinstance(reply, Reply)
    assert peer.heard(reply.data) == [wire.Hello(1)]
    assert dialect.receive(peer.say(WELCOME)) == [Ready(5)]
    assert dialect.limits == LIMITS
    return dialect, peer


def subscribed() -> tuple[Reference, Peer]:
    dialect, peer = connected()
    asked = dialect.subscribe(Attach(stream=STREAM, name=bytes(32), use=3, capability=b"c"))
    assert peer.heard(asked) == [wire.Subscribe(1, b"c", 3, None, None, None)]
    assert dialect.receive(peer.say(wire.Subscribed(1, 9, 77, 4, True))) == [Subscribed(STREAM, 77, 4, True)]
    return dialect, peer


RECORDS: list[tuple[wire.RelayRecord, list[Event]]] = [
    (wire.Message(9, 5, 6, None, SEALED), [(STREAM, 5, 6, SEALED)]),
    (wire.Message(9, 2**40, 6, bytes(32), SEALED), [(STREAM, 2**40, 6, SEALED)]),
    (wire.Ephemeral(9, bytes(16), 3, SEALED), [State(STREAM, bytes(16), 3, SEALED)]),
    (wire.Published([8, 5, 9, 6]), [Published(8, 5), Published(9, 6)]),
    (wire.Published([]), []),
    (wire.Gap(9, 1, 4), [Gap(STREAM, 1, 4)]),
    (wire.Erased(9, 78), [Erased(STREAM, 78)]),
    (wire.Error(Code.RATE, 4, 12), [Refused(40, "publish", 12)]),
    (wire.Error(Code.RIGHT, 5, 9), [Refused(22, "ack", STREAM)]),
    (wire.Error(Code.NOT_SUBSCRIBED, 3, 1234), [Refused(24, "unsubscribe", 1234)]),
    (wire.Error(Code.INTERNAL, 0, 0), [Refused(70, "other", 0)]),
    (wire.GoAway(500), [GoingAway(500)]),
    (wire.Timed(1, 2, 3), [Timed(1, 2, 3)]),
]


@given(
    script=st.lists(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=4), max_size=8),
    cuts=st.lists(st.integers(0, 2**20), max_size=10),
)
@settings(max_examples=100, deadline=None)
def test_any_split_and_any_grouping_gives_the_same_events(
    script: list[list[tuple[wire.RelayRecord, list[Event]]]], cuts: list[int]
) -> None:
    dialect, peer = subscribed()
    data = b"".join(peer.say(*(record for record, _ in message)) for message in script)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    got = [event for a, b in pairwise(edges) for event in dialect.receive(data[a:b])]
    assert got == [event for message in script for _, events in message for event in events]


def test_only_durable_deliveries_are_plain_tuples() -> None:
    dialect, peer = subscribed()
    for record, expected in RECORDS:
        for event, wanted in zip(dialect.receive(peer.say(record)), expected, strict=True):
            assert (type(event) is tuple) is isinstance(record, wire.Message)
            assert type(event) is type(wanted)


def test_what_we_send_is_what_the_protocol_says() -> None:
    dialect, peer = subscribed()
    proofs: list[bytes] = []

    def prove(challenge: bytes) -> bytes:
        proofs.append(challenge)
        return b"proof"

    resume = Attach(stream=5, name=bytes(32), use=1, capability=b"c", prove=prove)
    sent = [
        dialect.publish(STREAM, 12, SEALED),
        dialect.publish(STREAM, 12, SEALED, durable=False, slot=3),
        dialect.ack(STREAM, 7),
        dialect.time(99),
        dialect.subscribe(resume, after=3, epoch=77),
        dialect.unsubscribe(STREAM),
    ]
    assert peer.heard(b"".join(sent)) == [
        wire.Publish(9, 0, 12, None, SEALED),
        wire.Publish(9, 1, 3, None, SEALED),
        wire.Ack(9, 7),
        wire.Time(99),
        wire.Subscribe(2, b"c", 1, b"proof", 77, 3),
        wire.Unsubscribe(9),
    ]
    assert proofs == [WELCOME.challenge]
    assert dialect.receive(peer.say(wire.Unsubscribed(9, 40))) == [Unsubscribed(STREAM, 40)]
    with pytest.raises(LookupError):
        dialect.publish(STREAM, 13, SEALED)
    assert dialect.receive(peer.say(wire.Error(Code.EXPIRED, 2, 2))) == [Refused(21, "subscribe", 5)]


def test_calls_before_their_time_raise() -> None:
    dialect = Reference(Place(host="h"))
    attach = Attach(stream=1, name=bytes(32), use=1, capability=b"c")
    for call in (
        lambda: dialect.subscribe(attach),
        lambda: dialect.publish(1, 1, SEALED),
        lambda: dialect.ack(1, 1),
        lambda: dialect.unsubscribe(1),
    ):
        with pytest.raises(LookupError):
            call()


def test_pings_are_answered_and_a_close_ends_it() -> None:
    dialect, peer = subscribed()
    peer.protocol.send_ping(b"are you there")
    (reply,) = dialect.receive(b"".join(peer.protocol.data_to_send()))
    assert isinstance(reply, Reply)
    peer.protocol.receive_data(reply.data)
    assert peer.protocol.events_received()[0].data == b"are you there"  # type: ignore[union-attr]
    peer.protocol.send_close(4061, "draining")
    data = b"".join(peer.protocol.data_to_send())
    reply, closed = dialect.receive(data)
    assert closed == Closed(4061, "draining")
    assert isinstance(reply, Reply)
    peer.protocol.receive_data(reply.data)
    assert peer.protocol.close_rcvd is not None
    assert peer.protocol.close_rcvd.code == 4061
    assert dialect.receive(data) == []


def test_our_own_close_is_not_answered_again() -> None:
    dialect, peer = subscribed()
    peer.protocol.receive_data(dialect.close())
    assert dialect.receive(b"".join(peer.protocol.data_to_send())) == [Closed(1000, "")]


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"", "no record"),
        (b"\x93\x01", "no record"),
        (b"\x92\x01\x01", "no record"),  # a client's record
        (wire.encode(wire.Message(8, 1, 1, None, SEALED)), "Message for what was not asked"),
        (wire.encode(wire.Subscribed(7, 9, 1, 1, True)), "Subscribed for what was not asked"),
        (wire.encode(wire.Error(Code.EXPIRED, 2, 9)), "Error for what was not asked"),
        (wire.encode(WELCOME), "Welcome that nobody asked"),
        (wire.encode(wire.Exported(9, 1, 1, False, [])), "Exported that nobody asked"),
        (wire.encode(wire.Published([1])), "without|no number"),
    ],
)
def test_a_relay_that_breaks_the_protocol_fails_once(payload: bytes, text: str) -> None:
    dialect, peer = subscribed()
    good = peer.say(wire.GoAway(1))
    peer.protocol.send_binary(payload)
    events = dialect.receive(good + b"".join(peer.protocol.data_to_send()) + good)
    assert [type(event) for event in events] == [GoingAway, Reply, Failed]
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert re.search(text, failed.text)
    assert dialect.receive(good) == []


@pytest.mark.parametrize(
    "record",
    [wire.GoAway(1), wire.Error(Code.VERSION, 1, 0), wire.Welcome(2, bytes(32), 5, LIMITS)],
)
def test_anything_but_a_welcome_fails_the_greeting(record: wire.RelayRecord) -> None:
    dialect = Reference(Place(host="h"))
    peer = Peer(dialect)
    events = dialect.receive(peer.upgrade + peer.say(record))
    assert [type(event) for event in events] == [Reply, Reply, Failed]


def test_another_protocol_is_named() -> None:
    dialect = Reference(Place(host="h"))
    (failed,) = dialect.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert isinstance(failed, Failed)
    assert "400 Bad Request" in failed.text
    dialect, peer = connected()
    (_, failed) = dialect.receive(b"\xff\xff" + peer.say(wire.GoAway(1)))
    assert isinstance(failed, Failed)
    assert "WebSocket" in failed.text


def golden_script(dialect: Reference) -> list[tuple[str, bytes | str]]:
    """A whole connection: every call, and every record of the relay, as (who, bytes) and the events' text."""
    lines: list[tuple[str, bytes | str]] = [("client", dialect.opening())]

    def relay(data: bytes) -> None:
        lines.append(("relay", data))
        lines.extend(("event", repr(event)) for event in dialect.receive(data))

    accept = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    relay(
        accept + b"Sec-WebSocket-Accept: Bo/jJvL1JCQkmlBG/OlB7hrTzYY=\r\nSec-WebSocket-Protocol: relaymark.v1\r\n\r\n"
    )

    def record(value: wire.RelayRecord) -> None:
        payload = wire.encode(value)
        relay(
            b"\x82"
            + (bytes((len(payload),)) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big"))
            + payload
        )

    record(WELCOME)
    lines.append(
        ("client", dialect.subscribe(Attach(stream=1, name=bytes(32), use=3, capability=b"c"), after=2, epoch=3))
    )
    record(wire.Subscribed(1, 9, 77, 4, True))
    lines.append(("client", dialect.publish(1, 12, SEALED)))
    lines.append(("client", dialect.publish(1, 0, SEALED, durable=False, slot=3)))
    for value, _ in RECORDS:
        record(value)
    lines.extend((("client", dialect.ack(1, 5)), ("client", dialect.time(99)), ("client", dialect.unsubscribe(1))))
    record(wire.Unsubscribed(9, 5))
    lines.append(("client", dialect.close()))
    relay(b"\x88\x02\x03\xe8")
    return lines


def test_golden_conversation() -> None:
    """The bytes of a whole connection. A change needs a new version of the protocol."""
    golden = json.loads(GOLDEN.read_text())
    lines = golden_script(Reference(Place(host="127.0.0.1:1"), random_bits=lambda bits: 0x1234))
    got = [[who, what.hex() if isinstance(what, bytes) else what] for who, what in lines]
    assert got == golden["conversation"]
