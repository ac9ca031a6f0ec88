"""Streams: who is attached, sequence numbers, commit, replay. Sans-IO.

A durable record goes this way, and every step is taken for all that came in the same turn:

    publish() -> fresh -> commit(): numbered, framed -> the store -> acknowledged -> outgoing -> fan-out

Numbers are given when a batch is taken for the store, so a batch that the store refuses leaves no hole. A stream has
two heights: `head`, the last number given, and `served`, the last one whose fan-out has begun. Subscribers are told
`served` and get everything after it: either they are *live* and take part in each fan-out, or they have a *cursor* and
are replayed from the store until it reaches `served`.

The store's calls go through `read` and `write`: inline for a store that answers at once, else a thread's queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from relay import framing, wire
from relay.buckets import Buckets
from relay.capability import Capability, Right, Verifier, franking_tag, handle_of
from relay.errors import Code, Refused
from relay.fanout import Attachment, Counters, FanOut, Group, Stream
from relay.limits import (
    ACK_QUORUM_MAX,
    COMMIT_BATCH_BYTES_MAX,
    EXPORT_BYTES_MAX,
    LEFT_IDS_MAX,
    OUTGOING_BYTES_MAX,
    PUBLISH_WINDOW,
    STREAMS_PER_CONNECTION_MAX,
)
from relay.outbox import ORDERED, Chunk, frame_of
from relay.replay import Client, Done, Replay, Submit, look_whether_caught_up
from relay.store import Batch, Record, Run, Store, StreamState, joined
from relay.window import Window

Work: TypeAlias = list[tuple[Stream, list[Group], Run]]
Shared: TypeAlias = dict[int, tuple[bytes, bytes, list[int]]]
"""What frames of one payload size have in common in a turn: see _shared_parts."""

GROUPS_PER_RUN_MAX = 64
"""A group comes from one read, so a run stays below some 4 MiB, and as a rule far below."""

_BYTES = [bytes((byte,)) for byte in range(256)]


def inline(call: Callable[[], Any], done: Done) -> None:
    """Make a store call now: for stores that answer at once."""
    try:
        result = call()
    except Exception as error:
        done(None, error)
    else:
        done(result, None)


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
        report: Callable[[Exception], None],
    ) -> None:
        self.store = store
        self.counters = Counters()
        self.verifier = Verifier()
        self.fanout = FanOut(self.counters)
        self.push = self.fanout.push
        self.now_ns = 0
        self.suites = [suite in suites for suite in range(256)]
        self.ended: list[Any] = []  # peers that the transport may let go
        self.streams: dict[bytes, Stream] = {}
        self._numbers: dict[int, Stream] = {}
        self._new_epoch = new_epoch
        self._read = read
        self._write = write
        # (number, handle) of the publishers that are not connected -> the weight of their windows; the longest gone first.
        self._left: OrderedDict[tuple[int, bytes], int] = OrderedDict()
        self._left_weight = 0
        self._opening: dict[bytes, list[tuple[Client, Capability, wire.Subscribe]]] = {}
        self.dirty: list[Stream] = []
        self._committing = False
        self._left_fresh = False  # what one batch had no room for
        self.waiting_bytes = 0
        self.commit_times = Buckets()
        # (number, handle) -> upto, and number -> upto; and those of a batch that the store refused.
        self._acks: dict[tuple[int, bytes], int] = {}
        self._trims: dict[int, int] = {}
        self._refused_acks: dict[tuple[int, bytes], int] = {}
        self._refused_trims: dict[int, int] = {}
        self.replay = Replay(store, read, self.fanout)
        self.report = report
        self._exporting: list[Client] = []  # those that this turn answered

    # -- one turn ------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Do what a turn's records ask for; return whether there is more to do at once."""
        if self._exporting:
            for client in self._exporting:
                client.exporting = False
            self._exporting.clear()
        if self.dirty or self._acks or self._trims:
            self.commit()
        catching = self.replay.turn()
        more = self.fanout.slice()
        return more or catching or (self._left_fresh and not self._committing)

    @property
    def settled(self) -> bool:
        """Whether nothing waits for the store or for its fan-out."""
        return not (self._committing or self.dirty or self.fanout.queue)

    # -- attaching -----------------------------------------------------------------------------------

    def subscribe(self, client: Client, capability: Capability, request: wire.Subscribe) -> None:
        """Attach a client whose capability was checked. SUBSCRIBED follows now, or when the store has answered."""
        key = capability.stream
        stream = self.streams.get(key)
        if stream is not None:
            self._attach(stream, client, capability, request)
        elif key in self._opening:
            self._opening[key].append((client, capability, request))
        else:
            self._opening[key] = [(client, capability, request)]
            call = partial(self.store.open, key, new_epoch=self._new_epoch(), recent_max=PUBLISH_WINDOW)
            self._read(call, partial(self._opened, key))

    def _opened(self, key: bytes, state: StreamState | None, error: Exception | None) -> None:
        waiting = self._opening.pop(key)
        if state is None:
            for client, _, request in waiting:
                client.refuse(Code.STORE, 2, request.request)
            return
        stream = Stream(key, state.number, state.epoch, state.head, state.first, dict(state.acks))
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
            client.refuse(Code.TOO_MANY_STREAMS, 2, request.request)
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
        self.push(client.box, Chunk(frame, ORDERED, stream))
        if not request.use & Right.SUBSCRIBE:
            return
        if cursor == stream.served:
            stream.live[client.box] = attachment
        else:
            self.replay.begin(attachment, cursor)
            self.replay.go_on(attachment)

    def unsubscribe(self, attachment: Attachment) -> None:
        """Detach, and tell the client up to where it was sent everything."""
        client, stream = attachment.client, attachment.stream
        if attachment.cursor is None:
            self.fanout.finish_for(stream, client.box)
            head = stream.served
        else:
            head = attachment.cursor
        self.detach(attachment)
        client.box.drop_states(stream)
        frame = frame_of(wire.Unsubscribed(stream.number, head))
        self.push(client.box, Chunk(frame, ORDERED, stream))

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
            self._keep_for_a_while(stream.number, attachment.handle, attachment.window.weight)
        look_whether_caught_up(attachment.client)

    def _keep_for_a_while(self, number: int, handle: bytes, weight: int) -> None:
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

    def publish(self, attachment: Attachment, record: wire.Publish) -> None:
        """Take a durable record that was checked. PUBLISHED follows once the store has it. Raises Refused."""
        if self.waiting_bytes > COMMIT_BATCH_BYTES_MAX:
            raise Refused(Code.STORE)
        attachment.client.unacked += 1
        self.waiting_bytes += len(record.sealed)
        self.gather(attachment, record)

    def gather(self, attachment: Attachment, record: wire.Publish) -> Group:
        """Begin a group of records with its first; the next untagged ones of this publisher and size may follow it."""
        sealed = record.sealed
        stream = attachment.stream
        if not stream.fresh:
            self.dirty.append(stream)
        group = (attachment, len(sealed), record.commitment, [record.id], [sealed])
        stream.fresh.append(group)
        return group

    def publish_state(self, attachment: Attachment, slot: int, sealed: bytes) -> None:
        """Take an ephemeral record: the newest state of (handle, slot) replaces one that has not left yet."""
        stream = attachment.stream
        handle = attachment.handle
        frame = frame_of(wire.Ephemeral(stream.number, handle, slot, sealed))
        self.fanout.add_state(stream, (stream.number, handle, slot), frame)
        self.counters.published_ephemeral += 1

    def _acknowledge(self, client: Client, id_: int, seq: int) -> None:
        client.unacked -= 1
        box = client.box
        box.acks += (id_, seq)
        if not box.dirty:
            box.dirty = True
            self.fanout.dirty.append(box)

    def commit(self) -> None:
        """Number and frame what is fresh, and hand it to the store as one batch."""
        if self._committing:
            return
        self._left_fresh = False
        dirty, self.dirty = self.dirty, []
        acks, self._acks = self._acks, {}
        trims, self._trims = self._trims, {}
        self.waiting_bytes = 0
        work: Work = []
        runs: list[tuple[int, Run]] = []
        shared: Shared = {}
        for stream in dirty:
            if stream.erasing:
                self.dirty.append(stream)
                continue
            # A stream that fans out slower than it is written to is not acknowledged for a while: its publishers'
            # windows fill, and they wait.
            groups = self._take(stream) if stream.outgoing_bytes <= OUTGOING_BYTES_MAX else []
            if stream.fresh:
                self.dirty.append(stream)
                self._left_fresh = True
            if groups:
                run = self._number(stream, groups[0], shared)
                if len(groups) > 1:
                    run = joined([run, *(self._number(stream, group, shared) for group in groups[1:])])
                runs.append((stream.number, run))
                work.append((stream, groups, run))
        if not (work or acks or trims):
            return
        self._committing = True
        acks = self._refused_acks | acks
        trims = self._refused_trims | trims
        self._refused_acks = {}
        self._refused_trims = {}
        batch = Batch(runs=runs, acks=[(*key, upto) for key, upto in acks.items()], trims=list(trims.items()))
        self._write(partial(self.store.commit, batch), partial(self._committed, work, batch, self.now_ns))

    def _take(self, stream: Stream) -> list[Group]:
        """Return the groups that become the stream's next run; what repeats an id has its answer and is left out."""
        groups = stream.fresh
        stream.fresh = []
        if len(groups) > GROUPS_PER_RUN_MAX:
            groups, stream.fresh = groups[:GROUPS_PER_RUN_MAX], groups[GROUPS_PER_RUN_MAX:]
        taken = []
        for group in groups:
            attachment, _, _, ids, _ = group
            if attachment.window.take(ids):
                taken.append(group)
            else:
                left = self._answer_repeated(group)
                _, _, _, ids, _ = left
                if ids:
                    attachment.window.take(ids)
                    taken.append(left)
        return taken

    def _answer_repeated(self, group: Group) -> Group:
        """Answer the records whose ids are known; return the group without them."""
        attachment, size, commitment, ids, payloads = group
        client, window = attachment.client, attachment.window
        fresh: dict[int, bytes] = {}
        for id_, sealed in zip(ids, payloads, strict=True):
            seq = window.seq_of(id_)
            if seq:
                self._acknowledge(client, id_, seq)
            elif seq is None and id_ not in fresh:
                fresh[id_] = sealed
            else:  # Its first sending is still on the way to the store: the answer comes with that one's.
                window.retries.setdefault(id_, []).append(client)
        return attachment, size, commitment, list(fresh), list(fresh.values())

    def _number(self, stream: Stream, group: Group, shared: Shared) -> Run:
        """Give the records of a group the next numbers of their stream, and frame them."""
        attachment, size, commitment, ids, payloads = group
        seq = stream.head + 1
        parts = shared.get(size) if commitment is None else self._tagged_parts(stream, group, seq)
        if parts is None:
            parts = shared[size] = _shared_parts(self.now_ns, None, size)
        header, suffix, sizes = parts
        count = len(ids)
        stream.head += count
        if count == 1:
            data = b"".join((header, stream.prefix, seq.to_bytes(8, "big"), suffix, payloads[0]))
            return Run(seq, self.now_ns, attachment.handles, ids, sizes, data)
        low = seq & 0xFF
        if low + count <= 256:  # Numbers that differ in their last byte only: as a rule.
            lead = header + stream.prefix + (seq >> 8).to_bytes(7, "big")
            ends = _BYTES[low : low + count]
        else:
            lead = header + stream.prefix
            ends = [number.to_bytes(8, "big") for number in range(seq, seq + count)]
        pieces = [lead, b"", suffix, b""] * count
        pieces[1::4] = ends
        pieces[3::4] = payloads
        return Run(seq, self.now_ns, attachment.handles * count, ids, sizes * count, b"".join(pieces))

    def _tagged_parts(self, stream: Stream, group: Group, seq: int) -> tuple[bytes, bytes, list[int]]:
        attachment, size, commitment, _, _ = group
        assert commitment is not None
        tag = franking_tag(
            self.store.secret,
            commitment=commitment,
            stream=stream.key,
            seq=seq,
            at_ns=self.now_ns,
            handle=attachment.handle,
        )
        return _shared_parts(self.now_ns, tag, size)

    def _committed(
        self,
        work: Work,
        batch: Batch,
        taken_ns: int,
        forgotten: list[tuple[int, int]] | None,
        error: Exception | None,
    ) -> None:
        self._committing = False
        self.commit_times.add(self.now_ns - taken_ns)
        if error is not None:
            self._commit_failed(work)
            # Nobody waits for these: they go with the next batch.
            erasing = {stream.number for stream in self._numbers.values() if stream.erasing}
            self._refused_acks = {
                (number, handle): upto for number, handle, upto in batch.acks if number not in erasing
            }
            self._refused_trims = {number: upto for number, upto in batch.trims if number not in erasing}
            return
        dirty = self.fanout.dirty
        add_run = self.fanout.add_run
        published = 0
        for stream, groups, run in work:
            seq = run.first
            for attachment, _, _, ids, _ in groups:
                count = len(ids)
                window = attachment.window
                window.number(seq, count)
                client = attachment.client
                client.unacked -= count
                box = client.box
                if count == 1:
                    box.acks += (ids[0], seq)
                else:
                    acks = ids + ids
                    acks[::2] = ids
                    acks[1::2] = range(seq, seq + count)
                    box.acks += acks
                if not box.dirty:
                    box.dirty = True
                    dirty.append(box)
                if window.retries:
                    self._answer_retries(window)
                seq += count
            published += seq - run.first
            add_run(stream, run)
        self.counters.published_durable += published
        for number, first in forgotten or ():
            if number in self._numbers:
                self._numbers[number].first = first

    def _answer_retries(self, window: Window) -> None:
        for id_, clients in list(window.retries.items()):
            seq = window.seq_of(id_)
            if seq:
                del window.retries[id_]
                for client in clients:
                    self._acknowledge(client, id_, seq)

    def _commit_failed(self, work: Work) -> None:
        """Refuse the whole batch. Its numbers were seen by nobody, so they are given again."""
        self.counters.commit_failures += 1
        for stream, groups, run in work:
            stream.head = run.first - 1
            for attachment, _, _, ids, _ in groups:
                window = attachment.window
                window.take_back()
                for id_ in ids:
                    for client in (attachment.client, *window.retries.pop(id_, ())):
                        client.unacked -= 1
                        client.refuse(Code.STORE, 4, id_)

    # -- retention, erasure, export ------------------------------------------------------------------

    def acknowledge(self, attachment: Attachment, upto: int) -> None:
        """A member has everything up to `upto`; forget what a quorum of members has."""
        stream = attachment.stream
        if upto > stream.head:
            return  # It crossed an ERASED: nobody has these numbers of this epoch.
        upto = min(upto, stream.served)
        if not stream.quorum or stream.erasing or upto <= stream.acks.get(attachment.handle, 0):
            return
        stream.acks[attachment.handle] = upto
        self._acks[stream.number, attachment.handle] = upto
        if len(stream.acks) >= stream.quorum:
            floor = sorted(stream.acks.values(), reverse=True)[stream.quorum - 1]
            if floor > stream.trimmed:
                stream.trimmed = floor
                self._trims[stream.number] = floor

    def erase(self, attachment: Attachment) -> None:
        """Delete everything in a stream. ERASED follows once it is gone from the disk. Raises Refused."""
        stream = attachment.stream
        if stream.erasing:
            raise Refused(Code.STORE)
        stream.erasing = True
        # They are about what goes now, and must not reach what comes after it.
        number = stream.number
        for acks in (self._acks, self._refused_acks):
            for key in [key for key in acks if key[0] == number]:
                del acks[key]
        self._trims.pop(number, None)
        self._refused_trims.pop(number, None)
        epoch = self._new_epoch()
        self._write(
            partial(self.store.erase, stream.number, epoch), partial(self._erased, stream, epoch, attachment.client)
        )

    def _erased(self, stream: Stream, epoch: int, asker: Client, _: None, error: Exception | None) -> None:
        stream.erasing = False
        if error is not None:
            asker.refuse(Code.STORE, 6, stream.number)
        else:
            self.fanout.abandon(stream)
            stream.restart(epoch)
            self.counters.erased += 1
            frame = frame_of(wire.Erased(stream.number, epoch))
            told = {asker.box, *stream.live, *(attachment.client.box for attachment in stream.catching)}
            for box in told:
                box.drop_records(stream)
                self.push(box, Chunk(frame, ORDERED, stream))
        for attachment in stream.catching:
            if error is None:
                attachment.cursor = 0
            self.replay.go_on(attachment)

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
            client.refuse(Code.STORE, 7, stream.number)
            return
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
        more = bool(rows) and rows[-1].seq < stream.served
        self.push(client.box, frame_of(wire.Exported(stream.number, stream.epoch, stream.served, more, rows)))

    def expire(self, before_ns: int, idle_ns: int) -> None:
        """Forget records older than `before_ns`, and put away streams that nobody has used for `idle_ns`."""
        self._write(partial(self.store.expire, before_ns), self._expired)
        unused = self.now_ns - idle_ns
        for key, stream in list(self.streams.items()):
            if not stream.attached and stream.idle_since_ns < unused and not stream.busy:
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


def _shared_parts(now_ns: int, tag: bytes | None, size: int) -> tuple[bytes, bytes, list[int]]:
    """Return (frame header, what stands between number and payload, [frame length]) for payloads of `size` bytes."""
    suffix = wire.message_suffix(now_ns, tag, size)
    message_bytes = wire.MESSAGE_PREFIX_BYTES + 8 + len(suffix) + size
    header = framing.header(framing.BINARY, message_bytes)
    return header, suffix, [len(header) + message_bytes]


def _resume_point(stream: Stream, request: wire.Subscribe) -> tuple[int, bool]:
    """Return (cursor, recovered) for a subscription; PROTOCOL.md section 6, Resume."""
    if request.after is None:
        return stream.served, True
    # What is committed and acknowledged, though its fan-out may not have begun.
    head = stream.outgoing[-1].last if stream.outgoing else stream.served
    if request.epoch == stream.epoch and request.after <= head:
        return request.after, request.after + 1 >= stream.first
    return 0, request.epoch is None and stream.first <= 1


__all__ = ["Client", "Hub", "inline"]
