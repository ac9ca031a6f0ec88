"""Resume, gaps, and a client that does not take its records (PROTOCOL.md section 6)."""

from __future__ import annotations

import pytest
from scripted import (
    ERASE,
    PUBLISH,
    SECOND_NS,
    SUBSCRIBE,
    Client,
    Later,
    Net,
    big,
    capability_of,
    errors,
    label_of,
    let,
    of,
    opened,
    sealed_of,
    seqs,
)

from relay import wire
from relay.errors import Code
from relay.limits import (
    REPLAY_BYTES,
)

# -- subscribe and resume: PROTOCOL.md section 6 -----------------------------------------------------


@pytest.fixture
def ten(net: Net) -> tuple[Net, int, int]:
    """A stream of ten records, of which the first three are forgotten: (net, number, epoch)."""
    author, number = net.attached(use=PUBLISH)
    author.publish(number, *range(1, 11))
    from relay.store import Batch

    for stream_number, first in net.store.commit(Batch(trims=[(number, 3)])).forgotten:
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
    net.hub.expire(net.hub.now_ns, net.hub.now_ns, 10**18)
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
