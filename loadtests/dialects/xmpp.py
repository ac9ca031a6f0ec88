"""XMPP over WebSocket, as prosody and ejabberd speak it: every stream is a room, sealed bytes go as OMEMO's payload.

| the server sends               | means                                                                           |
|--------------------------------|---------------------------------------------------------------------------------|
| features                       | the first: log in; the second, after success and a new open: bind, then Ready   |
| presence, status 110           | we are in the room, or out of it: Unsubscribed; an error: Refused               |
| message with a subject         | the room's history is over: Subscribed                                          |
| groupchat message with payload | a delivery; under our own nick it is also the acknowledgement: Published        |
| message of type error          | Refused                                                                         |
| iq get, set                    | Reply: no such service                                                          |

A WebSocket message is one whole stanza. The rooms' reflection of a message to its sender is what clients take for its
acknowledgement: the room has it and its place among the others, some members may have it, nothing says that all have.
To publish one must be in the room, so who only publishes gets everything as well, which is not told.

The payload is base64 under a header without keys, as under a sender key that the members have: not a key a member and
message. Each connection is a user of its own with a random name, on the host's domain (`localhost` for an address), and
the rooms are on its `conference.` component; the server must take any name and password, and let anybody make rooms.
A private chat is a room of two: direct messages would need the other's address, which nothing tells a connection.
Nothing is resumed: XEP-0198 would need the old connection's id and count on the new one.

Source: RFC 7395, RFC 6120, XEP-0045, XEP-0384.
"""

from __future__ import annotations

import random
from binascii import b2a_base64
from collections.abc import Callable
from ipaddress import ip_address
from typing import ClassVar, Final
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, ParseError, fromstring
from xml.sax.saxutils import escape

from msgspec import MsgspecError
from msgspec.json import Decoder

