"""Relays with any set of features, honest or not, and participants on them: one thread, no socket, no clock but this one.

`World` plays a whole run, master's part included, and keeps what came to whom, for an oracle to count.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, ClassVar, NamedTuple

import pytest

from loadtests.accounting.settlement import SentLog, Settlement, Totals
from loadtests.dialects.base import (
    Attach,
    Event,
    Features,
    Place,
    Published,
    Ready,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.driver.population import Population
from loadtests.sealing.records import Stamp
from loadtests.settings import Settings

START_NS = 1_000_000_000_000
LATENCY_NS = 20_000_000
SECOND_NS = 1_000_000_000
EPOCH = 7
_CLOCKS = ("publisher", "recipient", "population", "clock_probe")


class Loop:
    """The event loop's due times and connections, in virtual time."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.now_ns = START_NS
        self.descriptors_exhausted = self.ports_exhausted = 0
        self._heap: list[tuple[int, int, Callable[[int, int], None]]] = []
        self._pushed = 0
        relay.loop = self

    def clock(self) -> int:
        return self.now_ns

    def at(self, due_ns: int, callback: Callable[[int, int], None]) -> None:
        self._pushed += 1
        heappush(self._heap, (due_ns, self._pushed, callback))

    def connect(self, handler: Any, address: object, *, piece_bytes: int | None = None) -> Connection:
        return Connection(self, handler)

    def stop(self) -> None:
        self._heap.clear()

    def __len__(self) -> int:
        return 0

    def advance(self, to_ns: int) -> None:
        while self._heap and self._heap[0][0] <= to_ns:
            due_ns, _, callback = heappop(self._heap)
            self.now_ns = max(self.now_ns, due_ns)
            callback(due_ns, self.now_ns)
        self.now_ns = max(self.now_ns, to_ns)

    def advance_until(self, done: Callable[[], bool], patience_ns: int) -> bool:
        end_ns = self.now_ns + patience_ns
        while not done():
            if self.now_ns >= end_ns:
                return False
            self.advance(self.now_ns + 20_000_000)
        return True


class Connection:
    """A line with a latency. What is on its way to the relay when it breaks may still arrive, in order up to a point."""

    def __init__(self, loop: Loop, handler: Any) -> None:
        self._loop = loop
        self.handler = handler
        self.member: int = handler._place_in_line
        self.open = False
        self.blocked = False
        self._arrives_until: float = float("inf")
        self._sent = self._arrived = 0
        self._free_ns = 0
        self.streams: dict[int, Attach] = {}
        loop.at(loop.now_ns + LATENCY_NS, self._connected)

    def _connected(self, _due_ns: int, now_ns: int) -> None:
        if self._arrives_until == float("inf"):
            self.open = True
            self.handler.connected(now_ns)

    def send(self, data: bytes) -> None:
        for request in _taken(data):
            if self.open:
                self._sent += 1
                self._loop.at(self._loop.now_ns + LATENCY_NS, self._arrive(request, self._sent))

    def _arrive(self, request: tuple[Any, ...], number: int) -> Callable[[int, int], None]:
        def arrive(_due_ns: int, _now_ns: int) -> None:
            if number <= self._arrives_until:
                self._arrived = number
                self._loop.relay.take(self, request)

        return arrive

    def deliver(self, event: Event, delay_ns: int = 0) -> None:
        """Called by the relay: the event comes after the latency, in order unless it is delayed on purpose."""
        due_ns = max(self._loop.now_ns + LATENCY_NS, self._free_ns)
        if not delay_ns:
            self._free_ns = due_ns

        def come(_due_ns: int, now_ns: int) -> None:
            if self.open:
                self._loop.relay.witness(self, event, now_ns)
                self.handler.received(_token(event), now_ns)

        self._loop.at(due_ns + delay_ns, come)

    def break_off(self) -> None:
        """The line is cut by neither end: both learn of it, what is under way arrives up to a random point."""
        if self.open:
            self._end()
            self.handler.closed("cut", self._loop.now_ns)

    def abort(self) -> None:
        self._end()

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._arrives_until == float("inf"):
            self._arrives_until = self._loop.relay.chance.randint(self._arrived, self._sent)
            self.open = False
            self._loop.relay.gone(self)

    def resume(self) -> None:
        """Reading is never paused here."""


