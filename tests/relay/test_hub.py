"""Streams: numbers, commit, fan-out in slices, resume, gaps, retention, erasure, export; with stores that answer late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted import (
    ALL,
    ERASE,
    EXPORT,
    NOW_NS,
    PUBLISH,
    SECOND_NS,
    SUBSCRIBE,
    Client,
    Later,
    Net,
    capability_of,
    label_of,
    sealed_of,
    stream_key,
)

from relay import hub, wire
from relay.capability import franking_tag, handle_of, parse
from relay.errors import Code
from relay.limits import (
    COMMIT_BATCH_BYTES_MAX,
    EXPORT_BYTES_MAX,
    FANOUT_SLICE_SENDS,
    MESSAGE_BYTES_MAX,
    PUBLISH_WINDOW,
    REPLAY_BYTES,
    SEALED_BYTES_MAX,
)
from relay.store import MemoryStore


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def late() -> tuple[Net, Later, Later]:
    """A net whose store answers when the test says so: (net, reads, writes)."""
    reads, writes = Later(), Later()
    return Net(read=reads.submit, write=writes.submit), reads, writes


def opened(
    net: Net, reads: Later, index: int = 1, use: int = SUBSCRIBE | PUBLISH, **options: Any
) -> tuple[Client, int]:
    """`attached`, with a store that answers late."""
    client = net.connect()
    came = client.subscribe(index, use, **options)
    if not came:
        reads.run()
        net.settle()
        came = client.pop()
    return client, came[0].number


def let(net: Net, *stores: Later) -> None:
    """Let the stores do all that they were asked for, and what follows from it."""
    while any(store.waiting or store.made for store in stores):
        for store in stores:
            store.run()
        net.settle()


def seqs(records: list[Any]) -> list[int]:
    return [record.seq for record in records if isinstance(record, wire.Message)]


def of(kind: type, records: list[Any]) -> list[Any]:
    return [record for record in records if isinstance(record, kind)]


def errors(records: list[Any]) -> list[tuple[int, int, int]]:
    return [(error.code, error.record, error.about) for error in of(wire.Error, records)]


def turns_until(net: Net, done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        net.turn()
    raise AssertionError("not reached")


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
    net.hub.commit()
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


# -- idempotence -------------------------------------------------------------------------------------


def test_a_repeated_id_is_acknowledged_with_its_number_and_not_stored_again(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    author.publish(number, 7, 8)
    assert author.publish(number, 7) == [wire.Published([7, 1])]
    returned, _ = net.attached(use=PUBLISH)
    assert returned.publish(number, 8, 9) in (
        [wire.Published([8, 2, 9, 3])],
        [wire.Published([8, 2]), wire.Published([9, 3])],
    )


def test_ids_are_the_members_own(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    other, _ = net.attached(use=PUBLISH, member=2)
    author.publish(number, 7)
    assert other.publish(number, 7) == [wire.Published([7, 2])]


def test_the_last_256_ids_are_known(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    for start in range(0, 1000, 100):
        author.publish(number, *range(start, start + 100))
    again = [ack for record in author.publish(number, *range(1000 - PUBLISH_WINDOW, 1000)) for ack in record.acks]
    assert again[1::2] == list(range(1001 - PUBLISH_WINDOW, 1001))


def test_a_retry_while_the_commit_is_pending_is_answered_once_to_who_asked_last(
    late: tuple[Net, Later, Later],
) -> None:
    net, reads, writes = late
    author, number = opened(net, reads, use=PUBLISH)
    author.publish(number, 7)
    author.cut()
    returned, _ = opened(net, reads, use=PUBLISH)
    assert returned.publish(number, 7) == []
    let(net, writes)
    assert returned.pop() == [wire.Published([7, 1])]
    assert net.store.heads([number]) == {number: 1}
    assert net.hub.settled


def test_after_erasure_ids_are_forgotten_by_all_connections(net: Net) -> None:
    author, number = net.attached(use=PUBLISH | ERASE)
    author.publish(number, 7, 8)
    author.send(wire.Erase(number))
    assert author.publish(number, 8) == [wire.Published([8, 1])], "it is gone, so it is stored again"
    returned, _ = net.attached(use=PUBLISH)
    assert returned.publish(number, 8) == [wire.Published([8, 1])], "and known to a connection that came later"


def test_the_ids_of_the_longest_gone_are_forgotten(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LEFT_IDS_MAX", 100)
    stays, number = net.attached()
    stays.publish(number, 1)
    for member in range(2, 100):
        guest, _ = net.attached(member=member)
        guest.publish(number, 1)
        guest.cut()
    assert len(net.hub._numbers[number].windows) < 20
    assert stays.publish(number, 1)[-1] == wire.Published([1, 1]), "who is there is not forgotten"
    again, _ = net.attached(member=99)
    assert again.publish(number, 1)[-1] == wire.Published([1, 99]), "nor who has just left"


def test_members_who_come_and_go_are_counted_once(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LEFT_IDS_MAX", 100)
    author, number = net.attached()
    author.publish(number, 1)
    second, _ = net.attached()
    for _ in range(50):
        other = net.connect()
        other.subscribe()
        other.subscribe()
        other.cut()
    author.cut()
    second.cut()
    again, _ = net.attached()
    assert again.publish(number, 1)[-1] == wire.Published([1, 1])
    again.cut()
    net.later(61)
    net.hub.expire(0, 60 * SECOND_NS)
    assert net.hub._left_weight == 0, "the stream was put away"


def test_ids_survive_a_restart() -> None:
    store = MemoryStore(bytes(32))
    author, number = Net(store).attached(use=PUBLISH)
    author.publish(number, 7)
    returned, number = Net(store).attached(use=PUBLISH)
    assert returned.publish(number, 7) == [wire.Published([7, 1])]


# -- commit ------------------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_commit(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads)
    author.publish(number, 1)
    author.publish(number, 2)
    assert len(writes.waiting) == 1, "the second gathers while the first commits"
    assert author.pop() == []
    writes.make()
    net.settle()
    assert author.pop() == [], "the store has it, but has not said so"
    writes.answer()
    net.settle()
    assert author.pop() == [wire.Published([1, 1]), wire.Message(number, 1, NOW_NS, None, sealed_of(1))]
    assert not net.hub.settled
    let(net, writes)
    assert seqs(author.pop()) == [2]
    assert net.hub.settled


def test_a_failed_commit_is_refused_and_its_numbers_are_used_again(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads)
    author.publish(number, 1, 2)
    author.publish(number, 3)
    writes.broken = True
    writes.make()
    writes.broken = False
    writes.answer()
    net.settle()
    assert errors(author.pop()) == [(Code.STORE, 4, 1), (Code.STORE, 4, 2)]
    let(net, writes)
    came = author.pop()
    assert came[0] == wire.Published([3, 1])
    assert seqs(came) == [1]
    author.publish(number, 1)
    let(net, writes)
    assert author.pop()[0] == wire.Published([1, 2])
    assert author.peer.unacked == 0  # type: ignore[attr-defined]
    assert net.hub.counters.commit_failures == 1


def test_acknowledgements_that_the_store_refused_go_with_the_next_batch(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author = net.connect()
    author.subscribe(cap=capability_of(1, 1, quorum=1))
    reads.run()
    net.settle()
    number = next(iter(author.peer.attachments))
    author.publish(number, 1, 2)
    let(net, writes)
    author.send(wire.Ack(number, 1))
    writes.broken = True
    let(net, writes)
    assert held(net, number) == [1, 2]
    writes.broken = False
    author.publish(number, 3)
    let(net, writes)
    assert held(net, number) == [2, 3]


def test_acknowledgements_while_the_store_refuses_take_the_place_of_older_ones(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author = net.connect()
    author.subscribe(cap=capability_of(1, 1, quorum=1))
    reads.run()
    net.settle()
    number = next(iter(author.peer.attachments))
    author.publish(number, *range(1, 10))
    let(net, writes)
    writes.broken = True
    for upto in range(1, 10):
        author.send(wire.Ack(number, upto))
        let(net, writes)
    author.publish(number, 10)
    batch = writes.waiting[0][0].args[0]  # type: ignore[attr-defined]
    assert [upto for _, _, upto in batch.acks] == [9]
    assert batch.trims == [(number, 9)]


def test_a_failed_commit_is_told_to_who_asked_last(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads, use=PUBLISH)
    author.publish(number, 7)
    author.cut()
    returned, _ = opened(net, reads, use=PUBLISH)
    returned.publish(number, 7)
    writes.broken = True
    let(net, writes)
    assert errors(returned.pop()) == [(Code.STORE, 4, 7)]


def test_more_pending_records_of_a_member_than_its_window_can_fail(late: tuple[Net, Later, Later]) -> None:
    """Two connections share a capability, and with it a window: what the second adds must not push out what is pending."""
    net, reads, writes = late
    first, number = opened(net, reads, use=PUBLISH)
    second, _ = opened(net, reads, use=PUBLISH)
    first.publish(number, 0)
    first.publish(number, *range(1, 256))
    second.publish(number, *range(1000, 1256))
    writes.broken = True
    let(net, writes)
    refused = errors(first.pop()) + errors(second.pop())
    assert sorted(about for _, _, about in refused) == [*range(256), *range(1000, 1256)]
    writes.broken = False
    first.publish(number, 255)
    let(net, writes)
    assert first.pop() == [wire.Published([255, 1])]


def test_what_waits_for_a_store_that_stands_still_is_bounded(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads, use=PUBLISH)
    author.publish(number, 0)
    fits = COMMIT_BATCH_BYTES_MAX // SEALED_BYTES_MAX + 1
    assert author.publish(number, *range(1, fits + 1), size=SEALED_BYTES_MAX) == []
    assert errors(author.publish(number, 99, size=SEALED_BYTES_MAX)) == [(Code.STORE, 4, 99)]
    let(net, writes)
    acknowledged = [ack for record in author.pop() for ack in record.acks]
    assert acknowledged[::2] == list(range(fits + 1))
    author.publish(number, 99)
    let(net, writes)
    assert author.pop() == [wire.Published([99, fits + 2])]


def test_a_stream_with_a_commit_under_way_is_not_put_away(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads, use=PUBLISH)
    author.publish(number, 1)
    author.cut()
    net.hub.now_ns += 1000 * SECOND_NS
    net.hub.expire(0, SECOND_NS)
    assert len(net.hub.streams) == 1
    let(net, writes)
    net.hub.expire(0, SECOND_NS)
    assert len(net.hub.streams) == 0


def test_a_stream_that_was_put_away_goes_on_where_it_was(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    author.publish(number, 1, 2)
    author.cut()
    net.hub.now_ns += 1000 * SECOND_NS
    net.hub.expire(0, SECOND_NS)
    assert not net.hub.streams
    author, again = net.attached(use=PUBLISH)
    assert again == number
    assert author.publish(number, 2, 3) in (
        [wire.Published([2, 2, 3, 3])],
        [wire.Published([2, 2]), wire.Published([3, 3])],
    )


# -- subscribe and resume: PROTOCOL.md section 6 -----------------------------------------------------


@pytest.fixture
def ten(net: Net) -> tuple[Net, int, int]:
    """A stream of ten records, of which the first three are forgotten: (net, number, epoch)."""
    author, number = net.attached(use=PUBLISH)
    author.publish(number, *range(1, 11))
    from relay.store import Batch

    for stream_number, first in net.store.commit(Batch(trims=[(number, 3)])):
        net.hub._numbers[stream_number].first = first
    return net, number, net.hub._numbers[number].epoch


def gap(number: int, first: int, last: int) -> list[wire.Gap]:
    return [wire.Gap(number, first, last)]


@pytest.mark.parametrize(
    ("epoch", "after", "recovered", "gone", "first"),
    [
        ("none", None, True, None, None),
        ("same", None, True, None, None),
        ("same", 10, True, None, None),
        ("same", 9, True, None, 10),
        ("same", 3, True, None, 4),
        ("same", 2, False, (3, 3), 4),
        ("same", 0, False, (1, 3), 4),
        ("same", 11, False, (1, 3), 4),
        ("same", 2**64 - 1, False, (1, 3), 4),
        ("none", 0, False, (1, 3), 4),
        ("none", 10, False, (1, 3), 4),
        ("other", 0, False, (1, 3), 4),
        ("other", 10, False, (1, 3), 4),
    ],
)
def test_resume(
    ten: tuple[Net, int, int],
    epoch: str,
    after: int | None,
    recovered: bool,
    gone: tuple[int, int] | None,
    first: int | None,
) -> None:
    net, number, current = ten
    client = net.connect()
    came = client.subscribe(member=2, epoch={"none": None, "same": current, "other": current + 1}[epoch], after=after)
    assert came[0] == wire.Subscribed(1, number, current, 10, recovered)
    assert of(wire.Gap, came) == ([] if gone is None else gap(number, *gone))
    assert seqs(came) == ([] if first is None else list(range(first, 11)))
    author, _ = net.attached(use=PUBLISH, member=3)
    author.publish(number, 99)
    assert seqs(client.pop()) == [11]


def test_resume_of_a_whole_stream_is_recovered(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    author.publish(number, 1, 2)
    client = net.connect()
    came = client.subscribe(member=2, after=0)
    assert came[0].recovered
    assert seqs(came) == [1, 2]
    came = client.subscribe(member=2, epoch=came[0].epoch + 1, after=0)
    assert not came[0].recovered, "of another epoch nobody knows what is missing"
    assert seqs(came) == [1, 2]


def test_a_gap_when_everything_is_gone(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    author.publish(number, 1, 2, 3)
    net.hub.now_ns += 100 * SECOND_NS
    net.hub.expire(net.hub.now_ns, 10**18)
    client = net.connect()
    came = client.subscribe(member=2, after=1, epoch=net.hub._numbers[number].epoch)
    assert not came[0].recovered
    assert came[1:] == gap(number, 2, 3)
    author.publish(number, 4)
    assert seqs(client.pop()) == [4]
    assert net.hub.counters.gaps == 1


def test_a_long_replay_comes_in_pages_and_ends_live(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    count = 3 * REPLAY_BYTES // 16_384
    author.publish(number, *range(count), size=16_384)
    reader = net.connect()
    came = reader.subscribe(member=2, after=0)
    author.publish(number, 999)
    assert seqs(came + reader.pop()) == list(range(1, count + 2))
    assert net.hub.counters.replayed == count


def test_a_subscription_replaces_the_former_one(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    author.publish(number, 1, 2)
    reader.pop()
    assert seqs(reader.subscribe(member=2, after=0)) == [1, 2]
    author.publish(number, 3)
    assert seqs(reader.pop()) == [3], "once, not twice"
    assert reader.subscribe(member=2, use=PUBLISH)[0].head == 3
    author.publish(number, 4)
    assert reader.pop() == []
    assert net.hub._numbers[number].attached == 2


def test_records_that_come_during_a_replay_follow_it(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads, use=PUBLISH)
    author.publish(number, 1, 2)
    let(net, writes)
    reader, _ = opened(net, reads, member=2, after=0)
    assert len(reads.waiting) == 1
    author.publish(number, 3)
    let(net, writes)
    assert reader.pop() == []
    let(net, reads)
    author.publish(number, 4)
    let(net, writes, reads)
    assert seqs(reader.pop()) == [1, 2, 3, 4]


def test_who_unsubscribes_during_a_replay_is_told_how_far_it_came(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads, use=PUBLISH)
    author.publish(number, 1, 2)
    let(net, writes)
    reader, _ = opened(net, reads, member=2, after=1, epoch=1000)
    assert reader.send(wire.Unsubscribe(number)) == [wire.Unsubscribed(number, 1)]
    let(net, reads)
    assert reader.pop() == []


def test_a_read_that_fails_is_tried_again_at_the_next_tick(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    author, number = opened(net, reads, use=PUBLISH)
    author.publish(number, 1)
    let(net, writes)
    reader, _ = opened(net, reads, member=2, after=0)
    reads.broken = True
    let(net, reads)
    assert reader.pop() == []
    assert not reads.waiting
    reads.broken = False
    net.later(1)
    let(net, reads)
    assert seqs(reader.pop()) == [1]
    assert net.hub.counters.read_failures == 1


def test_a_stream_that_cannot_be_opened_is_refused_and_can_be_tried_again(late: tuple[Net, Later, Later]) -> None:
    net, reads, _ = late
    client, gone = net.connect(), net.connect()
    client.subscribe()
    gone.subscribe(member=2)
    gone.cut()
    reads.broken = True
    let(net, reads)
    assert errors(client.pop()) == [(Code.STORE, 2, 1)]
    reads.broken = False
    client.subscribe()
    assert client.subscribe(member=3) == [], "both wait for the same opening"
    let(net, reads)
    assert [type(record) for record in client.pop()] == [wire.Subscribed] * 2


def test_many_replays_of_one_client_are_queued_once(net: Net) -> None:
    """A client of many streams that drains again and again must not make the queue of replays grow."""
    author = net.connect()
    reader = net.connect()
    for index in range(1, 41):
        number = author.subscribe(index, PUBLISH)[0].number
        author.publish(number, *range(4), size=131_072)
    reader.stop()
    for index in range(1, 41):
        reader.subscribe(index, SUBSCRIBE, member=2, after=0)
    longest = 0
    for _ in range(300):
        reader.room = 100_000
        net.turn()
        longest = max(longest, len(net.hub.replay._catching))
    assert longest <= 40
    reader.take()
    assert not net.hub.replay._catching


# -- a client that does not take its records ---------------------------------------------------------


def fall_behind(net: Net, size: int = 65_536, count: int = 20) -> tuple[Client, Client, int]:
    """A reader of a stream whose queue was dropped: (author, reader, number)."""
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    reader.stop()
    for label in range(1, count + 1):
        author.publish(number, label, size=size)
    assert reader.peer.box.lagging
    return author, reader, number


def big(retain: int = 1 << 26) -> MemoryStore:
    return MemoryStore(bytes(32), retain_stream_bytes_max=retain)


def test_a_lagging_client_is_replayed_and_loses_nothing() -> None:
    net = Net(big())
    author, reader, number = fall_behind(net)
    other, _ = net.attached(member=3)
    author.publish(number, 21)
    assert seqs(other.pop()) == [21], "others do not wait"
    assert reader.peer.box.queued_bytes < 2 * 65_536
    came = reader.take()
    assert seqs(came) == list(range(1, 22))
    assert not reader.peer.box.lagging
    author.publish(number, 22)
    assert seqs(reader.pop()) == [22]
    assert net.hub.counters.lagging == 1


def test_a_lagging_client_is_told_what_is_gone() -> None:
    net = Net(big(retain=300_000))
    _, reader, _ = fall_behind(net)
    came = reader.take()
    (gone,) = of(wire.Gap, came)
    got = seqs(came)
    assert got == [*range(1, gone.first), *range(gone.last + 1, 21)]


def test_a_read_from_before_falling_behind_again_makes_no_gap() -> None:
    """The cursor moves back while a read from further on is under way: its result must not be taken for a gap."""
    reads = Later()
    net = Net(big(), read=reads.submit)
    author, number = opened(net, reads, use=PUBLISH)
    other_author, chat = opened(net, reads, index=2, use=PUBLISH)
    author.publish(number, *range(1, 9), size=65_536)
    reader, _ = opened(net, reads, index=2, member=2)
    # A large record of the chat is stuck in the socket, in front of a page of the replay.
    reader.subscribe(1, SUBSCRIBE, member=2, after=0, epoch=net.hub._numbers[number].epoch)
    reads.make()
    reader.room = 10
    other_author.give(other_author.frame(wire.encode(wire.Publish(chat, 0, 1, None, sealed_of(1, 131_072)))))
    reads.answer()
    net.turn()
    assert reads.waiting, "the next page is being read"
    assert reader.writing
    for label in range(2, 12):
        other_author.publish(chat, label, size=131_072)
    assert reader.peer.box.lagging
    reader.room = None
    let(net, reads)
    net.settle()
    let(net, reads)
    came = reader.pop()
    assert of(wire.Gap, came) == []
    assert [r.seq for r in of(wire.Message, came) if r.number == number] == list(range(1, 9))
    assert [r.seq for r in of(wire.Message, came) if r.number == chat] == list(range(1, 12))


def test_the_deadline_of_a_lagging_client_is_looked_at_every_second_also_between_two_pages() -> None:
    reads = Later()
    net = Net(big(), read=reads.submit)
    author, number = opened(net, reads, use=PUBLISH)
    reader, _ = opened(net, reads, member=2)
    reader.stop()
    for label in range(20):
        author.publish(number, label, size=65_536)
    reader.take()
    assert reads.waiting
    assert reader.peer.box.lagging
    assert reader.peer.box.standing is None
    assert reader.peer.tick() == 1.0


def test_unsubscribing_while_lagging_tells_how_far_it_came() -> None:
    net = Net(big())
    _, reader, number = fall_behind(net)
    reader.give(reader.frame(wire.encode(wire.Unsubscribe(number))))
    came = reader.take()
    assert came[-1] == wire.Unsubscribed(number, len(seqs(came)))
    assert seqs(came) == list(range(1, len(came)))


@pytest.mark.parametrize("leaves", [True, False])
def test_who_no_longer_has_anything_to_catch_up_with_is_not_behind(leaves: bool) -> None:
    net = Net(big())
    _, reader, number = fall_behind(net)
    epoch = net.hub._numbers[number].epoch
    if leaves:
        reader.give(reader.frame(wire.encode(wire.Unsubscribe(number))))
    else:
        reader.give(reader.frame(wire.encode(wire.Subscribe(9, capability_of(), 1, None, epoch, 20))))
    reader.take()
    assert not reader.peer.box.lagging


def test_unsubscribed_is_true_even_if_another_stream_overflows() -> None:
    net = Net(big())
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    busy, other = net.attached(2, use=PUBLISH)
    reader.subscribe(2, SUBSCRIBE, member=2)
    reader.room = 10
    author.publish(number, 1, 2)
    author.publish(number, 3)
    reader.give(reader.frame(wire.encode(wire.Unsubscribe(number))))
    for label in range(20):
        busy.publish(other, label, size=65_536)
    assert reader.peer.box.lagging
    came = reader.take()
    (left,) = of(wire.Unsubscribed, came)
    assert left.head == 3
    assert [r.seq for r in of(wire.Message, came) if r.number == number] == [1, 2, 3]


def test_no_state_comes_after_unsubscribed() -> None:
    net = Net(big())
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    reader.room = 10
    author.publish(number, 1)
    author.send(wire.Publish(number, 1, 3, None, sealed_of(1)))
    reader.send(wire.Unsubscribe(number))
    came = reader.take()
    assert [type(record) for record in came] == [wire.Message, wire.Unsubscribed]
    assert net.hub.counters.ephemeral_dropped == 1


def test_subscribing_again_while_the_queue_stands_keeps_the_order() -> None:
    net = Net(big())
    author, number = net.attached(use=PUBLISH)
    reader, _ = net.attached(member=2)
    reader.room = 10
    author.publish(number, 1, 2)
    author.publish(number, 3)
    reader.send(wire.Unsubscribe(number))
    reader.subscribe(member=2)
    author.publish(number, 4)
    came = [(type(r).__name__, getattr(r, "seq", None)) for r in reader.take()]
    messages = [("Message", seq) for seq in (1, 2, 3)]
    assert came == [*messages, ("Unsubscribed", None), ("Subscribed", None), ("Message", 4)]


def test_erased_while_lagging_starts_again() -> None:
    net = Net(big())
    author, reader, number = fall_behind(net)
    eraser, _ = net.attached(use=ERASE, member=9)
    eraser.send(wire.Erase(number))
    author.publish(number, 77)
    came = reader.take()
    erased = next(index for index, record in enumerate(came) if isinstance(record, wire.Erased))
    assert seqs(came[erased:]) == [1]
    assert label_of(came[-1].sealed) == 77
    assert seqs(came[:erased]) == list(range(1, erased + 1))


def test_states_are_dropped_for_who_catches_up() -> None:
    net = Net(big())
    author, reader, number = fall_behind(net)
    author.send(wire.Publish(number, 1, 0, None, sealed_of()))
    assert net.hub.counters.ephemeral_dropped == 1
    assert of(wire.Ephemeral, reader.take()) == []


# -- retention ---------------------------------------------------------------------------------------


def held(net: Net, number: int) -> list[int]:
    return [record.seq for record in net.store.read(number, 0, 1 << 30)]


def test_a_quorum_of_members_lets_records_be_forgotten(net: Net) -> None:
    members = [net.connect() for _ in range(3)]
    for index, member in enumerate(members):
        (answer,) = member.subscribe(cap=capability_of(1, index, quorum=2))
    number = answer.number
    members[0].publish(number, 1, 2, 3, 4)
    members[0].send(wire.Ack(number, 3))
    assert held(net, number) == [1, 2, 3, 4]
    members[0].send(wire.Ack(number, 4))
    assert held(net, number) == [1, 2, 3, 4], "one member is not two"
    members[1].send(wire.Ack(number, 2))
    assert held(net, number) == [3, 4]
    members[2].send(wire.Ack(number, 5))
    assert held(net, number) == [3, 4], "nobody can have what there is not"
    members[2].send(wire.Ack(number, 4))
    assert held(net, number) == []
    late = net.connect()
    came = late.subscribe(member=7, after=0)
    assert not came[0].recovered
    assert came[1:] == gap(number, 1, 4)


def test_without_a_quorum_acknowledgements_change_nothing(net: Net) -> None:
    author, number = net.attached()
    author.publish(number, 1)
    author.send(wire.Ack(number, 1))
    assert held(net, number) == [1]


def test_acknowledgements_survive_a_restart() -> None:
    store = MemoryStore(bytes(32))
    first = Net(store)
    a, b = first.connect(), first.connect()
    number = a.subscribe(cap=capability_of(1, 1, quorum=2))[0].number
    a.publish(number, 1, 2)
    a.send(wire.Ack(number, 2))
    second = Net(store)
    b = second.connect()
    b.subscribe(cap=capability_of(1, 2, quorum=2))
    b.send(wire.Ack(number, 1))
    assert held(second, number) == [2]


def test_an_acknowledgement_before_an_erasure_touches_nothing_after_it(net: Net) -> None:
    member = net.connect()
    number = member.subscribe(cap=capability_of(quorum=1), use=ALL)[0].number
    member.publish(number, 1, 2, 3)
    member.give(
        member.frame(
            wire.encode(wire.Ack(number, 3))
            + wire.encode(wire.Erase(number))
            + wire.encode(wire.Publish(number, 0, 9, None, sealed_of(9)))
        )
    )
    net.settle()
    assert held(net, number) == [1], "nobody acknowledged this one"
    assert net.store.open(bytes(stream_key(1).verify_key), new_epoch=1, recent_max=0).acks == {}


def test_an_acknowledgement_that_crosses_an_erasure_is_of_the_epoch_that_ended(net: Net) -> None:
    author, number = net.attached(cap=capability_of(quorum=1), use=ALL)
    author.publish(number, 1, 2, 3)
    author.send(wire.Erase(number))
    author.publish(number, 4)
    author.send(wire.Ack(number, 3))
    assert held(net, number) == [1], "nobody acknowledged this one"


def test_acknowledgements_during_an_erasure_are_of_the_epoch_that_ends(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    member = net.connect()
    member.subscribe(cap=capability_of(quorum=1), use=ALL)
    reads.run()
    net.settle()
    number = member.pop()[0].number
    member.publish(number, 1, 2)
    let(net, writes)
    member.send(wire.Erase(number))
    member.send(wire.Ack(number, 2), wire.Publish(number, 0, 9, None, sealed_of(9)))
    let(net, writes)
    assert held(net, number) == [1]


# -- erasure -----------------------------------------------------------------------------------------


def test_erase_tells_all_and_starts_a_new_epoch(net: Net) -> None:
    owner, number = net.attached(use=SUBSCRIBE | PUBLISH | ERASE)
    reader, _ = net.attached(member=2)
    owner.publish(number, 1, 2)
    reader.pop()
    (erased,) = owner.send(wire.Erase(number))
    assert erased.number == number
    assert reader.pop() == [erased]
    assert held(net, number) == []
    assert seqs(owner.publish(number, 3)) == [1]
    joiner = net.connect()
    came = joiner.subscribe(member=3, epoch=1000, after=2)
    assert came[0] == wire.Subscribed(1, number, erased.epoch, 1, False)
    assert seqs(came) == [1]
    assert net.hub.counters.erased == 1


def test_who_erases_is_told_without_subscribing(net: Net) -> None:
    owner, number = net.attached(use=ERASE)
    assert [type(record) for record in owner.send(wire.Erase(number))] == [wire.Erased]


def test_a_record_that_comes_during_an_erasure_belongs_to_the_new_epoch(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    owner, number = opened(net, reads, use=SUBSCRIBE | PUBLISH | ERASE)
    owner.publish(number, 1)
    let(net, writes)
    owner.pop()
    owner.send(wire.Erase(number))
    assert owner.publish(number, 2) == []
    assert not net.hub.settled
    assert owner.publish(number, 2) == [], "a retry of one that waits is not stored twice"
    let(net, writes)
    assert [type(record).__name__ for record in owner.pop()] == ["Erased", "Published", "Message"]
    assert held(net, number) == [1]
    assert owner.publish(number, 2) == [wire.Published([2, 1])]


def test_a_second_erasure_while_one_is_under_way_is_answered(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    owner, number = opened(net, reads, use=ERASE)
    other, _ = opened(net, reads, use=ERASE, member=2)
    owner.send(wire.Erase(number))
    assert errors(other.send(wire.Erase(number))) == [(Code.STORE, 6, number)]
    let(net, writes)
    assert of(wire.Erased, owner.pop())


def test_an_erasure_that_fails_is_refused_and_nothing_changes(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    owner, number = opened(net, reads, use=SUBSCRIBE | PUBLISH | ERASE)
    owner.publish(number, 1)
    let(net, writes)
    lagging, _ = opened(net, reads, member=2, after=0)
    owner.pop()
    owner.send(wire.Erase(number))
    writes.broken = True
    let(net, writes)
    writes.broken = False
    assert errors(owner.pop()) == [(Code.STORE, 6, number)]
    let(net, reads)
    assert seqs(lagging.pop()) == [1]
    owner.publish(number, 2)
    let(net, writes)
    assert seqs(owner.pop()) == [2]


def test_a_replay_under_way_when_the_stream_is_erased_brings_nothing_back(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    owner, number = opened(net, reads, use=PUBLISH | ERASE)
    owner.publish(number, 1, 2)
    let(net, writes)
    reader, _ = opened(net, reads, member=2, after=0)
    reads.make()
    owner.send(wire.Erase(number))
    let(net, writes)
    let(net, reads)
    assert [type(record) for record in reader.pop()] == [wire.Erased]
    owner.publish(number, 3)
    let(net, writes, reads)
    assert seqs(reader.pop()) == [1]


# -- export ------------------------------------------------------------------------------------------


def test_export_pages_return_everything_within_their_bounds() -> None:
    net = Net(big())
    author, number = net.attached(use=SUBSCRIBE | PUBLISH | EXPORT)
    sizes = [256, SEALED_BYTES_MAX, 65_536, 65_536, 256, 256, SEALED_BYTES_MAX, 131_072 - 2048]
    author.send(*(wire.Publish(number, 0, 10 + i, None, sealed_of(i, size)) for i, size in enumerate(sizes[:1])))
    for label, size in list(enumerate(sizes))[1:]:
        author.send(wire.Publish(number, 0, 10 + label, bytes(32), sealed_of(label, size)))
    after = 0
    rows: list[Any] = []
    more = True
    while more:
        author.give(author.frame(wire.encode(wire.Export(number, after))))
        net.settle()
        (page,) = author.pop()
        assert (page.number, page.head) == (number, len(sizes))
        assert page.records
        assert sum(len(row.sealed) for row in page.records) <= EXPORT_BYTES_MAX
        assert len(wire.encode(page)) <= MESSAGE_BYTES_MAX
        rows += page.records
        more, after = page.more, page.records[-1].seq
    assert [(row.seq, row.id, label_of(row.sealed), len(row.sealed)) for row in rows] == [
        (index + 1, 10 + index, index, size) for index, size in enumerate(sizes)
    ]
    assert rows[0].tag is None
    assert len(rows[1].tag) == 32
    assert {row.handle for row in rows} == {handle_of(parse(capability_of()), net.store.secret)}


@pytest.mark.parametrize("after", [0, 5, 2**64 - 1])
def test_export_past_the_end_is_an_empty_page(net: Net, after: int) -> None:
    owner, number = net.attached(use=EXPORT)
    (page,) = owner.send(wire.Export(number, after))
    assert page == wire.Exported(number, 1000, 0, False, [])


def test_an_export_that_the_store_cannot_answer_is_refused(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    owner, number = opened(net, reads, use=EXPORT | ERASE)
    owner.send(wire.Export(number, 0))
    reads.broken = True
    let(net, reads)
    assert errors(owner.pop()) == [(Code.STORE, 7, number)]
    reads.broken = False
    owner.send(wire.Export(number, 0))
    owner.send(wire.Erase(number))
    let(net, writes)
    let(net, reads)
    assert errors(owner.pop()) == [(Code.STORE, 7, number)], "what was read belongs to the epoch that ended"


def test_exports_of_one_client_do_not_fill_the_memory() -> None:
    """Each request of ten bytes asks for 128 KiB: answers wait in the store, not in the outbox."""
    net = Net(big())
    author, number = net.attached(use=PUBLISH | EXPORT)
    author.publish(number, *range(8), size=16_384)
    author.stop()
    author.give(b"".join(author.frame(wire.encode(wire.Export(number, 0))) for _ in range(200)))
    net.turn()
    assert author.peer.box.queued_bytes < 1_000_000
    came = author.take()
    assert len(came) == 200
    answered = of(wire.Exported, came)
    assert answered
    assert {code for code, _, _ in errors(came)} <= {Code.RATE}
    assert of(wire.Exported, author.send(wire.Export(number, 0))), "afterwards it is served again"


def test_a_client_that_is_gone_gets_no_answers(late: tuple[Net, Later, Later]) -> None:
    net, reads, writes = late
    owner, number = opened(net, reads, use=ALL)
    owner.publish(number, 1)
    owner.send(wire.Export(number, 0))
    owner.send(wire.Erase(number))
    owner.cut()
    let(net, reads, writes)
    assert owner.pop() == []
    assert net.hub.settled
    assert net.hub._numbers[number].attached == 0