from loadtests.dialects.base import (
    Attach,
    Event,
    Features,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import TEXT
from loadtests.dialects.websocket import UPGRADED, WebSocket

_OPEN: Final = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='%b' version='1.0'/>"
_CLOSE: Final = b"<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"
_LOG_IN: Final = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%b</auth>"
_BIND: Final = b"<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
_JOIN: Final = (
    b"<presence xmlns='jabber:client' to='%b/%b'>"
    b"<x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>"
)
_LEAVE: Final = b"<presence xmlns='jabber:client' to='%b/%b' type='unavailable'/>"
_UNLOCK: Final = (
    b"<iq xmlns='jabber:client' type='set' id='unlock' to='%b'><query xmlns='http://jabber.org/protocol/muc#owner'>"
    b"<x xmlns='jabber:x:data' type='submit'/></query></iq>"
)
"""Opens a room that the server keeps locked for who made it (XEP-0045 section 10.1.2)."""
_UNSERVED: Final = (
    b"<iq xmlns='jabber:client' type='error' to='%b' id='%b'>"
    b"<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
)
_from_base64: Final = Decoder(bytes).decode
"""Takes a JSON string: two to five times as fast as binascii, and opening payloads is most of the work here."""
_DIGITS_MAX: Final = 20
"""Digits of a publish's id."""


class _Room:
    __slots__ = ("address", "joined", "receives", "stream")

    def __init__(self, attach: Attach, address: bytes) -> None:
        self.stream = attach.stream
        self.receives = bool(attach.use & 1)
        self.address = address
        self.joined = False
        """Its history is over: what comes from now on is live."""


class Xmpp:
    """One connection to an XMPP server."""

    __slots__ = (
        *("_closing", "_domain", "_leaving", "_logged_in", "_nick", "_payload_head"),
        *("_ready", "_rooms", "_streams", "_websocket"),
    )

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=True, resumes=False, ephemeral=False, times=False, echoes=True
    )

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._websocket = WebSocket(place, "/xmpp-websocket", "xmpp", random_bits)
        self._domain = _domain(place.host)
        self._nick = b"%016x" % random_bits(64)
        self._payload_head = b"<encrypted xmlns='urn:xmpp:omemo:2'><header sid='%d'/><payload>" % (random_bits(31) | 1)
        self._logged_in = False
        self._ready = False
        self._closing = False
        self._streams: dict[int, _Room] = {}
        self._rooms: dict[bytes, _Room] = {}  # by address, until the server says that we are out
        self._leaving: dict[bytes, int] = {}  # address -> stream

    def opening(self) -> bytes:
        return self._websocket.opening()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if not self._ready:
            raise LookupError("subscribe before Ready")
        address = b"%b@conference.%b" % (attach.topic.encode(), self._domain)
        self._streams[attach.stream] = self._rooms[address] = _Room(attach, address)
        return self._frame(_JOIN % (address, self._nick))

    def unsubscribe(self, stream: int) -> bytes:
        address = self._streams.pop(stream).address
        self._leaving[address] = stream
        return self._frame(_LEAVE % (address, self._nick))

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        stanza = (
            b"<message xmlns='jabber:client' type='groupchat' to='%b' id='%b'>"
            b"%b%b</payload></encrypted><store xmlns='urn:xmpp:hints'/></message>"
        ) % (
            self._streams[stream].address,
            b"%d" % id if durable else b"state",
            self._payload_head,
            b2a_base64(sealed, newline=False),
        )
        return self._frame(stanza)

    def ack(self, stream: int, upto: int) -> bytes:
        return self._streams[stream].address[:0]

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        self._closing = True
        return self._frame(_CLOSE) + self._websocket.close(code)

    def _frame(self, stanza: bytes) -> bytes:
        return self._websocket.frame(stanza, TEXT)

    def receive(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for item in self._websocket.feed(data):
            if isinstance(item, bytes):
                if not self._delivery(item, events) and (fault := self._stanza(item, events)) is not None:
                    events += self._websocket.fail(fault)
                    break
            elif item == UPGRADED:
                events.append(Reply(self._frame(_OPEN % self._domain)))
            elif not isinstance(item, str):
                events.append(item)
        return events

    def _delivery(self, item: bytes, events: list[Event]) -> bool:
        """Take a room's message as servers write it, without parsing XML; False if it is anything else.

        XML has no `<` but that of a tag, and XMPP neither comments nor CDATA in what servers write.
        """
        start = item.find(b"<payload>") + 9
        stop = item.find(b"<", start)
        head = item[: item.find(b">")]
        if start < 9 or b"groupchat" not in head or not item.startswith(b"</payload>", stop):
            return False
        address, _, nick = _attribute(head, b" from=").partition(b"/")
        room = self._rooms.get(address)
        if room is None or not room.joined:
            return False
        if room.receives:
            try:
                sealed = _from_base64(b'"%b"' % item[start:stop])
            except MsgspecError:
                return False
            events.append((room.stream, None, None, sealed))
        if nick == self._nick and (number := _number(_attribute(head, b" id="))) is not None:
            events.append(Published(number, None))
        return True

    def _stanza(self, item: bytes, events: list[Event]) -> str | None:
        """Append what any stanza means; return a sentence if it means that the connection is over."""
        if item.startswith(b"<presence") and b"110" not in item and b"error" not in item:
            return None  # somebody else's, one for each member of a room
        if b"<!" in item or b"<?" in item:
            return "the relay sent XML of a kind that XMPP forbids"
        try:
            stanza = fromstring(item.decode())  # noqa: S314  without declarations there are no entities to expand
        except (ParseError, UnicodeDecodeError) as error:
            return f"the relay sent what is no XML: {error}"
        match _local(stanza):
            case "message":
                return self._message(stanza, events)
            case "presence":
                return self._presence(stanza, events)
            case "iq":
                return self._iq(stanza, events)
            case "open":
                return None
            case "close":
                if not self._closing:
                    self._closing = True
                    events.append(Reply(self._frame(_CLOSE)))
                return None
            case what:
                return self._stream(what, stanza, events)

    def _stream(self, what: str, stanza: Element, events: list[Event]) -> str | None:
        """Append what follows from an element about the stream itself."""
        match what:
            case "features" if self._logged_in:
                events.append(Reply(self._frame(_BIND)))
            case "features":
                offered = [element.text for element in stanza.iter() if _local(element) == "mechanism"]
                if "PLAIN" not in offered:
                    return "the relay takes no login by name and password (SASL PLAIN)"
                login = b2a_base64(b"\0%b\0%b" % (self._nick, self._nick), newline=False)
                events.append(Reply(self._frame(_LOG_IN % login)))
            case "success":
                self._logged_in = True
                events.append(Reply(self._frame(_OPEN % self._domain)))
            case "failure":
                return f"the relay refused the login: {_condition(stanza)}"
            case "error":
                return f"the relay ended the stream: {_condition(stanza)}"
            case _:
                return f"the relay sent <{what[:120]}>, which is no part of XMPP that was asked for"
        return None

    def _message(self, stanza: Element, events: list[Event]) -> str | None:
        room, mine = self._sender(stanza)
        number = _number(stanza.get("id", "").encode())
        if stanza.get("type") == "error" and number is not None:
            events.append(Refused(0, "publish", number))
        if room is None or stanza.get("type") != "groupchat":
            return None
        payload = next((element for element in stanza.iter() if _local(element) == "payload"), None)
        if not room.joined:
            if payload is None and any(_local(element) == "subject" for element in stanza):
                room.joined = True
                events.append(Subscribed(room.stream, None, None, False))
            return None
        if payload is None:
            return None
        if room.receives:
            try:
                events.append((room.stream, None, None, _from_base64(f'"{payload.text or ""}"')))
            except MsgspecError:
                return "the relay sent a payload that is no base64"
        if mine and number is not None:
            events.append(Published(number, None))
        return None

    def _presence(self, stanza: Element, events: list[Event]) -> str | None:
        room, _ = self._sender(stanza)
        if room is None:
            return None
        if stanza.get("type") == "error":
            del self._rooms[room.address]
            self._streams.pop(room.stream, None)
            events.append(Refused(0, "subscribe", room.stream))
            return None
        codes = [element.get("code") for element in stanza.iter() if _local(element) == "status"]
        if "110" not in codes:
            return None
        if stanza.get("type") != "unavailable":
            if "201" in codes:
                events.append(Reply(self._frame(_UNLOCK % room.address)))
            return None
        stream = self._leaving.pop(room.address, None)
        if stream is None:
            return f"the relay put us out of a room: {' '.join(code for code in codes if code)}"
        if stream not in self._streams:  # it may have been entered again meanwhile
            del self._rooms[room.address]
        events.append(Unsubscribed(stream, None))
        return None

    def _iq(self, stanza: Element, events: list[Event]) -> str | None:
        match stanza.get("type"), stanza.get("id"):
            case "result", "bind" if not self._ready:
                self._ready = True
                events.append(Ready(None))
            case "error", "bind":
                return f"the relay gave us no address: {_condition(stanza)}"
            case "get" | "set", id_:
                about = (_escaped(stanza.get("from", self._domain.decode())), _escaped(id_ or ""))
                events.append(Reply(self._frame(_UNSERVED % about)))
        return None

    def _sender(self, stanza: Element) -> tuple[_Room | None, bool]:
        """Return the room that a stanza is from, and whether from ourselves in it."""
        address, _, nick = stanza.get("from", "").encode().partition(b"/")
        return self._rooms.get(address), nick == self._nick


def _domain(host: str) -> bytes:
    """Return the domain of the users on `host`, which may have a port: `localhost` for an address."""
    name = urlsplit(f"//{host}").hostname or "localhost"
    try:
        ip_address(name)
    except ValueError:
        return _escaped(name)
    return b"localhost"


def _escaped(text: str) -> bytes:
    return escape(text, {"'": "&apos;"}).encode()


def _attribute(head: bytes, name: bytes) -> bytes:
    """Return the value of an attribute of a tag, empty where it has none. `name`: as in ` id=`."""
    at = head.find(name)
    if at < 0:
        return b""
    start = at + len(name) + 1
    return head[start : head.find(head[start - 1 : start], start)]


def _number(id_: bytes) -> int | None:
    """Return the id of a publish, None for any other."""
    return int(id_) if id_.isdigit() and len(id_) <= _DIGITS_MAX else None


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _condition(stanza: Element) -> str:
    """Return the name of what went wrong: the first child of <error>, or of the element itself."""
    error = stanza.find("{*}error")
    holder = stanza if error is None else error
    return _local(holder[0])[:120] if len(holder) else "without a reason"