_tokens: dict[bytes, Any] = {}


def _token(what: Any) -> bytes:
    key = len(_tokens).to_bytes(8, "big")
    _tokens[key] = what
    return key


def _taken(data: bytes) -> list[Any]:
    return [_tokens[data[at : at + 8]] for at in range(0, len(data), 8)]


class Scripted:
    """A dialect whose bytes are names of Python objects; the features are its subclass's."""

    features: ClassVar[Features]

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self.place = place

    def opening(self) -> bytes:
        return _token(("hello",))

    def receive(self, data: bytes) -> list[Event]:
        return _taken(data)

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        if self.features.one_stream:
            assert self.place.attach == attach
            assert attach.use in (1, 2)
        return _token(("subscribe", attach, after))

    def unsubscribe(self, stream: int) -> bytes:
        return _token(("unsubscribe", stream))

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        assert durable or self.features.ephemeral
        return _token(("publish", stream, id, sealed, durable))

    def ack(self, stream: int, upto: int) -> bytes:
        return b""

    def time(self, sent_ns: int) -> bytes:
        return b""

    def close(self, code: int = 1000) -> bytes:
        return b""


@dataclass
class Lies:
    """What a dishonest relay does: every n-th delivery or publish, 0 for never."""

    drops: int = 0
    repeats: int = 0
    swaps: int = 0
    delays: int = 0
    drops_publishes: int = 0
    """It acknowledges what it drops."""
    skips_numbers: int = 0
    """It gives a number to nothing."""
    delay_ns: int = 12 * SECOND_NS


class Took(NamedTuple):
    seq: int
    sealed: bytes
    member: int


@dataclass
class Stream:
    log: list[Took] = field(default_factory=list)
    numbered: int = 0
    readers: dict[Connection, list[tuple[Event, int]]] = field(default_factory=dict)
    """Who receives, and what is held back to be swapped."""


class Came(NamedTuple):
    """Something that reached a participant. `what`: joined (with head and after), record, state or left (with head)."""

    what: str
    now_ns: int
    seq: int | None = None
    sealed: bytes = b""
    after: int | None = None


