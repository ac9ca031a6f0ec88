"""The other end of the XMPP dialect: RFC 7395's framing, SASL PLAIN, resource binding, and rooms of XEP-0045."""

from __future__ import annotations

from base64 import b64decode, b64encode
from xml.etree.ElementTree import Element, fromstring

from loadtests.dialects.base import Attach
from loadtests.dialects.check.scripted_end import OverWebSocket

NAMES = {
    "framing": "urn:ietf:params:xml:ns:xmpp-framing",
    "sasl": "urn:ietf:params:xml:ns:xmpp-sasl",
    "bind": "urn:ietf:params:xml:ns:xmpp-bind",
    "client": "jabber:client",
    "muc": "http://jabber.org/protocol/muc",
    "omemo": "urn:xmpp:omemo:2",
}
FEATURES = "<stream:features xmlns:stream='http://etherx.jabber.org/streams'>%s</stream:features>"
OPEN = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' from='localhost' id='1' version='1.0' xml:lang='en'/>"
HISTORY = (
    "<message xmlns='jabber:client' from='{room}/old' to='{me}' id='3' type='groupchat'><encrypted "
    "xmlns='urn:xmpp:omemo:2'><payload>AQE=</payload></encrypted><delay xmlns='urn:xmpp:delay' from='{room}'/></message>"
)
SUBJECT = "<message xmlns='jabber:client' from='{room}' to='{me}' type='groupchat'><subject/></message>"
PRESENT = (
    '<presence xmlns="jabber:client" from="{who}" to="{me}"{type}><x xmlns="http://jabber.org/protocol/muc#user">'
    '<item affiliation="none" role="{role}"/>{status}</x></presence>'
)


class XmppServer(OverWebSocket):
    subprotocol = "xmpp"
    text = True

    def __init__(self) -> None:
        super().__init__()
        self.user = ""

    @property
    def me(self) -> str:
        return f"{self.user}@localhost/x"

    def answers(self, message: bytes) -> list[bytes]:
        stanza = fromstring(message)
        namespace, _, name = stanza.tag[1:].partition("}")
        match name:
            case "open":
                assert namespace == NAMES["framing"]
                return [self._open()]
            case "close":
                return []  # a close frame came with it, and the library has answered that
            case "auth":
                assert (namespace, stanza.get("mechanism")) == (NAMES["sasl"], "PLAIN")
                _, self.user, _ = b64decode(stanza.text or "").decode().split("\0")
                return [f"<success xmlns='{NAMES['sasl']}'/>".encode()]
        assert namespace == NAMES["client"]
        take = {"iq": self._iq, "presence": self._presence, "message": self._message}[name]
        return [text.encode() for text in take(stanza)]

    def _open(self) -> bytes:
        offered = (
            f"<bind xmlns='{NAMES['bind']}'/>"
            if self.user
            else f"<mechanisms xmlns='{NAMES['sasl']}'><mechanism>PLAIN</mechanism></mechanisms>"
        )
        self.say(OPEN.encode())
        return (FEATURES % offered).encode()

    def _iq(self, stanza: Element) -> list[str]:
        assert stanza.find("bind:bind", NAMES) is not None
        jid = f"<bind xmlns='{NAMES['bind']}'><jid>{self.me}</jid></bind>"
        return [f"<iq xmlns='jabber:client' type='result' id='{stanza.get('id')}'>{jid}</iq>"]

    def _presence(self, stanza: Element) -> list[str]:
        where = {"room": stanza.get("to", "").partition("/")[0], "me": self.me}
        self_status = "<status code='110'/>"
        if stanza.get("type") == "unavailable":
            out = {"type": " type='unavailable'", "role": "none", "status": self_status}
            return [PRESENT.format(who=stanza.get("to"), **where, **out)]
        assert stanza.find("muc:x", NAMES) is not None
        another = PRESENT.format(who=f"{where['room']}/old", **where, type="", role="moderator", status="")
        own = PRESENT.format(who=stanza.get("to"), **where, type="", role="participant", status=self_status)
        return [another, own, HISTORY.format(**where), SUBJECT.format(**where)]

    def _message(self, stanza: Element) -> list[str]:
        assert stanza.get("type") == "groupchat"
        payload = stanza.findtext("omemo:encrypted/omemo:payload", namespaces=NAMES)
        return [self._written(f"{stanza.get('to')}/{self.user}", stanza.get("id", ""), payload or "")]

    def delivery(self, attach: Attach, sealed: bytes) -> bytes:
        sender = f"{attach.topic}@conference.localhost/another"
        return self._written(sender, "7", b64encode(sealed).decode()).encode()

    def _written(self, sender: str, number: str, payload: str) -> str:
        return (
            f'<message xml:lang="en" to="{self.me}" from="{sender}" type="groupchat" id="{number}" '
            f'xmlns="jabber:client"><encrypted xmlns="urn:xmpp:omemo:2"><header sid="5"/>'
            f"<payload>{payload}</payload></encrypted></message>"
        )
