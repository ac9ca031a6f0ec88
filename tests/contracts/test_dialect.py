"""What every dialect must do, whatever relay it speaks to. A new one is added in scripted_relays.MAKE.

The contract is loadtests/dialects/check, as `relaymark dialect check` makes it; here are its properties over any splits
and bytes, the golden bytes, and what single protocols can get wrong.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.dialects.base import Failed, Published, Reply, Subscribed, Unsubscribed
from loadtests.dialects.check.contract import CHECKS, Check, missing
from loadtests.dialects.check.conversation import (
    PUBLISH,
    RECEIVE,
    STREAM,
    Conversation,
    attach_to,
    briefly,
    publishing,
    receiving,
    told_again,
)
from loadtests.dialects.check.scripted_end import OverWebSocket
from loadtests.dialects.check.wire import frame, takes
from tests.contracts.scripted_relays import MAKE

GOLDEN = Path(__file__).parents[1] / "golden"
DATE = re.compile(rb"Date: [^\r]*\r\n")
ONE_STREAM = ("nchan", "redis-streams")
NUMBERED = ("reference", "jetstream", "redis-streams")
NOT_OVER_WEBSOCKET = ("redis", "redis-streams")

every = pytest.mark.parametrize("name", MAKE)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{name}: {check.name}")
        for name, subject in MAKE.items()
        for check in CHECKS
        if missing(subject, check) is None
    ],
)
def test_the_contract(name: str, check: Check) -> None:
    check.run(MAKE[name], Random(1))


def test_the_contract_is_made_as_a_whole_where_it_can_be() -> None:
    left_out = {(name, check.name) for name, subject in MAKE.items() for check in CHECKS if missing(subject, check)}
    over_websocket = [check.name for check in CHECKS if "WebSocket" in check.needs]
    assert left_out == {
        *((name, "one connection may receive and publish") for name in ONE_STREAM),
        *((name, check) for name in NOT_OVER_WEBSOCKET for check in over_websocket),
    }


@every
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 2**20), max_size=12), subscriber=st.booleans())
def test_any_split_of_the_bytes_gives_the_same_events(name: str, cuts: list[int], *, subscriber: bool) -> None:
    whole = receiving(MAKE[name]) if subscriber else publishing(MAKE[name])
    assert told_again(MAKE[name], whole, cuts) == whole.events


@every
@settings(max_examples=40, deadline=None)
@given(data=st.binary(min_size=1, max_size=300), cut=st.integers(0, 300))
def test_no_bytes_make_it_raise(name: str, data: bytes, cut: int) -> None:
    for conversation in (Conversation(MAKE[name], RECEIVE), Conversation(MAKE[name], RECEIVE).joined()):
        takes(conversation.dialect, data, cut)


@pytest.mark.parametrize("name", [name for name in MAKE if name not in NOT_OVER_WEBSOCKET])
@settings(max_examples=40, deadline=None)
@given(message=st.binary(max_size=200), opcode=st.sampled_from((1, 2)), cut=st.integers(0, 200))
def test_no_message_makes_it_raise(name: str, message: bytes, opcode: int, cut: int) -> None:
    takes(Conversation(MAKE[name], RECEIVE).joined().dialect, frame(message, opcode), cut)


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
    conversation = Conversation(MAKE[name], RECEIVE).joined()
    if isinstance(conversation.end, OverWebSocket):
        message = frame(message, 2)
    assert [type(event) for event in conversation.dialect.receive(message) if type(event) is not Reply] == [Failed]


def test_nchan_acknowledges_in_its_own_words() -> None:
    dialect = Conversation(MAKE["nchan"], PUBLISH).joined().dialect
    dialect.publish(STREAM, 1, b"")
    assert [type(event) for event in dialect.receive(frame(b"queued: 1", 1))] == [Reply, Failed]


@pytest.mark.parametrize("name", [name for name in MAKE if name != "reference"])
def test_golden_conversations(name: str) -> None:
    """The bytes of whole connections, with masks and keys from 0x1234. They change only if what we say changes."""
    golden = json.loads((GOLDEN / f"dialect_{name}.json").read_text())
    assert conversations(name) == golden["conversations"]


def conversations(name: str) -> dict[str, list[list[str]]]:
    return {
        what: [[one.who, DATE.sub(b"", one.data).hex()] for one in briefly(MAKE[name], use).said]
        for what, use in (("receiving", RECEIVE), ("publishing", PUBLISH))
    }


def write_golden(name: str) -> None:
    """Write the golden file of a new dialect; see loadtests/dialects/README.md."""
    about = f"Whole connections of the dialect {name}; bytes in hex, masks and keys from 0x1234"
    content = json.dumps({"about": about, "conversations": conversations(name)}, indent=1)
    (GOLDEN / f"dialect_{name}.json").write_text(f"{content}\n")


@every
def test_features_are_said(name: str) -> None:
    features = MAKE[name].dialect.features
    assert features.acknowledges
    said = msgspec.structs.asdict(features)
    assert said["numbers"] is said["resumes"] is (name in NUMBERED)
    assert said["one_stream"] is (name in ONE_STREAM)


@pytest.mark.parametrize("name", NUMBERED)
def test_numbers_are_the_relays_own(name: str) -> None:
    told = receiving(MAKE[name]).told
    assert told[1] == Subscribed(STREAM, 77, 0, told[1].recovered)  # type: ignore[union-attr]
    assert told[-1] == Unsubscribed(STREAM, 3)
    assert [event.seq for event in publishing(MAKE[name]).told if isinstance(event, Published)] == [1, 2, 3]
