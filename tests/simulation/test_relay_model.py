"""Random interleavings of clients, a slow and failing store, and sockets that take what they like, against a model.

The hub and its sessions run as they are; bounds are made tighter, so that a few small records fill a queue and a few
subscribers take several slices. A failing run is shrunk by hypothesis, which prints the steps and how to replay them.

Checked all the time, for every subscription: numbers go up by one, except over an announced GAP of records that the store
no longer has; nothing is seen before its commit; a number stands for one record in an epoch; a repeated id gets the number
that it has. At the end: everything acknowledged is in the store, and everybody was sent everything.
"""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import ALL, Client, Later, Net, capability_of, label_of, sealed_of, stream_key

from relay import fanout, outbox, replay, sequencer, wire
from relay.capability import handle_of, parse
from relay.errors import Code
from relay.limits import REST_S
from relay.session import Rates
from relay.store import Batch, MemoryStore

STREAMS = (1, 2)
MEMBERS = 6
NO_LIMIT = Rates(durable_per_s=10**9, ephemeral_per_s=10**9, control_per_s=10**9)


class CheckedStore(MemoryStore):
    """Notes every record that it committed: (stream, epoch, number) -> (handle, id)."""

    def __init__(self, retain_bytes: int) -> None:
        super().__init__(bytes(32), retain_stream_bytes_max=retain_bytes)
        self.committed: dict[tuple[int, int, int], tuple[bytes, int]] = {}
        self.ids: dict[tuple[int, int, bytes, int], int] = {}

    def commit(self, batch: Batch) -> list[tuple[int, int]]:
        forgotten = super().commit(batch)
        for number, run in batch.runs:
            epoch = self._by_number[number].epoch
            for record in run.records():
                key = (number, epoch, record.seq)
                assert key not in self.committed, "a number is used once in an epoch"
                self.committed[key] = (record.handle, record.id)
                ident = (number, epoch, record.handle, record.id)
                assert ident not in self.ids, "a repeated id is stored once"
                self.ids[ident] = record.seq
        return forgotten

    def oldest(self, number: int, epoch: int) -> float:
        """The lowest number that is held; of an epoch that was erased nothing is."""
        stream = self._by_number[number]
        return stream.first if stream.epoch == epoch else inf


class Subscription:
    def __init__(self, epoch: int, expected: int) -> None:
        self.epoch = epoch
        self.next = expected


