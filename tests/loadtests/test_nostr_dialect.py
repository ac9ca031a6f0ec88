"""What only the dialect nostr has to do: stored events, fences, answers that name nothing, states, keys."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from loadtests.dialects.base import (
    Attach,
    Event,
    Failed,
    Place,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import client_frame
from loadtests.dialects.nostr import Nostr
from tests.contracts.scripted_nostr import NostrServer, check

RECEIVE, PUBLISH = 1, 2
SEALED = b"\x01\x01" + bytes(300)


class Relay:
    """A connection after its handshake; `heard` is what the dialect said last, `says` what the relay then sends."""

    def __init__(self) -> None:
        self.dialect = Nostr(Place(host="127.0.0.1:1"), random_bits=lambda bits: 0, now_s=lambda: 1_000_000.9)
        upgraded = NostrServer().hear(self.dialect.opening())
        assert self.dialect.receive(upgraded) == [Ready(None)]

    def says(self, *messages: list[Any]) -> list[Event]:
        data = b""
        for message in messages:
            text = json.dumps(message).encode()
            assert len(text) < 65_536
            data += b"\x81\x7e" + len(text).to_bytes(2, "big") + text
        return self.dialect.receive(data)

    def joined(self, use: int, stream: int = 7) -> Relay:
        heard(self.dialect.subscribe(attach_to(use, stream)))
        (*_, subscribed) = self.says(["EOSE", str(stream) if use & RECEIVE else "fence 1"])
        assert subscribed == Subscribed(stream, None, None, False)
        return self


def attach_to(use: int, stream: int = 7, capability: bytes = b"c") -> Attach:
    return Attach(stream=stream, name=bytes((stream,)) * 32, use=use, capability=capability)


def heard(data: bytes) -> list[Any]:
    """Return the messages in what the dialect sends, masked with zeros."""
    found = []
    while data:
        size, start = data[1] & 0x7F, 6
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 8
        found.append(json.loads(data[start : start + size]))
        data = data[start + size :]
    return found


def event(sealed: bytes = SEALED, kind: int = 445, **more: Any) -> dict[str, Any]:
    return {"id": "0", "kind": kind, "pubkey": "ab" * 32, "tags": [], "content": b64encode(sealed).decode(), **more}


def test_a_subscription_names_kinds_and_stream_and_reaches_back_a_minute() -> None:
    dialect = Relay().dialect
    (asked,) = heard(dialect.subscribe(attach_to(RECEIVE)))
    chosen = {"kinds": [445, 20445], "#h": ["07" * 8], "since": 999_940, "limit": 1}
    assert asked == ["REQ", "7", chosen]


def test_what_was_stored_before_is_no_delivery() -> None:
    relay = Relay()
    relay.dialect.subscribe(attach_to(RECEIVE))
    told = relay.says(["EVENT", "7", event()], ["EOSE", "7"], ["EVENT", "7", event(b"\x01\x01new")])
    assert told == [Subscribed(7, None, None, False), (7, None, None, b"\x01\x01new")]


def test_a_publisher_alone_passes_a_fence_and_takes_it_away() -> None:
    relay = Relay()
    assert heard(relay.dialect.subscribe(attach_to(PUBLISH))) == [
        ["REQ", "fence 1", {"ids": ["0" * 64], "limit": 1}],
    ]
    with pytest.raises(LookupError):
        relay.dialect.publish(7, 1, SEALED)
    reply, subscribed = relay.says(["EOSE", "fence 1"])
    assert isinstance(reply, Reply)
    assert heard(reply.data) == [["CLOSE", "fence 1"]]
    assert subscribed == Subscribed(7, None, None, False)


def test_what_comes_before_the_fence_is_delivered_and_nothing_after() -> None:
    relay = Relay().joined(RECEIVE)
    left = relay.dialect.unsubscribe(7)
    assert [message[:2] for message in heard(left)] == [["CLOSE", "7"], ["REQ", "fence 1"]]
    told = relay.says(["EVENT", "7", event()], ["EOSE", "fence 1"], ["EVENT", "7", event()])
    assert [one for one in told if not isinstance(one, Reply)] == [(7, None, None, SEALED), Unsubscribed(7, None)]


def test_events_are_signed_by_a_key_of_the_capability() -> None:
    keys = []
    for capability in (b"one", b"one", b"other"):
        relay = Relay()
        relay.dialect.subscribe(attach_to(RECEIVE | PUBLISH, capability=capability))
        relay.says(["EOSE", "7"])
        ((verb, published),) = heard(relay.dialect.publish(7, 1, SEALED))
        assert verb == "EVENT"
        check(published)
        assert (published["kind"], published["created_at"], published["tags"]) == (445, 1_000_000, [["h", "07" * 8]])
        keys.append(published["pubkey"])
    assert keys[0] == keys[1] != keys[2]


def test_a_duplicate_was_taken_and_a_refusal_without_a_name_means_the_oldest() -> None:
    relay = Relay().joined(PUBLISH)
    ids = [heard(relay.dialect.publish(7, id_, SEALED + bytes((id_,))))[0][1]["id"] for id_ in (1, 2, 3)]
    told = relay.says(
        ["OK", ids[1], False, "duplicate: exists"], ["OK", "", False, "invalid: too large"], ["OK", ids[2], True, ""]
    )
    assert told == [Published(2, None), Refused(0, "publish", 1), Published(3, None)]


def test_a_state_is_of_an_ephemeral_kind_and_not_acknowledged() -> None:
    relay = Relay().joined(RECEIVE | PUBLISH)
    ((_, published),) = heard(relay.dialect.publish(7, 0, SEALED, durable=False, slot=5))
    check(published)
    assert (published["kind"], published["tags"]) == (20_445, [["h", "07" * 8], ["d", "5"]])
    handle = published["pubkey"][:16].encode()
    told = relay.says(["OK", published["id"], True, ""], ["EVENT", "7", published])
    assert told == [State(7, handle, 5, SEALED)]


def test_refusals_are_told() -> None:
    relay = Relay()
    relay.dialect.subscribe(attach_to(RECEIVE))
    told = relay.says(["AUTH", "challenge"], ["CLOSED", "7", "auth-required: no"], ["NOTICE", "rate-limited"])
    assert told == [Refused(0, "subscribe", 7), Refused(0, "other", 0)]


def test_a_subscription_that_the_relay_ends_is_the_end() -> None:
    reply, failed = Relay().joined(RECEIVE).says(["CLOSED", "7", "error: shutting down"])
    assert isinstance(failed, Failed)
    assert "error: shutting down" in failed.text
    assert isinstance(reply, Reply)
    assert reply.data == client_frame((1002).to_bytes(2, "big"), 0, 8)
