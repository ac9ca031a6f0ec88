"""What makes durable records: numbers, frames and the store's commit, all that came in a turn at once. Sans-IO.

    publish() or gather() -> fresh -> commit(): numbered, framed -> the store -> PUBLISHED -> fan-out

Numbers are given when a batch is taken for the store, so a batch that the store refuses leaves no hole. While one batch
commits the next gathers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from relay import framing, wire
from relay.buckets import Buckets
from relay.capability import franking_tag
from relay.errors import Code, Refused
from relay.fanout import FanOut
from relay.limits import COMMIT_BATCH_BYTES_MAX, OUTGOING_BYTES_MAX
from relay.quorum import Quorum
from relay.store import Batch, Committed, Run, Store, joined
from relay.stream import Attachment, Client, Group, Stream, Submit
from relay.window import Window

Work: TypeAlias = list[tuple[Stream, list[Group], Run]]
Shared: TypeAlias = dict[int, tuple[bytes, bytes, list[int]]]
"""What frames of one payload size have in common in a turn: see _shared_parts."""

GROUPS_PER_RUN_MAX: Final = 64
"""A group comes from one read, so a run stays below some 4 MiB, and as a rule far below."""

_BYTES: Final = [bytes((byte,)) for byte in range(256)]


class Sequencer:
    """Makes each turn's durable records one batch. `numbers` are the hub's streams.

    `now_ns` tells the turn's time, `wall_ns` what stamps say.
    """

    def __init__(
        self,
        store: Store,
        write: Submit,
        fanout: FanOut,
        numbers: dict[int, Stream],
        now_ns: Callable[[], int],
        wall_ns: Callable[[], int],
    ) -> None:
        self._store = store
        self._secret = store.secret
        self._write = write
        self._fanout = fanout
        self._counters = fanout.counters
        self._numbers = numbers
        self._now_ns = now_ns
        self._wall_ns = wall_ns
        self._dirty: list[Stream] = []
        self._committing = False
        self.left_fresh = False  # what one batch had no room for
        self.waiting_bytes = 0
        self.commit_times = Buckets()
        # (number, handle) -> upto, and number -> upto; and those of a batch that the store refused.
        self._acks: dict[tuple[int, bytes], int] = {}
        self._trims: dict[int, int] = {}
        self._refused_acks: dict[tuple[int, bytes], int] = {}
        self._refused_trims: dict[int, int] = {}

    @property
    def settled(self) -> bool:
        """Whether nothing waits for the store."""
        return not (self._committing or self._dirty)

    @property
    def has_more(self) -> bool:
        """Whether another batch can be taken at once."""
        return self.left_fresh and not self._committing

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
            self._dirty.append(stream)
        group = (attachment, len(sealed), record.commitment, [record.id], [sealed])
        stream.fresh.append(group)
        return group

    def acknowledge(self, attachment: Attachment, upto: int) -> None:
        """Note that a member has everything up to `upto`; forget what a quorum of members has."""
        stream = attachment.stream
        if upto > stream.head:
            return  # It crossed an ERASED: nobody has these numbers of this epoch.
        upto = min(upto, stream.served)
        if not stream.quorum or stream.erasing:
            return
        if stream.acks is None:
            stream.acks = Quorum({})
        if not stream.acks.note(attachment.handle, upto):
            return
        self._acks[stream.number, attachment.handle] = upto
        floor = stream.acks.floor(stream.quorum)
        if floor > stream.trimmed:
            stream.trimmed = floor
            self._trims[stream.number] = floor

    def forget_acknowledged(self, number: int) -> None:
        """Drop what waits to be noted of a stream: it is about what is erased now, not about what comes after it."""
        for acks in (self._acks, self._refused_acks):
            for key in [key for key in acks if key[0] == number]:
                del acks[key]
        self._trims.pop(number, None)
        self._refused_trims.pop(number, None)

    def _acknowledge(self, client: Client, id_: int, seq: int) -> None:
        client.unacked -= 1
        box = client.box
        box.acks += (id_, seq)
        if not box.dirty:
            box.dirty = True
            self._fanout.dirty.append(box)

    def commit(self, now_ns: int) -> None:
        """Number and frame what is fresh, and hand it to the store as one batch."""
        if self._committing or not (self._dirty or self._acks or self._trims):
            return
        now_ns = self._now_ns()
        wall_ns = self._wall_ns()
        self.left_fresh = False
        dirty, self._dirty = self._dirty, []
        acks, self._acks = self._acks, {}
        trims, self._trims = self._trims, {}
        self.waiting_bytes = 0
        work: Work = []
        runs: list[tuple[int, Run]] = []
        shared: Shared = {}
        for stream in dirty:
            if stream.erasing:
                self._dirty.append(stream)
                continue
            # A stream that fans out slower than it is written to is not acknowledged for a while: its publishers'
            # windows fill, and they wait.
            groups = self._take(stream) if stream.outgoing_bytes <= OUTGOING_BYTES_MAX else []
            if stream.fresh:
                self._dirty.append(stream)
                self.left_fresh = True
            if groups:
                run = self._number(stream, groups[0], wall_ns, shared)
                if len(groups) > 1:
                    run = joined([run, *(self._number(stream, group, wall_ns, shared) for group in groups[1:])])
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
        self._write(partial(self._store.commit, batch), partial(self._committed, work, batch, now_ns))

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

    def _number(self, stream: Stream, group: Group, at_ns: int, shared: Shared) -> Run:
        """Give the records of a group the next numbers of their stream, and frame them."""
        attachment, size, commitment, ids, payloads = group
        seq = stream.head + 1
        if at_ns < stream.stamped_ns:  # The clock was set back; stamps do not go back within a stream.
            at_ns = stream.stamped_ns
            shared = {}
        stream.stamped_ns = at_ns
        parts = shared.get(size) if commitment is None else self._tagged_parts(stream, group, seq, at_ns)
        if parts is None:
            parts = shared[size] = _shared_parts(at_ns, None, size)
        header, suffix, sizes = parts
        count = len(ids)
        stream.head += count
        if count == 1:
            data = b"".join((header, stream.prefix, seq.to_bytes(8, "big"), suffix, payloads[0]))
            return Run(seq, at_ns, attachment.handles, ids, sizes, data)
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
        return Run(seq, at_ns, attachment.handles * count, ids, sizes * count, b"".join(pieces))

    def _tagged_parts(self, stream: Stream, group: Group, seq: int, at_ns: int) -> tuple[bytes, bytes, list[int]]:
        attachment, size, commitment, _, _ = group
        assert commitment is not None
        tag = franking_tag(
            self._secret,
            commitment=commitment,
            stream=stream.key,
            seq=seq,
            at_ns=at_ns,
            handle=attachment.handle,
        )
        return _shared_parts(at_ns, tag, size)

    def _committed(
        self,
        work: Work,
        batch: Batch,
        taken_ns: int,
        committed: Committed | None,
        error: Exception | None,
    ) -> None:
        self._committing = False
        self.commit_times.add(self._now_ns() - taken_ns)
        if committed is None:
            self._counters.commit_failures += 1
            self._refuse(work, Code.STORE)
            # Nobody waits for these: they go with the next batch.
            erasing = {stream.number for stream in self._numbers.values() if stream.erasing}
            self._refused_acks = {
                (number, handle): upto for number, handle, upto in batch.acks if number not in erasing
            }
            self._refused_trims = {number: upto for number, upto in batch.trims if number not in erasing}
            return
        if committed.full or committed.damaged:
            self._refuse([item for item in work if item[0].number in committed.full], Code.FULL)
            self._refuse([item for item in work if item[0].number in committed.damaged], Code.STORE)
            refused = {*committed.full, *committed.damaged}
            work = [item for item in work if item[0].number not in refused]
        dirty = self._fanout.dirty
        add_run = self._fanout.add_run
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
        self._counters.published_durable += published
        for number, first in committed.forgotten:
            if number in self._numbers:
                self._numbers[number].first = first

    def _answer_retries(self, window: Window[Client]) -> None:
        for id_, clients in list(window.retries.items()):
            seq = window.seq_of(id_)
            if seq:
                del window.retries[id_]
                for client in clients:
                    self._acknowledge(client, id_, seq)

    def _refuse(self, work: Work, code: Code) -> None:
        """Refuse what the store did not take. Its numbers were seen by nobody, so they are given again."""
        for stream, groups, run in work:
            stream.head = run.first - 1
            for attachment, _, _, ids, _ in groups:
                window = attachment.window
                window.take_back()
                for id_ in ids:
                    for client in (attachment.client, *window.retries.pop(id_, ())):
                        client.unacked -= 1
                        client.refuse(code, wire.PUBLISH, id_)


def _shared_parts(at_ns: int, tag: bytes | None, size: int) -> tuple[bytes, bytes, list[int]]:
    """Return (frame header, what stands between number and payload, [frame length]) for payloads of `size` bytes."""
    suffix = wire.message_suffix(at_ns, tag, size)
    message_bytes = wire.MESSAGE_PREFIX_BYTES + 8 + len(suffix) + size
    header = framing.header(framing.BINARY, message_bytes)
    return header, suffix, [len(header) + message_bytes]
