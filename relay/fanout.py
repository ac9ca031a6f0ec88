"""Streams and their fan-out: one chunk for all subscribers, a bounded number of sends at a time. Sans-IO.

A stream that has something to send waits in one round-robin queue. Its fan-out begins with a snapshot of its live
subscribers and goes on in slices, so that a room of thousands lets private chats through. Meanwhile what is committed
gathers in `outgoing` and becomes the next chunk: a busy room sends fewer, larger chunks, and order needs no care.
"""

from __future__ import annotations

from collections import deque

from relay.counters import Counters
from relay.limits import FANOUT_SLICE_SENDS, FEW_SENDS, REPLAY_BYTES
from relay.outbox import DURABLE, EPHEMERAL, Chunk, Item, Outbox, StateKey
from relay.store import Run
from relay.stream import Stream


class FanOut:
    """The round-robin queue of streams that have something to send, and the outboxes that this turn filled."""

    __slots__ = ("_few", "counters", "dirty", "queue")

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.queue: deque[Stream] = deque()
        self.dirty: list[Outbox] = []
        self._few = FEW_SENDS

    def push(self, box: Outbox, item: Item) -> None:
        """Give one connection something to send at the end of this turn; nothing follows a close frame."""
        if box.ended:
            return
        box.pending.append(item)
        if not box.dirty:
            box.dirty = True
            self.dirty.append(box)

    def add_run(self, stream: Stream, run: Run) -> None:
        """Take committed records, the next of their stream."""
        if not stream.queued:
            live = stream.live
            if len(live) <= self._few:
                # Private chats do not wait behind rooms: few subscribers are served at once, some a turn.
                self._few -= len(live)
                count = len(run.ids)
                stream.served += count
                chunk = Chunk(run.data, DURABLE, stream.number, run.first, stream.served)
                self.counters.deliveries += count * len(live)
                for box in live:
                    box.pending.append(chunk)
                    if not box.dirty:
                        box.dirty = True
                        self.dirty.append(box)
                return
            stream.queued = True
            self.queue.append(stream)
        stream.outgoing.append(run)
        stream.outgoing_bytes += len(run.data)

    def add_state(self, stream: Stream, key: StateKey, frame: bytes) -> None:
        """Take a state; an older one under this key that has not left yet gives way."""
        if stream.states.pop(key, None) is not None:
            self.counters.ephemeral_superseded += len(stream.live)
        stream.states[key] = frame
        if not stream.queued:
            stream.queued = True
            self.queue.append(stream)

    def slice(self) -> bool:
        """Push to a bounded number of subscribers; return whether more wait."""
        self._few = FEW_SENDS
        budget = FANOUT_SLICE_SENDS
        queue = self.queue
        dirty = self.dirty
        while queue and budget > 0:
            stream = queue.popleft()
            targets = stream.targets
            if targets is None:
                targets = self._begin(stream)
            chunks = stream.chunks
            only = chunks[0] if len(chunks) == 1 else None
            start = stream.position
            end = start + budget
            for box in targets[start:end] if start or len(targets) > budget else targets:
                if box is None:
                    continue
                if only is not None:
                    box.pending.append(only)
                else:
                    box.pending += chunks
                if not box.dirty:
                    box.dirty = True
                    dirty.append(box)
            if end < len(targets):
                stream.position = end
                queue.append(stream)
                break
            budget -= len(targets) - start
            stream.targets = None
            stream.chunks = []
            if stream.outgoing or stream.states:
                queue.append(stream)
            else:
                stream.queued = False
        return bool(queue)

    def _begin(self, stream: Stream) -> list[Outbox | None]:
        """Make the next chunks of a stream and the snapshot of who gets them."""
        targets: list[Outbox | None] = list(stream.live)
        chunks: list[Item] = []
        outgoing = stream.outgoing
        if outgoing:
            if stream.outgoing_bytes > REPLAY_BYTES:
                outgoing = self._first_of(stream)
            else:
                stream.outgoing = []
                stream.outgoing_bytes = 0
            first = stream.served + 1
            stream.served = outgoing[-1].last
            data = outgoing[0].data if len(outgoing) == 1 else b"".join([run.data for run in outgoing])
            chunks.append(Chunk(data, DURABLE, stream.number, first, stream.served))
            self.counters.deliveries += (stream.served + 1 - first) * len(targets)
        if stream.states:
            number = stream.number
            chunks += [Chunk(frame, EPHEMERAL, number, state=key) for key, frame in stream.states.items()]
            self.counters.deliveries += len(stream.states) * len(targets)
            self.counters.ephemeral_dropped += len(stream.states) * len(stream.catching)
            stream.states = {}
        stream.targets = targets
        stream.chunks = chunks
        stream.position = 0
        return targets

    def _first_of(self, stream: Stream) -> list[Run]:
        """Take about REPLAY_BYTES from the runs that wait."""
        size = count = 0
        for run in stream.outgoing:
            size += len(run.data)
            count += 1
            if size >= REPLAY_BYTES:
                break
        taken, stream.outgoing = stream.outgoing[:count], stream.outgoing[count:]
        stream.outgoing_bytes -= size
        return taken

    def send_rest_to(self, stream: Stream, box: Outbox) -> None:
        """Push what a begun fan-out still owes one subscriber, out of its turn."""
        if self._remove_target(stream, box):
            for chunk in stream.chunks:
                self.push(box, chunk)

    def withdraw(self, stream: Stream, box: Outbox) -> None:
        """Take a subscriber off a stream, also off a fan-out that has begun."""
        if stream.live.pop(box, None) is not None:
            self._remove_target(stream, box)

    def _remove_target(self, stream: Stream, box: Outbox) -> bool:
        targets = stream.targets
        if targets is None:
            return False
        try:
            targets[targets.index(box, stream.position)] = None
        except ValueError:
            return False
        return True

    def drop_targets(self, stream: Stream) -> None:
        """Send nothing more of what a stream holds: it was erased."""
        if stream.targets is not None:
            stream.targets = [None] * len(stream.targets)
