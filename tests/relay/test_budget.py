"""The budget of work: shares of a turn, rates of a connection, and the signatures of the whole relay."""

from __future__ import annotations

import pytest
from scripted import SECOND_NS, Client, Net, capability_of, sealed_of

from relay import wire
from relay.errors import Code, close_code
from relay.limits import (
    BACKLOG_WORK,
    CONTROL_QUEUE_BYTES_MAX,
    INCOMPLETE_S_MAX,
    REST_S,
    SHARE_WORK,
    WORK_FRAME,
    WORK_REQUEST,
    WORK_SIGNATURE,
)
from relay.session import Rates


def limited(net: Net) -> tuple[Client, int]:
    client = net.connect(rates=Rates(durable_per_s=10, ephemeral_per_s=20, control_per_s=50))
    return client, client.subscribe()[0].number


# -- work: what costs the relay more than a share waits, and what is above the rate is not read -------


def asked(client: Client, *records: wire.ClientRecord) -> None:
    """Bytes arrive, one message each; the relay does nothing yet."""
    client.give(b"".join([client.frame(wire.encode(record)) for record in records]))


def test_a_connection_gets_a_share_of_each_turn(net: Net) -> None:
    client, other = net.connect(), net.connect()
    asked(client, *map(wire.Time, range(200)))
    asked(other, wire.Time(7))
    net.turn()
    first = client.pop()
    assert 0 < len(first) <= (SHARE_WORK + BACKLOG_WORK) // WORK_REQUEST + 1
    assert [record.sent_ns for record in other.pop()] == [7], "who asks for little is served at once"
    assert client.peer.behind
    net.settle()
    assert [record.sent_ns for record in first + client.pop()] == list(range(200)), "all of it, in order"
    assert not client.peer.behind


@pytest.mark.parametrize("many", [1, 64])
def test_above_the_control_rate_nothing_is_answered_until_there_is_some_again(net: Net, many: int) -> None:
    client, _ = limited(net)
    for first in range(0, 128, many):
        client.give(client.frame(b"".join(wire.encode(wire.Time(sent)) for sent in range(first, first + many))))
    net.settle()
    began = client.pop()
    assert 38 <= len(began) <= 50 + SHARE_WORK // WORK_REQUEST
    assert net.hub.budget.resting
    assert client.peer.tick() > 0, "waiting is not silence"
    net.settle()
    assert client.pop() == [], "without time there is no budget"
    came = began
    for _ in range(100):
        net.hub.now_ns += int(REST_S * SECOND_NS)
        net.settle()
        came += client.pop()
    assert [record.sent_ns for record in came] == list(range(128))
    assert all(isinstance(record, wire.Timed) for record in came), "slow, not refused"


def test_what_arrives_meanwhile_keeps_its_place(net: Net) -> None:
    client, number = limited(net)
    asked(client, *map(wire.Time, range(100)))
    asked(client, wire.Publish(number, 0, 1, None, sealed_of()), wire.Time(100))
    came = []
    for _ in range(100):
        net.hub.now_ns += int(REST_S * SECOND_NS)
        net.settle()
        came += client.pop()
    assert [record.sent_ns for record in came if isinstance(record, wire.Timed)] == list(range(101))
    assert [record.seq for record in came if isinstance(record, wire.Message)] == [1]


@pytest.mark.parametrize("opcode", [9, 10], ids=["pings", "pongs"])
def test_control_frames_are_counted(net: Net, opcode: int) -> None:
    client, _ = limited(net)
    client.give(client.frame(b"", opcode) * 1000)
    net.settle()
    assert len(client.pongs) <= 250
    assert net.hub.budget.resting


def test_fragments_are_counted(net: Net) -> None:
    client, _ = limited(net)
    for sent in range(20):
        data = wire.encode(wire.Time(sent))
        for at in range(len(data)):
            head = (0x80 if at == len(data) - 1 else 0) | (0 if at else 2)
            client.give(bytes((head,)) + client.frame(data[at : at + 1])[1:])
    net.settle()
    spent = client.peer._rates.control_per_s * WORK_REQUEST - client.peer._control  # type: ignore[attr-defined]
    assert spent >= 20 * (WORK_REQUEST + WORK_FRAME) + WORK_SIGNATURE + WORK_REQUEST


def test_publishes_in_a_burst_are_all_taken(net: Net) -> None:
    author, number = net.attached()
    other, elsewhere = net.attached(2)
    asked(author, *[wire.Publish(number, 0, id_, None, sealed_of(id_)) for id_ in range(200)])
    asked(other, wire.Publish(elsewhere, 0, 1, None, sealed_of(1)))
    net.turn()
    assert len(other.pop()) == 2, "in the same turn"
    net.settle()
    assert net.hub._numbers[number].head == 200


