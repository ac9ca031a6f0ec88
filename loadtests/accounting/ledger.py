"""Exact delivery accounting with local knowledge only: what every recipient got, and what it was owed.

A record is known by (stream, sender, counter): senders count their records per stream from 1, durable ones apart from
states, and the counter travels in the sealed stamp. Two independent lines are followed for every recipient and stream:

| line     | what it counts                                  | owed                                                    |
|----------|-------------------------------------------------|---------------------------------------------------------|
| numbers  | the relay's own sequence numbers, one line      | all after the head told at SUBSCRIBED, up to the head   |
|          |                                                 | when it left or the run ended, in each epoch            |
| counters | one line a sender, independent of the relay     | from the first one seen to the sender's final counter;  |
|          |                                                 | from 1 where the recipient was there before any sending |

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
  the connection ended and the first that came on the next one. So do states on every relay.
- **under way at a cut**: missing, and its sender's connection ended before it was known to be taken, so that nobody can
  say whose loss it is (see publisher.py for which those are).
- **boundary**: sent, but not provably while the recipient was a member: before its first record of that sender, or
  after it left.

If the recipient was there from the start to the end, the counters see every loss there can be, wherever it happened. If
not, the larger of the two counts is taken: a record that the relay numbered and then lost shows in both. No more can be
lost than boundary, absence and cuts hide from the counters: numbers that miss more were never a record's (**phantoms**).

At the end the master merges the workers' `sent_log()`, hands its `finals()` round, each worker `settle()`s, and the merged
settlement gives the totals (loadtests/accounting/settlement.py). It reconciles if, over all records and recipients,
sent x recipients = delivered + lost + superseded + dropped + missed while away + under way + boundary; no side of it is
derived from the other.

Memory: 4 + 4 bytes a sender, recipient and stream, one interval a hole, one byte a record sent.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from loadtests.accounting.intervals import Intervals
from loadtests.accounting.settlement import (
    AWAY,
    FAULTS_MAX,
    HOLE,
    TAIL,
    UNDER_WAY,
    Final_,
    Finals,
    Line,
    SentLog,
    Settlement,
)
from loadtests.sealing.records import Stamp

NEW: Final = 0
REORDERED: Final = 1
DUPLICATE: Final = 2

LATE_NS: Final = 10_000_000_000
"""Default bound of lateness: a chat message that took ten seconds might as well be lost."""

_UNKNOWN: Final = 2**32 - 1
"""In place of a highest counter: nothing seen yet. No counter follows it, so that the quick way cannot be taken."""


class _Numbers:
    """The relay's line of one recipient and stream."""

    __slots__ = ("epoch", "highest", "holes", "lost_before", "own")

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.highest = 0
        self.holes = Intervals()
        self.lost_before = 0  # in former epochs
        self.own: set[int] = set()  # of the recipient's own records, which do not come back

    def note(self, seq: int) -> int:
        highest = self.highest
        if seq == highest + 1:
            self.highest = seq
            return NEW
        if seq > highest:
            self.holes.add(highest + 1, seq - 1)
            self.highest = seq
            return NEW
        return REORDERED if self.holes.take(seq) else DUPLICATE

    def reach(self, head: int) -> None:
        """Everything up to `head` is owed."""
        if head > self.highest:
            self.holes.add(self.highest + 1, head)
            self.highest = head

    def restart(self, epoch: int, base: int) -> None:
        self.lost_before = self.lost
        self.holes = Intervals()
        self.own.clear()
        self.epoch = epoch
        self.highest = base

    @property
    def lost(self) -> int:
        return self.lost_before + self.holes.count - sum(seq in self.holes for seq in self.own)


