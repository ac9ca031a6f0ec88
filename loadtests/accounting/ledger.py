"""Exact delivery accounting with local knowledge only: what every recipient got, and what it was owed.

A record is known by (stream, sender, counter): senders count their records per stream from 1, durable ones apart from
states, and the counter travels in the sealed stamp. Two independent lines are followed for every recipient and stream:

| line     | what it counts                                  | owed                                                    |
|----------|-------------------------------------------------|---------------------------------------------------------|
| numbers  | the relay's own sequence numbers, one line      | all after the head told at SUBSCRIBED, up to the head   |
|          |                                                 | when it left or the run ended, in each epoch            |
| counters | one line a sender, independent of the relay     | from the first one seen, or the first that was sent     |
|          |                                                 | after SUBSCRIBED, to the sender's final counter; from 1 |
|          |                                                 | where the recipient was there before any sending        |

An arrival is judged in its line; `highest` is the highest seen, the holes are the numbers below it that are missing:

| arrival               | judged     | then                                                            |
|-----------------------|------------|-----------------------------------------------------------------|
| highest + 1           | new        | one compare and one store: all that happens on a good day       |
| above                 | new        | what lies between becomes a hole                                |
| below, in a hole      | reordered  | it leaves the hole                                              |
| below, in no hole     | duplicate  |                                                                 |
| below the first seen  | reordered  | counters alone: it becomes the first, what lies between, a hole |

Then, by kind:

- **duplicated**: the counter came before. Nothing else is counted of that copy.
- **delivered**: otherwise. Of these, **reordered**: the number or the counter came after a higher one; **late**: above
  `late_ns` from the actual send, or after `drained()`.
- **lost** (durable): holes at the end, and what a sender sent after the last that came. What the relay reported in a GAP is
  a hole like any other, and counted as `gaps` besides. Counters say of which sender and kind; where the numbers show
  more losses than the counters can (before a late joiner's first record of a sender) the kind is unknown.
- **superseded**, **dropped** (states): holes, and the tail. A state that a newer one overtook is no loss.
- **missed while away**: on a relay that does not resume, what lies between the last record of a sender that came before
  the connection ended and the first that came on the next one, or was sent after its SUBSCRIBED. So do states on every
  relay.
- **under way at a cut**: missing, and its sender's connection ended before it was known to be taken, so that nobody can
  say whose loss it is (see publisher.py for which those are).
- **boundary**: sent, but not provably while the recipient was a member: before its first record of that sender and
  before its SUBSCRIBED, or after it left.

If the recipient was there from the start to the end, the counters see every loss there can be, wherever it happened. If
not, the larger of the two counts is taken: a record that the relay numbered and then lost shows in both. No more can be
lost than boundary, absence and cuts hide from the counters: numbers that miss more were never a record's (**phantoms**).

At the end the master merges the workers' `sent_log()`, hands its `finals()` round, each worker `settle()`s, and the merged
settlement gives the totals (loadtests/accounting/settlement.py). It reconciles if, over all records and recipients,
sent x recipients = delivered + lost + superseded + dropped + missed while away + under way + boundary; no side of it is
derived from the other.

Memory: 4 + 4 bytes a sender, recipient and stream, one interval a hole, nine bytes a record sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loadtests.accounting.lines import DUPLICATE, NEVER_NS, NEW, REORDERED, Numbers, OnClock, SenderLines, same_clock
from loadtests.accounting.settlement import FAULTS_MAX, Finals, Line, SentLog, Settlement
from loadtests.sealing.records import Stamp

LATE_NS: Final = 10_000_000_000
"""Default bound of lateness: a chat message that took ten seconds might as well be lost."""


class Account:
    """One recipient in one stream. Made by Ledger.account; kept by the connection that receives."""

    __slots__ = (
        "_counters",
        "_delivered",
        "_ledger",
        "_numbers",
        "_states",
        "_states_delivered",
        "_trusts_numbers",
        "closed",
        "echo",
        "recipient",
        "stream",
        "subscribed",
    )

    def __init__(self, ledger: Ledger, recipient: int, stream: int, *, echo: bool, trusts_numbers: bool) -> None:
        self._ledger = ledger
        self.recipient = recipient
        self.stream = stream
        self.echo = echo
        self._trusts_numbers = trusts_numbers
        self.closed = False
        self.subscribed = False
        """At least once."""
        self._numbers = Numbers()
        self._counters = SenderLines(ledger.places(stream, durable=True), from_start=False)
        self._states = SenderLines(ledger.places(stream, durable=False), from_start=False)
        self._delivered = 0
        self._states_delivered = 0

    # -- membership --------------------------------------------------------------------------------

    def joined(
        self,
        epoch: int | None,
        head: int | None,
        after: int | None,
        *,
        from_start: bool = False,
        at_ns: int = NEVER_NS,
    ) -> None:
        """Subscribed, for the first time or again. `epoch` and `head` are None on relays without numbers.

        `after`: what was asked for, None for only what is new; the first time None or 0. `from_start`: nobody has sent
        anything in this run yet (a head of 0 tells that of the durable records by itself). `at_ns`: now, on the clock of the
        recipient's stamps; what is sent later is owed.
        """
        again = self.subscribed
        self.subscribed = True
        self.closed = False
        base = 0 if head is None or after is not None else head
        if not again:
            places = self._ledger.places
            everything = from_start or (head is not None and base == 0)
            self._counters = SenderLines(places(self.stream, durable=True), from_start=everything)
            self._states = SenderLines(places(self.stream, durable=False), from_start=from_start)
            self._counters.since_ns = self._states.since_ns = at_ns
            if epoch is not None:
                self._numbers.restart(epoch, base)
            return
        self.interrupted(resumes=after is not None)
        self._states.since_ns = at_ns
        if after is None:
            self._counters.since_ns = at_ns
        if epoch is None:
            return
        if epoch != self._numbers.epoch:
            self._numbers.restart(epoch, base)
        elif base > self._numbers.highest:
            self._numbers.highest = base

    def interrupted(self, *, resumes: bool) -> None:
        """The connection ended. What passes meanwhile is owed if the relay `resumes`; states never are."""
        self._states.interrupt()
        if not resumes:
            self._counters.interrupt()

    @property
    def resume(self) -> tuple[int | None, int]:
        """The epoch and the number after which to resume."""
        return self._numbers.epoch, self._numbers.highest

    def gap(self, first: int, last: int) -> None:
        """The relay says that it cannot give the numbers `first` to `last`."""
        self._ledger.settlement.gaps += last - first + 1
        self._numbers.reach(last)

    def own_number(self, seq: int) -> None:
        """The relay gave this number to a record of the recipient's own, which does not come back to it."""
        self._numbers.own.add(seq)

    def erased(self, epoch: int) -> None:
        """The stream was emptied and starts again at 1; what came before has come in order."""
        self._numbers.restart(epoch, 0)

    def left(self, head: int | None) -> None:
        """A member leaves during the run. `head`: of Unsubscribed; None where the relay tells none."""
        self._end(head)
        self._counters.leave()
        self._states.leave()

    def finished(self, head: int | None) -> None:
        """The run ends for this recipient, which is owed all that was sent. `head`: of Unsubscribed, if it came."""
        self._end(head)

    def _end(self, head: int | None) -> None:
        self.closed = True
        if head is not None:
            self._numbers.reach(head)

    # -- arrivals ----------------------------------------------------------------------------------

    def record(self, seq: int | None, stamp: Stamp, now_ns: int) -> bool:
        """Enter a durable record; return False for a duplicate. `now_ns` is on the clock of the stamp's times."""
        kind, sender, counter = stamp[0], stamp[3], stamp[4]
        by_number = NEW if seq is None else self._numbers.note(seq)
        by_counter = self._counters.note(sender, counter)
        entry = self._ledger.settlement
        if by_counter == DUPLICATE:
            entry.duplicated[kind] += 1
            return False
        if by_number == DUPLICATE:
            entry.misnumbered += 1
        elif by_number == REORDERED or by_counter == REORDERED:
            entry.reordered[kind] += 1
        self._delivered += 1
        self._came(stamp, now_ns)
        return True

    def state(self, stamp: Stamp, now_ns: int) -> bool:
        """Enter a state; return False for a duplicate."""
        kind = stamp[0]
        judged = self._states.note(stamp[3], stamp[4])
        entry = self._ledger.settlement
        if judged == DUPLICATE:
            entry.duplicated[kind] += 1
            return False
        if judged == REORDERED:
            entry.reordered[kind] += 1
        self._states_delivered += 1
        self._came(stamp, now_ns)
        return True

    def _came(self, stamp: Stamp, now_ns: int) -> None:
        ledger = self._ledger
        ledger.settlement.delivered[stamp[0]] += 1
        if now_ns - stamp[7] > ledger.late_ns:
            ledger.settlement.late[stamp[0]] += 1

    # -- the end -----------------------------------------------------------------------------------

    def settle(self, finals: Finals, settlement: Settlement, on_clock: OnClock = same_clock) -> None:
        """Add what this recipient missed."""
        settlement.accounts[self.stream] += 1
        if not self.closed:
            settlement.faults.add(f"stream {self.stream}: the account of recipient {self.recipient} was never closed")
        own = None if self.echo else self.recipient
        if own is not None:
            settlement.own.add((self.stream, own))
        came, lost, unsure = self._settle(self._counters, True, finals, settlement, own, on_clock)
        if came != self._delivered:
            settlement.faults.add(f"stream {self.stream}: {self._delivered} came, their counters say {came}")
        came, *_ = self._settle(self._states, False, finals, settlement, own, on_clock)
        if came != self._states_delivered:
            settlement.faults.add(
                f"stream {self.stream}: {self._states_delivered} states came, their counters say {came}"
            )
        unseen = self._numbers.lost - lost - self._own_open(finals)
        if unseen > 0 and self._trusts_numbers:
            settlement.lost_unknown += min(unseen, unsure)
            settlement.phantoms += max(0, unseen - unsure)

    def _own_open(self, finals: Finals) -> int:
        """Return how many records of its own may have got a number that nobody told it."""
        final = finals.lines.get((self.stream, True), {}).get(self.recipient)
        return 0 if self.echo or final is None else len(final.open)

    def waits(self, finals: Finals, on_clock: OnClock = same_clock) -> bool | None:
        """Return whether a durable record that it is owed is still to come; None if nobody can say."""
        own = None if self.echo else self.recipient
        return self._counters.waits(finals.lines.get((self.stream, True), {}), own, on_clock)

    def _settle(
        self,
        counters: SenderLines,
        durable: bool,
        finals: Finals,
        settlement: Settlement,
        own: int | None,
        on_clock: OnClock,
    ) -> tuple[int, int, int]:
        line: Line = (self.stream, durable)
        return counters.settle(line, finals.lines.get(line, {}), settlement, own, on_clock)


