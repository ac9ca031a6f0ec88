"""What one participant gets: it is opened, entered in the ledger, timed and answered."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Final, NamedTuple

from loadtests.accounting.ledger import Account
from loadtests.accounting.settlement import Finals
from loadtests.dialects.base import Delivered, Erased, Gap, State, Subscribed, Unsubscribed
from loadtests.driver.context import Context
from loadtests.driver.publisher import Publisher
from loadtests.sealing.envelope import Opener, OpenError
from loadtests.sealing.records import Kind, Stamp
from loadtests.sealing.vouchers import Till
from loadtests.workload.traffic import ReceiptRule

_MESSAGE: Final = int(Kind.MESSAGE)
_TIP: Final = int(Kind.TIP)


class _Inbound(NamedTuple):
    """What is needed for each record of a stream."""

    open_stamp: Callable[[bytes], Stamp]
    opener: Opener
    account: Account
    rule: ReceiptRule | None
    fanout_step: int


class Recipient:
    """The receiving side of a participant; `slow`: it reads slowly on purpose, so its times say nothing of the relay."""

    __slots__ = (
        "_catching",
        "_context",
        "_counts",
        "_inbound",
        "_index",
        "_meters",
        "_on_caught_up",
        "_phase",
        "_publisher",
        "_slow",
        "_till",
        "accounts",
        "came_ns",
        "left",
    )

    def __init__(
        self,
        context: Context,
        index: int,
        publisher: Publisher,
        *,
        slow: bool,
        on_caught_up: Callable[[int], None],
    ) -> None:
        """`on_caught_up(now_ns)` is called when the last stream has what it missed while the connection was away."""
        self._context = context
        self._meters, self._phase, self._counts = context.meters, context.phase, context.counts
        self._index = index
        self._publisher = publisher
        self._slow = slow
        self._on_caught_up = on_caught_up
        self._inbound: dict[int, _Inbound] = {}
        self._catching: dict[int, int] = {}
        self._till: Till | None = None
        self.accounts: dict[int, Account] = {}
        self.left: set[int] | None = None
        """Streams that it has left at the end, None before that."""
        self.came_ns = 0
        """When the last record came."""

    def add(self, stream: int, peer: int | None, rule: ReceiptRule | None) -> None:
        """Prepare to receive a stream."""
        context, features = self._context, self._context.features
        opener = context.credentials.opener(stream, self._index, peer)
        # A relay that has one connection a stream and direction cannot know whose the publishing one is.
        echo = features.echoes or features.one_stream
        # Numbers count its own records, too: it must get them back, or be told their numbers.
        account = self.accounts[stream] = context.ledger.account(
            self._index, stream, echo=echo, trusts_numbers=echo or features.acknowledges
        )
        self._inbound[stream] = _Inbound(opener.stamp, opener, account, rule, context.fanout_step(stream))
        self._till = self._till or context.credentials.till(stream, self._index)

    @property
    def catching_up(self) -> bool:
        return bool(self._catching)

    # -- membership ----------------------------------------------------------------------------------

    def cursor(self, stream: int) -> tuple[int | None, int | None]:
        """Return the epoch and the number after which a subscription is to go on; None: with what is new."""
        account = self.accounts.get(stream)
        if account is None or not account.subscribed or not self._context.features.resumes:
            return None, None
        return account.resume

    def subscribed(self, event: Subscribed, after: int | None, now_ns: int) -> None:
        account = self.accounts.get(event.stream)
        if account is None:
            return
        at_ns = now_ns + self._phase.shift_ns
        account.joined(event.epoch, event.head, after, from_start=not self._phase.started, at_ns=at_ns)
        # Where its own records do not come back, the head may be one of them: then it has caught up when it is attached.
        if after is not None and event.head is not None and account.echo and account.resume[1] < event.head:
            self._catching[event.stream] = event.head

    def own_number(self, stream: int, seq: int) -> None:
        """The relay took one of the participant's own records, and gave it this number."""
        account = self.accounts.get(stream)
        if account is not None and not account.echo:
            account.own_number(seq)

    def waits(self, finals: Finals) -> bool | None:
        """Return whether a record is still to come; None if nobody can say."""
        told = [account.waits(finals, self._phase.latest_on) for account in self.accounts.values()]
        return True if True in told else None if None in told else False

    def interrupt(self, streams: list[int]) -> None:
        """The connection that brought `streams` ended."""
        for stream in streams:
            self._catching.pop(stream, None)
            account = self.accounts[stream]
            if account.subscribed and not account.closed:
                account.interrupted(resumes=self._context.features.resumes)

    def unsubscribed(self, event: Unsubscribed) -> None:
        account = self.accounts.get(event.stream)
        if account is None or self.left is None or event.stream in self.left:
            return
        self.left.add(event.stream)
        if self._phase.over or self._phase.draining:
            account.finished(event.head)
        else:
            account.left(event.head)

    def finish(self) -> None:
        """Settle the accounts of subscriptions that did not end in order."""
        for stream, account in self.accounts.items():
            if self.left is None or stream not in self.left:
                account.finished(None)

    # -- what comes ----------------------------------------------------------------------------------

    def delivered(self, event: Delivered, now_ns: int) -> None:
        """Take a durable record."""
        stream, seq, _, sealed = event
        meters, phase, counts = self._meters, self._phase, self._counts
        inbound = self._inbound.get(stream)
        if inbound is None:
            counts.count("delivery on a stream that is only published to")
            return
        began_ns = monotonic_ns()
        try:
            stamp = inbound.open_stamp(sealed)
        except OpenError:
            counts.unopened += 1
            return
        meters.opened(monotonic_ns() - began_ns)
        self.came_ns = now_ns
        here_ns = now_ns + phase.shift_ns
        slow, timed = self._slow, True
        if stamp.clock != phase.clock:
            correction_ns = self._correction_ns(stamp.clock)
            timed = correction_ns is not None
            here_ns -= correction_ns or 0
        # Who reads slowly on purpose is late by its own choice, which says nothing of the relay.
        if not inbound.account.record(seq, stamp, here_ns if timed and not slow else stamp.sent_ns):
            return
        counts.received += 1
        kind = stamp.kind
        latency_ns = here_ns - stamp.intended_ns
        if timed and slow:
            meters.deliver_slow(latency_ns)
        elif timed:
            meters.deliver_intended[kind](latency_ns)
            meters.deliver_sent[kind](here_ns - stamp.sent_ns)
        if self._catching:
            self._catch_up(stream, seq, now_ns)
        if kind == _MESSAGE:
            step = inbound.fanout_step
            if step and timed and not slow and not (stamp.counter + stamp.sender) % step:
                self._context.fanout.note(stream, stamp.sender, stamp.counter, latency_ns)
        elif kind == _TIP and self._till is not None:
            counts.count("tip: " + self._till.take(inbound.opener.open(sealed)[1]).value)
        if inbound.rule is not None and stamp.sender != self._index:
            self._publisher.answer(inbound.rule, stream, stamp, now_ns)

    def state(self, event: State, now_ns: int) -> None:
        """Take an ephemeral record."""
        phase = self._phase
        inbound = self._inbound.get(event.stream)
        if inbound is None:
            self._counts.count("delivery on a stream that is only published to")
            return
        try:
            stamp = inbound.open_stamp(event.sealed)
        except OpenError:
            self._counts.unopened += 1
            return
        here_ns = now_ns + phase.shift_ns
        untimed = self._slow
        if stamp.clock != phase.clock:
            correction_ns = self._correction_ns(stamp.clock)
            untimed = untimed or correction_ns is None
            here_ns -= correction_ns or 0
        if inbound.account.state(stamp, stamp.sent_ns if untimed else here_ns) and not untimed:
            self._meters.deliver_intended[stamp.kind](here_ns - stamp.intended_ns)
            self._meters.deliver_sent[stamp.kind](here_ns - stamp.sent_ns)

    def _correction_ns(self, clock: int) -> int | None:
        correction_ns = self._phase.correction_ns(clock)
        if correction_ns is None:
            self._counts.count("delivery from a clock of unknown offset, not timed")
        return correction_ns

    def gap(self, event: Gap, now_ns: int) -> None:
        self.accounts[event.stream].gap(event.first, event.last)
        self._catch_up(event.stream, event.last, now_ns)

    def erased(self, event: Erased) -> None:
        self.accounts[event.stream].erased(event.epoch)

    def _catch_up(self, stream: int, seq: int | None, now_ns: int) -> None:
        head = self._catching.get(stream)
        if head is not None and seq is not None and seq >= head:
            del self._catching[stream]
            if not self._catching:
                self._on_caught_up(now_ns)