class Relay:
    """The other end. Records are numbered whether it tells the numbers or not."""

    loop: Loop

    def __init__(self, features: Features, lies: Lies, seed: int) -> None:
        self.features = features
        self.lies = lies
        self.chance = random.Random(seed)
        self.streams: defaultdict[int, Stream] = defaultdict(Stream)
        self.known: dict[tuple[int, int, int], int] = {}
        self.connections: dict[Connection, None] = {}
        self.came: defaultdict[tuple[int, int], list[Came]] = defaultdict(list)
        self.asked: dict[tuple[int, int], int | None] = {}
        self.has: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        """What a member got of a stream: a relay that resumes without numbers knows it by acknowledgements of its own."""
        self.published: dict[tuple[int, int], int] = {}
        self.own: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        """By member and stream: the numbers of its own records that it was told."""
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.told: defaultdict[str, int] = defaultdict(int)

    @property
    def _echoes(self) -> bool:
        return self.features.echoes or self.features.one_stream

    # -- what comes to it --------------------------------------------------------------------------

    def take(self, connection: Connection, request: tuple[Any, ...]) -> None:
        what, *arguments = request
        getattr(self, "_" + what)(connection, *arguments)

    def gone(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        for stream in self.streams.values():
            stream.readers.pop(connection, None)

    def _hello(self, connection: Connection) -> None:
        self.connections[connection] = None
        connection.deliver(Ready(None))

    def _subscribe(self, connection: Connection, attach: Attach, after: int | None) -> None:
        if not connection.open:
            return
        stream = self.streams[attach.stream]
        connection.streams[attach.stream] = attach
        numbers = self.features.numbers
        epoch, head = (EPOCH, stream.numbered) if numbers else (None, None)
        if attach.use & 1:
            self.asked[connection.member, attach.stream] = after
        connection.deliver(Subscribed(attach.stream, epoch, head, after is not None))
        if not attach.use & 1:
            return
        stream.readers[connection] = []
        if after is not None:
            assert self.features.resumes
            has = self.has[connection.member, attach.stream]
            for took in stream.log:
                missed = took.seq > after if numbers else took.seq not in has
                if missed and (self._echoes or took.member != connection.member):
                    self._deliver(connection, attach.stream, took)

    def _unsubscribe(self, connection: Connection, number: int) -> None:
        stream = self.streams[number]
        for event, delay_ns in stream.readers.pop(connection, []):
            connection.deliver(event, delay_ns)
        connection.deliver(Unsubscribed(number, stream.numbered if self.features.numbers else None))

    def _publish(self, connection: Connection, number: int, id_: int, sealed: bytes, durable: bool) -> None:
        assert connection.streams[number].use & 2
        stream = self.streams[number]
        if not durable:
            for reader in list(stream.readers):
                if self._echoes or reader is not connection:
                    self._say(reader, number, State(number, b"", 0, sealed))
            return
        self.published[connection.member, id_] = number
        known = self.known.get((connection.member, number, id_))
        if known is None or not self.features.idempotent:
            if self._lies("drops_publishes"):
                self._published(connection, id_, stream.numbered or 1)
                return
            stream.numbered += 2 if self._lies("skips_numbers") else 1
            known = self.known[connection.member, number, id_] = stream.numbered
            took = Took(stream.numbered, sealed, connection.member)
            stream.log.append(took)
            for reader in list(stream.readers):
                if self._echoes or reader is not connection:
                    self._deliver(reader, number, took)
        self._published(connection, id_, known)

    def _published(self, connection: Connection, id_: int, seq: int) -> None:
        if self.features.acknowledges:
            connection.deliver(Published(id_, seq if self.features.numbers else None))

    # -- what goes from it -------------------------------------------------------------------------

    def _lies(self, how: str) -> bool:
        """Return whether it is time for this lie; they come at other deliveries each."""
        every = getattr(self.lies, how)
        self.counts[how] += 1
        lies = bool(every) and self.counts[how] % every == len(how) % every
        self.told[how] += lies
        return lies

    def _deliver(self, reader: Connection, number: int, took: Took) -> None:
        self._say(reader, number, (number, took.seq if self.features.numbers else None, None, took.sealed))

    def _say(self, reader: Connection, number: int, event: Any) -> None:
        held = self.streams[number].readers[reader]
        if self._lies("drops"):
            return
        if self._lies("swaps"):
            held.append((event, 0))
            return
        reader.deliver(event, self.lies.delay_ns if self._lies("delays") else 0)
        if self._lies("repeats"):
            reader.deliver(event)
        for late, delay_ns in held:
            reader.deliver(late, delay_ns)
        held.clear()

    # -- for the oracle ----------------------------------------------------------------------------

    def witness(self, connection: Connection, event: Any, now_ns: int) -> None:
        """Note what is about to reach a participant."""
        member = connection.member
        if type(event) is tuple:
            number, seq, _, sealed = event
            if self.features.resumes and not self.features.numbers:
                self.has[member, number] |= {took.seq for took in self.streams[number].log if took.sealed is sealed}
            self.came[member, number].append(Came("record", now_ns, seq, sealed))
        elif isinstance(event, State):
            self.came[member, event.stream].append(Came("state", now_ns, None, event.sealed))
        elif isinstance(event, Subscribed) and connection.streams[event.stream].use & 1:
            after = self.asked[member, event.stream]
            self.came[member, event.stream].append(Came("joined", now_ns, event.head, b"", after))
        elif isinstance(event, Published) and event.seq is not None:
            self.own[member, self.published[member, event.id]].add(event.seq)
        elif isinstance(event, Unsubscribed):
            self.came[member, event.stream].append(Came("left", now_ns, event.head))


@dataclass
class World:
    """A run of a scenario on a relay with these features, several workers in one thread."""

    features: Features
    lies: Lies
    scenario: str = "room"
    participants: int = 5
    rate: float = 20.0
    duration_s: float = 3.0
    workers: int = 1
    seed: int = 1
    cuts: int = 0
    """Lines broken at random moments of the load, besides those of the scenario."""
    drain_s: float = 20.0

    def run(self) -> Totals:
        _tokens.clear()
        self.relay = Relay(self.features, self.lies, self.seed)
        self.loop = Loop(self.relay)
        with _virtual_clock(self.loop):
            return self._run()

    def _run(self) -> Totals:
        settings = Settings(
            scenario=self.scenario,
            url="ws://127.0.0.1:9",
            participants=self.participants,
            rate=self.rate,
            duration_s=self.duration_s,
            seed=self.seed,
            drain_s=self.drain_s,
            run="virtual",
        )
        self.populations = [self._population(settings, worker) for worker in range(self.workers)]
        for index in range(self.participants):
            self.populations[index % self.workers].enter(index)
        presences = [population.context.presence for population in self.populations]
        assert self.loop.advance_until(
            lambda: all(presence.joined_first == presence.expected_first for presence in presences), 10 * SECOND_NS
        )
        self.start_ns = self.loop.now_ns + SECOND_NS // 2
        for population in self.populations:
            population.begin(self.start_ns, 1)
        self._plan_cuts()
        drain_ns = int(self.drain_s * 1e9)
        self.loop.advance(self.start_ns + int(self.duration_s * 1e9) + LATENCY_NS)
        self.log = SentLog()
        for population in self.populations:
            self.loop.advance_until(lambda population=population: population.silent, drain_ns)  # type: ignore[misc]
            self.log.merge(SentLog.from_wire(population.end_sending().to_wire()))
        finals = self.log.finals()
        for population in self.populations:
            population.drain(finals)
        self.drained_ns: int | None = None
        if not self.loop.advance_until(self._all_gone, drain_ns):
            self.drained_ns = self.loop.now_ns
            for population in self.populations:
                population.count_the_rest_as_late()
            self.loop.advance_until(self._all_gone, SECOND_NS)
        settlement = Settlement()
        for population in self.populations:
            settlement.merge(Settlement.from_wire(population.settle(finals)))
            population.close()
        return settlement.totals(self.log)

    def _population(self, settings: Settings, worker: int) -> Population:
        population = Population(settings, worker=worker)
        population.context.loop.stop()
        population.context.loop = self.loop  # type: ignore[assignment]  # stands in for it
        population.context.dialect_class = type("Scripted", (Scripted,), {"features": self.features})
        return population

    def _all_gone(self) -> bool:
        return all(population.gone for population in self.populations)

    def _plan_cuts(self) -> None:
        for _ in range(self.cuts):
            due_ns = self.start_ns + int(self.relay.chance.random() * self.duration_s * 1e9)
            self.loop.at(due_ns, lambda due_ns, now_ns: self._cut_one())

    def _cut_one(self) -> None:
        there = list(self.relay.connections)
        if there:
            self.relay.chance.choice(there).break_off()

    def stamp_of(self, stream: int, sealed: bytes) -> Stamp:
        credentials = self.populations[0].context.credentials
        plan = self.populations[0].context.workload.streams[stream]
        members = [
            membership.peer
            for index in range(self.participants)
            for membership in self.populations[0].context.workload.participant(index).memberships
            if membership.stream == stream
        ]
        return credentials.opener(stream, plan.owner, members[0]).stamp(sealed)


@contextmanager
def _virtual_clock(loop: Loop) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in _CLOCKS:
            patch.setattr(f"loadtests.driver.{module}.monotonic_ns", loop.clock)
        patch.setattr("loadtests.driver.population.gc.freeze", lambda: None)
        patch.setattr("loadtests.driver.population.gc.collect", lambda: None)
        yield
