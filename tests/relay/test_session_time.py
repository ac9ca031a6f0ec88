"""Time limits, going down, /echo: `now_ns` is the test's, nobody sleeps."""

from __future__ import annotations

from scripted import (
    PUBLISH,
    Client,
    Net,
    capability_of,
)

from relay import wire
from relay.errors import Code, close_code
from relay.limits import (
    CLOSE_S_MAX,
    CONTROL_QUEUE_BYTES_MAX,
    HANDSHAKE_S_MAX,
    KEEPALIVE_S,
    LAGGING_S_MAX,
    SEND_STALL_S_MAX,
)
from relay.session import Rates
from relay.store import MemoryStore
from relay.transports.base import describe

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def refused(code: Code, record: int = 0, about: int = 0) -> list[wire.Error]:
    return [wire.Error(code, record, about)]


def closed(client: Client, code: Code) -> bool:
    """Whether the client was told the code, and closed with it; answers the close as a client does."""
    told = client.pop() == refused(code) and client.closed == close_code(code)
    client.give(client.frame(client.closed.to_bytes(2, "big") if client.closed else b"", CLOSE))
    client.net.settle()
    return told and client.gone


# -- time limits: `now_ns` is the test's, nobody sleeps ----------------------------------------------


def test_no_hello_in_time(net: Net) -> None:
    client = net.connect(hello=False)
    net.later(HANDSHAKE_S_MAX - 1)
    assert client.closed is None
    net.later(1)
    assert closed(client, Code.HANDSHAKE)


def test_a_silent_client_is_pinged_and_then_closed(net: Net) -> None:
    client = net.connect()
    net.later(KEEPALIVE_S - 1)
    assert client.pings == []
    net.later(1)
    net.later(1)
    assert client.pings == [b""]
    net.later(KEEPALIVE_S - 2)
    assert client.closed is None
    net.later(1)
    assert closed(client, Code.KEEPALIVE)


def test_any_sign_of_life_keeps_a_client(net: Net) -> None:
    client = net.connect()
    for _ in range(5):
        net.later(KEEPALIVE_S)
        client.give(client.frame(b"", PONG))
    assert len(client.pings) == 5
    net.later(KEEPALIVE_S)
    assert client.closed is None
    assert len(client.pings) == 6


