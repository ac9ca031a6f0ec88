"""A relay of a few lines over plain TCP, honest but for what a test plants in it, and its dialect.

A frame: length u32, kind, two numbers u64, the rest. R ready; J join (after + 1 or 0, epoch; use, topic) and joined (epoch,
head); P publish (id, durable); A acknowledged (id, seq); D record (seq); E state; G gap (first, last).
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from loadtests.address import Address
from loadtests.dialects.base import (
    Attach,
    Event,
    Features,
    Gap,
    Place,
    Published,
    Ready,
    State,
    Subscribed,
)

HEAD = struct.Struct(">IcQQ")
BUFFER_BYTES = 32_768
BACKLOG_BYTES = 163_840
"""More than a publisher has under way: who reads hardly ever has so much waiting."""
EVERYTHING = Features(
    numbers=True, acknowledges=True, resumes=True, ephemeral=True, times=False, echoes=True, idempotent=True
)


def frame(kind: bytes, a: int = 0, b: int = 0, rest: bytes = b"") -> bytes:
    return HEAD.pack(len(rest), kind, a, b) + rest


def frames(data: bytes) -> tuple[list[tuple[bytes, int, int, bytes]], bytes]:
    """Return the whole frames in `data`, and what is left."""
    found, start = [], 0
    while len(data) - start >= HEAD.size:
        length, kind, a, b = HEAD.unpack_from(data, start)
        end = start + HEAD.size + length
        if end > len(data):
            break
        found.append((kind, a, b, data[start + HEAD.size : end]))
        start = end
    return found, data[start:]


class Planted:
    """The dialect. It claims everything that there is."""

    features: ClassVar[Features] = EVERYTHING

    def __init__(self, place: Place, *, random_bits: Callable[[int], int] = random.getrandbits) -> None:
        self._stream = 0
        self._rest = b""

    def opening(self) -> bytes:
        return b""

    def receive(self, data: bytes) -> list[Event]:
        found, self._rest = frames(self._rest + data)
        return [self._event(*one) for one in found]

    def _event(self, kind: bytes, a: int, b: int, rest: bytes) -> Event:
        events: dict[bytes, Callable[[], Event]] = {
            b"R": lambda: Ready(None),
            b"J": lambda: Subscribed(self._stream, a, b, True),
            b"A": lambda: Published(a, b),
            b"D": lambda: (self._stream, a, None, rest),
            b"E": lambda: State(self._stream, b"", 0, rest),
            b"G": lambda: Gap(self._stream, a, b),
        }
        return events[kind]()

    def subscribe(self, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> bytes:
        self._stream = attach.stream
        after_1 = 0 if after is None else after + 1
        return frame(b"J", after_1, epoch or 0, bytes((attach.use,)) + attach.name)

    def publish(self, stream: int, id: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> bytes:  # noqa: A002
        return frame(b"P", id, durable, sealed)

    def unsubscribe(self, stream: int) -> bytes:
        return b""

    ack: Any = unsubscribe
    time: Any = unsubscribe

    def close(self, code: int = 1000) -> bytes:
        return b""


class Humble(Planted):
    """The dialect of a relay that has nothing but delivery."""

    features: ClassVar[Features] = Features(
        numbers=False, acknowledges=False, resumes=False, ephemeral=False, times=False, echoes=False
    )


@dataclass(kw_only=True)
class Plants:
    """What is wrong with it; nothing as it comes."""

    acks_last: bool = False
    drops_every: int = 0
    """Of the copies of its first member."""
    swaps_every: int = 0
    own_order: bool = False
    """Its first member gets two records at a time, the later first."""
    repeats_retries: bool = False
    stalled: str = "kept"
    """What becomes of its first member when that does not read: kept, silent, told, closed or stuck."""
    resumes: bool = True
    replays_twice: bool = False
    hurries_states: bool = False
    largest: int = 1 << 30
    acks_too_large: bool = False
    forgets: str = ""
    """When: stop, kill, or both; its epoch stays."""
    tells_forgetting: bool = True


@dataclass
class Stream:
    records: list[bytes] = field(default_factory=list)
    ids: dict[bytes, int] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)


class Member:
    """One connection to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.heard = b""
        self.out = bytearray()
        self.stream: Stream | None = None
        self.copies = 0
        self.held: list[bytes] = []
        self.missed: list[int] = []
        self.stuck = False


