"""What only XMPP has: rooms that refuse, lock and put out, two ways to read a message, logins, stream errors."""

from __future__ import annotations

from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.server import ServerProtocol

from loadtests.dialects.base import (
    Attach,
    Event,
    Failed,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.xmpp import Xmpp
from tests.contracts.scripted_xmpp import OPEN, XmppServer

ATTACH = Attach(stream=9, name=bytes(range(1, 33)), use=3, capability=b"")
ROOM = f"{ATTACH.topic}@conference.localhost"
NICK = f"{0x1234:016x}"
SUBJECT = f"<message from='{ROOM}' type='groupchat'><subject/></message>"
MUC = "http://jabber.org/protocol/muc#user"


class Link:
    """A dialect and a server that a test speaks for once the two have come as far as `until`."""

    def __init__(self, *, until: str = "joined", host: str = "127.0.0.1:1", use: int = 3) -> None:
        self.dialect = Xmpp(Place(host=host), random_bits=lambda bits: 0x1234 & (1 << bits) - 1)
        self.server = XmppServer()
        self.events: list[Event] = []
        self.silent = until == "upgraded"
        self.hear(self.server.hear(self.dialect.opening()))
        if until == "joined":
            self.hear(self.server.hear(self.dialect.subscribe(msgspec.structs.replace(ATTACH, use=use))))
            assert self.events[-1] == Subscribed(9, None, None, False)

    def hear(self, data: bytes) -> list[Event]:
        events = self.dialect.receive(data)
        self.events += events
        for event in events:
            if type(event) is Reply and not self.silent:
                self.hear(self.server.hear(event.data))
        return events

    def told(self, *stanzas: str) -> list[Event]:
        """Return what the dialect makes of stanzas, its replies as they are."""
        self.silent = True
        self.server.say(*(stanza.encode() for stanza in stanzas))
        return self.hear(b"".join(self.server.websocket.data_to_send()))

    def said(self, data: bytes) -> list[bytes]:
        """Return the stanzas in what the dialect sends."""
        server: ServerProtocol = self.server.websocket
        server.receive_data(data)
        return [bytes(event.data) for event in server.events_received() if isinstance(event, Frame)]


def message(sender: str, sealed: bytes, *, number: str = "7", quote: str = "'", extra: str = "") -> str:
    attributes = {"from": sender, "id": number, "type": "groupchat", "to": f"{NICK}@localhost/x"}
    head = " ".join(f"{name}={quote}{value}{quote}" for name, value in attributes.items())
    return f"<message {head}{extra}><encrypted><payload>{b64encode(sealed).decode()}</payload></encrypted></message>"


def presence(what: str, *codes: int, more: str = "") -> str:
    statuses = "".join(f"<status code='{code}'/>" for code in codes)
    return f"<presence from='{ROOM}/{NICK}'{what}><x xmlns='{MUC}'>{statuses}</x>{more}</presence>"


@given(
    sealed=st.binary(max_size=60),
    mine=st.booleans(),
    quote=st.sampled_from("'\""),
    extra=st.sampled_from(["", " xml:lang='en'", " xmlns='jabber:client'", " a='b>c'"]),
    number=st.sampled_from(["7", "x", "99999999999999999999999", "é"]),
    use=st.sampled_from([2, 3]),
)
def test_both_ways_to_read_a_message_agree(
    sealed: bytes, quote: str, extra: str, number: str, use: int, *, mine: bool
) -> None:
    sender = f"{ROOM}/{NICK if mine else 'another'}"
    text = message(sender, sealed, number=number, quote=quote, extra=extra)
    quick, whole = Link(use=use), Link(use=use)
    found = quick.told(text)
    # An empty comment's place is taken by a space: only the parser reads `<payload >`.
    assert whole.told(text.replace("<payload>", "<payload >")) == found
    delivered = [(9, None, None, sealed)] if use == 3 else []
    assert found == [*delivered, *([Published(7, None)] if mine and number == "7" else [])]


@given(
    tag=st.sampled_from(["message", "presence", "iq", "features", "error", "failure", "open", "s:success", "a"]),
    attributes=st.dictionaries(
        st.sampled_from(["from", "type", "id", "to"]),
        st.sampled_from(
            [ROOM, f"{ROOM}/{NICK}", "/", "", "error", "groupchat", "unavailable", "get", "bind", "7", "²"]
        ),
    ),
    inside=st.lists(
        st.sampled_from(
            (
                *(
                    "<payload/>",
                    "<payload>&#34;,1</payload>",
                    "<payload>AAAA</payload>",
                    "<subject>x</subject>",
                    "text",
                ),
                *("<x><status code='110'/></x>", "<status/>", "<error/>", "<error><a/></error>", "<x xmlns='y'>é</x>"),
            )
        )
    ),
    until=st.sampled_from(["upgraded", "ready", "joined"]),
)
def test_no_stanza_makes_it_raise(tag: str, attributes: dict[str, str], inside: list[str], until: str) -> None:
    link = Link(until=until)
    written = " ".join(f"{name}='{value}'" for name, value in attributes.items())
    stanza = f"<{tag} xmlns:s='urn:ietf:params:xml:ns:xmpp-sasl' {written}>{''.join(inside)}</{tag}>"
    events = link.told(stanza, stanza)
    assert [at for at, event in enumerate(events) if isinstance(event, Failed)] in ([], [len(events) - 1])


def test_what_came_before_the_subject_is_history() -> None:
    link = Link()
    assert not [event for event in link.events if type(event) is tuple]
    assert link.told(message(f"{ROOM}/old", b"new")) == [(9, None, None, b"new")]
    assert link.told(f"<message from='{ROOM}' type='groupchat'><subject>again</subject></message>") == []


def test_a_refused_message_is_named_though_it_comes_back_whole() -> None:
    link = Link()
    back = message(ROOM, b"mine", number="5").replace("groupchat", "error").replace("</message>", "<error/></message>")
    assert link.told(back) == [Refused(0, "publish", 5)]


def test_a_refused_room_can_not_be_published_to() -> None:
    link = Link(until="ready")
    link.dialect.subscribe(ATTACH)
    full = "<error type='wait'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    assert link.told(presence(" type='error'", more=full)) == [Refused(0, "subscribe", 9)]
    with pytest.raises(LookupError):
        link.dialect.publish(9, 1, b"")
    assert link.told(SUBJECT) == []


def test_a_state_is_not_acknowledged() -> None:
    link = Link()
    link.hear(link.server.hear(link.dialect.publish(9, 1, b"state", durable=False)))
    assert link.events[-1] == (9, None, None, b"state")


def test_a_new_room_is_unlocked() -> None:
    link = Link()
    (reply,) = link.told(presence("", 110, 201))
    assert isinstance(reply, Reply)
    (said,) = link.said(reply.data)
    assert b"muc#owner" in said
    assert f"to='{ROOM}'".encode() in said


def test_a_room_can_be_entered_again_before_it_is_left() -> None:
    link = Link()
    link.dialect.unsubscribe(9)
    link.dialect.subscribe(ATTACH)
    out, back = presence(" type='unavailable'", 110), presence("", 110)
    assert link.told(out, back, SUBJECT) == [Unsubscribed(9, None), Subscribed(9, None, None, False)]
    assert link.dialect.publish(9, 1, b"")


def test_who_is_put_out_fails() -> None:
    link = Link()
    assert link.told(presence(" type='unavailable'", 110, 307))[-1] == Failed("the relay put us out of a room: 110 307")


def test_others_who_come_and_go_are_nothing() -> None:
    link = Link()
    assert link.told(presence("").replace(NICK, "another"), presence(" type='unavailable'").replace(NICK, "x110")) == []


def test_a_request_is_answered() -> None:
    link = Link()
    (reply,) = link.told("<iq type='get' id=\"a'b\" from='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
    assert isinstance(reply, Reply)
    (said,) = link.said(reply.data)
    assert b"type='error' to='localhost' id='a&apos;b'" in said


@pytest.mark.parametrize(
    ("stanza", "text"),
    [
        ("<failure><not-authorized/></failure>", "the relay refused the login: not-authorized"),
        ("<failure/>", "the relay refused the login: without a reason"),
        (
            "<features><mechanisms><mechanism>EXTERNAL</mechanism></mechanisms></features>",
            "the relay takes no login by name and password (SASL PLAIN)",
        ),
        (
            "<iq type='error' id='bind'><bind/><error type='wait'><resource-constraint/></error></iq>",
            "the relay gave us no address: resource-constraint",
        ),
        (
            "<s:error xmlns:s='http://etherx.jabber.org/streams'><conflict/></s:error>",
            "the relay ended the stream: conflict",
        ),
    ],
)
def test_the_end_of_a_stream_is_a_sentence(stanza: str, text: str) -> None:
    assert Link(until="upgraded").told(OPEN, stanza)[-1] == Failed(text)


def test_the_stream_s_close_is_answered_once() -> None:
    link = Link()
    close = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"
    (reply,) = link.told(close)
    assert isinstance(reply, Reply)
    assert link.said(reply.data) == [close.encode()]
    assert link.told(close) == []


def test_ready_comes_once() -> None:
    link = Link(until="ready")
    assert link.events[-1] == Ready(None)
    assert link.told("<iq type='result' id='bind'/>") == []


@pytest.mark.parametrize(
    ("host", "domain"),
    [("chat.Example.org:5281", "chat.example.org"), ("[::1]:5281", "localhost"), ("localhost", "localhost")],
)
def test_the_domain_is_the_host(host: str, domain: str) -> None:
    link = Link(until="upgraded", host=host)
    (reply,) = [event for event in link.events if isinstance(event, Reply)]
    (said,) = link.said(reply.data)
    assert f"to='{domain}'".encode() in said
