"""All streams of a relay: who is attached, states, erasure, export, retention. Sans-IO.

Three helpers do what is done for all streams at once: the sequencer makes records durable, the fan-out serves live
subscribers, the replay those that have a cursor.

A stream has two heights: `head`, the last number given, and `served`, the last one whose fan-out has begun. Subscribers
are told `served` and get everything after it: either they are *live* and take part in each fan-out, or they have a
*cursor* and are replayed from the store until it reaches `served`.

The store's calls go through `read` and `write`: inline for a store that answers at once, else a thread's queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Protocol

from relay import framing, wire
from relay.budget import NS_PER_S, Budget
from relay.capability import Capability, Right, Verifier, handle_of
from relay.counters import Counters
from relay.erasing import Erasures
from relay.errors import Code, Refused
from relay.fanout import FanOut
from relay.limits import (
    ACK_QUORUM_MAX,
    EXPORT_BYTES_MAX,
    INCOMPLETE_BYTES_MAX,
    LEFT_IDS_MAX,
    PUBLISH_WINDOW,
    STREAMS_MAX,
    STREAMS_PER_CONNECTION_MAX,
    TURN_WORK,
)
from relay.outbox import ORDERED, Chunk, Outbox, frame_of
from relay.replay import Replay, end_lag_if_caught_up
from relay.sequencer import Sequencer
from relay.store import Record, Store, StreamState
from relay.stream import Attachment, Client, Stream, Submit, inline


class Ended(Protocol):
    """A connection that the transport may let go; `overdue`: even if something waits to be sent."""

    box: Outbox
    overdue: bool


class Hub:
    """All streams of a relay. `now_ns` (Unix time) is set by the transport at the beginning of each turn.

    `new_epoch` returns 64 random bits; `report` gets the faults of our own that ended a connection.
    """

    def __init__(
        self,
        store: Store,
        *,
        new_epoch: Callable[[], int],
        read: Submit = inline,
        write: Submit = inline,
        suites: range = range(1, 128),
        streams_max: int = STREAMS_MAX,
        incomplete_bytes_max: int = INCOMPLETE_BYTES_MAX,
        report: Callable[[Exception], None],
    ) -> None:
        self.store = store
        self.counters = Counters()
        self.verifier = Verifier()
        self.budget = Budget(incomplete_bytes_max)
        self.streams_max = streams_max
        self._cleared_ns = 0
        self.fanout = FanOut(self.counters)
        self.push = self.fanout.push
        self.now_ns = 0
        self.step_ns = 0
        self.suites = [suite in suites for suite in range(256)]
        self.ended: list[Ended] = []
        self.streams: dict[bytes, Stream] = {}
        self._numbers: dict[int, Stream] = {}
        self._new_epoch = new_epoch
        self._read = read
        self._write = write
        # (number, handle) of the publishers that are not connected -> the weight of their windows; the longest gone first.
        self._left: OrderedDict[tuple[int, bytes], int] = OrderedDict()
        self._left_weight = 0
        self._opening: dict[bytes, list[tuple[Client, Capability, wire.Subscribe]]] = {}
        self.sequencer = Sequencer(store, write, self.fanout, self._numbers, lambda: self.now_ns, lambda: self.wall_ns)
        self.replay = Replay(store, read, self.fanout)
        self._erasures = Erasures(store, write, self._erased)
        self._tidying = False
        self.report = report
        self._exporting: list[Client] = []  # those that this turn answered

    @property
    def wall_ns(self) -> int:
        """The time to tell others: that of the turn, with the steps of the wall clock since the start."""
        return self.now_ns + self.step_ns

    # -- one turn ------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Do what a turn's records ask for; return whether there is more to do at once."""
        if self._exporting:
            for client in self._exporting:
                client.exporting = False
            self._exporting.clear()
        budget, sequencer, erasures = self.budget, self.sequencer, self._erasures
        behind = budget.serve(self.now_ns) if budget.waiting else False
        budget.left = TURN_WORK
        if erasures.waiting:
            erasures.turn()
        sequencer.commit(self.now_ns)
        catching = self.replay.turn()
        more = self.fanout.slice()
        if more or catching or behind:
            return True
        return (sequencer.left_fresh and sequencer.has_more) or (bool(erasures.waiting) and erasures.has_more)

    @property
    def settled(self) -> bool:
        """Whether nothing waits for the store or for its fan-out."""
        return self.sequencer.settled and not self.fanout.queue

    # -- attaching -----------------------------------------------------------------------------------

    def subscribe(self, client: Client, capability: Capability, request: wire.Subscribe) -> None:
        """Attach a client whose capability was checked. SUBSCRIBED follows now, or when the store has answered."""
        key = capability.stream
        stream = self.streams.get(key)
        if stream is not None:
            self._attach(stream, client, capability, request)
        elif key in self._opening:
            self._opening[key].append((client, capability, request))
        elif self._is_crowded():
            client.refuse(Code.CROWDED, wire.SUBSCRIBE, request.request)
        else:
            self._opening[key] = [(client, capability, request)]
            call = partial(self.store.open, key, new_epoch=self._new_epoch(), recent_max=PUBLISH_WINDOW)
            self._read(call, partial(self._opened, key))

    def _is_crowded(self) -> bool:
        """Whether there is no room for another stream; once a second those that nobody uses make some."""
        if len(self.streams) + len(self._opening) < self.streams_max:
            return False
        if self.now_ns - self._cleared_ns >= NS_PER_S:
            self._cleared_ns = self.now_ns
            self._put_away(0)
        return len(self.streams) + len(self._opening) >= self.streams_max

    def _opened(self, key: bytes, state: StreamState | None, error: Exception | None) -> None:
        waiting = self._opening.pop(key)
        if state is None:
            for client, _, request in waiting:
                client.refuse(Code.STORE, wire.SUBSCRIBE, request.request)
            return
        stream = Stream(key, state.number, state.epoch, state.head, state.first, dict(state.acks))
        stream.stamped_ns = state.stamped_ns
        for handle, id_, seq in state.recent:
            stream.window(handle).restore(id_, seq)
        self.streams[key] = self._numbers[state.number] = stream
        for client, capability, request in waiting:
            if not client.ended:
                self._attach(stream, client, capability, request)

    def _attach(self, stream: Stream, client: Client, capability: Capability, request: wire.Subscribe) -> None:
        former = client.attachments.get(stream.number)
        if former is not None:
            self.detach(former)
        elif len(client.attachments) >= STREAMS_PER_CONNECTION_MAX:
            client.refuse(Code.TOO_MANY_STREAMS, wire.SUBSCRIBE, request.request)
            return
        stream.quorum = min(capability.quorum, ACK_QUORUM_MAX)
        handle = handle_of(capability, self.store.secret)
        attachment = Attachment(stream, client, request.use, handle)
        client.attachments[stream.number] = attachment
        stream.attached += 1
        cursor, recovered = _resume_point(stream, request)
        head = max(stream.served, cursor)
        frame = frame_of(wire.Subscribed(request.request, stream.number, stream.epoch, head, recovered))
        # In order: records of a former subscription may still wait.
        self.push(client.box, Chunk(frame, ORDERED, stream.number))
        if not request.use & Right.SUBSCRIBE:
            return
        if cursor == stream.served:
            stream.live[client.box] = attachment
        else:
            self.replay.begin(attachment, cursor)
            self.replay.schedule(attachment)

    def unsubscribe(self, attachment: Attachment) -> None:
        """Detach, and tell the client up to where it was sent everything."""
        client, stream = attachment.client, attachment.stream
        if attachment.cursor is None:
            self.fanout.send_rest_to(stream, client.box)
            head = stream.served
        else:
            head = attachment.cursor
        self.detach(attachment)
        client.box.drop_states(stream.number)
        frame = frame_of(wire.Unsubscribed(stream.number, head))
        self.push(client.box, Chunk(frame, ORDERED, stream.number))

    def detach(self, attachment: Attachment) -> None:
        """Take a client off a stream."""
        stream = attachment.stream
        self.fanout.withdraw(stream, attachment.client.box)
        attachment.client.attachments.pop(stream.number, None)
        attachment.gone = True
        stream.catching.discard(attachment)
        stream.attached -= 1
        stream.idle_since_ns = self.now_ns
        attachment.window.users -= 1
        if attachment.may_publish and not attachment.window.users:
            self._keep_window(stream.number, attachment.handle, attachment.window.weight)
        end_lag_if_caught_up(attachment.client)

    def _keep_window(self, number: int, handle: bytes, weight: int) -> None:
        """A publisher left, and may come back to repeat what it got no answer to; the longest gone are forgotten."""
        left = self._left
        self._left_weight += weight - left.pop((number, handle), 0)
        left[number, handle] = weight
        while self._left_weight > LEFT_IDS_MAX:
            (number, handle), weight = left.popitem(last=False)
            self._left_weight -= weight
            if number in self._numbers:
                self._numbers[number].forget_window(handle)

    # -- publishing ----------------------------------------------------------------------------------

    def publish_state(self, attachment: Attachment, slot: int, sealed: bytes) -> None:
        """Take an ephemeral record: the newest state of (handle, slot) replaces one that has not left yet."""
        stream = attachment.stream
        handle = attachment.handle
        frame = frame_of(wire.Ephemeral(stream.number, handle, slot, sealed))
        self.fanout.add_state(stream, (stream.number, handle, slot), frame)
        self.counters.published_ephemeral += 1

    # -- retention, erasure, export ------------------------------------------------------------------

    def erase(self, attachment: Attachment) -> None:
        """Delete everything in a stream. ERASED follows once it is gone from the disk. Raises Refused."""
        stream = attachment.stream
        self._erasures.add(stream, self._new_epoch(), attachment.client)
        self.sequencer.forget_acknowledged(stream.number)

    def _erased(self, stream: Stream, epoch: int, asker: Client, is_gone: bool) -> None:
        if not is_gone:
            asker.refuse(Code.STORE, wire.ERASE, stream.number)
        else:
            self.fanout.drop_targets(stream)
            stream.restart(epoch)
            self.counters.erased += 1
            frame = frame_of(wire.Erased(stream.number, epoch))
            told = {asker.box, *stream.live, *(attachment.client.box for attachment in stream.catching)}
            for box in told:
                box.drop_records(stream.number)
                self.push(box, Chunk(frame, ORDERED, stream.number))
        for attachment in stream.catching:
            if is_gone:
                attachment.cursor = 0
            self.replay.schedule(attachment)

    def export(self, attachment: Attachment, after: int) -> None:
        """Answer EXPORTED with the records after `after`, a page of them. Raises Refused: one at a time."""
        stream = attachment.stream
        if attachment.client.exporting:
            raise Refused(Code.RATE)
        attachment.client.exporting = True
        call = partial(self.store.read, stream.number, min(after, stream.served), EXPORT_BYTES_MAX)
        self._read(call, partial(self._exported, attachment, stream.epoch))

    def _exported(
        self, attachment: Attachment, epoch: int, records: list[Record] | None, error: Exception | None
    ) -> None:
        client, stream = attachment.client, attachment.stream
        self._exporting.append(client)
        if client.ended:
            return
        if records is None or epoch != stream.epoch:
            client.refuse(Code.STORE, wire.EXPORT, stream.number)
            return
        try:
            rows = _page(records)
        except Exception as fault:  # What cannot be told to one client is not the end of the others.
            self.report(fault)
            client.fail(Code.INTERNAL, wire.EXPORT, stream.number)
            return
        more = bool(rows) and rows[-1].seq < stream.served
        self.push(client.box, frame_of(wire.Exported(stream.number, stream.epoch, stream.served, more, rows)))

    def tick(self, tidied: Callable[[], None]) -> None:
        """Once a second: try again what the store could not do, and have it do what it left; then call `tidied`."""
        self.replay.tick()
        self._erasures.tick()
        if not self._tidying:
            self._tidying = True
            self._write(self.store.tidy, partial(self._tidied, tidied))

    def _tidied(
        self, tidied: Callable[[], None], forgotten: list[tuple[int, int]] | None, error: Exception | None
    ) -> None:
        self._tidying = False
        tidied()
        for number, first in forgotten or ():
            if number in self._numbers:
                self._numbers[number].first = first

    def expire(self, before_ns: int, now_ns: int, idle_ns: int) -> None:
        """Forget records older than `before_ns`, and put away streams that nobody has used for `idle_ns`."""
        self._write(partial(self.store.expire, before_ns, now_ns), self._expired)
        self._put_away(idle_ns)

    def _put_away(self, idle_ns: int) -> None:
        unused = self.now_ns - idle_ns
        for key, stream in list(self.streams.items()):
            if not stream.attached and stream.idle_since_ns <= unused and not stream.busy:
                del self.streams[key], self._numbers[stream.number]
                for handle in stream.windows:
                    self._left_weight -= self._left.pop((stream.number, handle), 0)
                self._read(partial(self.store.release, stream.number), _released)

    def _expired(self, forgotten: list[tuple[int, int]] | None, error: Exception | None) -> None:
        if error is not None:
            self.counters.commit_failures += 1
        for number, first in forgotten or ():
            if number in self._numbers:
                self._numbers[number].first = first