def test_a_fault_of_the_framing_comes_after_what_waits(net: Net) -> None:
    client = net.connect()
    asked(client, *map(wire.Time, range(100)))
    client.give(b"\xff\xff")
    net.settle()
    assert [record.sent_ns for record in client.pop()] == list(range(100))
    assert client.closed == 1002


def test_who_does_not_take_its_answers_is_not_served_from_the_backlog(net: Net) -> None:
    author, number = net.attached()
    author.stop()
    asked(author, *[wire.Export(number, 0)] * 3, *map(wire.Time, range(60)))
    for _ in range(200):
        net.hub.now_ns += SECOND_NS // 100
        net.settle()
    assert author.peer.box.queued_bytes < CONTROL_QUEUE_BYTES_MAX
    assert len(author.take()) >= 60


# -- signatures: a rate of the whole relay -------------------------------------------------------------


def test_signatures_have_a_rate_of_the_whole_relay_and_known_capabilities_pass(net: Net) -> None:
    known, _ = net.attached(1)
    net.hub.budget._signatures = 3.0
    net.hub.budget._refilled_ns = net.hub.now_ns
    clients = [net.connect() for _ in range(5)]
    for member, client in enumerate(clients, 10):
        asked(client, wire.Subscribe(member, capability_of(1, member), 1, None, None, None), wire.Time(member))
    net.settle()
    assert [len(client.pop()) for client in clients] == [2, 2, 2, 0, 0], "in their order, and nothing overtakes"
    again = net.connect()
    assert len(again.subscribe(1)) == 1, "it was verified before"
    for _ in range(2):
        net.hub.now_ns += int(REST_S * SECOND_NS)
        net.settle()
    assert [len(client.pop()) for client in clients] == [0, 0, 0, 2, 2]
    assert not known.closed


def test_wrong_signatures_are_paid_for_by_who_sends_them(net: Net) -> None:
    client, _ = limited(net)
    wrong = capability_of(1, 5)[:-1] + b"\x00"
    asked(client, *[wire.Subscribe(request, wrong, 1, None, None, None) for request in range(50)])
    net.settle()
    assert len(client.pop()) <= 1 + 50 * WORK_REQUEST // (WORK_SIGNATURE + 2 * WORK_REQUEST)
    assert net.hub.budget.resting


# -- totals: bounds of the relay as a whole ------------------------------------------------------------


def begin_message(client: Client, size: int) -> None:
    """Send the first `size` bytes of a message of 200,000."""
    client.give(client.frame(bytes(200_000))[: 14 + size])


def test_the_oldest_incomplete_message_gives_way_when_there_are_too_many(net: Net) -> None:
    net.hub.budget.incomplete_bytes_max = 350_000
    first, second, third = (net.connect() for _ in range(3))
    begin_message(first, 150_000)
    begin_message(second, 150_000)
    assert net.hub.budget.incomplete_bytes == 300_000
    begin_message(third, 100_000)
    net.settle()
    assert (first.closed, second.closed, third.closed) == (close_code(Code.INCOMPLETE), None, None)
    assert net.hub.budget.incomplete_bytes == 250_000
    second.cut()
    assert net.hub.budget.incomplete_bytes == 100_000
    third.cut()
    assert net.hub.budget.incomplete_bytes == 0


def test_a_message_that_becomes_whole_is_no_longer_counted(net: Net) -> None:
    author, number = net.attached()
    message = author.frame(wire.encode(wire.Publish(number, 0, 1, None, sealed_of(1, 131_072))))
    author.give(message[:100_000])
    assert 90_000 < net.hub.budget.incomplete_bytes < 100_000
    author.give(message[100_000:] + message[:70_000])
    assert 60_000 < net.hub.budget.incomplete_bytes < 70_000, "the next one"
    author.give(message[70_000:])
    assert net.hub.budget.incomplete_bytes == 0
    net.settle()
    assert [record.seq for record in author.pop() if isinstance(record, wire.Message)] == [1]


def test_a_message_must_become_whole_in_time(net: Net) -> None:
    slow = net.connect()
    begin_message(slow, 10)
    for _ in range(4):
        net.later(INCOMPLETE_S_MAX / 3 - 1)
        slow.give(b"\0")
    net.later(3)
    assert slow.closed == close_code(Code.INCOMPLETE)


def test_streams_have_a_total_and_unused_ones_make_room(net: Net) -> None:
    net.hub.streams_max = 3
    client = net.connect()
    numbers = [client.subscribe(index)[0].number for index in (1, 2, 3)]
    (refused,) = client.subscribe(4)
    assert (refused.code, refused.record) == (Code.CROWDED, wire.SUBSCRIBE)
    assert len(client.subscribe(3, member=2)) == 1, "one that is there already"
    client.send(wire.Unsubscribe(numbers[0]))
    assert client.subscribe(4)[0].code == Code.CROWDED, "room is made once a second"
    net.hub.now_ns += SECOND_NS
    assert isinstance(client.subscribe(4)[0], wire.Subscribed)
    assert len(net.hub.streams) == 3
