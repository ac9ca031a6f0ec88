"""Publish and fan-out: in slices, with the newest states, and never before the commit."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import (
    ERASE,
    NOW_NS,
    PUBLISH,
    SUBSCRIBE,
    Client,
    Net,
    capability_of,
    label_of,
    of,
    sealed_of,
    seqs,
    stream_key,
)

from relay import wire
from relay.capability import franking_tag, handle_of, parse
from relay.limits import (
    FANOUT_SLICE_SENDS,
)

# -- publish and fan-out -----------------------------------------------------------------------------


def test_a_record_goes_to_every_subscriber_and_is_acknowledged(net: Net) -> None:
    author, number = net.attached()
    reader, _ = net.attached(member=2)
    came = author.publish(number, 7)
    assert came == [wire.Published([7, 1]), wire.Message(number, 1, NOW_NS, None, sealed_of(7))]
    assert reader.pop() == came[1:]


def test_a_publisher_that_does_not_subscribe_gets_no_records(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    assert author.publish(number, 7) == [wire.Published([7, 1])]


def test_one_frame_serves_all_subscribers(net: Net) -> None:
    """Encoded once: every subscriber's outbox holds the same object."""
    author, number = net.attached()
    readers = [net.attached(member=2 + index)[0] for index in range(3)]
    author.give(author.frame(wire.encode(wire.Publish(number, 0, 1, None, sealed_of()))))
    net.hub.turn()
    chunks = [reader.peer.box.pending[-1] for reader in readers]
    assert chunks[0] is chunks[1] is chunks[2]