class PlantedRelay:
    """Serves in a thread, on loopback, until `stop`; what it stored stays, unless it was to forget."""

    def __init__(self, plants: Plants) -> None:
        self.plants = plants
        self.epoch = 7
        self._streams: defaultdict[bytes, Stream] = defaultdict(Stream)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Address:
        listener = socket.create_server(("127.0.0.1", 0))
        self._over.clear()
        self._thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
        self._thread.start()
        return Address(host="127.0.0.1", port=listener.getsockname()[1], tls=False, websocket=False)

    def stop(self) -> int | None:
        self._end("stop")
        return 0

    def kill(self) -> None:
        self._end("kill")

    def _end(self, how: str) -> None:
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._thread = None
        for stream in self._streams.values():
            stream.members.clear()
        if self.plants.forgets in (how, "both"):
            self._streams.clear()
            self.epoch += self.plants.tells_forgetting

    def _serve(self, listener: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, listener:
            selector.register(listener, selectors.EVENT_READ)
            while not self._over.is_set():
                for key, mask in selector.select(0.01):
                    if key.data is None:
                        self._accept(listener, selector)
                    elif not self._serve_one(key.data, mask):
                        self._drop(selector, key.data)
                for key in list(selector.get_map().values()):
                    if key.data is not None and key.data.out and key.data.socket.fileno() >= 0:
                        selector.modify(key.data.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, key.data)
            for key in list(selector.get_map().values()):
                if key.data is not None:
                    key.data.socket.close()

    def _accept(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        member = Member(sock)
        selector.register(sock, selectors.EVENT_READ, member)
        self._send(member, frame(b"R"))

    def _drop(self, selector: selectors.BaseSelector, member: Member) -> None:
        selector.unregister(member.socket)
        member.socket.close()
        if member.stream is not None and member in member.stream.members:
            member.stream.members.remove(member)

    def _serve_one(self, member: Member, mask: int) -> bool:
        """Return whether the connection goes on."""
        if mask & selectors.EVENT_WRITE:
            self._send(member, b"")
        if mask & selectors.EVENT_READ:
            try:
                data = member.socket.recv(1 << 20)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            found, member.heard = frames(member.heard + data)
            return all(self._hear(member, *one) for one in found)
        return True

    def _hear(self, member: Member, kind: bytes, a: int, b: int, rest: bytes) -> bool:
        if kind == b"J":
            self._join(member, rest[0], self._streams[rest[1:]], a, b)
            return True
        assert member.stream is not None
        if b:
            return self._publish(member, member.stream, a, rest)
        for other in member.stream.members:
            self._send(other, frame(b"E", rest=rest), first=self.plants.hurries_states)
        return True

    def _join(self, member: Member, use: int, stream: Stream, after_1: int, epoch: int) -> None:
        member.stream = stream
        self._send(member, frame(b"J", self.epoch, len(stream.records)))
        if after_1 and self.plants.resumes:
            after = after_1 - 1 if epoch == self.epoch else 0
            for _ in range(2 if self.plants.replays_twice else 1):
                for seq, record in enumerate(stream.records[after:], after + 1):
                    self._send(member, frame(b"D", seq, rest=record))
        if use & 1:
            stream.members.append(member)

    def _publish(self, member: Member, stream: Stream, id_: int, sealed: bytes) -> bool:
        if len(sealed) > self.plants.largest:
            if self.plants.acks_too_large:
                self._send(member, frame(b"A", id_, 1))
            return self.plants.acks_too_large
        known = stream.ids.get(sealed)
        if known is not None and not self.plants.repeats_retries:
            self._send(member, frame(b"A", id_, known))
            return True
        stream.records.append(sealed)
        seq = stream.ids[sealed] = len(stream.records)
        if not self.plants.acks_last:
            self._send(member, frame(b"A", id_, seq))
        for place, other in enumerate(stream.members):
            self._deliver(other, seq, sealed, first=place == 0)
        if self.plants.acks_last:
            self._send(member, frame(b"A", id_, seq))
        return True

    def _deliver(self, member: Member, seq: int, sealed: bytes, *, first: bool) -> None:
        plants = self.plants
        member.copies += 1
        if first and plants.drops_every and member.copies % plants.drops_every == 0:
            return
        data = frame(b"D", seq, rest=sealed)
        late = (first and plants.own_order) or (plants.swaps_every and member.copies % plants.swaps_every == 1)
        if member.held:
            data += member.held.pop()
        elif late:
            member.held.append(data)
            return
        if member.stuck:
            return
        if first and len(member.out) > BACKLOG_BYTES and plants.stalled != "kept":
            if plants.stalled == "closed":
                with contextlib.suppress(OSError):  # it may have gone by itself
                    member.socket.shutdown(socket.SHUT_WR)
                member.out.clear()
                member.stuck = True
            elif plants.stalled == "stuck":
                member.stuck = True
            else:
                member.missed.append(seq)
            return
        if member.missed and plants.stalled == "told":
            self._send(member, frame(b"G", member.missed[0], member.missed[-1]))
        member.missed.clear()
        self._send(member, data)

    @staticmethod
    def _send(member: Member, data: bytes, *, first: bool = False) -> None:
        if first:
            member.out[:0] = data
        else:
            member.out += data
        with contextlib.suppress(OSError):
            del member.out[: member.socket.send(member.out)]


@contextlib.contextmanager
def serving(**plants: Any) -> Iterator[tuple[PlantedRelay, Address]]:
    with PlantedRelay(Plants(**plants)) as relay:
        yield relay, relay.start()
