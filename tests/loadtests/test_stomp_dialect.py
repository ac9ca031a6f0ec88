"""What only the dialect stomp has to do: heart-beats without a clock, errors, frames in wrong forms."""

from __future__ import annotations

import pytest
from websockets.frames import Frame

from loadtests.dialects.base import Attach, Event, Failed, Reply, Subscribed, Unsubscribed
from loadtests.dialects.check.conversation import connection
from loadtests.dialects.stomp import Stomp
from tests.contracts.scripted_stomp import StompServer

STREAM = 7


class Connected:
    """A dialect and its scripted end, subscribed; `heard` is what the server has heard since the last look."""

    def __init__(self, use: int = 1) -> None:
        self.attach = Attach(stream=STREAM, name=bytes(range(1, 33)), use=use, capability=b"")
        dialect = connection(Stomp, self.attach)
        assert isinstance(dialect, Stomp)
        self.dialect, self.server = dialect, StompServer()
        self.hear(self.server.hear(dialect.opening()))
        self.hear(self.server.hear(dialect.subscribe(self.attach)))

    def hear(self, data: bytes) -> list[Event]:
        events = self.dialect.receive(data)
        for event in events:
            if isinstance(event, Reply):
                data = self.server.hear(event.data)
                events += self.dialect.receive(data) if data else []
        return events

    def say(self, data: bytes) -> list[Event]:
        """Let the server say it, and return the events; what they answer is not sent."""
        self.server.say(data)
        return self.dialect.receive(b"".join(self.server.websocket.data_to_send()))

    def heard(self, events: list[Event]) -> list[bytes]:
        self.server.websocket.events_received()
        for event in events:
            assert isinstance(event, Reply)
            self.server.websocket.receive_data(event.data)
        frames = self.server.websocket.events_received()
        return [bytes(frame.data) for frame in frames if isinstance(frame, Frame)]


def test_a_heart_beat_is_answered_and_the_end_of_line_behind_a_frame_is_not() -> None:
    connected = Connected()
    delivery = connected.server.delivery(connected.attach, b"x")
    assert connected.say(delivery) == [(STREAM, None, None, b"x")]
    assert connected.heard(connected.say(b"\n")) == [b"\n"]
    assert connected.heard(connected.say(b"\r\n")) == [b"\n"]
    # Also where the frame has none behind it, from the second on.
    assert connected.say(delivery[:-1]) == [(STREAM, None, None, b"x")]
    assert connected.say(b"\n") == []
    assert connected.heard(connected.say(b"\n")) == [b"\n"]


def test_who_only_gets_messages_says_something_now_and_then() -> None:
    connected = Connected()
    events = connected.say(b"".join(connected.server.delivery(connected.attach, b"x") for _ in range(17)))
    assert [type(event) for event in events] == [*[tuple] * 8, Reply, *[tuple] * 8, Reply, tuple]
    assert connected.heard([event for event in events if type(event) is Reply]) == [b"\n", b"\n"]


def test_whoever_only_publishes_is_attached_and_leaves_in_order() -> None:
    connected = Connected(use=2)
    assert connected.hear(connected.server.hear(connected.dialect.unsubscribe(STREAM))) == [Unsubscribed(STREAM, None)]
    assert (
        Subscribed(STREAM, None, None, False)
        == connected.hear(connected.server.hear(connected.dialect.subscribe(connected.attach)))[0]
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"ERROR\nmessage:Bad CONNECT\ncontent-length:2\n\nno\0", "'Bad CONNECT'"),
        (b"ERROR\n\n\0", "'ERROR'"),
        (b"RECEIPT\nreceipt-id:p9\n\n\0", "a receipt that was not asked for"),
        (b"CONNECTED\nversion:1.2\n\n\0", "'CONNECTED"),
        (b"MESSAGE\nsubscription:x\n\n\0", "the subscription 'x'"),
        (b"MESSAGE\nmessage-id:1\n\n\0", "the subscription ''"),
        (b"MESSAGE\nsubscription:7\ncontent-length:99999999\n\n\0", "a frame of '99999999' bytes"),
        (b"MESSAGE\nsubscription:7\ncontent-length:-1\n\n\0", "a frame of '-1' bytes"),
        (b"MESSAGE\nsubscription:7\ncontent-length:1\n\nxx\0", "longer than it says"),
        (b"x" * 16_384, "the relay said 'xxx"),
    ],
)
def test_what_ends_it(said: bytes, words: str) -> None:
    events = Connected().say(said)
    assert isinstance(events[-1], Failed)
    assert words in events[-1].text


def test_a_body_without_length_ends_at_its_nul() -> None:
    connected = Connected()
    assert connected.say(b"MESSAGE\nsubscription:7\n\nabc\0") == [(STREAM, None, None, b"abc")]
