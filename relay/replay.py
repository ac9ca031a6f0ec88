"""Replay: bringing a subscriber who has a cursor up to what is served, from the store, as its outbox drains. Sans-IO.

A replay goes in steps. Each reads a piece from the store and pushes it; the next waits until the outbox stands no longer.
When the cursor has reached `served` the subscriber is live. What the store has forgotten meanwhile is told as a GAP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias

from relay import wire
from relay.capability import Right
from relay.errors import Code
from relay.fanout import Attachment, FanOut
from relay.limits import REPLAY_BYTES
from relay.outbox import DURABLE, Chunk, Outbox, frame_of
from relay.store import Record, Store

Done: TypeAlias = Callable[[Any, Exception | None], None]
Submit: TypeAlias = Callable[[Callable[[], Any], Done], None]

REPLAYS_PER_TURN = 16
"""Reads that one turn begins: a reconnect storm is served beside the traffic, not before it."""


class Client(Protocol):
    """What the hub needs of a session."""

    box: Outbox
    attachments: dict[int, Attachment]
    exporting: bool
    unacked: int

    @property
    def ended(self) -> bool: ...

    def refuse(self, code: Code, record: int, about: int) -> None: ...


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
            self.go_on(attachment)  # It has what was acknowledged but is served only now.
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
                self._fanout.push(box, Chunk(gap, DURABLE, stream, cursor + 1, first - 1))
                attachment.cursor = first - 1
            if records:
                data = b"".join([record.frame for record in records])
                self._fanout.push(box, Chunk(data, DURABLE, stream, first, records[-1].seq))
                attachment.cursor = records[-1].seq
                self._fanout.counters.replayed += len(records)
        self.go_on(attachment)

    def go_on(self, attachment: Attachment) -> None:
        """Have a step of a replay made in this turn or a later one."""
        if not attachment.queued:
            attachment.queued = True
            self._catching.append(attachment)

    def begin(self, attachment: Attachment, cursor: int) -> None:
        attachment.cursor = cursor
        attachment.stream.catching.add(attachment)

    def _go_live(self, attachment: Attachment) -> None:
        attachment.cursor = None
        attachment.stream.catching.discard(attachment)
        attachment.stream.live[attachment.client.box] = attachment
        look_whether_caught_up(attachment.client)

    def drained(self, client: Client) -> None:
        """The client's outbox stands no longer: go on with its replays."""
        for attachment in client.attachments.values():
            if attachment.cursor is not None:
                self.go_on(attachment)

    def fall_behind(self, client: Client) -> None:
        """The client's durable lane is over its limit: drop it, and replay from the store as the client drains."""
        client.box.overflowing = False
        dropped = client.box.drop_records()
        if not dropped:
            return
        client.box.lagging = True
        self._fanout.counters.lagging += 1
        for stream, first in dropped.items():
            attachment = client.attachments.get(stream.number)
            if attachment is None or not attachment.use & Right.SUBSCRIBE:
                continue
            self._fanout.withdraw(stream, client.box)
            self.begin(attachment, first - 1 if attachment.cursor is None else min(attachment.cursor, first - 1))

    def tick(self) -> None:
        """Once a second: try again what the store could not read."""
        stalled, self._stalled = self._stalled, []
        for attachment in stalled:
            self.go_on(attachment)


def look_whether_caught_up(client: Client) -> None:
    """A client with no cursor left is not lagging."""
    if client.box.lagging and all(attachment.cursor is None for attachment in client.attachments.values()):
        client.box.lagging = False


__all__ = ["Client", "Done", "Replay", "Submit", "look_whether_caught_up"]