class Ledger:
    """The ledger of one worker: what its senders sent and what its recipients got."""

    __slots__ = ("_accounts", "_places", "_sent", "late_ns", "settlement")

    def __init__(self, *, late_ns: int = LATE_NS) -> None:
        self.late_ns = late_ns
        """An arrival longer than this after the actual send is late."""
        self.settlement = Settlement()
        """What has come so far; read it for a display, settle() completes a copy."""
        self._accounts: dict[tuple[int, int], Account] = {}
        self._places: dict[Line, dict[int, int]] = {}
        self._sent = SentLog()

    def sent(self, sender: int, stream: int, kind: int, *, durable: bool = True, at_ns: int = 0) -> int:
        """Log a record that is sent at `at_ns` of its stamp's clock; return its counter, which a repetition keeps."""
        return self._sent.append((stream, durable), sender, kind, at_ns)

    def refused(self, sender: int, stream: int, counter: int, *, durable: bool = True) -> None:
        """The relay refused this record and it was given up: nobody is owed it."""
        self._sent.refuse((stream, durable), sender, counter)

    def under_way(self, sender: int, stream: int, counter: int) -> None:
        """The sender's connection ended while this durable record was under way, and it is not sent again."""
        self._sent.leave_open((stream, True), sender, counter)

    def account(self, recipient: int, stream: int, *, echo: bool = True, trusts_numbers: bool = True) -> Account:
        """Return the account of a recipient in a stream. `echo` False: its own records do not come back to it.

        `trusts_numbers` False: the relay's numbers count records that the recipient cannot know of.
        """
        account = self._accounts.get((recipient, stream))
        if account is None:
            account = Account(self, recipient, stream, echo=echo, trusts_numbers=trusts_numbers)
            self._accounts[recipient, stream] = account
        return account

    def accounts(self) -> Iterable[Account]:
        """Return every account there is."""
        return self._accounts.values()

    def places(self, stream: int, *, durable: bool) -> dict[int, int]:
        """Return where senders stand in the arrays of all recipients of a stream."""
        return self._places.setdefault((stream, durable), {})

    def drained(self) -> None:
        """The time to drain is over: whatever comes from now on is late."""
        self.late_ns = -(2**63)

    def begin(self, clock: int) -> None:
        """Stamps are made by the clock of this name from now on."""
        self._sent.clock = clock

    def sent_log(self) -> SentLog:
        """Return what this worker's senders sent."""
        return self._sent

    def settle(self, finals: Finals, on_clock: OnClock = same_clock) -> Settlement:
        """Return what came and what is missing, given what all workers' senders sent. May be called again."""
        settlement = Settlement.from_wire(self.settlement.to_wire())
        for account in self._accounts.values():
            account.settle(finals, settlement, on_clock)
        settlement.faults = set(sorted(settlement.faults)[:FAULTS_MAX])
        return settlement
