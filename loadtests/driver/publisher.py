"""What one participant sends: sealed, sent at its time, and kept until the relay has it.

What is due while the participant is not attached waits, and still counts from its intended time; states that are due
then are skipped, as nobody would want to see them afterwards. A record that was under way when its connection ended:

| the relay                     | then                                                                       |
|-------------------------------|----------------------------------------------------------------------------|
| takes a repeated id once      | it is sent again, with the same id and the same stamp                      |
| acknowledges, no more         | what was not acknowledged is under way at a cut: nobody knows its fate     |
| does not acknowledge          | so is what was handed to the kernel in the last second, or waited for it   |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from functools import partial
from time import monotonic_ns
from typing import Final, NamedTuple, Protocol

from loadtests.dialects.base import Refused
from loadtests.driver.context import Context
from loadtests.sealing.envelope import Sealer
from loadtests.sealing.records import EPHEMERAL_FLAG, Kind, Stamp
from loadtests.workload.traffic import Action, ReceiptRule
from relay.errors import Code
from relay.limits import PUBLISH_WINDOW

REPEAT_NS: Final = 100_000_000
"""After a refusal that may pass."""
UNDER_WAY_NS: Final = 1_000_000_000
"""A relay that does not acknowledge is taken to have read by then what the kernel has taken."""
_AGAIN: Final = frozenset({Code.STORE, Code.WINDOW, Code.RATE})
"""Refusals that the protocol lets a client repeat with the same id."""
_FIRST_ID: Final = 1_000
"""Above every slot: a refusal names an id or a slot by the same number."""


class Due(NamedTuple):
    """Something to publish."""

    stream: int
    kind: int
    durable: bool
    slot: int
    body: bytes
    intended_ns: int


class Outlet(Protocol):
    """The connection on which a stream is published to."""

    @property
    def blocked(self) -> bool:
        """The kernel has not taken all that was sent."""
        ...

    def publish(self, stream: int, id_: int, sealed: bytes, *, durable: bool = True, slot: int = 0) -> None: ...


class _Pending(NamedTuple):
    """A durable record whose fate is open: not acknowledged, or sent a moment ago where nothing is acknowledged."""

    stream: int
    sealed: bytes
    kind: int
    counter: int
    sent_ns: int


class Publisher:
    """The sending side of a participant. `timed` False: its acknowledgements say nothing, as it reads slowly."""

    __slots__ = (
        "_acknowledges",
        "_backlog",
        "_context",
        "_ephemeral",
        "_index",
        "_next_id",
        "_outlets",
        "_pending",
        "_repeats",
        "_sealers",
        "_timed",
        "leaving",
        "open",
    )

    def __init__(self, context: Context, index: int, *, timed: bool) -> None:
        features = context.features
        self._acknowledges = features.acknowledges
        self._repeats = features.acknowledges and features.idempotent
        self._ephemeral = features.ephemeral
        self._context = context
        self._index = index
        self._timed = timed
        self._outlets: dict[int, Outlet] = {}
        self._sealers: dict[int, Sealer] = {}
        self._pending: dict[int, _Pending] = {}
        self._backlog: deque[Due] = deque()
        self._next_id = _FIRST_ID
        self.open = False
        """The participant is attached: what is due may be sent."""
        self.leaving = False

    def add(self, stream: int, peer: int | None, outlet: Outlet) -> None:
        """Prepare to publish to a stream, on `outlet`."""
        self._outlets[stream] = outlet
        self._sealers[stream] = self._context.credentials.sealer(stream, self._index, peer)

    @property
    def silent(self) -> bool:
        """Nothing that it sent waits for the relay, and nothing waits to be sent."""
        return not self._backlog and not (self._pending and self._acknowledges)

    @property
    def unacknowledged(self) -> int:
        return len(self._pending)

    @property
    def unsent(self) -> int:
        return len(self._backlog)

    # -- what the plan says --------------------------------------------------------------------------

    def act(self, action: Action, due_ns: int, now_ns: int) -> None:
        """Send what the plan made due at `due_ns`."""
        context = self._context
        context.meters.lags(now_ns - due_ns)
        context.counts.due[action.kind] += 1
        body = context.credentials.body_of(action)
        self.publish(Due(action.stream, action.kind, action.durable, action.slot, body, due_ns))

    def answer(self, rule: ReceiptRule, stream: int, stamp: Stamp, now_ns: int) -> None:
        """Plan the receipts for a message that came."""
        context = self._context
        if stamp.kind != Kind.MESSAGE or not context.phase.sending or stamp.sender not in rule.authors:
            return
        body = context.workload.receipt_body(stream, stamp.sender, stamp.counter)
        for wanted, kind in ((rule.delivered, Kind.RECEIPT_DELIVERED), (rule.read, Kind.RECEIPT_READ)):
            if wanted:
                due_ns = now_ns + context.workload.think_ns(self._index, stamp.sender, stamp.counter, kind)
                context.loop.at(due_ns, partial(self._send_receipt, rule.to_stream, kind, body))

    def _send_receipt(self, stream: int, kind: int, body: bytes, due_ns: int, now_ns: int) -> None:
        if self._context.phase.sending and not self.leaving:
            self._context.meters.lags(now_ns - due_ns)
            self._context.counts.due[kind] += 1
            self.publish(Due(stream, kind, True, 0, body, due_ns))

    # -- what goes -----------------------------------------------------------------------------------

    def publish(self, due: Due) -> None:
        """Seal and send what is due, or keep it until that can be done."""
        context = self._context
        if not due.durable and not self.open:
            context.counts.skipped += 1
            return
        durable = due.durable or not self._ephemeral
        if durable and (
            not self.open or self._backlog or (self._acknowledges and len(self._pending) >= PUBLISH_WINDOW)
        ):
            self._backlog.append(due)
            return
        stream, phase = due.stream, context.phase
        sent_ns = monotonic_ns()
        counter = context.ledger.sent(self._index, stream, due.kind, durable=durable, at_ns=sent_ns + phase.shift_ns)
        sealed = self._sealers[stream].seal(
            due.kind,
            counter,
            due.intended_ns + phase.shift_ns,
            sent_ns + phase.shift_ns,
            due.body,
            clock=phase.clock,
            flags=0 if durable else EPHEMERAL_FLAG,
        )
        context.meters.sealed(monotonic_ns() - sent_ns)
        context.counts.sent[due.kind] += 1
        context.counts.sealed_bytes[due.kind] += len(sealed)
        outlet = self._outlets[stream]
        if not durable:
            outlet.publish(stream, 0, sealed, durable=False, slot=due.slot)
            return
        id_ = self._next_id
        self._next_id += 1
        if not self._acknowledges:
            self._forget_until(sent_ns - UNDER_WAY_NS)
        self._pending[id_] = _Pending(stream, sealed, due.kind, counter, sent_ns)
        outlet.publish(stream, id_, sealed)

    def _forget_until(self, until_ns: int) -> None:
        """Take as read what the kernel took that long ago; where nothing is acknowledged there is no better sign."""
        while self._pending:
            id_, oldest = next(iter(self._pending.items()))
            if oldest.sent_ns > until_ns or self._outlets[oldest.stream].blocked:
                return
            del self._pending[id_]

    def _flush_backlog(self) -> None:
        if self._context.phase.quiet:
            return
        waiting, self._backlog = self._backlog, deque()
        for due in waiting:
            self.publish(due)

    # -- what becomes of it --------------------------------------------------------------------------

    def acknowledged(self, id_: int, now_ns: int) -> int | None:
        """Note that the relay has a record; return its stream, None if it was not waited for."""
        pending = self._pending.pop(id_, None)
        if pending is None:
            return None
        if self._timed:
            self._context.meters.acked[pending.kind](now_ns - pending.sent_ns)
        self._context.counts.acknowledged[pending.kind] += 1
        if self._backlog:
            self._flush_backlog()
        return pending.stream

    def refused(self, event: Refused, now_ns: int) -> None:
        """Repeat a record that the relay refused for the moment, give up another."""
        pending = self._pending.get(event.about)
        if pending is None:
            return
        context = self._context
        if event.code in _AGAIN:
            context.loop.at(now_ns + REPEAT_NS, lambda due_ns, now_ns: self._repeat(event.about))
        else:
            del self._pending[event.about]
            context.counts.refused[pending.kind] += 1
            context.ledger.refused(self._index, pending.stream, pending.counter)

    def _repeat(self, id_: int) -> None:
        pending = self._pending.get(id_)
        if pending is not None and self.open:
            self._outlets[pending.stream].publish(pending.stream, id_, pending.sealed)

    def cut_off(self, streams: Collection[int]) -> None:
        """The connection to `streams` ended: keep what can be repeated, give the rest up as under way."""
        self.open = False
        if self._repeats:
            return
        if not self._acknowledges:
            self._forget_until(monotonic_ns() - UNDER_WAY_NS)
        for id_, pending in list(self._pending.items()):
            if pending.stream in streams:
                del self._pending[id_]
                self._context.ledger.under_way(self._index, pending.stream, pending.counter)

    def resume(self) -> None:
        """The participant is attached, for the first time or again: send what waits."""
        self.open = True
        if self._repeats:
            for id_ in self._pending:
                self._repeat(id_)
        self._flush_backlog()
