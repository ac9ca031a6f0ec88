"""What makes records durable: idempotence, numbers, batches, and a store that refuses or answers late."""

from __future__ import annotations

import pytest
from scripted import (
    ERASE,
    NOW_NS,
    PUBLISH,
    SECOND_NS,
    Later,
    Net,
    capability_of,
    errors,
    held,
    let,
    opened,
    sealed_of,
    seqs,
)

from relay import hub, wire
from relay.errors import Code
from relay.limits import (
    COMMIT_BATCH_BYTES_MAX,
    PUBLISH_WINDOW,
    SEALED_BYTES_MAX,
)
from relay.store import MemoryStore

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
    assert [record.seq for record in net.store.read(number, 0, 1_000)] == [1]
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
    net.hub.expire(0, 0, 60 * SECOND_NS)
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
    net.hub.expire(0, 0, SECOND_NS)
    assert len(net.hub.streams) == 1
    let(net, writes)
    net.hub.expire(0, 0, SECOND_NS)
    assert len(net.hub.streams) == 0


def test_a_stream_that_was_put_away_goes_on_where_it_was(net: Net) -> None:
    author, number = net.attached(use=PUBLISH)
    author.publish(number, 1, 2)
    author.cut()
    net.hub.now_ns += 1000 * SECOND_NS
    net.hub.expire(0, 0, SECOND_NS)
    assert not net.hub.streams
    author, again = net.attached(use=PUBLISH)
    assert again == number
    assert author.publish(number, 2, 3) in (
        [wire.Published([2, 2, 3, 3])],
        [wire.Published([2, 2]), wire.Published([3, 3])],
    )