def _released(_: None, error: Exception | None) -> None:
    if error is not None:
        raise error  # It asks nothing of the disk: a bug of ours.


def _page(records: list[Record]) -> list[wire.ExportedRecord]:
    """Return what one EXPORTED tells of these records."""
    rows: list[wire.ExportedRecord] = []
    sealed_bytes = 0
    for record in records:
        message = wire.decode_one_relay(framing.split(record.frame)[0])
        assert isinstance(message, wire.Message)
        sealed_bytes += len(message.sealed)
        if rows and sealed_bytes > EXPORT_BYTES_MAX:
            break
        row = wire.ExportedRecord(record.seq, record.at_ns, record.handle, record.id, message.tag, message.sealed)
        rows.append(row)
    return rows


def _resume_point(stream: Stream, request: wire.Subscribe) -> tuple[int, bool]:
    """Return (cursor, recovered) for a subscription; PROTOCOL.md section 6, Resume."""
    if request.after is None:
        return stream.served, True
    # What is committed and acknowledged, though its fan-out may not have begun.
    head = stream.outgoing[-1].last if stream.outgoing else stream.served
    if request.epoch == stream.epoch and request.after <= head:
        return request.after, request.after + 1 >= stream.first
    return 0, request.epoch is None and stream.first <= 1
