"""Clients on a Hub without any I/O: a transport in which a socket takes as many bytes as the test lets it.

What the relay sends is read by the load's own frame reader, which shares no code with the relay's framing.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from nacl.signing import SigningKey

from loadtests.dialects.frames import CLOSE, PING, PONG, Control, Fault, FrameReader, client_frame
from relay import capability, wire
from relay.errors import StoreUnavailable
from relay.hub import Hub
from relay.peer import Echo, Peer, Stage
from relay.session import Rates, Session
from relay.store import MemoryStore
from relay.stream import inline

NOW_NS = 1_750_000_000 * 10**9
SECOND_NS = 10**9
ALL = 15
SUBSCRIBE, PUBLISH, ERASE, EXPORT = 1, 2, 4, 8


def stream_key(index: int) -> SigningKey:
    return SigningKey(index.to_bytes(32, "big"))


def capability_of(index: int = 1, member: int = 1, *, rights: int = ALL, expires_s: int = 2**40, **rest: Any) -> bytes:
    """A capability for the stream `index`, told apart by `member`; the same arguments give the same bytes."""
    serial = member.to_bytes(8, "big")
    return capability.mint(stream_key(index), rights=rights, expires_s=expires_s, serial=serial, **rest)


def sealed_of(label: int = 0, size: int = 256) -> bytes:
    """A payload of sealed form that can be told from others by its label."""
    return b"\x01\x01" + label.to_bytes(8, "big") + bytes(size - 10)


def label_of(sealed: bytes) -> int:
    return int.from_bytes(sealed[2:10], "big")


class Later:
    """Store calls that are made when the test says so, in their order; `broken` makes them fail."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]] = deque()
        self.made: deque[tuple[Callable[[Any, Exception | None], None], Any, Exception | None]] = deque()
        self.broken = False

    def submit(self, call: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        self.waiting.append((call, done))

    def make(self) -> None:
        """Make the oldest call; its result does not come back yet."""
        call, done = self.waiting.popleft()
        if self.broken:
            self.made.append((done, None, StoreUnavailable("the test broke it")))
            return
        inline(call, lambda result, error: self.made.append((done, result, error)))

    def answer(self) -> None:
        """Bring the oldest result back."""
        done, result, error = self.made.popleft()
        done(result, error)

    def run(self) -> None:
        """Make all calls, those that follow from answers too."""
        while self.waiting or self.made:
            if self.waiting:
                self.make()
            else:
                self.answer()


class Client:
    """A peer of the relay with its socket. `room` None: the socket takes everything."""

    def __init__(self, net: Net, peer: Peer) -> None:
        self.net = net
        self.peer = peer
        self.room: int | None = None
        self.writing = False
        self.reading = True
        self.unread = b""
        self.gone = False
        self.records: list[Any] = []
        self.texts: list[bytes] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closed: int | None = None
        self.numbers: dict[int, int] = {}
        self._frames = FrameReader()
        self._mask = itertools.count(0x01020304, 0x01010101)
        self._requests = itertools.count(1)
        peer.box.owner = self

    # -- what the test does ------------------------------------------------------------------------

    def give(self, data: bytes) -> None:
        """Bytes arrive at the relay; nothing else happens yet."""
        if not self.reading or self.peer.behind:
            self.unread += data
            return
        self.peer.heard_ns = self.net.hub.now_ns
        self.peer.receive_data(data)

    def read_on(self) -> None:
        """The relay reads again: what came meanwhile arrives."""
        unread, self.unread = self.unread, b""
        if unread:
            self.give(unread)

    def frame(self, payload: bytes, opcode: int = 2) -> bytes:
        return client_frame(payload, next(self._mask) & 0xFFFFFFFF, opcode)

    def send(self, *records: Any) -> list[Any]:
        """Send the records in one message, let the relay do everything, and return what came."""
        self.give(self.frame(b"".join(map(wire.encode, records))))
        self.net.settle()
        return self.pop()

    def pop(self) -> list[Any]:
        """Return what has come since the last time."""
        records, self.records = self.records, []
        return records

    def subscribe(
        self,
        index: int = 1,
        use: int = SUBSCRIBE | PUBLISH,
        *,
        member: int = 1,
        epoch: int | None = None,
        after: int | None = None,
        cap: bytes | None = None,
        proof: bytes | None = None,
    ) -> list[Any]:
        """Subscribe, let the relay do everything, and return what came."""
        request = next(self._requests)
        cap = capability_of(index, member) if cap is None else cap
        return self.send(wire.Subscribe(request, cap, use, proof, epoch, after))

    def publish(self, number: int, *labels: int, size: int = 256) -> list[Any]:
        """Publish durable records whose label is also their id, one message each, all in one read."""
        records = [wire.Publish(number, 0, label, None, sealed_of(label, size)) for label in labels]
        self.give(b"".join([self.frame(wire.encode(record)) for record in records]))
        self.net.settle()
        return self.pop()

    def stop(self) -> None:
        """Take nothing more."""
        self.room = 0

    def take(self, count: int | None = None) -> list[Any]:
        """Take up to `count` bytes more (None: everything from now on), and return what came."""
        self.room = None if count is None else (self.room or 0) + count
        self.net.settle()
        return self.pop()

    def cut(self) -> None:
        """The connection breaks."""
        if not self.gone:
            self.gone = True
            self.peer.box.owner = None
            self.peer.lost()

    # -- what the socket does ----------------------------------------------------------------------

    def accept(self, data: bytes | memoryview) -> int:
        count = len(data) if self.room is None else min(len(data), self.room)
        if self.room is not None:
            self.room -= count
        for item in self._frames.feed(bytes(data[:count])):
            assert not isinstance(item, Fault), item
            if isinstance(item, Control):
                assert item.opcode in (CLOSE, PING, PONG)
                if item.opcode == CLOSE:
                    assert self.closed is None
                    self.closed = item.close()[0]
                elif item.opcode == PING:
                    self.pings.append(item.payload)
                else:
                    self.pongs.append(item.payload)
            elif isinstance(self.peer, Echo):
                self.texts.append(item)
            else:
                assert self.closed is None, "a record after the close frame"
                self.records += wire.decode_relay(item)
        return count


class Net:
    """A hub and its clients, served as the pump serves them."""

    @staticmethod
    def _report(error: Exception) -> None:
        raise error  # no test provokes a fault of the relay's own without saying so

    def __init__(
        self, store: Any = None, *, read: Any = inline, write: Any = inline, suites: range = range(1, 128)
    ) -> None:
        epochs = itertools.count(1000)
        self.store = store or MemoryStore(bytes(32))
        self.hub = Hub(
            self.store, new_epoch=epochs.__next__, read=read, write=write, suites=suites, report=self._report
        )
        self.hub.now_ns = NOW_NS
        self.clients: list[Client] = []

    def connect(self, *, hello: bool = True, rates: Rates | None = None, echo: bool = False) -> Client:
        peer = Echo(self.hub) if echo else Session(self.hub, bytes(31) + b"\x07", rates or Rates())
        client = Client(self, peer)
        self.clients.append(client)
        if hello and not echo:
            assert isinstance(client.send(wire.Hello(1))[0], wire.Welcome)
        return client

    def attached(self, index: int = 1, use: int = SUBSCRIBE | PUBLISH, **options: Any) -> tuple[Client, int]:
        """Connect and subscribe; return the client and the stream's number."""
        client = self.connect()
        answer = client.subscribe(index, use, **options)[0]
        assert isinstance(answer, wire.Subscribed)
        return client, answer.number

    def later(self, seconds: float) -> None:
        """Let time pass, and the time limits be looked at."""
        self.hub.now_ns += int(seconds * SECOND_NS)
        self.hub.replay.tick()
        for client in self.clients:
            if not client.gone:
                client.peer.tick()
        self.settle()

    def turn(self) -> bool:
        """One turn: the hub's, then every filled outbox, then peers that ended."""
        for client in self.clients:
            if client.writing and client.room != 0 and not client.gone:
                self._writable(client)
        more = self.hub.turn()
        caught_up, self.hub.budget.caught_up = self.hub.budget.caught_up, []
        for waited in caught_up:
            if waited.box.owner is not None:
                waited.box.owner.read_on()
                more = True
        fanout = self.hub.fanout
        while fanout.dirty:
            dirty, fanout.dirty = fanout.dirty, []
            for box in dirty:
                box.dirty = False
                if box.owner is not None:
                    self._flush(box.owner)
        ended, self.hub.ended = self.hub.ended, []
        for peer in ended:
            client = peer.box.owner
            if client is not None and (peer.overdue or not client.writing):
                client.cut()
        return more

    def settle(self) -> None:
        """Take turns until nothing is to be done."""
        for _ in range(100_000):
            writable = any(c.writing and c.room != 0 and not c.gone for c in self.clients)
            if not self.turn() and not writable and not self.hub.fanout.dirty:
                return
        raise AssertionError("the hub does not come to rest")

    def _flush(self, client: Client) -> None:
        box = client.peer.box
        if client.writing:
            box.stand()
        else:
            data = box.gather()
            sent = client.accept(data)
            if sent == len(data):
                box.pending.clear()
                return
            box.wrote(sent)
            client.writing = True
            client.peer.progress_ns = self.hub.now_ns
        if box.overflowing:
            self.hub.replay.fall_behind(client.peer)
        if box.choked:
            client.reading = False

    def _writable(self, client: Client) -> None:
        box = client.peer.box
        data = box.gather()
        sent = client.accept(data)
        if sent:
            client.peer.progress_ns = self.hub.now_ns
        if sent == len(data):
            box.pending.clear()
        else:
            box.wrote(sent)
        if not client.reading and not box.choked:
            client.reading = True
            client.read_on()
        if box.standing is None:
            client.writing = False
            if client.peer.state == Stage.ENDED:
                client.cut()
            else:
                self.hub.replay.drained(client.peer)


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
    """The sequence numbers of the MESSAGEs."""
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


def big(retain: int = 1 << 26) -> MemoryStore:
    return MemoryStore(bytes(32), retain_stream_bytes_max=retain)


def held(net: Net, number: int) -> list[int]:
    return [record.seq for record in net.store.read(number, 0, 1 << 30)]