class _Counters:
    """The senders' lines of one recipient and stream: durable records, or states.

    `places`, shared by all recipients of the stream, says where a sender stands in the arrays.
    """

    __slots__ = (
        "_away",
        "_away_default",
        "_default",
        "_first",
        "_highest",
        "_holes",
        "_left",
        "_outside",
        "_places",
    )

    def __init__(self, places: dict[int, int], *, from_start: bool) -> None:
        self._places = places
        self._highest = array("I")
        self._first = array("I")
        self._holes: dict[int, Intervals] = {}
        self._outside: dict[int, Intervals] = {}  # passed by while away: neither owed nor delivered
        self._away: dict[int, int] = {}  # place -> highest before the absence, until the next of that sender comes
        self._away_default: int | None = None  # of senders that were not heard before it; None: they are a boundary
        self._default = 0 if from_start else _UNKNOWN
        self._left = False

    def note(self, sender: int, counter: int) -> int:
        place = self._places.get(sender)
        if place is None:
            place = self._places[sender] = len(self._places)
        try:
            highest = self._highest[place]
        except IndexError:
            missing = len(self._places) - len(self._highest)
            self._highest.extend([self._default] * missing)
            self._first.extend([1] * missing)
            highest = self._default
        if counter == highest + 1:
            self._highest[place] = counter
            return NEW
        return self._unusual(place, counter, highest)

    def _unusual(self, place: int, counter: int, highest: int) -> int:
        passed = self._holes
        if highest == _UNKNOWN:
            before = self._away.get(place, self._away_default)
            if before is None:
                self._first[place] = self._highest[place] = counter
                return NEW
            passed, highest = self._outside, before
            if counter > highest:
                self._away.pop(place, None)
        if counter > highest:
            if counter > highest + 1:
                passed.setdefault(place, Intervals()).add(highest + 1, counter - 1)
            self._highest[place] = counter
            return NEW
        first = self._first[place]
        if counter < first:
            if counter + 1 < first:
                self._holes.setdefault(place, Intervals()).add(counter + 1, first - 1)
            self._first[place] = counter
            return REORDERED
        for intervals in (self._holes.get(place), self._outside.get(place)):
            if intervals is not None and intervals.take(counter):
                return REORDERED
        return DUPLICATE

    def interrupt(self) -> None:
        """The recipient was away: what came meanwhile, up to the next record of each sender, is not owed."""
        for place, highest in enumerate(self._highest):
            if highest != _UNKNOWN:
                self._away[place] = highest
                self._highest[place] = _UNKNOWN
        if self._default != _UNKNOWN:
            self._away_default = self._default
        self._default = _UNKNOWN

    def leave(self) -> None:
        """What comes from now on is not owed."""
        self.interrupt()
        self._left = True

    def waits(self, finals: dict[int, Final_], own: int | None) -> bool | None:
        """Return whether a record that is owed is still to come; None if nobody can say."""
        unsure = False
        for sender, final in finals.items():
            if sender == own:
                continue
            place = self._places.get(sender, _UNKNOWN)
            highest = self._highest[place] if place < len(self._highest) else self._default
            if highest == _UNKNOWN:
                unsure = True
                continue
            for _, _, is_open in _Owed(final).of(((highest + 1, final.last), *self._holes.get(place, _NONE))):
                if not is_open:
                    return True
                unsure = True
        return None if unsure else False

    def settle(
        self, line: Line, finals: dict[int, Final_], settlement: Settlement, own: int | None
    ) -> tuple[int, int, int]:
        """Add up boundary and missing intervals; return how many records came, are lost, and may be or not.

        `own`: the recipient, if its own records do not come back to it.
        """
        came = lost = unsure = 0
        for sender, final in finals.items():
            place = self._places.get(sender, _UNKNOWN)
            highest = self._highest[place] if place < len(self._highest) else self._default
            if sender == own:
                if highest not in (0, _UNKNOWN):
                    settlement.faults.add(f"sender {sender} got its own records, though the relay returns none")
                continue
            owed, why_beyond = _Owed(final), TAIL
            if highest == _UNKNOWN:
                before = self._away.get(place, self._away_default)
                if before is None:
                    count = owed.count(((1, final.last),))
                    settlement.boundary += count
                    unsure += count
                    continue
                highest, why_beyond = before, AWAY
            if highest > final.last:
                settlement.faults.add(
                    f"stream {line[0]}: counter {highest} came of sender {sender}, who sent {final.last}"
                )
                continue
            first = self._first[place] if place < len(self._first) else 1
            holes, outside = self._holes.get(place, _NONE), self._outside.get(place, _NONE)
            came += highest - first + 1 - holes.count - outside.count
            count = owed.count(((1, first - 1), *(((highest + 1, final.last),) if self._left else ())))
            settlement.boundary += count
            unsure += count
            missing = [(AWAY, outside), (HOLE, holes), (why_beyond, () if self._left else ((highest + 1, final.last),))]
            for why, intervals in missing:
                for start, stop, is_open in owed.of(intervals):
                    reason = UNDER_WAY if is_open and why != AWAY else why
                    settlement.missing[*line, sender, reason, start, stop] += 1
                    if reason in (AWAY, UNDER_WAY):
                        unsure += stop - start + 1
                    else:
                        lost += stop - start + 1
            for counter in final.refused:
                if first <= counter <= highest and counter not in holes and counter not in outside:
                    settlement.faults.add(f"stream {line[0]}: {counter} of sender {sender} was refused, and yet came")
                    break
        for sender, place in self._places.items():
            if place < len(self._highest) and self._highest[place] not in (0, _UNKNOWN) and sender not in finals:
                settlement.faults.add(f"stream {line[0]}: sender {sender} was heard, but told no final counter")
        return came, lost, unsure