def test_many_of_one_read_are_numbered_one_by_one_whatever_bytes_of_the_number_change(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    came: list[Any] = []
    for first in range(1, 601, 30):  # groups that cross 256 and 512, and others
        author.publish(number, *range(first, first + 30))
        came += reader.pop()
    assert came == [wire.Message(number, seq, NOW_NS, None, sealed_of(seq)) for seq in range(1, 601)]


def test_groups_of_several_publishers_and_sizes_become_one_run(net: Net) -> None:
    reader, number = net.attached(member=9)
    authors = [net.attached(use=PUBLISH, member=member)[0] for member in (1, 2)]
    sizes = (256, 256, 272, 256)
    for author in authors:
        sent = [wire.Publish(number, 0, id_, None, sealed_of(id_, size)) for id_, size in enumerate(sizes, 5)]
        author.give(b"".join(author.frame(wire.encode(record)) for record in sent))
    net.settle()
    assert reader.pop() == [
        wire.Message(number, seq, NOW_NS, None, sealed_of(5 + (seq - 1) % 4, sizes[(seq - 1) % 4]))
        for seq in range(1, 9)
    ]
    for place, author in enumerate(authors):
        first = 4 * place + 1
        assert author.pop() == [wire.Published([5, first, 6, first + 1, 7, first + 2, 8, first + 3])]
    resumed = net.connect()
    came = resumed.subscribe(1, SUBSCRIBE, after=2, epoch=net.hub._numbers[number].epoch)
    assert [label_of(record.sealed) for record in of(wire.Message, came)] == [7, 8, 5, 6, 7, 8]


@pytest.mark.parametrize("ids", [(0, 2**63), (2**64 - 1, 0), (5, 2**40, 6), (9, 1, 10)])
def test_a_publishers_ids_may_be_any_numbers(net: Net, ids: tuple[int, ...]) -> None:
    author, number = net.attached(use=PUBLISH)
    answered = [value for seq, id_ in enumerate(ids, 1) for value in (id_, seq)]
    for _ in range(2):  # the second time they are repeated
        sent = [wire.Publish(number, 0, id_, None, sealed_of()) for id_ in ids]
        author.give(b"".join(author.frame(wire.encode(record)) for record in sent))
        net.settle()
        assert author.pop() == [wire.Published(answered)]


def test_numbers_are_per_stream(net: Net) -> None:
    author, first = net.attached(1)
    second = author.subscribe(2)[0].number
    came = author.send(
        *(wire.Publish(number, 0, id_, None, sealed_of()) for id_, number in enumerate([first, second] * 2))
    )
    assert [(m.number, m.seq) for m in of(wire.Message, came)] == [(first, 1), (first, 2), (second, 1), (second, 2)]


def test_the_tag_binds_the_commitment_to_what_was_relayed(net: Net) -> None:
    author, number = net.attached()
    commitment = bytes(range(32))
    tagged, plain = of(
        wire.Message,
        author.send(
            wire.Publish(number, 0, 1, commitment, sealed_of()), wire.Publish(number, 0, 2, None, sealed_of(1, 16384))
        ),
    )
    assert plain.tag is None
    assert tagged.tag == franking_tag(
        net.store.secret,
        commitment=commitment,
        stream=bytes(stream_key(1).verify_key),
        seq=1,
        at_ns=NOW_NS,
        handle=handle_of(parse(capability_of()), net.store.secret),
    )


def test_states_go_to_those_who_are_there_and_to_nobody_later(net: Net) -> None:
    author, number = net.attached()
    reader, _ = net.attached(member=2)
    author.send(wire.Publish(number, 1, 3, None, sealed_of(1)))
    (state,) = reader.pop()
    assert state == wire.Ephemeral(number, handle_of(parse(capability_of()), net.store.secret), 3, sealed_of(1))
    later = net.connect()
    assert [type(r) for r in later.subscribe(member=3, after=0)] == [wire.Subscribed]


def test_states_of_one_turn_supersede_each_other(net: Net) -> None:
    author, number = net.attached()
    states = [wire.Publish(number, 1, slot, None, sealed_of(label)) for label, slot in enumerate((1, 2, 1))]
    came = author.send(*states)
    assert [(state.slot, label_of(state.sealed)) for state in came] == [(2, 1), (1, 2)]
    assert net.hub.counters.ephemeral_superseded == 1


def room(net: Net, size: int) -> tuple[Client, int, list[Client]]:
    """A stream with `size` subscribers, and a publisher beside them."""
    author, number = net.attached(use=PUBLISH)
    return author, number, [net.attached(member=10 + index)[0] for index in range(size)]


def begin_fanout(net: Net, author: Client, number: int, label: int = 1) -> None:
    """Have the first slice of a record's fan-out done, and no more."""
    author.give(author.frame(wire.encode(wire.Publish(number, 0, label, None, sealed_of(label)))))
    net.turn()


def test_a_large_fanout_is_sliced_and_lets_a_chat_through(net: Net) -> None:
    author, number, readers = room(net, 3 * FANOUT_SLICE_SENDS)
    chatter, chat = net.attached(2)
    friend, _ = net.attached(2, member=2)
    begin_fanout(net, author, number)
    assert sum(bool(reader.records) for reader in readers) == FANOUT_SLICE_SENDS
    chatter.give(chatter.frame(wire.encode(wire.Publish(chat, 0, 1, None, sealed_of()))))
    net.turn()
    assert friend.records
    assert not readers[-1].records
    net.settle()
    assert all(seqs(reader.records) == [1] for reader in readers)
    assert net.hub.counters.deliveries == len(readers) + 2


def test_what_comes_during_a_fanout_follows_in_order(net: Net) -> None:
    author, number, readers = room(net, 2 * FANOUT_SLICE_SENDS)
    begin_fanout(net, author, number, 1)
    author.publish(number, 2, 3)
    assert all(seqs(reader.pop()) == [1, 2, 3] for reader in readers)


def test_leaving_during_a_fanout_still_gets_what_was_begun(net: Net) -> None:
    author, number, readers = room(net, 2 * FANOUT_SLICE_SENDS)
    begin_fanout(net, author, number)
    served, waiting = readers[0], readers[-1]
    assert not waiting.records
    for reader in (served, waiting):
        reader.send(wire.Unsubscribe(number))
    author.publish(number, 2)
    for reader in (served, waiting):
        came = reader.pop()
        assert came == []
    assert net.hub.fanout.queue == net.hub.fanout.queue.__class__()


@pytest.mark.parametrize("which", [0, -1], ids=["served", "waiting"])
def test_unsubscribed_names_the_last_record_that_was_sent(net: Net, which: int) -> None:
    author, number, readers = room(net, 2 * FANOUT_SLICE_SENDS)
    begin_fanout(net, author, number)
    leaver = readers[which]
    leaver.give(leaver.frame(wire.encode(wire.Unsubscribe(number))))
    author.publish(number, 2)
    came = leaver.pop()
    assert seqs(came) == [1]
    assert came[-1] == wire.Unsubscribed(number, 1)


def test_joining_during_a_fanout_gets_only_what_follows(net: Net) -> None:
    author, number, _ = room(net, 2 * FANOUT_SLICE_SENDS)
    begin_fanout(net, author, number)
    joiner, after_joiner = net.connect(), net.connect()
    for client, after in ((joiner, None), (after_joiner, 0)):
        client.give(client.frame(wire.encode(wire.Subscribe(1, capability_of(1, 500), 1, None, None, after))))
    author.publish(number, 2)
    came = joiner.pop()
    assert came[0].head == 1
    assert seqs(came) == [2]
    assert seqs(after_joiner.pop()) == [1, 2]


def test_resuming_after_an_acknowledged_record_whose_fanout_has_not_begun(net: Net) -> None:
    """The number is not beyond the head, though nobody was served it yet."""
    author, number, _ = room(net, 2 * FANOUT_SLICE_SENDS)
    epoch = net.hub.streams[bytes(stream_key(1).verify_key)].epoch
    begin_fanout(net, author, number, 1)
    author.give(author.frame(wire.encode(wire.Publish(number, 0, 2, None, sealed_of(2)))))
    net.hub.sequencer.commit(net.hub.now_ns)
    assert net.hub.streams[bytes(stream_key(1).verify_key)].served == 1
    returning = net.connect(hello=False)
    hello, subscribe = wire.Hello(1), wire.Subscribe(1, capability_of(1, 500), 1, None, epoch, 2)
    returning.give(returning.frame(wire.encode(hello) + wire.encode(subscribe)))
    author.publish(number, 3)
    came = returning.pop()[1:]
    assert came[0] == wire.Subscribed(1, number, epoch, 2, True)
    assert seqs(came) == [3]


def test_a_reader_that_is_cut_during_a_fanout_disturbs_nobody(net: Net) -> None:
    author, number, readers = room(net, 2 * FANOUT_SLICE_SENDS)
    begin_fanout(net, author, number)
    readers[-1].cut()
    readers[0].cut()
    author.publish(number, 2)
    assert all(seqs(reader.pop()) == [1, 2] for reader in readers[1:-1])
    assert seqs(readers[-1].pop()) == []


def test_erasing_during_a_fanout_stops_it(net: Net) -> None:
    author, number, readers = room(net, 2 * FANOUT_SLICE_SENDS)
    begin_fanout(net, author, number)
    eraser, _ = net.attached(use=ERASE, member=9)
    eraser.send(wire.Erase(number))
    author.publish(number, 2)
    for index, reader in enumerate(readers):
        kinds = [(type(r).__name__, getattr(r, "seq", None)) for r in reader.pop()]
        begun = [("Message", 1)] if index < FANOUT_SLICE_SENDS else []
        assert kinds in ([*begun, ("Erased", None), ("Message", 1)], [("Message", 1), ("Erased", None), ("Message", 1)])


def test_a_stream_without_subscribers_keeps_its_records(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    author.publish(number, 1, 2)
    reader, _ = net.attached(member=2)
    assert seqs(reader.pop()) == []
    assert seqs(reader.subscribe(member=2, after=0)) == [1, 2]