def test_a_client_that_takes_no_byte_is_closed(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    reader.stop()
    author.publish(number, 1)
    for _ in range(int(SEND_STALL_S_MAX) - 1):
        net.later(1)
        reader.give(reader.frame(b"", PONG))
    assert reader.peer.close_code == 0
    net.later(1)
    assert reader.peer.close_code == close_code(Code.SLOW)
    assert net.hub.counters.slow_closed == 1
    assert net.hub._numbers[number].attached == 1, "it is off the stream at once"
    net.later(CLOSE_S_MAX)
    assert reader.gone, "and let go though its close frame could not leave"


def test_a_client_that_takes_a_little_is_not_stalled(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    reader.stop()
    author.publish(number, 1)
    for _ in range(4):
        net.later(SEND_STALL_S_MAX / 2)
        reader.take(1)
        reader.give(reader.frame(b"", PONG))
    assert reader.closed is None


def test_a_client_that_does_not_catch_up_is_closed() -> None:
    net = Net(MemoryStore(bytes(32), retain_stream_bytes_max=1 << 26))
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    reader.stop()
    author.publish(number, *range(20), size=65_536)
    assert reader.peer.box.lagging
    net.later(1)
    for _ in range(int(LAGGING_S_MAX) // 10):
        assert reader.peer.close_code == 0
        net.later(10)
        reader.take(1)
        reader.give(reader.frame(b"", PONG))
    assert reader.peer.close_code == close_code(Code.SLOW)
    came = reader.take()
    assert came[-1] == refused(Code.SLOW)[0]


def test_a_client_that_asks_more_than_it_takes_is_not_read_and_not_taken_for_silent(net: Net) -> None:
    client = net.connect(echo=True)
    client.stop()
    message = client.frame(bytes(100_000))
    for _ in range(4):
        client.give(message)
        net.turn()
    assert not client.reading
    for _ in range(10):
        net.later(SEND_STALL_S_MAX / 2)
        client.take(10)
    assert client.closed is None
    client.take()
    assert len(client.texts) == 4
    assert client.reading


def test_a_client_that_does_not_answer_the_close_is_let_go(net: Net) -> None:
    client = net.connect()
    client.give(client.frame(b"\xc1"))
    net.settle()
    assert client.closed == 4010
    net.later(CLOSE_S_MAX - 1)
    assert not client.gone
    net.later(1)
    assert client.gone


def test_answers_that_a_client_does_not_take_are_bounded(net: Net) -> None:
    client = net.connect(rates=Rates(control_per_s=10**9))
    client.stop()
    for _ in range(1000):
        client.give(b"".join(client.frame(wire.encode(wire.Time(1)) * 64) for _ in range(10)))
        net.turn()
    assert client.peer.box.queued_bytes < 2 * CONTROL_QUEUE_BYTES_MAX
    assert not client.reading
    assert client.unread


def test_subscribing_again_and_again_without_reading_is_bounded(net: Net) -> None:
    client = net.connect(rates=Rates(control_per_s=10**9))
    client.stop()
    subscribe = wire.encode(wire.Subscribe(1, capability_of(), 1, None, None, None)) + wire.encode(wire.Unsubscribe(1))
    for _ in range(2000):
        client.give(client.frame(subscribe * 32))
        net.turn()
    assert client.peer.box.queued_bytes < 2_000_000
    assert client.unread


# -- going down --------------------------------------------------------------------------------------


def test_going_away_and_draining(net: Net) -> None:
    client, echo, greeting = net.connect(), net.connect(echo=True), net.connect(hello=False)
    for peer in (client.peer, echo.peer, greeting.peer):
        peer.go_away(1234)
    net.settle()
    assert client.pop() == [wire.GoAway(1234)]
    assert echo.texts == []
    assert client.send(wire.Time(1)), "it is served until the relay closes"
    for peer in (client.peer, echo.peer, greeting.peer):
        peer.drain()
    net.settle()
    assert {client.closed, echo.closed, greeting.closed} == {close_code(Code.DRAINING)}


# -- /echo -------------------------------------------------------------------------------------------


def test_echo_returns_text_and_binary(net: Net) -> None:
    client = net.connect(echo=True)
    client.give(client.frame(b"\xc1\x00", 2) + client.frame("grüß".encode(), TEXT) + client.frame(b"", 2))
    net.settle()
    assert client.texts == [b"\xc1\x00", "grüß".encode(), b""]


def test_echo_has_no_hello_to_wait_for(net: Net) -> None:
    client = net.connect(echo=True)
    net.later(HANDSHAKE_S_MAX + 1)
    assert client.closed is None


def test_echo_to_a_slow_reader_loses_nothing(net: Net) -> None:
    client = net.connect(echo=True)
    client.room = 10
    messages = [bytes([index]) * 5000 for index in range(10)]
    client.give(b"".join(map(client.frame, messages)))
    net.settle()
    assert client.texts == []
    client.take(20_000)
    client.take()
    assert client.texts == messages


def test_a_fault_of_our_own_ends_one_connection_and_is_reported_without_its_text(net: Net) -> None:
    author, number = net.attached()
    other, _ = net.attached(member=2)
    faults: list[Exception] = []
    net.hub.report = faults.append

    def broken(*_: object) -> None:
        raise KeyError("the name of a stream")

    good = net.hub.subscribe
    net.hub.subscribe = broken  # type: ignore[method-assign]
    author.give(author.frame(wire.encode(wire.Subscribe(1, capability_of(), 1, None, None, None))))
    net.settle()
    net.hub.subscribe = good  # type: ignore[method-assign]
    assert author.peer.close_code == 4070
    assert "the name" not in describe(faults[0])
    assert "KeyError at test_session_time.py" in describe(faults[0])
    assert other.publish(number, 1)
