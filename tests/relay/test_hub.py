"""Retention, erasure and export."""

from __future__ import annotations

from typing import Any

import pytest
from scripted import (
    ALL,
    ERASE,
    EXPORT,
    PUBLISH,
    SUBSCRIBE,
    Later,
    Net,
    big,
    capability_of,
    errors,
    held,
    label_of,
    let,
    of,
    opened,
    sealed_of,
    seqs,
    stream_key,
)

from relay import wire
from relay.capability import handle_of, parse
from relay.errors import Code
from relay.limits import (
    EXPORT_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    SEALED_BYTES_MAX,
)
from relay.store import MemoryStore

# -- retention ---------------------------------------------------------------------------------------


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
    assert came[1:] == [wire.Gap(number, 1, 4)]


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
    for _ in range(5):  # They cost more than a second's rate.
        net.later(1)
        came += author.pop()
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