class Actor:
    """One member: its connection, what it asked for, and what it may expect."""

    def __init__(self, world: World, member: int) -> None:
        self.world = world
        self.member = member
        self.client: Client | None = None
        self.subscriptions: dict[int, Subscription] = {}
        self.numbers: dict[int, int] = {}  # stream -> number
        self.known: dict[int, tuple[int, int]] = {}  # stream -> (epoch, last number seen)
        self.asked: dict[int, tuple[int, int | None, int | None]] = {}
        self.sent: dict[int, list[int]] = {stream: [] for stream in STREAMS}
        self.erasures: set[int] = set()
        self.request = 0
        self.id = 0

    def connect(self) -> Client:
        if self.client is None:
            self.client = self.world.net.connect(rates=NO_LIMIT)
        return self.client

    def give(self, *records: Any) -> None:
        if self.client is not None:
            self.client.give(self.client.frame(b"".join(map(wire.encode, records))))

    def subscribe(self, stream: int, how: str) -> None:
        self.connect()
        epoch, after = self.known.get(stream, (None, None))
        if how == "new":
            epoch = after = None
        elif how == "all":
            epoch, after = None, 0
        elif how == "another epoch":
            epoch, after = 1, 3
        self.request += 1
        self.asked[self.request] = (stream, epoch, after)
        self.give(wire.Subscribe(self.request, capability_of(stream, self.member), ALL, None, epoch, after))

    def publish(self, stream: int, count: int) -> None:
        if stream in self.numbers:
            records = []
            for _ in range(count):
                self.id += 1
                self.sent[stream].append(self.id)
                label = self.member << 32 | self.id
                records.append(wire.Publish(self.numbers[stream], 0, self.id, None, sealed_of(label)))
            self.give(*records)

    def retry(self, stream: int, back: int) -> None:
        if stream in self.numbers and self.sent[stream]:
            id_ = self.sent[stream][-1 - back % len(self.sent[stream])]
            label = self.member << 32 | id_
            self.give(wire.Publish(self.numbers[stream], 0, id_, None, sealed_of(label)))

    def cut(self) -> None:
        if self.client is not None:
            self.client.cut()
            self.world.net.clients.remove(self.client)
        self.client = None
        self.subscriptions.clear()
        self.numbers.clear()
        self.asked.clear()
        self.erasures.clear()

    def check(self) -> None:
        """Hold everything that came against what may come."""
        if self.client is None:
            return
        assert self.client.closed is None
        for record in self.client.pop():
            match record:
                case wire.Subscribed():
                    self._subscribed(record)
                case wire.Message():
                    self._message(record)
                case wire.Gap():
                    subscription = self._of(record.number)
                    assert record.first == subscription.next
                    assert record.first <= record.last < self.world.store.oldest(record.number, subscription.epoch)
                    subscription.next = record.last + 1
                case wire.Erased() if record.number not in self.subscriptions:
                    assert record.number in self.erasures, "the answer to one that has left since"
                case wire.Erased():
                    subscription = self._of(record.number)
                    subscription.epoch, subscription.next = record.epoch, 1
                case wire.Unsubscribed():
                    assert record.head == self._of(record.number).next - 1, "it was sent everything up to there"
                    del self.subscriptions[record.number]
                case wire.Published():
                    for id_, seq in zip(record.acks[::2], record.acks[1::2], strict=True):
                        self._acknowledged(id_, seq)
                case wire.Exported():
                    assert [row.seq for row in record.records] == sorted({row.seq for row in record.records})
                case wire.Error():
                    assert record.code in (Code.STORE, Code.RATE, Code.NOT_SUBSCRIBED, Code.WINDOW), record
                    if record.record == 2:
                        del self.asked[record.about]
                case wire.Ephemeral() | wire.Timed():
                    pass
                case _:
                    raise AssertionError(record)

    def _of(self, number: int) -> Subscription:
        assert number in self.subscriptions, "something of a stream that it has not subscribed to"
        return self.subscriptions[number]

    def _subscribed(self, record: wire.Subscribed) -> None:
        stream, epoch, after = self.asked.pop(record.request)
        if after is None:
            expected = record.head + 1
        elif epoch == record.epoch and after <= record.head:
            expected = after + 1
        else:
            expected = 1
        self.numbers[stream] = record.number
        self.subscriptions[record.number] = Subscription(record.epoch, expected)

    def _message(self, record: wire.Message) -> None:
        subscription = self._of(record.number)
        assert record.seq == subscription.next
        subscription.next += 1
        label = label_of(record.sealed)
        stream = next(stream for stream, number in self.numbers.items() if number == record.number)
        author = self.world.handle(stream, label >> 32)
        committed = self.world.store.committed.get((record.number, subscription.epoch, record.seq))
        assert committed == (author, label & 0xFFFFFFFF), "what the store committed under this number"
        self.known[stream] = (subscription.epoch, record.seq)

    def _acknowledged(self, id_: int, seq: int) -> None:
        (stream,) = (stream for stream in STREAMS if id_ in self.sent[stream])
        handle, number = self.world.handle(stream, self.member), self.world.number(stream)
        epochs = [key[1] for key, value in self.world.store.committed.items() if key[0] == number]
        assert seq in [self.world.store.ids.get((number, epoch, handle, id_)) for epoch in set(epochs)]
        self.world.acknowledged.add((stream, self.member, id_))