_NONE: Final = Intervals()


class _Owed:
    """Cuts intervals of one sender's counters into those that somebody is owed, and says whose fate is open."""

    __slots__ = ("_marked", "_refused")

    def __init__(self, final: Final_) -> None:
        self._refused = final.refused
        self._marked = sorted(final.refused | final.open)

    def of(self, intervals: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
        """Yield first, last and whether the fate is open; empty intervals are left out."""
        for first, last in intervals:
            at = bisect_left(self._marked, first)
            while at < len(self._marked) and self._marked[at] <= last:
                counter = self._marked[at]
                if first < counter:
                    yield first, counter - 1, False
                if counter not in self._refused:
                    yield counter, counter, True
                first = counter + 1
                at += 1
            if first <= last:
                yield first, last, False

    def count(self, intervals: Iterable[tuple[int, int]]) -> int:
        return sum(last - first + 1 for first, last, _ in self.of(intervals))


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
        self._numbers = _Numbers()
        self._counters = _Counters(ledger.places(stream, durable=True), from_start=False)
        self._states = _Counters(ledger.places(stream, durable=False), from_start=False)
        self._delivered = 0
        self._states_delivered = 0

    # -- membership --------------------------------------------------------------------------------

    def joined(self, epoch: int | None, head: int | None, after: int | None, *, from_start: bool = False) -> None:
        """Subscribed, for the first time or again. `epoch` and `head` are None on relays without numbers.

        `after`: what was asked for, None for only what is new; the first time None or 0. `from_start`: nobody has sent
        anything in this run yet (a head of 0 tells that of the durable records by itself).
        """
        again = self.subscribed
        self.subscribed = True
        self.closed = False
        base = 0 if head is None or after is not None else head
        if not again:
            places = self._ledger.places
            everything = from_start or (head is not None and base == 0)
            self._counters = _Counters(places(self.stream, durable=True), from_start=everything)
            self._states = _Counters(places(self.stream, durable=False), from_start=from_start)
            if epoch is not None:
                self._numbers.restart(epoch, base)
            return
        # States that passed while the connection was away were never owed.
        self._states.interrupt()
        if after is None:
            self._counters.interrupt()
        if epoch is None:
            return
        if epoch != self._numbers.epoch:
            self._numbers.restart(epoch, base)
        elif base > self._numbers.highest:
            self._numbers.highest = base

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

    def settle(self, finals: Finals, settlement: Settlement) -> None:
        """Add what this recipient missed."""
        settlement.accounts[self.stream] += 1
        if not self.closed:
            settlement.faults.add(f"stream {self.stream}: the account of recipient {self.recipient} was never closed")
        own = None if self.echo else self.recipient
        if own is not None:
            settlement.own.add((self.stream, own))
        came, lost, unsure = self._settle(self._counters, True, finals, settlement, own)
        if came != self._delivered:
            settlement.faults.add(f"stream {self.stream}: {self._delivered} came, their counters say {came}")
        came, *_ = self._settle(self._states, False, finals, settlement, own)
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

    def waits(self, finals: Finals) -> bool | None:
        """Return whether a durable record that it is owed is still to come; None if nobody can say."""
        own = None if self.echo else self.recipient
        return self._counters.waits(finals.lines.get((self.stream, True), {}), own)

    def _settle(
        self, counters: _Counters, durable: bool, finals: Finals, settlement: Settlement, own: int | None
    ) -> tuple[int, int, int]:
        line = (self.stream, durable)
        return counters.settle(line, finals.lines.get(line, {}), settlement, own)


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

    def sent(self, sender: int, stream: int, kind: int, *, durable: bool = True) -> int:
        """Log a record that is about to be sent; return its counter, which it keeps when it is sent again."""
        return self._sent.append((stream, durable), sender, kind)

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

    def sent_log(self) -> SentLog:
        """Return what this worker's senders sent."""
        return self._sent

    def settle(self, finals: Finals) -> Settlement:
        """Return what came and what is missing, given what all workers' senders sent. May be called again."""
        settlement = Settlement.from_wire(self.settlement.to_wire())
        for account in self._accounts.values():
            account.settle(finals, settlement)
        settlement.faults = set(sorted(settlement.faults)[:FAULTS_MAX])
        return settlement
