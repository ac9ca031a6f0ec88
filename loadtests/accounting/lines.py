"""The two lines that are followed for every recipient and stream: the relay's numbers, and the senders' counters.

The theory is in ledger.py. Both judge an arrival, and know in the end what is missing; only the counters know whose it was.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from loadtests.accounting.intervals import Intervals
from loadtests.accounting.settlement import AWAY, HOLE, TAIL, UNDER_WAY, Final_, Line, Settlement

NEW: Final = 0
REORDERED: Final = 1
DUPLICATE: Final = 2

NEVER_NS: Final = 2**63 - 1
"""In place of the time since when a recipient is a member, where it is none, or nobody knows since when."""
OnClock: TypeAlias = Callable[[int, int], int]
"""(time on the recipient's clock, a sender's clock) -> the latest that this can be on the sender's clock."""

_UNKNOWN: Final = 2**32 - 1
"""In place of a highest counter: nothing seen yet. No counter follows it, so that the quick way cannot be taken."""


def same_clock(at_ns: int, clock: int) -> int:
    return at_ns


class Numbers:
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


class SenderLines:
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
        "_since",
        "since_ns",
    )

    def __init__(self, places: dict[int, int], *, from_start: bool) -> None:
        self._places = places
        self._highest = array("I")
        self._first = array("I")
        self._holes: dict[int, Intervals] = {}
        self._outside: dict[int, Intervals] = {}  # between the last before an absence and the first after it
        self._away: dict[int, int] = {}  # place -> highest before the absence, until the next of that sender comes
        self._away_default: int | None = None  # of senders that were not heard before it; None: they are a boundary
        self._since: dict[int, list[tuple[int, int]]] = {}  # place -> (counter, member since): for all up to it
        self._default = 0 if from_start else _UNKNOWN
        self._left = False
        self.since_ns = NEVER_NS
        """Since when the subscription stands: what is sent later is owed, whether more of its sender is seen or not."""

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
                self._note_since(place, counter - 1)
                self._first[place] = self._highest[place] = counter
                return NEW
            passed, highest = self._outside, before
            if counter > highest:
                self._note_since(place, counter - 1)
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

    def _note_since(self, place: int, upto: int) -> None:
        if upto:
            self._since.setdefault(place, []).append((upto, self.since_ns))

    def interrupt(self) -> None:
        """The recipient is away: what comes meanwhile, up to the next record of each sender, may have been missed."""
        for place, highest in enumerate(self._highest):
            if highest != _UNKNOWN:
                self._away[place] = highest
                self._highest[place] = _UNKNOWN
        if self._default != _UNKNOWN:
            self._away_default = self._default
        self._default = _UNKNOWN
        self.since_ns = NEVER_NS

    def leave(self) -> None:
        """What comes from now on is not owed."""
        self.interrupt()
        self._left = True

    # -- the end -----------------------------------------------------------------------------------

    def waits(self, finals: dict[int, Final_], own: int | None, on_clock: OnClock) -> bool | None:
        """Return whether a record that is owed is still to come; None if nobody can say."""
        unsure = False
        for sender, final in finals.items():
            if sender == own:
                continue
            if self._has_all(sender, final):
                continue
            missing, _ = self._missing(sender, final, on_clock)
            for why, _, last in missing:
                if why in (HOLE, TAIL):
                    return True
                unsure = unsure or why == UNDER_WAY or last == final.last
        return None if unsure else False

    def settle(
        self, line: Line, finals: dict[int, Final_], settlement: Settlement, own: int | None, on_clock: OnClock
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
            if self._has_all(sender, final):
                came += final.last
                continue
            if highest == _UNKNOWN:
                highest = self._away.get(place, self._away_default) or 0
            if highest > final.last:
                settlement.faults.add(
                    f"stream {line[0]}: counter {highest} came of sender {sender}, who sent {final.last}"
                )
                continue
            missing, came_of_sender = self._missing(sender, final, on_clock)
            came += came_of_sender
            for why, first, last in missing:
                count = last - first + 1
                if why == _BOUNDARY:
                    settlement.boundary += count
                else:
                    settlement.missing[*line, sender, why, first, last] += 1
                if why in (HOLE, TAIL):
                    lost += count
                else:
                    unsure += count
            if (refused := self._refused_and_came(place, final)) is not None:
                settlement.faults.add(f"stream {line[0]}: {refused} of sender {sender} was refused, and yet came")
        for sender, place in self._places.items():
            if place < len(self._highest) and self._highest[place] not in (0, _UNKNOWN) and sender not in finals:
                settlement.faults.add(f"stream {line[0]}: sender {sender} was heard, but told no final counter")
        return came, lost, unsure

    def _has_all(self, sender: int, final: Final_) -> bool:
        """Return whether everything that a sender sent is there: what is nearly always so, without looking further."""
        place = self._places.get(sender, _UNKNOWN)
        return (
            place < len(self._highest)
            and self._highest[place] == final.last
            and self._first[place] == 1
            and not final.refused
            and place not in self._holes
            and place not in self._outside
        )

    def _missing(self, sender: int, final: Final_, on_clock: OnClock) -> tuple[list[tuple[int, int, int]], int]:
        """Return (why, first, last) for all of a sender's records that did not come, and how many did."""
        place = self._places.get(sender, _UNKNOWN)
        highest = self._highest[place] if place < len(self._highest) else self._default
        first = self._first[place] if place < len(self._first) else 1
        why_beyond = TAIL
        if highest == _UNKNOWN:
            before = self._away.get(place, self._away_default)
            if before is None:
                first, highest = 1, 0
            else:
                highest = before
            why_beyond = _BOUNDARY if before is None or self._left else AWAY
        holes, outside = self._holes.get(place, _NONE), self._outside.get(place, _NONE)
        came = highest - first + 1 - holes.count - outside.count
        pieces = [(_BOUNDARY, 1, first - 1), *((HOLE, *hole) for hole in holes), *((AWAY, *one) for one in outside)]
        pieces.append((why_beyond, highest + 1, final.last))
        found: list[tuple[int, int, int]] = []
        for why, start, stop in pieces:
            member_from = start
            if why in (_BOUNDARY, AWAY):
                member_from = stop + 1
                since_ns = self._since_of(place, stop)
                if since_ns != NEVER_NS:
                    since_ns = on_clock(since_ns, final.clock)
                    member_from = max(start, min(member_from, final.first_after(since_ns)))
                found += ((why, *piece) for piece in _owed(start, member_from - 1, final, is_open=None))
            owed_why = {_BOUNDARY: TAIL if highest == 0 else HOLE, AWAY: TAIL if stop == final.last else HOLE}.get(
                why, why
            )
            found += ((owed_why, *piece) for piece in _owed(member_from, stop, final, is_open=False))
            found += ((UNDER_WAY, *piece) for piece in _owed(member_from, stop, final, is_open=True))
        return found, came

    def _since_of(self, place: int, counter: int) -> int:
        """Return since when the recipient is a member, as far as this missing counter is concerned."""
        known = self._since.get(place, ())
        at = bisect_left(known, (counter, 0)) if known else 0
        return known[at][1] if at < len(known) else self.since_ns

    def _refused_and_came(self, place: int, final: Final_) -> int | None:
        if place >= len(self._highest):
            return None
        highest = self._highest[place]
        if highest == _UNKNOWN:
            highest = self._away.get(place, 0)
        holes, outside = self._holes.get(place, _NONE), self._outside.get(place, _NONE)
        came = (
            counter
            for counter in final.refused
            if self._first[place] <= counter <= highest and counter not in holes and counter not in outside
        )
        return next(came, None)


_NONE: Final = Intervals()
_BOUNDARY: Final = -1
"""A reason that stands beside those of the settlement, and is only counted."""


def _owed(first: int, last: int, final: Final_, *, is_open: bool | None) -> Iterator[tuple[int, int]]:
    """Yield `first` to `last` without what was refused: those whose fate is open, the others, or all (None)."""
    left_out = final.refused if is_open is None else final.refused | final.open
    if is_open:
        yield from ((counter, counter) for counter in sorted(final.open - final.refused) if first <= counter <= last)
        return
    for counter in sorted(left_out):
        if first <= counter <= last:
            if first < counter:
                yield first, counter - 1
            first = counter + 1
    if first <= last:
        yield first, last
