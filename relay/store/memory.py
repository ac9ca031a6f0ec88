"""The store that keeps everything in memory."""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from relay.errors import StoreUnavailable
from relay.limits import RETAIN_STREAM_BYTES_MAX, RETAIN_TOTAL_BYTES_MAX, STREAM_NUMBER_MAX
from relay.store.base import SECRET_BYTES, Batch, Committed, Record, Run, StoreStatistics, StreamState

NO_RUNS: Final[deque[Run]] = deque()
ALL_KEPT: Final = Committed()


class _Stream:
    __slots__ = (
        "acks",
        "aged",
        "epoch",
        "first",
        "frame_bytes",
        "head",
        "key",
        "number",
        "released",
        "runs",
        "stamped_ns",
    )

    def __init__(self, key: bytes, number: int, epoch: int) -> None:
        self.key = key
        self.released = False
        self.number = number
        self.epoch = epoch
        self.head = 0
        self.stamped_ns = 0
        self.first = 1
        self.runs: deque[Run] = NO_RUNS  # An empty deque takes 0.8 KB: one of its own comes with the first run.
        self.frame_bytes = 0
        self.acks: dict[bytes, int] = {}
        self.aged = False  # has an entry in the store's `_ages`


class MemoryStore:
    """Keeps the newest records of every stream in memory, within two byte bounds; a restart forgets everything."""

    instant = True
    fault = None
    swept_ns = None

    def __init__(
        self,
        secret: bytes,
        *,
        retain_stream_bytes_max: int = RETAIN_STREAM_BYTES_MAX,
        retain_total_bytes_max: int = RETAIN_TOTAL_BYTES_MAX,
    ) -> None:
        assert len(secret) == SECRET_BYTES
        self.secret = secret
        self._stream_bytes_max = retain_stream_bytes_max
        self._total_bytes_max = retain_total_bytes_max
        self._by_key: dict[bytes, _Stream] = {}
        self._by_number: dict[int, _Stream] = {}
        self._next_number = 1
        # Streams that hold records, the longest unused first.
        self._used: OrderedDict[int, None] = OrderedDict()
        # A heap of (at_ns, number), at most one entry a stream, never later than the stream's oldest record: a
        # sweep looks only at streams whose entry has come of age, not at all of them.
        self._ages: list[tuple[int, int]] = []
        self._frame_bytes = 0
        self._records = 0
        self._commits = 0
        self._trimmed = 0

    def open(self, key: bytes, *, new_epoch: int, recent_max: int) -> StreamState:
        stream = self._by_key.get(key)
        if stream is None:
            number = self._next_number
            if number > STREAM_NUMBER_MAX:
                raise StoreUnavailable("no stream numbers are left")
            self._next_number += 1
            stream = self._by_key[key] = self._by_number[number] = _Stream(key, number, new_epoch)
        stream.released = False
        recent: list[tuple[bytes, int, int]] = []
        for run in reversed(stream.runs):
            if len(recent) >= recent_max:
                break
            recent[:0] = zip(run.handles, run.ids, range(run.first, run.last + 1), strict=True)
        del recent[: max(len(recent) - recent_max, 0)]
        return StreamState(
            stream.number, stream.epoch, stream.head, stream.first, recent, dict(stream.acks), stream.stamped_ns
        )

    def commit(self, batch: Batch) -> Committed:
        forgotten: dict[int, int] = {}
        by_number = self._by_number
        used = self._used
        stream_bytes_max = self._stream_bytes_max
        for number, run in batch.runs:
            stream = by_number[number]
            assert run.first == stream.head + 1
            count = len(run.ids)
            added = len(run.data)
            stream.head += count
            stream.stamped_ns = run.at_ns
            if stream.runs:
                used.move_to_end(number)
            else:
                used[number] = None
                if stream.runs is NO_RUNS:
                    stream.runs = deque()
                if not stream.aged:
                    stream.aged = True
                    heappush(self._ages, (run.at_ns, number))
            stream.runs.append(run)
            stream.frame_bytes += added
            self._frame_bytes += added
            self._records += count
            if stream.frame_bytes > stream_bytes_max:
                while stream.frame_bytes > stream_bytes_max:
                    self._forget_some(stream)
                forgotten[number] = stream.first
        for number, handle, upto in batch.acks:
            acks = by_number[number].acks
            if upto > acks.get(handle, -1):
                acks[handle] = upto
        for number, upto in batch.trims:
            stream = by_number[number]
            upto = min(upto, stream.head)
            if stream.first <= upto:
                while stream.first <= upto:
                    self._forget_some(stream, upto)
                forgotten[number] = stream.first
        while self._frame_bytes > self._total_bytes_max:
            # Last used is what this batch brought, so it goes last.
            stream = by_number[next(iter(used))]
            while stream.runs and self._frame_bytes > self._total_bytes_max:
                self._forget_some(stream)
            forgotten[stream.number] = stream.first
        self._commits += 1
        return Committed(list(forgotten.items())) if forgotten else ALL_KEPT

    def read(self, number: int, after: int, bytes_max: int) -> list[Record]:
        held = self._by_number[number].runs
        # Who resumes has missed little as a rule, so the place is looked for from the end.
        position = len(held)
        while position and held[position - 1].last > after:
            position -= 1
        found: list[Record] = []
        frame_bytes = 0
        for run in islice(held, position, None):
            for record in run.records(after):
                found.append(record)
                frame_bytes += len(record.frame)
                if frame_bytes >= bytes_max:
                    break
            if frame_bytes >= bytes_max:
                break
        if number in self._used:
            self._used.move_to_end(number)
        return found

    def expire(self, before_ns: int, now_ns: int) -> list[tuple[int, int]]:
        forgotten = []
        ages = self._ages
        while ages and ages[0][0] < before_ns:
            _, number = heappop(ages)
            stream = self._by_number[number]
            held = stream.runs
            if held and held[0].at_ns < before_ns:
                while held and held[0].at_ns < before_ns:
                    self._forget_some(stream, held[0].last)
                forgotten.append((number, stream.first))
            stream.aged = bool(held)
            if held:
                heappush(ages, (held[0].at_ns, number))
            elif stream.released:
                self._drop(stream)
        return forgotten

    def erase(self, erasures: list[tuple[int, int]]) -> list[tuple[int, bool | None]]:
        for number, new_epoch in erasures:
            stream = self._by_number[number]
            self._frame_bytes -= stream.frame_bytes
            self._records -= stream.head + 1 - stream.first
            self._used.pop(number, None)
            stream.runs = NO_RUNS
            stream.frame_bytes = 0
            stream.acks.clear()
            stream.epoch = new_epoch
            stream.head = stream.stamped_ns = 0
            stream.first = 1
        return [(number, True) for number, _ in erasures]

    def tidy(self) -> list[tuple[int, int]]:
        return []

    def notices(self) -> list[str]:
        return []

    def release(self, number: int) -> None:
        stream = self._by_number[number]
        stream.released = True
        if not stream.runs and not stream.aged:
            self._drop(stream)

    def _drop(self, stream: _Stream) -> None:
        """Its next use begins a new epoch, so nobody takes it for what it was."""
        del self._by_key[stream.key], self._by_number[stream.number]

    def close(self) -> None:
        """Nothing is held but memory."""

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            streams=len(self._by_key),
            records=self._records,
            held_bytes=self._frame_bytes,
            commits=self._commits,
            commit_failures=0,
            trimmed=self._trimmed,
            damaged=0,
            full=0,
            held_bytes_max=self._total_bytes_max,
        )

    def _forget_some(self, stream: _Stream, upto: int | None = None) -> None:
        """Forget the oldest run, or only its records up to `upto`. A run that is all there is goes by records."""
        runs = stream.runs
        run = runs[0]
        last = run.last
        if upto is None:
            upto = last if len(runs) > 1 else run.first
        if upto >= last:
            runs.popleft()
            rest_bytes, first = 0, last + 1
        else:
            runs[0] = run.behind(upto)
            rest_bytes, first = len(runs[0].data), upto + 1
        frame_bytes = len(run.data) - rest_bytes
        stream.frame_bytes -= frame_bytes
        self._frame_bytes -= frame_bytes
        self._records -= first - stream.first
        self._trimmed += first - stream.first
        stream.first = first
        if not runs:
            del self._used[stream.number]
