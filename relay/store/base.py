"""What the hub asks of a store.

A store keeps the durable records of streams, with the members' acknowledgements, and forgets them again: by
acknowledgement (trims), by age (expiry), by size, or because it is told to (erase). What it has forgotten is always the
beginning of a stream, so that `first` to `head` stays without a gap.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

SECRET_BYTES = 32


class Record(msgspec.Struct, gc=False):
    """One durable record as kept.

    `frame` is the complete, unmasked WebSocket frame of its MESSAGE record, exactly as subscribers get it. The store
    never looks into it.
    """

    seq: int
    at_ns: int
    handle: bytes
    id: int
    frame: bytes


class Run(msgspec.Struct, gc=False):
    """Consecutive records that one turn adds to one stream, in columns: `first` and on, one item a record.

    `data` are all frames, one after the other, and `sizes` their lengths: what is stored is what is sent. Runs may share
    columns.
    """

    first: int
    at_ns: int
    handles: list[bytes]
    ids: list[int]
    sizes: list[int]
    data: bytes

    @property
    def last(self) -> int:
        return self.first + len(self.ids) - 1

    def records(self, after: int = 0) -> list[Record]:
        """Return the records behind sequence number `after`."""
        found = []
        start = 0
        seq = self.first
        for handle, id_, size in zip(self.handles, self.ids, self.sizes, strict=True):
            if seq > after:
                found.append(Record(seq, self.at_ns, handle, id_, self.data[start : start + size]))
            start += size
            seq += 1
        return found

    def behind(self, after: int) -> Run:
        """Return the run without the records up to `after`."""
        count = after + 1 - self.first
        return Run(
            after + 1,
            self.at_ns,
            self.handles[count:],
            self.ids[count:],
            self.sizes[count:],
            self.data[sum(self.sizes[:count]) :],
        )


def joined(runs: list[Run]) -> Run:
    """Return runs that follow one another and were made at one time as one."""
    return Run(
        runs[0].first,
        runs[0].at_ns,
        [handle for run in runs for handle in run.handles],
        [id_ for run in runs for id_ in run.ids],
        [size for run in runs for size in run.sizes],
        b"".join([run.data for run in runs]),
    )


def run_of(records: list[Record]) -> Run:
    """Return consecutive records as a run; they share the time of the last."""
    return Run(
        records[0].seq,
        records[-1].at_ns,
        [record.handle for record in records],
        [record.id for record in records],
        [len(record.frame) for record in records],
        b"".join([record.frame for record in records]),
    )


class StreamState(msgspec.Struct):
    """What `open` tells of a stream."""

    number: int
    epoch: int
    head: int
    first: int
    """The lowest sequence number that `read` can give; `head + 1` if there is none."""
    recent: list[tuple[bytes, int, int]]
    """(handle, id, seq) of the newest records, oldest first: a repeated PUBLISH stays idempotent over a restart."""
    acks: dict[bytes, int]
    """handle -> the sequence number up to which that member acknowledged."""
    stamped_ns: int = 0
    """The stamp of the newest record: none that follows may be older."""


class Batch(msgspec.Struct):
    """What one commit makes durable, all of it or nothing."""

    runs: list[tuple[int, Run]] = msgspec.field(default_factory=list)
    """(stream number, at least one record, numbered on from the stream's head); a stream comes once."""
    acks: list[tuple[int, bytes, int]] = msgspec.field(default_factory=list)
    """(number, handle, upto). A lower `upto` than the known one changes nothing."""
    trims: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """(number, upto): forget the records up to `upto`, those of this batch included."""


class Committed(msgspec.Struct, frozen=True):
    """What a commit did."""

    forgotten: list[tuple[int, int]] = []
    """(number, new first) of the streams whose oldest records were forgotten."""
    full: list[int] = []
    """Streams whose run was not taken: they, or the store, hold as much as they may."""
    damaged: list[int] = []
    """Streams whose run could not be written, because of damage to what the store holds of them."""


class StoreStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Counters count since the store was opened."""

    streams: int
    records: int | None
    """Records held; None where that takes a scan to know."""
    held_bytes: int
    """Frames in memory, or the files on disk."""
    commits: int
    commit_failures: int
    trimmed: int
    """Records forgotten by trims, expiry and bounds; not those erased."""
    damaged: int
    """Rows that were found damaged when they were read."""
    full: int
    """Runs that were not taken because their stream or the store was full."""
    held_bytes_max: int
    """What `held_bytes` may become, or nearly."""


class Store(Protocol):
    """Durable records of streams. Every method but `close` may raise StoreUnavailable."""

    @property
    def instant(self) -> bool:
        """True: every call returns at once and may be made on the event loop.

        False: calls block. `commit`, `expire`, `erase` and `tidy` come from one thread, `open`, `read` and `release`
        from one other, at the same time.
        """

    @property
    def secret(self) -> bytes:
        """32 bytes that key handles and franking tags; made once, and kept as long as the records."""

    @property
    def fault(self) -> str | None:
        """Why the store takes and gives nothing until somebody has mended it; None: it works. From any thread."""

    @property
    def swept_ns(self) -> int | None:
        """The time that the last call of `expire` was told, by this process or one before; None: there was none."""

    def open(self, key: bytes, *, new_epoch: int, recent_max: int) -> StreamState:
        """Return the state of the stream with this key. One that is not known begins with `new_epoch` and head 0.

        The number stays with the key from here on, over restarts too once something was committed. `new_epoch` is the
        stream's also where the store can no longer say which numbers were given.
        """

    def commit(self, batch: Batch) -> Committed:
        """Make `batch` durable, but for the runs that the answer names as not taken.

        Raises StoreUnavailable: then nothing of the batch is kept, and a later commit works when the cause is gone.
        """

    def read(self, number: int, after: int, bytes_max: int) -> list[Record]:
        """Return the next consecutive records after `after`: one if there is any, then about `bytes_max`.

        What lies between `after` and the first of them is gone: forgotten, or damaged. The stream is open.
        """

    def expire(self, before_ns: int, now_ns: int) -> list[tuple[int, int]]:
        """Forget records from before `before_ns`; those committed together may go with the newest of them.

        Streams that nobody uses and that hold nothing since then are forgotten too. Returns (number, new first).
        A store may leave a part of the work to later calls of `commit` and `tidy`.
        """

    def erase(self, erasures: list[tuple[int, int]]) -> list[tuple[int, bool | None]]:
        """Delete all records, acknowledgements and ids of streams, beyond recovery: (number, new epoch); head 0.

        A bounded piece of the work. Returns (number, True) of those that are gone, False if one cannot be deleted, None
        if a piece of it was and the next can be at once. For those and the others it is to be called again, with the
        same epochs, and nothing of them is to be committed meanwhile.
        """

    def tidy(self) -> list[tuple[int, int]]:
        """Do what was left. Called once a second. Returns (number, new first)."""

    def release(self, number: int) -> None:
        """Nobody uses the stream now: forget it if it holds nothing. Called where `open` is."""

    def close(self) -> None:
        """Release what the store holds. No other call is under way, and none follows."""

    def notices(self) -> list[str]:
        """Return what the operator should know and was not told yet; from any thread. Names no stream."""

    def statistics(self) -> StoreStatistics:
        """Return a snapshot; from any thread."""
