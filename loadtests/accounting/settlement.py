"""What workers tell the master of their ledgers, and the totals that follow. The theory is in ledger.py.

    SentLog     what senders sent: the kind of every record, one byte each. Merged at the master.
    Finals      its short form, handed round: the last counter of every sender, and what was refused.
    Settlement  what a worker's recipients got and missed, by interval. Merged at the master.
    Totals      per kind, once the SentLog has told the kinds of what was missed.

Merging is associative and commutative; all of them travel as MessagePack (they hold bytes).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from loadtests.sealing.records import KIND_NAMES

FAULTS_MAX: Final = 20
"""Sentences kept; more of them say no more."""

Line: TypeAlias = tuple[int, bool]
"""A stream, and whether it is its durable records or its states: their counters are apart."""
HOLE: Final = 0
"""Why a recipient lacks a record: later ones of its sender came."""
TAIL: Final = 1
"""Nothing of its sender came after it."""
AWAY: Final = 2
"""It passed while the recipient was away from a relay that does not resume."""
UNDER_WAY: Final = 3
"""Its sender's connection ended while it was under way, and it was not sent again."""


class Final_(NamedTuple):  # noqa: N801  # `Final` is typing's
    """What a sender sent in a line: the last counter, those that nobody is owed, those whose fate is open."""

    last: int
    refused: frozenset[int] = frozenset()
    open: frozenset[int] = frozenset()
    clock: int = 0
    """The clock of the times."""
    sent_ns: Sequence[int] = ()
    """When each was sent, ascending; empty where that was not logged."""

    def first_after(self, at_ns: int) -> int:
        """Return the first counter that was sent after `at_ns`; one more than the last if there is none."""
        return bisect_right(self.sent_ns, at_ns) + 1 if self.sent_ns else self.last + 1


class _Sent(NamedTuple):
    kinds: bytearray
    refused: set[int]
    open: set[int]
    sent_ns: array[int]
    clock: int


class SentLog:
    """What was sent, by line and sender."""

    __slots__ = ("_lines", "clock")

    def __init__(self) -> None:
        self.clock = 0
        """The clock of this worker's stamps."""
        self._lines: dict[Line, dict[int, _Sent]] = {}

    def _entry(self, line: Line, sender: int) -> _Sent:
        senders = self._lines.setdefault(line, {})
        entry = senders.get(sender)
        if entry is None:
            entry = senders[sender] = _Sent(bytearray(), set(), set(), array("q"), self.clock)
        return entry

    def append(self, line: Line, sender: int, kind: int, at_ns: int = 0) -> int:
        """Log one more record and return its counter, from 1."""
        try:
            kinds, _, _, sent_ns, _ = self._lines[line][sender]
        except KeyError:
            kinds, _, _, sent_ns, _ = self._entry(line, sender)
        kinds.append(kind)
        sent_ns.append(at_ns)
        return len(kinds)

    def refuse(self, line: Line, sender: int, counter: int) -> None:
        """Nobody is owed this record: the relay did not take it, and it was given up."""
        self._entry(line, sender).refused.add(counter)

    def leave_open(self, line: Line, sender: int, counter: int) -> None:
        """Nobody knows whether the relay has this record: its sender's connection ended while it was under way."""
        self._entry(line, sender).open.add(counter)

    def finals(self) -> Finals:
        lines = {
            line: {
                sender: Final_(len(sent.kinds), frozenset(sent.refused), frozenset(sent.open), sent.clock, sent.sent_ns)
                for sender, sent in senders.items()
            }
            for line, senders in self._lines.items()
        }
        return Finals(lines)

    def kinds(self, line: Line, sender: int, first: int, last: int) -> Counter[int]:
        """Return how many records of each kind the counters `first` to `last` are."""
        entry = self._lines.get(line, {}).get(sender)
        return Counter() if entry is None else Counter(entry.kinds[first - 1 : last])

    def sent(self) -> Iterator[tuple[Line, int, Counter[int], Counter[int]]]:
        """Yield line, sender, and per kind how many were sent (refused ones apart) and refused."""
        for line, senders in self._lines.items():
            for sender, entry in senders.items():
                not_taken = Counter(entry.kinds[counter - 1] for counter in entry.refused)
                yield line, sender, Counter(entry.kinds) - not_taken, not_taken

    def merge(self, other: SentLog) -> None:
        """Add another worker's log. A sender is on one worker, so no entry can be in both."""
        for line, senders in other._lines.items():
            mine = self._lines.setdefault(line, {})
            assert not mine.keys() & senders.keys(), "a sender logged on two workers"
            mine.update(senders)

    def to_wire(self) -> list[Any]:
        return [
            [
                *line,
                sender,
                bytes(sent.kinds),
                sorted(sent.refused),
                sorted(sent.open),
                sent.sent_ns.tobytes(),
                sent.clock,
            ]
            for line, senders in self._lines.items()
            for sender, sent in senders.items()
        ]

    @classmethod
    def from_wire(cls, wire: list[Any]) -> SentLog:
        log = cls()
        for stream, durable, sender, kinds, refused, open_, sent_ns, clock in wire:
            log._lines.setdefault((stream, bool(durable)), {})[sender] = _Sent(
                bytearray(kinds), set(refused), set(open_), array("q", sent_ns), clock
            )
        return log


