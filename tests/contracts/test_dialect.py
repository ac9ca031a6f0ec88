"""What every dialect must do, whatever relay it speaks to. A new one is added in scripted_relays.MAKE."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.dialects.base import (
    Attach,
    Closed,
    Dialect,
    Event,
    Failed,
    Published,
    Ready,
    Reply,
    Subscribed,
    Unsubscribed,
)
from tests.contracts.over_websocket import OverWebSocket
from tests.contracts.scripted_redis import RedisServer
from tests.contracts.scripted_redis_streams import RedisStreamsServer
from tests.contracts.scripted_relays import MAKE, connection

GOLDEN = Path(__file__).parents[1] / "golden"
DATE = re.compile(rb"Date: [^\r]*\r\n")
STREAM = 70_001
SEALED = b"\x01\x01" + bytes(range(254))
LONG = b"\x01\x01\r\n" + bytes(40_000)
RECEIVE, PUBLISH = 1, 2
OVER_WEBSOCKET = [name for name, (_, relay) in MAKE.items() if relay not in (RedisServer, RedisStreamsServer)]
ONE_STREAM = ("nchan", "redis-streams")
NUMBERED = ("reference", "jetstream", "redis-streams")

every = pytest.mark.parametrize("name", MAKE)


def attach_to(use: int) -> Attach:
    return Attach(stream=STREAM, name=bytes(range(1, 33)), use=use, capability=b"c")


class Conversation:
    """A dialect and its relay; what each said, and every event. Replies are sent at once, as the event loop does."""

    def __init__(self, name: str, use: int) -> None:
        relay = MAKE[name][1]
        self.attach = attach_to(use)
        self.dialect: Dialect = connection(name, self.attach)
        self.relay: OverWebSocket | RedisServer = relay()
        self.lines: list[tuple[str, bytes]] = []
        self.events: list[Event] = []

    def joined(self) -> Conversation:
        self.say(self.dialect.opening())
        self.say(self.dialect.subscribe(self.attach))
        return self

    def say(self, data: bytes) -> None:
        self.lines.append(("client", data))
        answer = self.relay.hear(data)
        if answer:
            self.hear(answer)

    def hear(self, data: bytes) -> None:
        self.lines.append(("relay", data))
        events = self.dialect.receive(data)
        self.events += events
        for event in events:
            if isinstance(event, Reply) and not any(isinstance(one, Closed | Failed) for one in events):
                self.say(event.data)

    @property
    def told(self) -> list[Event]:
        return [event for event in self.events if not isinstance(event, Reply)]


def receiving(name: str) -> Conversation:
    """A whole connection that receives."""
    conversation = Conversation(name, RECEIVE).joined()
    for sealed in (SEALED, LONG, SEALED):
        conversation.hear(conversation.relay.deliver(conversation.attach, sealed))
    conversation.say(conversation.dialect.unsubscribe(STREAM))
    return conversation


def publishing(name: str) -> Conversation:
    """A whole connection that publishes."""
    conversation = Conversation(name, PUBLISH).joined()
    dialect = conversation.dialect
    conversation.say(dialect.publish(STREAM, 12, SEALED) + dialect.publish(STREAM, 13, LONG))
    conversation.say(dialect.publish(STREAM, 14, SEALED))
    return conversation


@every
def test_a_subscriber_gets_what_is_delivered_in_order(name: str) -> None:
    conversation = receiving(name)
    ready, subscribed, *delivered, left = conversation.told
    assert isinstance(ready, Ready)
    assert isinstance(subscribed, Subscribed)
    assert subscribed.stream == STREAM
    assert [event[3] for event in delivered if type(event) is tuple] == [SEALED, LONG, SEALED]  # type: ignore[misc]
    assert len(delivered) == 3
    numbered = conversation.dialect.features.numbers
    assert [event[1] for event in delivered] == ([1, 2, 3] if numbered else [None] * 3)  # type: ignore[misc]
    assert left == Unsubscribed(STREAM, 3 if numbered else None)
    assert (subscribed.epoch, subscribed.head) == ((77, 0) if numbered else (None, None))


@every
def test_a_publisher_gets_an_acknowledgement_of_each_record(name: str) -> None:
    conversation = publishing(name)
    ready, subscribed, *published = conversation.told
    assert isinstance(ready, Ready)
    assert isinstance(subscribed, Subscribed)
    assert [(type(event), event.id) for event in published if isinstance(event, Published)] == [
        (Published, 12),
        (Published, 13),
        (Published, 14),
    ]
    assert len(published) == 3


@every
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 2**20), max_size=12), subscriber=st.booleans())
def test_any_split_of_the_bytes_gives_the_same_events(name: str, cuts: list[int], *, subscriber: bool) -> None:
    whole = receiving(name) if subscriber else publishing(name)
    dialect = connection(name, whole.attach)
    events: list[Event] = []
    calls = _calls(dialect, whole.attach, subscriber=subscriber)
    dialect.opening()
    for who, data in whole.lines[1:]:
        if who == "client":
            # The calls that made these bytes, at the same places; replies are no calls.
            if data not in [event.data for event in events if isinstance(event, Reply)]:
                assert next(calls)() == data
            continue
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, stop in pairwise(edges):
            events += dialect.receive(data[start:stop])
    assert events == whole.events


def _calls(dialect: Dialect, attach: Attach, *, subscriber: bool) -> Iterator[Callable[[], bytes]]:
    yield lambda: dialect.subscribe(attach)
    if subscriber:
        yield lambda: dialect.unsubscribe(STREAM)
    else:
        yield lambda: dialect.publish(STREAM, 12, SEALED) + dialect.publish(STREAM, 13, LONG)
        yield lambda: dialect.publish(STREAM, 14, SEALED)


@every
def test_deliveries_in_one_read_are_all_told(name: str) -> None:
    conversation = Conversation(name, RECEIVE).joined()
    before = len(conversation.events)
    deliver = conversation.relay.deliver
    conversation.hear(b"".join(deliver(conversation.attach, SEALED) for _ in range(100)))
    delivered = [event for event in conversation.events[before:] if type(event) is tuple]
    assert [event[3] for event in delivered] == [SEALED] * 100  # type: ignore[misc]


@every
def test_calls_before_their_time_raise(name: str) -> None:
    attach = attach_to(RECEIVE)
    dialect = connection(name, attach)
    for call in (
        lambda: dialect.subscribe(attach),
        lambda: dialect.publish(STREAM, 1, SEALED),
        lambda: dialect.ack(STREAM, 1),
        lambda: dialect.unsubscribe(STREAM),
    ):
        with pytest.raises(LookupError):
            call()


@every
def test_nothing_can_be_published_after_leaving(name: str) -> None:
    conversation = receiving(name)
    with pytest.raises(LookupError):
        conversation.dialect.publish(STREAM, 1, SEALED)


@every
def test_a_relay_that_breaks_the_protocol_fails_once(name: str) -> None:
    # nchan has no form that a delivery could break; its publishers expect lines of text.
    conversation = Conversation(name, PUBLISH if name == "nchan" else RECEIVE).joined()
    deliver = conversation.relay.deliver
    good = b"" if name == "nchan" else deliver(conversation.attach, SEALED)
    nonsense = conversation.relay.nonsense()
    events = conversation.dialect.receive(good + nonsense + good)
    assert [type(event) for event in events if type(event) is not Reply] == [*([tuple] if good else []), Failed]
    assert isinstance(events[-1], Failed)
    assert events[-1].text
    assert conversation.dialect.receive(good) == []


@every
@settings(max_examples=40, deadline=None)
@given(data=st.binary(min_size=1, max_size=300), cut=st.integers(0, 300))
def test_no_bytes_make_it_raise(name: str, data: bytes, cut: int) -> None:
    for conversation in (Conversation(name, RECEIVE), Conversation(name, RECEIVE).joined()):
        events = conversation.dialect.receive(data[:cut]) + conversation.dialect.receive(data[cut:])
        ends = [at for at, event in enumerate(events) if isinstance(event, Closed | Failed)]
        assert ends in ([], [len(events) - 1])


@pytest.mark.parametrize("name", OVER_WEBSOCKET)
@settings(max_examples=40, deadline=None)
@given(message=st.binary(max_size=200), cut=st.integers(0, 200))
def test_no_message_makes_it_raise(name: str, message: bytes, cut: int) -> None:
    conversation = Conversation(name, RECEIVE).joined()
    assert isinstance(conversation.relay, OverWebSocket)
    framed = b"\x82" + (bytes((len(message),)) if len(message) < 126 else b"\x7e" + len(message).to_bytes(2, "big"))
    data = framed + message
    events = conversation.dialect.receive(data[:cut]) + conversation.dialect.receive(data[cut:])
    ends = [at for at, event in enumerate(events) if isinstance(event, Failed)]
    assert ends in ([], [len(events) - 1])


TOPIC = attach_to(RECEIVE).topic.encode()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nats", b"MSG %b 1 %b\r\n" % (TOPIC, b"9" * 5000)),
        ("nats", b"MSG %b 1 999999999\r\n" % TOPIC),
        ("mqtt", b"\x30\xff\xff\xff\x7f"),
        ("redis", b"*1\r\n" * 2000),
        ("redis", b">3\r\n$7\r\nmessage\r\n$16\r\n%b\r\n$-60\r\n" % TOPIC),
        ("redis", b">3\r\n$7\r\nmessage\r\n$16\r\n%b\r\n:5\r\n" % TOPIC),
        ("redis", b">3\r\n$7\r\nmessage\r\n*0\r\n$1\r\nx\r\n"),
        ("centrifugo", b'{"push":{"channel":"\xff"}}'),
        ("centrifugo", '{"push":{"channel":"%s","pub":{"data":"é"}}}'.encode() % TOPIC),
        ("socketio", b'451-["message","%b"]' % TOPIC),
        ("socketio", b'452-["message","%b",{"_placeholder":true,"num":0}]' % TOPIC),
        ("socketio", b'451-["message","another",{"_placeholder":true,"num":0}]'),
        ("socketio", b"439[]"),
        ("socketio", b"43[]"),
        ("socketio", b'44{"message":"not here"}'),
        ("socketio", b'40{"sid":"again"}'),
        ("nostr", b'["EVENT","70001",{"kind":445,"pubkey":"00","tags":[],"content":"\xc3\xa9"}]'),
        ("nostr", b'["EVENT","70001",{"kind":20445,"pubkey":"00","tags":[["d","x"]],"content":"AQE="}]'),
        ("nostr", b'["EVENT","70001",{"kind":445}]'),
        ("nostr", b'["EOSE","another"]'),
        ("nostr", b'["OK","00",true,""]'),
        ("nostr", b'["OK","",false,"no"]'),
        ("nostr", b'["CLOSED","70001","enough"]'),
        ("nostr", b'{"EVENT":1}'),
        ("xmpp", b"<message xmlns='jabber:client'>"),
        ("xmpp", b"<!DOCTYPE message [<!ENTITY b 'c'>]><message>&b;</message>"),
        ("xmpp", b"<message type='groupchat' from='%b@conference.localhost/a'><payload>*</payload></message>" % TOPIC),
        ("xmpp", b"<message type='groupchat' from='%b@conference.localhost/a'><payload>AA==</message>" % TOPIC),
        ("xmpp", b"<r xmlns='urn:xmpp:sm:3'/>"),
    ],
)
def test_the_words_of_a_protocol_in_a_wrong_form_fail(name: str, message: bytes) -> None:
    conversation = Conversation(name, RECEIVE).joined()
    relay = conversation.relay
    if isinstance(relay, OverWebSocket):
        relay.say(message)
        message = b"".join(relay.websocket.data_to_send())
    assert [type(event) for event in conversation.dialect.receive(message) if type(event) is not Reply] == [Failed]


@pytest.mark.parametrize("name", OVER_WEBSOCKET)
def test_pings_are_answered_and_a_close_ends_it(name: str) -> None:
    conversation = Conversation(name, RECEIVE).joined()
    relay = conversation.relay
    assert isinstance(relay, OverWebSocket)
    (pong,) = conversation.dialect.receive(relay.ping())
    assert isinstance(pong, Reply)
    relay.websocket.receive_data(pong.data)
    (heard,) = relay.websocket.events_received()
    assert heard.data == b"there?"  # type: ignore[union-attr]
    late = relay.deliver(conversation.attach, SEALED)
    reply, closed = conversation.dialect.receive(relay.close())
    assert closed == Closed(1001, "going")
    assert isinstance(reply, Reply)
    assert conversation.dialect.receive(late) == []


@pytest.mark.parametrize("name", OVER_WEBSOCKET)
def test_our_own_close_is_not_answered_again(name: str) -> None:
    conversation = Conversation(name, RECEIVE).joined()
    before = len(conversation.events)
    conversation.say(conversation.dialect.close())
    assert conversation.events[before:] == [Closed(1000, "")]


@pytest.mark.parametrize("name", OVER_WEBSOCKET)
def test_a_refused_upgrade_is_named(name: str) -> None:
    conversation = Conversation(name, RECEIVE)
    (failed,) = conversation.dialect.receive(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    assert isinstance(failed, Failed)
    assert "403 Forbidden" in failed.text


@pytest.mark.parametrize("name", [name for name in MAKE if name not in ONE_STREAM])
def test_one_connection_may_do_both(name: str) -> None:
    conversation = Conversation(name, RECEIVE | PUBLISH).joined()
    conversation.say(conversation.dialect.publish(STREAM, 5, SEALED))
    conversation.hear(conversation.relay.deliver(conversation.attach, LONG))
    published, delivered = conversation.told[-2:]
    assert isinstance(published, Published)
    assert published.id == 5
    assert type(delivered) is tuple
    assert delivered[3] == LONG  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in MAKE if name != "reference"])
def test_golden_conversations(name: str) -> None:
    """The bytes of whole connections, with masks and keys from 0x1234. They change only if what we say changes."""
    golden = json.loads((GOLDEN / f"dialect_{name}.json").read_text())
    assert conversations(name) == golden["conversations"]


def conversations(name: str) -> dict[str, list[list[str]]]:
    return {
        what: [[who, DATE.sub(b"", data).hex()] for who, data in conversation.lines]
        for what, conversation in (("receiving", _short(name, RECEIVE)), ("publishing", _short(name, PUBLISH)))
    }


def write_golden(name: str) -> None:
    """Write the golden file of a new dialect; see loadtests/dialects/README.md."""
    about = f"Whole connections of the dialect {name}; bytes in hex, masks and keys from 0x1234"
    content = json.dumps({"about": about, "conversations": conversations(name)}, indent=1)
    (GOLDEN / f"dialect_{name}.json").write_text(f"{content}\n")


def _short(name: str, use: int) -> Conversation:
    conversation = Conversation(name, use).joined()
    if use == RECEIVE:
        conversation.hear(conversation.relay.deliver(conversation.attach, SEALED))
        conversation.say(conversation.dialect.unsubscribe(STREAM))
    else:
        conversation.say(conversation.dialect.publish(STREAM, 12, SEALED))
    conversation.say(conversation.dialect.close())
    return conversation


@every
def test_features_are_said(name: str) -> None:
    features = MAKE[name][0].features
    assert features.acknowledges
    said = msgspec.structs.asdict(features)
    assert said["numbers"] is said["resumes"] is (name in NUMBERED)
    assert said["one_stream"] is (name in ONE_STREAM)
