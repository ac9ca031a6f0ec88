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
- **boundary**: sent, but not provably while the recipient was a member: before its first record of that sender, after
  it left, or while it was away from a relay that cannot resume.

If the recipient was there from the start to the end, the counters see every loss there can be, wherever it happened. If
not, the larger of the two counts is taken: a record that the relay numbered and then lost shows in both.

At the end the master merges the workers' `sent_log()`, hands its `finals()` round, each worker `settle()`s, and the merged
settlement gives the totals (loadtests/accounting/settlement.py). It reconciles if, over all records and recipients,
sent x recipients = delivered + lost + superseded + dropped + boundary; no side of it is derived from the other.

Memory: 4 + 4 bytes a sender, recipient and stream, one interval a hole, one byte a record sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

from loadtests.accounting.intervals import Intervals
from loadtests.accounting.settlement import FAULTS_MAX, Final_, Finals, Line, SentLog, Settlement
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

    __slots__ = ("epoch", "highest", "holes", "lost_before")

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.highest = 0
        self.holes = Intervals()
        self.lost_before = 0  # in former epochs

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
        self.lost_before += self.holes.count
        self.holes = Intervals()
        self.epoch = epoch
        self.highest = base

    @property
    def lost(self) -> int:
        return self.lost_before + self.holes.count


class _Counters:
    """The senders' lines of one recipient and stream: durable records, or states.

    `places`, shared by all recipients of the stream, says where a sender stands in the arrays.
    """

    __slots__ = ("_away", "_default", "_first", "_highest", "_holes", "_outside", "_places", "complete")

    def __init__(self, places: dict[int, int], *, from_start: bool) -> None:
        self._places = places
        self._highest = array("I")
        self._first = array("I")
        self._holes: dict[int, Intervals] = {}
        self._outside: dict[int, Intervals] = {}  # passed by while away: neither owed nor delivered
        self._away: dict[int, int] = {}  # place -> highest before the absence, until the next of that sender comes
        self._default = 0 if from_start else _UNKNOWN
        self.complete = from_start
        """Whether everything that is sent is owed."""

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
        if highest == _UNKNOWN and place not in self._away:
            self._first[place] = self._highest[place] = counter
            return NEW
        passed = self._holes
        if highest == _UNKNOWN:
            passed, highest = self._outside, self._away[place]
            if counter > highest:
                del self._away[place]
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

    def leave(self) -> None:
        """What comes from now on until the next record of a sender is not owed."""
        for place, highest in enumerate(self._highest):
            if highest != _UNKNOWN:
                self._away[place] = highest
                self._highest[place] = _UNKNOWN
        self._default = _UNKNOWN
        self.complete = False

    def settle(self, line: Line, finals: dict[int, Final_], settlement: Settlement, own: int | None) -> tuple[int, int]:
        """Add up boundary and missing intervals; return how many of the senders' records came, and are lost.

        `own`: the recipient, if its own records do not come back to it.
        """
        came = lost = 0
        for sender, (last, refused) in finals.items():
            place = self._places.get(sender, _UNKNOWN)
            highest = self._highest[place] if place < len(self._highest) else self._default
            if sender == own:
                if highest not in (0, _UNKNOWN):
                    settlement.faults.add(f"sender {sender} got its own records, though the relay returns none")
                continue
            tail = highest != _UNKNOWN
            if not tail:
                if place not in self._away:
                    settlement.boundary += last - len(refused)
                    continue
                highest = self._away[place]
            if highest > last:
                settlement.faults.add(f"stream {line[0]}: counter {highest} came of sender {sender}, who sent {last}")
                continue
            first = self._first[place] if place < len(self._first) else 1
            holes, outside = self._holes.get(place, _NONE), self._outside.get(place, _NONE)
            came += highest - first + 1 - holes.count - outside.count
            beyond = [(highest + 1, last)] if highest < last else []
            settlement.boundary += _owed((*outside, *([] if tail else beyond), (1, first - 1)), refused)
            for is_tail, intervals in ((False, holes), (True, beyond if tail else [])):
                for start, stop in _without(intervals, refused):
                    settlement.missing[*line, sender, is_tail, start, stop] += 1
                    lost += stop - start + 1
            for counter in refused:
                if first <= counter <= highest and counter not in holes and counter not in outside:
                    settlement.faults.add(f"stream {line[0]}: {counter} of sender {sender} was refused, and yet came")
                    break
        for sender, place in self._places.items():
            if place < len(self._highest) and self._highest[place] not in (0, _UNKNOWN) and sender not in finals:
                settlement.faults.add(f"stream {line[0]}: sender {sender} was heard, but told no final counter")
        return came, lost


_NONE: Final = Intervals()


def _without(intervals: Iterable[tuple[int, int]], refused: frozenset[int]) -> Iterable[tuple[int, int]]:
    """Return `intervals` without the refused counters, which nobody is owed."""
    if not refused:
        return intervals
    parts = []
    for first, last in intervals:
        for counter in sorted(refused):
            if first <= counter <= last:
                if first < counter:
                    parts.append((first, counter - 1))
                first = counter + 1
        if first <= last:
            parts.append((first, last))
    return parts


def _owed(intervals: Iterable[tuple[int, int]], refused: frozenset[int]) -> int:
    return sum(last - first + 1 for first, last in _without(intervals, refused))


class Account:
    """One recipient in one stream. Made by Ledger.account; kept by the connection that receives."""

    __slots__ = (
        "_counters",
        "_delivered",
        "_ledger",
        "_numbers",
        "_states",
        "_states_delivered",
        "closed",
        "echo",
        "recipient",
        "stream",
        "subscribed",
    )

    def __init__(self, ledger: Ledger, recipient: int, stream: int, *, echo: bool) -> None:
        self._ledger = ledger
        self.recipient = recipient
        self.stream = stream
        self.echo = echo
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
        self._states.leave()
        if after is None:
            self._counters.leave()
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
        came, lost = self._settle(self._counters, True, finals, settlement, own)
        if came != self._delivered:
            settlement.faults.add(f"stream {self.stream}: {self._delivered} came, their counters say {came}")
        came, _ = self._settle(self._states, False, finals, settlement, own)
        if came != self._states_delivered:
            settlement.faults.add(
                f"stream {self.stream}: {self._states_delivered} states came, their counters say {came}"
            )
        unseen = self._numbers.lost - lost
        if unseen > 0:
            if self._counters.complete:
                settlement.phantoms += unseen
            else:
                settlement.lost_unknown += unseen
                settlement.boundary -= unseen

    def _settle(
        self, counters: _Counters, durable: bool, finals: Finals, settlement: Settlement, own: int | None
    ) -> tuple[int, int]:
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

    def account(self, recipient: int, stream: int, *, echo: bool = True) -> Account:
        """Return the account of a recipient in a stream. `echo` False: its own records do not come back to it."""
        account = self._accounts.get((recipient, stream))
        if account is None:
            account = self._accounts[recipient, stream] = Account(self, recipient, stream, echo=echo)
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