class Finals(msgspec.Struct, frozen=True):
    """The last counter of every sender in every line, known to all workers at the end."""

    lines: dict[Line, dict[int, Final_]]

    def to_wire(self) -> list[Any]:
        return [
            [
                *line,
                sender,
                final.last,
                sorted(final.refused),
                sorted(final.open),
                final.clock,
                _bytes_of(final.sent_ns),
            ]
            for line, senders in self.lines.items()
            for sender, final in senders.items()
        ]

    @classmethod
    def from_wire(cls, wire: list[Any]) -> Finals:
        lines: dict[Line, dict[int, Final_]] = {}
        for stream, durable, sender, last, refused, open_, clock, sent_ns in wire:
            final = Final_(last, frozenset(refused), frozenset(open_), clock, array("q", sent_ns))
            lines.setdefault((stream, bool(durable)), {})[sender] = final
        return cls(lines)


def _bytes_of(times: Sequence[int]) -> bytes:
    return array("q", times).tobytes()


class Settlement:
    """What one worker's recipients got, and what they did not, by interval of counters."""

    __slots__ = (
        "accounts",
        "boundary",
        "delivered",
        "duplicated",
        "faults",
        "gaps",
        "late",
        "lost_unknown",
        "misnumbered",
        "missing",
        "own",
        "phantoms",
        "reordered",
    )

    def __init__(self) -> None:
        self.delivered: Counter[int] = Counter()
        self.duplicated: Counter[int] = Counter()
        self.reordered: Counter[int] = Counter()
        self.late: Counter[int] = Counter()
        """The four by kind."""
        self.missing: Counter[tuple[int, bool, int, int, int, int]] = Counter()
        """(stream, durable, sender, why, first, last) -> recipients; why: HOLE, TAIL, AWAY or UNDER_WAY."""
        self.accounts: Counter[int] = Counter()
        """stream -> recipients that had an account in it."""
        self.own: set[tuple[int, int]] = set()
        """(stream, recipient): those to whom their own records do not come back."""
        self.boundary = 0
        self.lost_unknown = 0
        """Losses that only the relay's numbers show; by the counters they are boundary, or one of the last two whys."""
        self.gaps = 0
        """Numbers that the relay itself reported gone."""
        self.misnumbered = 0
        """Numbers that came again with another record."""
        self.phantoms = 0
        """Numbers missing for which no record is: the relay left them out."""
        self.faults: set[str] = set()

    def merge(self, other: Settlement) -> None:
        """Add what another worker's recipients got."""
        self.delivered += other.delivered
        self.duplicated += other.duplicated
        self.reordered += other.reordered
        self.late += other.late
        self.missing += other.missing
        self.accounts += other.accounts
        self.own |= other.own
        self.boundary += other.boundary
        self.lost_unknown += other.lost_unknown
        self.gaps += other.gaps
        self.misnumbered += other.misnumbered
        self.phantoms += other.phantoms
        # The smallest of all, so that the order of merging does not matter.
        self.faults = set(sorted(self.faults | other.faults)[:FAULTS_MAX])

    def to_wire(self) -> dict[str, Any]:
        counters = {name: list(map(list, getattr(self, name).items())) for name in _BY_KIND}
        return {
            **counters,
            "missing": [[*key, count] for key, count in self.missing.items()],
            "accounts": list(map(list, self.accounts.items())),
            "own": list(map(list, self.own)),
            **{name: getattr(self, name) for name in _SUMS},
            "faults": sorted(self.faults),
        }

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Settlement:
        new = cls()
        for name in _BY_KIND:
            setattr(new, name, Counter(dict(wire[name])))
        for stream, durable, sender, why, first, last, count in wire["missing"]:
            new.missing[stream, bool(durable), sender, why, first, last] = count
        new.accounts = Counter(dict(wire["accounts"]))
        new.own = {(stream, recipient) for stream, recipient in wire["own"]}
        for name in _SUMS:
            setattr(new, name, wire[name])
        new.faults = set(wire["faults"])
        return new

    def totals(self, log: SentLog) -> Totals:
        """Return the totals per kind, with `log` merged from every worker."""
        sent: Counter[int] = Counter()
        refused: Counter[int] = Counter()
        owed: Counter[int] = Counter()  # sent x recipients
        for (stream, _), sender, taken, not_taken in log.sent():
            recipients = self.accounts[stream] - ((stream, sender) in self.own)
            sent += taken
            refused += not_taken
            owed += Counter({kind: count * recipients for kind, count in taken.items()})
        missing: dict[str, Counter[int]] = {name: Counter() for name in _MISSING}
        for (stream, durable, sender, why, first, last), recipients in self.missing.items():
            target = missing[_column(durable=durable, why=why)]
            for kind, count in log.kinds((stream, durable), sender, first, last).items():
                target[kind] += count * recipients
        counted = {name: getattr(self, name) for name in _BY_KIND} | missing
        kinds: dict[str, KindTotals] = {}
        faults = sorted(self.faults)
        for kind in sorted({kind for counter in (sent, refused, *counted.values()) for kind in counter}):
            columns = {name: counter[kind] for name, counter in counted.items()}
            expected = sum(columns[name] for name in _EXPECTED)
            boundary = owed[kind] - expected - columns["missed_away"] - columns["under_way"]
            if boundary < 0:  # the log of a worker that was lost is missing
                faults.append(f"{KIND_NAMES[kind]}: {-boundary} more came than is known to have been sent")
            kinds[KIND_NAMES[kind]] = KindTotals(
                sent=sent[kind], refused=refused[kind], expected=expected, boundary=max(0, boundary), **columns
            )
        if self.lost_unknown:
            kinds[KIND_NAMES[0]] = KindTotals(expected=self.lost_unknown, lost=self.lost_unknown)
        # Two ways to the same figure: sent x recipients from the senders' side, everything else from the recipients'.
        accounted = (
            sum(self.delivered.values()) + sum(sum(counter.values()) for counter in missing.values()) + self.boundary
        )
        if sum(owed.values()) != accounted:
            faults.append(f"{sum(owed.values())} records x recipients were sent, {accounted} are accounted for")
        return Totals(
            kinds=kinds,
            boundary=self.boundary,
            gaps=self.gaps,
            misnumbered=self.misnumbered,
            phantoms=self.phantoms,
            faults=faults,
        )