class World:
    def __init__(self, retain_bytes: int) -> None:
        self.store = CheckedStore(retain_bytes)
        self.retains = retain_bytes > 10**6
        self.reads, self.writes = Later(), Later()
        self.net = Net(self.store, read=self.reads.submit, write=self.writes.submit)
        self.actors = [Actor(self, member) for member in range(MEMBERS)]
        self.acknowledged: set[tuple[int, int, int]] = set()
        self._handles: dict[tuple[int, int], bytes] = {}

    def number(self, stream: int) -> int:
        return self.store._by_key[bytes(stream_key(stream).verify_key)].number

    def handle(self, stream: int, member: int) -> bytes:
        key = (stream, member)
        if key not in self._handles:
            self._handles[key] = handle_of(parse(capability_of(stream, member)), self.store.secret)
        return self._handles[key]

    def step(self, what: str, who: int, stream: int, count: int) -> None:
        actor = self.actors[who]
        client = actor.client
        match what:
            case "connect":
                actor.connect()
            case "subscribe":
                actor.subscribe(stream, "new")
            case "resume":
                actor.subscribe(stream, "known")
            case "everything":
                actor.subscribe(stream, "all")
            case "another epoch":
                actor.subscribe(stream, "another epoch")
            case "publish":
                actor.publish(stream, count)
            case "retry":
                actor.retry(stream, count)
            case "state" if stream in actor.numbers:
                actor.give(wire.Publish(actor.numbers[stream], 1, count, None, sealed_of(count)))
            case "unsubscribe" if stream in actor.numbers:
                actor.give(wire.Unsubscribe(actor.numbers.get(stream, 0)))
            case "erase" if stream in actor.numbers:
                actor.erasures.add(actor.numbers[stream])
                actor.give(wire.Erase(actor.numbers[stream]))
            case "export" if stream in actor.numbers:
                actor.give(wire.Export(actor.numbers[stream], count))
            case "stop" if client is not None:
                client.stop()
            case "take" if client is not None and client.room is not None:
                client.room += count * 200
            case "take all" if client is not None:
                client.room = None
            case "cut":
                actor.cut()
            case "write" if self.writes.waiting:
                self.writes.make()
            case "written" if self.writes.made:
                self.writes.answer()
            case "write fails" if self.writes.waiting:
                self.writes.broken = True
                self.writes.make()
                self.writes.broken = False
            case "read" if self.reads.waiting:
                self.reads.make()
            case "is read" if self.reads.made:
                self.reads.answer()
            case "read fails" if self.reads.waiting:
                self.reads.broken = True
                self.reads.make()
                self.reads.broken = False
            case "tick":
                self.net.hub.replay.tick()
            case "stores":
                for store in (self.reads, self.writes):
                    if store.waiting:
                        store.make()
                    if store.made:
                        store.answer()
            case "settle":
                self.net.settle()
        if what in ("take", "take all", "turn", "cut"):
            self.net.turn()
        for each in self.actors:
            each.check()

    def end(self) -> None:
        """Everything works again, and everybody takes everything."""
        for actor in self.actors:
            if actor.client is not None:
                actor.client.room = None
        for _ in range(1000):
            self.net.hub.now_ns += int(REST_S * 10**9)
            self.net.hub.replay.tick()
            self.reads.run()
            self.writes.run()
            self.net.settle()
            for actor in self.actors:
                actor.check()
            hub = self.net.hub
            if not (self.reads.waiting or self.writes.waiting or hub.replay._stalled or hub.budget.waiting):
                break
        inside = self.net.hub
        assert inside.settled
        assert not inside.replay._catching
        for actor in self.actors:
            if actor.client is None:
                continue
            assert actor.asked == {}
            assert actor.client.peer.unacked == 0  # type: ignore[attr-defined]
            assert not actor.client.peer.box.lagging
            assert actor.client.peer.box.standing is None
            for number, subscription in actor.subscriptions.items():
                stream = inside._numbers[number]
                assert (subscription.epoch, subscription.next) == (stream.epoch, stream.head + 1)
        for stream in inside.streams.values():
            assert stream.head == stream.served == self.store._by_number[stream.number].head
        if self.retains:
            self._all_acknowledged_are_held()

    def _all_acknowledged_are_held(self) -> None:
        for stream, member, id_ in self.acknowledged:
            number = self.number(stream)
            epoch = self.store._by_number[number].epoch
            seq = self.store.ids.get((number, epoch, self.handle(stream, member), id_))
            if seq is not None:  # else it belonged to an epoch that was erased
                (record, *_) = self.store.read(number, seq - 1, 1)
                assert (record.seq, record.id) == (seq, id_)


OFTEN = ["publish", "publish", "turn", "turn", "turn", "stores", "stores", "take"]
ALWAYS = [*OFTEN, "subscribe", "resume", "everything", "unsubscribe", "stop", "take all", "settle", "write", "read"]
SELDOM = [*ALWAYS, "retry", "another epoch", "write fails", "read fails", "written", "is read", "state", "cut", "erase"]
SELDOM += ["export", "tick", "connect"]

step = st.tuples(
    st.one_of(st.sampled_from(OFTEN), st.sampled_from(ALWAYS), st.sampled_from(SELDOM)),
    st.integers(0, MEMBERS - 1),
    st.sampled_from([STREAMS[0], STREAMS[0], STREAMS[0], STREAMS[1]]),
    st.integers(1, 12),
)


@pytest.fixture(autouse=True)
def _tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "FANOUT_SLICE_SENDS", 2)
    monkeypatch.setattr(replay, "REPLAYS_PER_TURN", 2)
    monkeypatch.setattr(sequencer, "GROUPS_PER_RUN_MAX", 2)
    for module in (fanout, replay, outbox):
        monkeypatch.setattr(module, "REPLAY_BYTES", 1_000)
    monkeypatch.setattr(outbox, "DURABLE_QUEUE_BYTES_MAX", 3_000)


@given(
    st.booleans(),
    st.lists(st.sampled_from(["subscribe", "everything"]), min_size=MEMBERS, max_size=MEMBERS),
    st.lists(step, min_size=40, max_size=200),
)
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_any_interleaving(forgets: bool, first: list[str], steps: list[tuple[str, int, int, int]]) -> None:
    world = World(4_000 if forgets else 1 << 30)
    for who, how in enumerate(first):
        world.step(how, who, STREAMS[0], 1)
        world.reads.run()
        world.net.settle()
        world.step("turn", who, STREAMS[0], 1)
    for what, who, stream, count in steps:
        world.step(what, who, stream, count)
    world.end()
