"""What only the dialect socketio has to do: attachments whatever they hold, states, rooms that were left."""

from __future__ import annotations

import pytest

from loadtests.dialects.base import (
    Attach,
    Event,
    Failed,
    Place,
    Published,
    Ready,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.dialects.frames import TEXT, client_frame
from loadtests.dialects.socketio import SocketIo
from tests.contracts.scripted_socketio import SocketIoServer

TOPIC = bytes(range(1, 9)).hex()
MESSAGE = f'451-["message","{TOPIC}",{{"_placeholder":true,"num":0}}]'.encode()
STATE = f'451-["state","{TOPIC}",3,{{"_placeholder":true,"num":0}}]'.encode()


def attach_to(use: int) -> Attach:
    return Attach(stream=7, name=bytes(range(1, 33)), use=use, capability=b"")


def said(*messages: bytes) -> bytes:
    """Return messages as a server frames them."""
    return b"".join(b"\x81\x7e" + len(one).to_bytes(2, "big") + one for one in messages)


def text(message: bytes) -> bytes:
    return client_frame(message, 0, TEXT)


def connected() -> SocketIo:
    dialect = SocketIo(Place(host="127.0.0.1:1"), random_bits=lambda bits: 0)
    told = dialect.receive(SocketIoServer().hear(dialect.opening()))
    assert told == [Reply(text(b"40"))]
    assert dialect.receive(said(b'40{"sid":"x"}')) == [Ready(None)]
    return dialect


def joined(use: int = 3) -> SocketIo:
    dialect = connected()
    assert dialect.subscribe(attach_to(use)) == text(f'421["join","{TOPIC}",{"true" if use & 1 else "false"}]'.encode())
    assert dialect.receive(said(b"431[]")) == [Subscribed(7, None, None, False)]
    return dialect


@pytest.mark.parametrize("attachment", [b"", b"2", b"1", b"431[]", MESSAGE, b"\x01\x01" + bytes(300)])
def test_an_attachment_is_never_taken_for_a_packet(attachment: bytes) -> None:
    dialect = joined()
    told = dialect.receive(said(MESSAGE, attachment, b"2", MESSAGE, attachment))
    delivered: Event = (7, None, None, attachment)
    assert told == [delivered, Reply(text(b"3")), delivered]


def test_an_event_without_its_attachment_is_nothing_yet() -> None:
    dialect = joined()
    assert dialect.receive(said(MESSAGE)) == []
    assert dialect.receive(said(b"late")) == [(7, None, None, b"late")]


def test_a_state_is_asked_for_without_acknowledgement_and_told_with_its_slot() -> None:
    dialect = joined()
    assert dialect.publish(7, 0, b"typing", durable=False, slot=3) == text(STATE) + client_frame(b"typing", 0)
    assert dialect.receive(said(STATE, b"typing", STATE, b"again")) == [
        State(7, b"", 3, b"typing"),
        State(7, b"", 3, b"again"),
    ]


def test_a_record_is_acknowledged_by_the_number_of_its_packet() -> None:
    dialect = joined(2)
    head = f'451-2["publish","{TOPIC}",{{"_placeholder":true,"num":0}}]'.encode()
    assert dialect.publish(7, 900, b"sealed") == text(head) + client_frame(b"sealed", 0)
    dialect.publish(7, 901, b"sealed")
    assert dialect.receive(said(b"433[]", b"432[]")) == [Published(901, None), Published(900, None)]


def test_what_comes_before_the_leave_is_done_is_delivered_and_nothing_after() -> None:
    dialect = joined()
    assert dialect.unsubscribe(7) == text(f'422["leave","{TOPIC}"]'.encode())
    told = dialect.receive(said(MESSAGE, b"last", b"432[]", MESSAGE))
    assert told[:2] == [(7, None, None, b"last"), Unsubscribed(7, None)]
    assert isinstance(told[-1], Failed)


def test_a_room_that_was_left_may_be_joined_again_at_once() -> None:
    dialect = joined()
    dialect.unsubscribe(7)
    dialect.subscribe(attach_to(1))
    told = dialect.receive(said(b"432[]", b"433[]", MESSAGE, b"first"))
    assert told == [Unsubscribed(7, None), Subscribed(7, None, None, False), (7, None, None, b"first")]


@pytest.mark.parametrize("packet", [b"1", b"41", b'44{"message":"no"}', b"42[]", b"6"])
def test_the_end_of_the_namespace_or_an_unknown_packet_is_named(packet: bytes) -> None:
    failed = joined().receive(said(packet))[-1]
    assert isinstance(failed, Failed)
    assert packet.decode() in failed.text