_BY_KIND: Final = ("delivered", "duplicated", "reordered", "late")
_MISSING: Final = ("lost", "superseded", "dropped", "missed_away", "under_way")
_EXPECTED: Final = ("delivered", "lost", "superseded", "dropped")
_SUMS: Final = ("boundary", "lost_unknown", "gaps", "misnumbered", "phantoms")


def _column(*, durable: bool, why: int) -> str:
    """Return what a missing record is counted as. A state that a newer one overtook is no loss."""
    if why == AWAY:
        return "missed_away"
    if why == UNDER_WAY:
        return "under_way"
    return "lost" if durable else "superseded" if why == HOLE else "dropped"


class KindTotals(msgspec.Struct, frozen=True, kw_only=True):
    """One kind's row. All but `sent` and `refused` count records x recipients.

    durable: expected = delivered + lost; states: expected = delivered + superseded + dropped. `reordered` and `late` are
    among the delivered; `duplicated` are further copies. Not expected, though sent: `boundary`, not while the recipient
    was provably a member; `missed_away`, while it was away from a relay that does not resume; `under_way`, when its
    sender's connection ended.
    """

    sent: int = 0
    refused: int = 0
    expected: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    late: int = 0
    superseded: int = 0
    dropped: int = 0
    boundary: int = 0
    missed_away: int = 0
    under_way: int = 0


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger of a run, for the result and the verdict. `kinds` by name; "unknown" has losses of no known kind.

    Where it has some, as many of the other kinds' `boundary`, `missed_away` or `under_way` are those.
    """

    kinds: dict[str, KindTotals]
    boundary: int
    gaps: int
    misnumbered: int
    phantoms: int
    faults: list[str]

    @property
    def reconciled(self) -> bool:
        """Whether every record is accounted for with every recipient."""
        return not self.faults

    @property
    def lost(self) -> int:
        return sum(kind.lost for kind in self.kinds.values())

    @property
    def duplicated(self) -> int:
        return sum(kind.duplicated for kind in self.kinds.values())

    @property
    def delivered(self) -> int:
        return sum(kind.delivered for kind in self.kinds.values())
