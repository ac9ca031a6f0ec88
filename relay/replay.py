"""Replay: bringing a subscriber who has a cursor up to what is served, from the store, as its outbox drains. Sans-IO.

A replay goes in steps. Each reads a piece from the store and pushes it; the next waits until the outbox stands no longer.
When the cursor has reached `served` the subscriber is live. What the store has forgotten meanwhile is told as a GAP.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Final

from relay import wire
from relay.capability import Right
from relay.fanout import FanOut
from relay.limits import REPLAY_BYTES
from relay.outbox import DURABLE, Chunk, frame_of
from relay.store import Record, Store
from relay.stream import Attachment, Submit, Subscriber

REPLAYS_PER_TURN: Final = 16
"""Reads that one turn begins: a reconnect storm is served beside the traffic, not before it."""


class Replay:
    """All replays of a relay. `read` makes a blocking call of the store and answers on the loop."""

    def __init__(self, store: Store, read: Submit, fanout: FanOut) -> None:
        self._store = store
        self._read = read
        self._fanout = fanout
        self._catching: deque[Attachment] = deque()
        self._stalled: list[Attachment] = []

    def turn(self) -> bool:
        """Begin some steps; return whether more wait."""
        for _ in range(min(len(self._catching), REPLAYS_PER_TURN)):
            attachment = self._catching.popleft()
            attachment.queued = False
            self._step(attachment)
        return bool(self._catching)

    def _step(self, attachment: Attachment) -> None:
        stream = attachment.stream
        box = attachment.client.box
        if attachment.gone or attachment.reading or attachment.cursor is None:
            return
        if attachment.cursor == stream.served:
            self._go_live(attachment)
        elif attachment.cursor > stream.served:
            self.schedule(attachment)  # It has what was acknowledged but is served only now.
        elif box.standing is None and not stream.erasing:
            attachment.reading = True
            call = partial(self._store.read, stream.number, attachment.cursor, REPLAY_BYTES)
            self._read(call, partial(self._take, attachment, stream.epoch, attachment.cursor))
        # Otherwise `drained` or the end of the erasure comes back to it.

    def _take(
        self, attachment: Attachment, epoch: int, after: int, records: list[Record] | None, error: Exception | None
    ) -> None:
        attachment.reading = False
        stream = attachment.stream
        cursor = attachment.cursor
        if attachment.gone or cursor is None or stream.erasing:
            return
        if error is not None or records is None:
            self._fanout.counters.read_failures += 1
            self._stalled.append(attachment)  # The next tick tries again.
            return
        box = attachment.client.box
        if epoch == stream.epoch and after == cursor:  # Else the client fell back meanwhile.
            served = stream.served
            records = [record for record in records if record.seq <= served]
            first = records[0].seq if records else served + 1
            if first > cursor + 1:
                self._fanout.counters.gaps += 1
                gap = frame_of(wire.Gap(stream.number, cursor + 1, first - 1))
                self._fanout.push(box, Chunk(gap, DURABLE, stream.number, cursor + 1, first - 1))
                attachment.cursor = first - 1
            if records:
                data = b"".join([record.frame for record in records])
                self._fanout.push(box, Chunk(data, DURABLE, stream.number, first, records[-1].seq))
                attachment.cursor = records[-1].seq
                self._fanout.counters.replayed += len(records)
        self.schedule(attachment)

    def schedule(self, attachment: Attachment) -> None:
        """Have a step of a replay made in this turn or a later one."""
        if not attachment.queued:
            attachment.queued = True
            self._catching.append(attachment)

    def begin(self, attachment: Attachment, cursor: int) -> None:
        """Give a subscriber a cursor; `schedule` has its first step made."""
        attachment.cursor = cursor
        attachment.stream.catching.add(attachment)

    def _go_live(self, attachment: Attachment) -> None:
        attachment.cursor = None
        attachment.stream.catching.discard(attachment)
        attachment.stream.live[attachment.client.box] = attachment
        end_lag_if_caught_up(attachment.client)

    def drained(self, client: Subscriber) -> None:
        """The client's outbox stands no longer: go on with its replays."""
        for attachment in client.attachments.values():
            if attachment.cursor is not None:
                self.schedule(attachment)

    def fall_behind(self, client: Subscriber) -> None:
        """The client's durable lane is over its limit: drop it, and replay from the store as the client drains."""
        client.box.overflowing = False
        dropped = client.box.drop_records()
        if not dropped:
            return
        client.box.lagging = True
        self._fanout.counters.lagging += 1
        for number, first in dropped.items():
            attachment = client.attachments.get(number)
            if attachment is None or not attachment.use & Right.SUBSCRIBE:
                continue
            self._fanout.withdraw(attachment.stream, client.box)
            self.begin(attachment, first - 1 if attachment.cursor is None else min(attachment.cursor, first - 1))

    def tick(self) -> None:
        """Once a second: try again what the store could not read."""
        stalled, self._stalled = self._stalled, []
        for attachment in stalled:
            self.schedule(attachment)


def end_lag_if_caught_up(client: Subscriber) -> None:
    """Note that a client with no cursor left does not lag."""
    if client.box.lagging and all(attachment.cursor is None for attachment in client.attachments.values()):
        client.box.lagging = False
