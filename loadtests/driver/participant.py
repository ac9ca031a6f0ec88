"""One participant: a state machine between its plan, its connection and the ledger.

    waiting --connect--> opening --(WebSocket, WELCOME)--> attaching --(every SUBSCRIBED)--> joined
       ^                                                                                       |
       +------------------- cut, closed by the relay, GOAWAY: later again, and resume --------+

What the plan says is due while the participant is not joined waits, and still counts from its intended time; states
(typing) that are due then are skipped, as nobody would want to see them afterwards. Records that were not acknowledged
when a connection ended are sent again, with the same id and the same stamp.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, NamedTuple

from loadtests.accounting.ledger import Account
from loadtests.dialects.base import (
    Attach,
    Closed,
    Delivered,
    Dialect,
    Erased,
    Failed,
    Gap,
    GoingAway,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
    Unsubscribed,
)
from loadtests.driver.connection import Connection
from loadtests.sealing.envelope import Opener, OpenError, Sealer
from loadtests.sealing.records import EPHEMERAL_FLAG, Kind, Stamp
from loadtests.sealing.vouchers import Till
from loadtests.workload.traffic import Action, ParticipantPlan, ReceiptRule
from relay.capability import Right
from relay.errors import Code
from relay.limits import PUBLISH_WINDOW

if TYPE_CHECKING:
    from loadtests.driver.population import Population

RETRY_NS_MIN: Final = 100_000_000
RETRY_NS_MAX: Final = 2_000_000_000
_SPREAD: Final = 97
_SUBSCRIBE: Final = int(Right.SUBSCRIBE)
_AGAIN: Final = frozenset({Code.STORE, Code.WINDOW, Code.RATE})
"""Refusals that the protocol lets a client repeat with the same id."""
_MESSAGE: Final = int(Kind.MESSAGE)
_TIP: Final = int(Kind.TIP)
_FIRST_ID: Final = 1_000
"""Above every slot: a refusal names an id or a slot by the same number."""
SLOW_PIECE_BYTES: Final = 4_096
"""What a slow reader reads at once, and its receive buffer: otherwise the kernel would take megabytes on its behalf."""


class _Inbound(NamedTuple):
    """What a subscriber needs for each record of a stream."""

    open_stamp: Callable[[bytes], Stamp]
    opener: Opener
    account: Account
    rule: ReceiptRule | None
    fanout_step: int


class _Pending(NamedTuple):
    """A durable record that the relay has not acknowledged."""

    stream: int
    sealed: bytes
    kind: int
    counter: int
    sent_ns: int


class Due(NamedTuple):
    """Something to publish."""

    stream: int
    kind: int
    durable: bool
    slot: int
    body: bytes
    intended_ns: int


class Participant:
    """A participant of the plan on the loop of its worker."""

    __slots__ = (
        "_account_of",
        "_actions",
        "_asked",
        "_attached",
        "_attaches",
        "_backlog",
        "_catching",
        "_connection",
        "_dialect",
        "_generation",
        "_inbound",
        "_joining_ns",
        "_leaving",
        "_next_id",
        "_pending",
        "_plan",
        "_population",
        "_resuming_ns",
        "_retry_ns",
        "_sealers",
        "_slow",
        "_till",
        "attached",
        "index",
        "joined",
        "late",
        "left",
    )

    def __init__(self, population: Population, plan: ParticipantPlan) -> None:
        self._population = population
        self._plan = plan
        self.index = plan.participant
        self.attached = False
        """It has a connection, and every stream of its plan on it."""
        self.joined = False
        """Everything that the plan attaches it to was attached at least once."""
        self.late = bool(plan.connect_ns)
        """It joins only while the load goes on."""
        self.left: set[int] | None = None
        """Streams that it has left at the end, None before that."""
        self._leaving = False
        self._connection: Connection | None = None
        self._dialect: Dialect | None = None
        self._generation = 0
        self._attaches: list[Attach] = []
        self._inbound: dict[int, _Inbound] = {}
        self._account_of: dict[int, Account] = {}
        self._sealers: dict[int, Sealer] = {}
        self._attached: set[int] = set()
        self._catching: dict[int, int] = {}
        self._pending: dict[int, _Pending] = {}
        self._backlog: deque[Due] = deque()
        self._next_id = _FIRST_ID
        self._asked: dict[int, int | None] = {}
        self._joining_ns = 0
        self._resuming_ns = 0
        self._retry_ns = RETRY_NS_MIN
        self._actions = iter(plan.actions())
        self._slow = plan.read_bytes_per_s is not None
        self._till: Till | None = None
        for membership in plan.memberships:
            self._prepare(membership.stream, int(membership.rights), membership.peer)

    def _prepare(self, stream: int, rights: int, peer: int | None) -> None:
        population = self._population
        keyring = population.keyring
        self._attaches.append(
            Attach(
                stream=stream,
                name=keyring.stream_name(stream),
                use=rights,
                capability=keyring.capability(stream, self.index, rights, expires_s=population.expires_s),
            )
        )
        if rights & int(Right.PUBLISH):
            self._sealers[stream] = population.sealer(stream, self.index, peer)
        if rights & _SUBSCRIBE:
            opener = population.opener(stream, self.index, peer)
            account = population.ledger.account(self.index, stream, echo=population.echoes)
            self._account_of[stream] = account
            self._inbound[stream] = _Inbound(
                opener.stamp, opener, account, self._plan.receipts.get(stream), population.fanout_step(stream)
            )
            self._till = self._till or population.till(stream, self.index)

    # -- coming and going ----------------------------------------------------------------------------

    def enter(self, intended_ns: int) -> None:
        """Connect now; the join counts from `intended_ns`."""
        self._joining_ns = intended_ns
        self._population.joins.begin(intended_ns)
        self._connect()

    def _connect(self) -> None:
        population = self._population
        self._dialect = population.dialect()
        self._attached.clear()
        self._connection = population.loop.connect(
            self, population.address, piece_bytes=SLOW_PIECE_BYTES if self._slow else None
        )

    def start(self, start_ns: int) -> None:
        """The load begins: follow the plan, whose times count from `start_ns`."""
        if self._plan.connect_ns:
            due_ns = start_ns + self._plan.connect_ns
            self._population.loop.at(due_ns, lambda due_ns, now_ns: self.enter(due_ns))
        for cut in self._plan.cuts:
            self._population.loop.at(start_ns + cut.at_ns, partial(self._cut, cut.away_ns))
        self._schedule_next()

    def _schedule_next(self) -> None:
        action = next(self._actions, None)
        if action is not None:
            self._population.loop.at(self._population.start_ns + action.offset_ns, partial(self._act, action))

    def _cut(self, away_ns: int, due_ns: int, _now_ns: int) -> None:
        if self._population.sending and self._connection is not None:
            self._connection.abort()
            self._population.counts.cuts += 1
            self._come_back(due_ns + away_ns)

    def _come_back(self, at_ns: int) -> None:
        """Connect again at `at_ns`; what was attached resumes."""
        self._connection = None
        self._attached.clear()
        self._catching.clear()
        self._population.attached -= self.attached
        self.attached = False
        self._generation += 1
        self._population.loop.at(at_ns, partial(self._connect_again, self._generation))

    def _connect_again(self, generation: int, due_ns: int, _now_ns: int) -> None:
        # Only the latest reason to come back counts, and nobody comes back after the end.
        if generation != self._generation or self._population.over:
            return
        if self.joined and not self._resuming_ns:
            self._resuming_ns = due_ns
            self._population.resumptions.begin(due_ns)
        self._connect()

    def read_at_full_speed(self) -> None:
        """The load is over: who read slowly reads as fast as it can."""
        if self._slow and self._connection is not None:
            self._connection.resume()

    def leave(self) -> None:
        """Unsubscribe from everything: at the end of the run, or because Locust stops this user."""
        self._leaving = True
        if self.left is None:
            self.left = set()
        if self._connection is None or self._dialect is None:
            return
        self._connection.resume()
        parts = [
            self._dialect.unsubscribe(stream)
            for stream in self._account_of
            if stream in self._attached and stream not in self.left
        ]
        self._send(b"".join(parts))

    @property
    def gone(self) -> bool:
        """It has everything that it will get: every subscription ended in order."""
        return self.left is not None and (not self._asked or self.left.issuperset(self._account_of))

    @property
    def silent(self) -> bool:
        """Nothing that it sent waits for the relay, and nothing waits to be sent."""
        return not self._pending and not self._backlog

    @property
    def unacknowledged(self) -> int:
        return len(self._pending)

    @property
    def unsent(self) -> int:
        return len(self._backlog)

    def finish(self) -> None:
        """Settle the accounts of subscriptions that did not end in order, and hang up."""
        for stream, account in self._account_of.items():
            if self.left is None or stream not in self.left:
                account.finished(None)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- the loop's handler -------------------------------------------------------------------------

    def connected(self, now_ns: int) -> None:
        self._send(self._speaking.opening())

    def received(self, data: bytes, now_ns: int) -> None:
        if self._slow:
            self._read_on(len(data), now_ns)
        for event in self._speaking.receive(data):
            if type(event) is tuple:
                self._delivered(event, now_ns)  # type: ignore[arg-type]  # the only event that is a plain tuple
            elif not self._take_event(event, now_ns):
                return

    def closed(self, reason: str, now_ns: int) -> None:
        self._population.counts.count("disconnected: " + reason)
        delay_ns, self._retry_ns = self._retry_ns, min(2 * self._retry_ns, RETRY_NS_MAX)
        self._come_back(now_ns + delay_ns + self._spread(delay_ns))

    def _spread(self, span_ns: int) -> int:
        """Return this participant's part of `span_ns`: a thousand who lost the relay do not come back together."""
        return span_ns * (self.index % _SPREAD) // _SPREAD

    def _read_on(self, size: int, now_ns: int) -> None:
        """Let the connection, which pauses after each piece, read the next when this one's time has passed."""
        connection, bytes_per_s = self._connection, self._plan.read_bytes_per_s
        assert connection is not None
        if bytes_per_s is None or not self._population.sending:
            connection.resume()
        else:
            due_ns = now_ns + size * 1_000_000_000 // bytes_per_s
            self._population.loop.at(due_ns, lambda due_ns, now_ns: connection.resume())

    # -- what comes ----------------------------------------------------------------------------------

    def _delivered(self, event: Delivered, now_ns: int) -> None:
        population = self._population
        stream, seq, _, sealed = event
        inbound = self._inbound[stream]
        began_ns = monotonic_ns()
        try:
            stamp = inbound.open_stamp(sealed)
        except OpenError:
            population.counts.unopened += 1
            return
        population.opened(monotonic_ns() - began_ns)
        here_ns = now_ns + population.shift_ns
        slow, timed = self._slow, True
        if stamp.clock != population.clock:
            correction_ns = population.correction_ns(stamp.clock)
            timed = correction_ns is not None
            here_ns -= correction_ns or 0
        # Who reads slowly on purpose is late by its own choice, which says nothing of the relay.
        if not inbound.account.record(seq, stamp, here_ns if timed and not slow else stamp.sent_ns):
            return
        population.counts.received += 1
        kind = stamp.kind
        latency_ns = here_ns - stamp.intended_ns
        if timed and slow:
            population.deliver_slow(latency_ns)
        elif timed:
            population.deliver_intended[kind](latency_ns)
            population.deliver_sent[kind](here_ns - stamp.sent_ns)
        if self._catching:
            self._catch_up(stream, seq, now_ns)
        if kind == _MESSAGE:
            step = inbound.fanout_step
            if step and timed and not slow and not (stamp.counter + stamp.sender) % step:
                population.fanout.note(stream, stamp.sender, stamp.counter, latency_ns)
        elif kind == _TIP and self._till is not None:
            population.counts.count("tip: " + self._till.take(inbound.opener.open(sealed)[1]).value)
        if inbound.rule is not None and stamp.sender != self.index:
            self._answer(inbound.rule, stream, stamp, now_ns)

    def _take_event(self, event: object, now_ns: int) -> bool:
        """Take what is not a durable record. False: this connection is over."""
        population = self._population
        if isinstance(event, State):
            self._state(event, now_ns)
        elif isinstance(event, Published):
            self._published(event.id, now_ns)
        elif isinstance(event, Reply):
            self._send(event.data)
        elif isinstance(event, Ready):
            self._attach()
        elif isinstance(event, Subscribed):
            self._subscribed(event, now_ns)
        elif isinstance(event, Unsubscribed):
            self._unsubscribed(event)
        elif isinstance(event, Refused):
            self._refused(event, now_ns)
        elif isinstance(event, Gap):
            self._account_of[event.stream].gap(event.first, event.last)
            self._catch_up(event.stream, event.last, now_ns)
        elif isinstance(event, Erased):
            self._account_of[event.stream].erased(event.epoch)
        elif isinstance(event, GoingAway):
            self._hang_up()
            delay_ns = event.retry_ms * 1_000_000
            self._come_back(now_ns + delay_ns + self._spread(delay_ns))
            return False
        elif isinstance(event, Closed | Failed):
            self._hang_up()
            self.closed(f"code {event.code}" if isinstance(event, Closed) else event.text, now_ns)
            return False
        else:
            population.counts.count(f"unexpected {type(event).__name__}")
        return True

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _state(self, event: State, now_ns: int) -> None:
        population = self._population
        inbound = self._inbound[event.stream]
        try:
            stamp = inbound.open_stamp(event.sealed)
        except OpenError:
            population.counts.unopened += 1
            return
        here_ns = now_ns + population.shift_ns
        untimed = self._slow
        if stamp.clock != population.clock:
            correction_ns = population.correction_ns(stamp.clock)
            untimed = untimed or correction_ns is None
            here_ns -= correction_ns or 0
        if inbound.account.state(stamp, stamp.sent_ns if untimed else here_ns) and not untimed:
            population.deliver_intended[stamp.kind](here_ns - stamp.intended_ns)
            population.deliver_sent[stamp.kind](here_ns - stamp.sent_ns)

    def _attach(self) -> None:
        self._retry_ns = RETRY_NS_MIN
        parts = []
        for attach in self._attaches:
            account = self._account_of.get(attach.stream)
            epoch = after = None
            if account is not None and account.subscribed and self._population.resumes:
                epoch, after = account.resume
            self._asked[attach.stream] = after
            parts.append(self._speaking.subscribe(attach, after=after, epoch=epoch))
        self._send(b"".join(parts))

    def _subscribed(self, event: Subscribed, now_ns: int) -> None:
        population = self._population
        self._attached.add(event.stream)
        account = self._account_of.get(event.stream)
        if account is not None:
            after = self._asked[event.stream]
            account.joined(event.epoch, event.head, after, from_start=not population.started)
            if after is not None and event.head is not None and account.resume[1] < event.head:
                self._catching[event.stream] = event.head
            if self._leaving:
                self._send(self._speaking.unsubscribe(event.stream))
        if len(self._attached) < len(self._attaches) or self.attached:
            return
        self.attached = True
        population.attached += 1
        if not self.joined:
            self.joined = True
            population.entered(self.late, self._joining_ns, now_ns)
        for id_, pending in self._pending.items():
            self._send(self._speaking.publish(pending.stream, id_, pending.sealed))
        self._caught_up(now_ns)
        self._flush_backlog()

    def _catch_up(self, stream: int, seq: int | None, now_ns: int) -> None:
        head = self._catching.get(stream)
        if head is not None and seq is not None and seq >= head:
            del self._catching[stream]
            self._caught_up(now_ns)

    def _caught_up(self, now_ns: int) -> None:
        if self._resuming_ns and not self._catching and self.attached:
            self._population.resumed(self._resuming_ns, now_ns)
            self._resuming_ns = 0

    def _unsubscribed(self, event: Unsubscribed) -> None:
        account = self._account_of.get(event.stream)
        if account is None or self.left is None or event.stream in self.left:
            return
        self.left.add(event.stream)
        if self._population.over or self._population.draining:
            account.finished(event.head)
        else:
            account.left(event.head)

    def _published(self, id_: int, now_ns: int) -> None:
        pending = self._pending.pop(id_, None)
        if pending is not None:
            if not self._slow:
                self._population.acked[pending.kind](now_ns - pending.sent_ns)
            self._population.counts.acknowledged[pending.kind] += 1
            if self._backlog:
                self._flush_backlog()

    def _refused(self, event: Refused, now_ns: int) -> None:
        self._population.counts.count(f"refused: {event.what} {_code_name(event.code)}")
        if event.what != "publish":
            return
        pending = self._pending.get(event.about)
        if pending is None:
            return
        if event.code in _AGAIN:
            self._population.loop.at(now_ns + RETRY_NS_MIN, lambda due_ns, now_ns: self._repeat(event.about))
        else:
            del self._pending[event.about]
            self._population.counts.refused[pending.kind] += 1
            self._population.ledger.refused(self.index, pending.stream, pending.counter)

    def _repeat(self, id_: int) -> None:
        pending = self._pending.get(id_)
        if pending is not None and self.attached:
            self._send(self._speaking.publish(pending.stream, id_, pending.sealed))

    # -- what goes -----------------------------------------------------------------------------------

    def _act(self, action: Action, due_ns: int, now_ns: int) -> None:
        population = self._population
        if not population.sending or self._leaving:
            return
        population.lags(now_ns - due_ns)
        population.counts.due[action.kind] += 1
        self._schedule_next()
        body = population.body_of(action)
        self.publish(Due(action.stream, action.kind, action.durable, action.slot, body, due_ns))

    def _answer(self, rule: ReceiptRule, stream: int, stamp: Stamp, now_ns: int) -> None:
        """Plan the receipts for a message that came."""
        population = self._population
        if stamp.kind != _MESSAGE or not population.sending or stamp.sender not in rule.authors:
            return
        body = population.workload.receipt_body(stream, stamp.sender, stamp.counter)
        for wanted, kind in ((rule.delivered, Kind.RECEIPT_DELIVERED), (rule.read, Kind.RECEIPT_READ)):
            if wanted:
                due_ns = now_ns + population.workload.think_ns(self.index, stamp.sender, stamp.counter, kind)
                population.loop.at(due_ns, partial(self._receipt, rule.to_stream, kind, body))

    def _receipt(self, stream: int, kind: int, body: bytes, due_ns: int, now_ns: int) -> None:
        if self._population.sending and not self._leaving:
            self._population.lags(now_ns - due_ns)
            self._population.counts.due[kind] += 1
            self.publish(Due(stream, kind, True, 0, body, due_ns))

    def _flush_backlog(self) -> None:
        if self._population.quiet:
            return
        waiting, self._backlog = self._backlog, deque()
        for due in waiting:
            self.publish(due)

    def publish(self, due: Due) -> None:
        """Seal and send what is due, or keep it until that can be done."""
        population = self._population
        stream = due.stream
        if due.durable and (not self.attached or self._backlog or len(self._pending) >= PUBLISH_WINDOW):
            self._backlog.append(due)
            return
        if not self.attached:
            population.counts.skipped += 1
            return
        shift_ns = population.shift_ns
        counter = population.ledger.sent(self.index, stream, due.kind, durable=due.durable)
        sent_ns = monotonic_ns()
        sealed = self._sealers[stream].seal(
            due.kind,
            counter,
            due.intended_ns + shift_ns,
            sent_ns + shift_ns,
            due.body,
            clock=population.clock,
            flags=0 if due.durable else EPHEMERAL_FLAG,
        )
        population.sealed(monotonic_ns() - sent_ns)
        population.counts.sent[due.kind] += 1
        population.counts.sealed_bytes[due.kind] += len(sealed)
        if not due.durable:
            self._send(self._speaking.publish(stream, 0, sealed, durable=False, slot=due.slot))
            return
        id_ = self._next_id
        self._next_id += 1
        if population.acknowledges:
            self._pending[id_] = _Pending(stream, sealed, due.kind, counter, sent_ns)
        self._send(self._speaking.publish(stream, id_, sealed))

    def _send(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.send(data)

    @property
    def _speaking(self) -> Dialect:
        assert self._dialect is not None
        return self._dialect


def _code_name(code: int) -> str:
    try:
        return Code(code).name
    except ValueError:
        return str(code)
