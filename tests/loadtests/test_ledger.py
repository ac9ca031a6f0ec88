"""The ledger against a brute-force oracle that knows everything, under drops, repeats, swaps and delays."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.accounting import settlement as tallies
from loadtests.accounting.ledger import LATE_NS, Ledger
from loadtests.accounting.lines import NEVER_NS
from loadtests.accounting.settlement import Finals, KindTotals, SentLog, Settlement, Totals
from loadtests.sealing.records import KIND_NAMES, Kind, Stamp

STREAM = 7
DURABLE_KINDS = (Kind.MESSAGE, Kind.RECEIPT_READ, Kind.TIP)


@dataclass(frozen=True)
class Sent:
    sender: int
    counter: int
    kind: int
    seq: int | None  # None: never numbered


def stamp(kind: int, sender: int, counter: int) -> Stamp:
    return Stamp(kind, 0, 0, sender, counter, 0, 0, 0)


@dataclass
class Script:
    """One stream's life: what is sent, who joins when, and what happens to each record on its way to each recipient."""

    senders: list[int]
    kinds: list[int]
    upstream: list[str]  # per record: "taken", "lost" (before the relay) or "refused"
    joins: list[int]  # per recipient: how many records the relay had numbered at its join
    stays: list[
        bool
    ]  # per recipient: whether it is there at the end; if not, it leaves at the last record it could get
    faults: list[tuple[int, int, str]]  # (recipient, record, fault)
    numbered: bool
    sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        counters: Counter[int] = Counter()
        seq = 0
        for sender, kind, fate in zip(self.senders, self.kinds, self.upstream, strict=True):
            counters[sender] += 1
            seq += fate == "taken"
            self.sent.append(Sent(sender, counters[sender], kind, seq if fate == "taken" else None))

    @property
    def head(self) -> int:
        return sum(fate == "taken" for fate in self.upstream)

    def base(self, recipient: int) -> int:
        return min(self.joins[recipient], self.head)

    def arrivals(self, recipient: int) -> list[tuple[Sent, int]]:
        """What comes to a recipient, in order, each with how late it is."""
        records = [record for record in self.sent if record.seq is not None and record.seq > self.base(recipient)]
        coming: list[tuple[Sent, int]] = [(record, 0) for record in records]
        for who, which, fault in self.faults:
            if who != recipient or not coming:
                continue
            at = which % len(coming)
            if fault == "drop":
                del coming[at]
            elif fault == "repeat":
                coming.append(coming[at])
            elif fault == "swap" and at + 1 < len(coming):
                coming[at], coming[at + 1] = coming[at + 1], coming[at]
            elif fault == "delay":
                coming[at] = (coming[at][0], LATE_NS + 1)
            elif fault == "behind":
                coming.append(coming.pop(at))
        return coming


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    count = draw(st.integers(0, 25))
    recipients = draw(st.integers(1, 4))
    exact = st.lists
    return Script(
        senders=draw(exact(st.integers(0, 3), min_size=count, max_size=count)),
        kinds=draw(exact(st.sampled_from(DURABLE_KINDS), min_size=count, max_size=count)),
        upstream=draw(exact(st.sampled_from(["taken"] * 8 + ["lost", "refused"]), min_size=count, max_size=count)),
        joins=draw(exact(st.sampled_from([0, 0, 0, 3, 9]), min_size=recipients, max_size=recipients)),
        stays=draw(exact(st.sampled_from([True, True, False]), min_size=recipients, max_size=recipients)),
        faults=draw(
            st.lists(
                st.tuples(
                    st.integers(0, recipients - 1),
                    st.integers(0, 30),
                    st.sampled_from(["drop", "repeat", "swap", "delay", "behind"]),
                ),
                max_size=8,
            )
        ),
        numbered=draw(st.booleans()),
    )


def run(script: Script, workers: int, order: random.Random) -> Totals:
    """Play the script on several ledgers, send everything over the wire, and merge in any order."""
    ledgers = [Ledger() for _ in range(workers)]
    for record, fate in zip(script.sent, script.upstream, strict=True):
        ledger = ledgers[record.sender % workers]
        assert ledger.sent(record.sender, STREAM, record.kind) == record.counter
        if fate == "refused":
            ledger.refused(record.sender, STREAM, record.counter)
    for recipient in range(len(script.joins)):
        account = ledgers[recipient % workers].account(recipient, STREAM)
        base = script.base(recipient)
        if script.numbered:
            account.joined(1, base, None)
        else:
            account.joined(None, None, None, from_start=base == 0)
        for record, late_ns in script.arrivals(recipient):
            account.record(
                record.seq if script.numbered else None, stamp(record.kind, record.sender, record.counter), late_ns
            )
        end = account.finished if script.stays[recipient] else account.left
        end(script.head if script.numbered else None)
    logs = [SentLog.from_wire(over_the_wire(ledger.sent_log().to_wire())) for ledger in ledgers]
    order.shuffle(logs)
    log = SentLog()
    for part in logs:
        log.merge(part)
    finals = Finals.from_wire(over_the_wire(log.finals().to_wire()))
    settled = [Settlement.from_wire(over_the_wire(ledger.settle(finals).to_wire())) for ledger in ledgers]
    order.shuffle(settled)
    settlement = Settlement()
    for piece in settled:
        settlement.merge(piece)
    return settlement.totals(log)


def over_the_wire(value: object) -> object:  # type: ignore[explicit-any,unused-ignore]
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


class Oracle:
    """Counts with sets, from full knowledge, as the table in the ledger's docstring says."""

    def __init__(self, script: Script) -> None:
        self.counts: dict[str, Counter[int]] = {
            name: Counter() for name in ("delivered", "lost", "duplicated", "reordered", "late")
        }
        self.unknown = 0
        owed_sent = [record for record, fate in zip(script.sent, script.upstream, strict=True) if fate != "refused"]
        self.products = len(owed_sent) * len(script.joins)
        for recipient in range(len(script.joins)):
            self.recipient(script, recipient, owed_sent)

    def recipient(self, script: Script, recipient: int, owed_sent: list[Sent]) -> None:
        arrivals = script.arrivals(recipient)
        base, stays = script.base(recipient), script.stays[recipient]
        seen: list[Sent] = []
        for record, late_ns in arrivals:
            if record in seen:
                self.counts["duplicated"][record.kind] += 1
                continue
            overtaken = any(
                (script.numbered and (other.seq or 0) > (record.seq or 0))
                or (other.sender == record.sender and other.counter > record.counter)
                for other in seen
            )
            self.counts["reordered"][record.kind] += overtaken
            self.counts["late"][record.kind] += late_ns > LATE_NS
            self.counts["delivered"][record.kind] += 1
            seen.append(record)
        by_counters = []
        for record in owed_sent:
            of_sender = [other.counter for other in seen if other.sender == record.sender]
            begun = base == 0 or (bool(of_sender) and record.counter > min(of_sender))
            # One that left is owed by counters up to the last it saw, one that stayed up to the sender's final one.
            ended = bool(of_sender) and record.counter < max(of_sender)
            if record not in seen and begun and (stays or ended):
                by_counters.append(record)
        by_numbers = [
            record for record in owed_sent if record.seq is not None and record.seq > base and record not in seen
        ]
        for record in by_counters:
            self.counts["lost"][record.kind] += 1
        if script.numbered:
            self.unknown += max(0, len(by_numbers) - len(by_counters))


@given(script=scripts(), workers=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_the_ledger_is_what_the_oracle_says(script: Script, workers: int, seed: int) -> None:
    totals = run(script, workers, random.Random(seed))
    oracle = Oracle(script)
    assert totals.faults == []
    for name, counts in oracle.counts.items():
        for kind in DURABLE_KINDS:
            row = totals.kinds.get(KIND_NAMES[kind], KindTotals())
            assert getattr(row, name) == counts[kind], (name, kind)
    assert totals.kinds.get("unknown", KindTotals()).lost == oracle.unknown
    assert totals.misnumbered == totals.phantoms == 0
    accounted = sum(row.expected for kind, row in totals.kinds.items() if kind != "unknown") + totals.boundary
    assert accounted == oracle.products


@given(script=scripts(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_workers_merged_in_any_order_equal_a_single_one(script: Script, seed: int) -> None:
    assert run(script, 4, random.Random(seed)) == run(script, 1, random.Random(0))


# -- one fault each, counted exactly and none else -------------------------------------------------------


def members(*, numbered: bool = True) -> Script:
    """Two senders, three recipients from start to end, twelve records."""
    return Script(
        senders=[0, 1] * 6,
        kinds=[Kind.MESSAGE] * 12,
        upstream=["taken"] * 12,
        joins=[0, 0, 0],
        stays=[True] * 3,
        faults=[],
        numbered=numbered,
    )


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        ((1, 4, "drop"), {"lost": 1}),
        ((1, 0, "drop"), {"lost": 1}),
        ((1, 11, "drop"), {"lost": 1}),
        ((1, 4, "repeat"), {"duplicated": 1}),
        ((1, 4, "behind"), {"reordered": 1}),
        ((1, 4, "delay"), {"late": 1}),
    ],
)
def test_one_fault_is_counted_once_and_nothing_else(
    numbered: bool, fault: tuple[int, int, str], counted: dict[str, int]
) -> None:
    script = members(numbered=numbered)
    script.faults.append(fault)
    row = run(script, 2, random.Random(1)).kinds["message"]
    lost = counted.get("lost", 0)
    assert row == KindTotals(sent=12, expected=36, delivered=36 - lost, **counted)


def test_a_swap_of_two_senders_shows_in_the_numbers_alone() -> None:
    for numbered, reordered in ((True, 1), (False, 0)):
        script = members(numbered=numbered)
        script.faults.append((0, 3, "swap"))
        assert run(script, 1, random.Random(1)).kinds["message"].reordered == reordered


def test_a_record_lost_before_the_relay_is_lost_for_everybody() -> None:
    script = members()
    script.upstream[5] = "lost"
    script = Script(**{name: getattr(script, name) for name in Script.__match_args__[:-1]})
    assert run(script, 2, random.Random(1)).kinds["message"].lost == 3


# -- gaps, epochs, absences -------------------------------------------------------------------------------


def settled(ledger: Ledger) -> Totals:
    log = ledger.sent_log()
    return ledger.settle(log.finals()).totals(log)


def send(ledger: Ledger, count: int, sender: int = 1, kind: int = Kind.MESSAGE) -> None:
    for _ in range(count):
        ledger.sent(sender, STREAM, kind)


def test_a_resume_recovers_and_what_comes_twice_is_a_duplicate() -> None:
    ledger = Ledger()
    send(ledger, 10)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    for seq in range(1, 5):
        assert account.record(seq, stamp(1, 1, seq), 0)
    assert account.resume == (5, 4)
    account.joined(5, 9, 4)
    assert not account.record(4, stamp(1, 1, 4), 0)
    for seq in range(5, 11):
        assert account.record(seq, stamp(1, 1, seq), 0)
    account.finished(10)
    assert settled(ledger).kinds == {"message": KindTotals(sent=10, expected=10, delivered=10, duplicated=1)}


def test_a_gap_is_lost_unless_it_comes_after_all() -> None:
    ledger = Ledger()
    send(ledger, 10)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.gap(1, 6)
    for seq in (7, 8, 9, 10, 3):
        account.record(seq, stamp(1, 1, seq), 0)
    account.finished(10)
    totals = settled(ledger)
    assert totals.gaps == 6
    assert totals.kinds == {"message": KindTotals(sent=10, expected=10, delivered=5, lost=5, reordered=1)}


def test_a_relay_that_forgot_is_found_by_the_counters() -> None:
    ledger = Ledger()
    send(ledger, 6)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.record(1, stamp(1, 1, 1), 0)
    account.joined(6, 0, 1)  # another epoch: it was started again, and lost 2 to 4
    account.record(1, stamp(1, 1, 5), 0)
    account.record(2, stamp(1, 1, 6), 0)
    account.finished(2)
    assert settled(ledger).kinds == {"message": KindTotals(sent=6, expected=6, delivered=3, lost=3)}


def test_erased_starts_the_numbers_again() -> None:
    ledger = Ledger()
    send(ledger, 3)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.record(1, stamp(1, 1, 1), 0)
    account.record(2, stamp(1, 1, 2), 0)
    account.erased(6)
    assert account.resume == (6, 0)
    account.record(1, stamp(1, 1, 3), 0)
    account.finished(1)
    assert settled(ledger).kinds == {"message": KindTotals(sent=3, expected=3, delivered=3)}


def test_what_passes_while_away_from_a_relay_without_resume_is_missed_not_lost() -> None:
    ledger = Ledger()
    send(ledger, 10)
    account = ledger.account(2, STREAM)
    account.joined(None, None, None, from_start=True)
    for counter in (1, 2, 4):
        account.record(None, stamp(1, 1, counter), 0)
    account.joined(None, None, None)
    for counter in (7, 8, 10, 6):  # 5 passed while away; 9 is lost
        account.record(None, stamp(1, 1, counter), 0)
    account.finished(None)
    row = settled(ledger).kinds["message"]
    assert row == KindTotals(sent=10, expected=9, delivered=7, lost=2, reordered=1, missed_away=1)


def test_who_heard_a_sender_only_after_an_absence_missed_what_came_before() -> None:
    ledger = Ledger()
    send(ledger, 6)
    account = ledger.account(2, STREAM)
    account.joined(None, None, None, from_start=True)
    account.joined(None, None, None)
    account.record(None, stamp(1, 1, 3), 0)
    account.joined(None, None, None)
    account.finished(None)
    row = settled(ledger).kinds["message"]
    assert row == KindTotals(sent=6, expected=1, delivered=1, missed_away=5)


@pytest.mark.parametrize(("heard", "row"), [(None, (0, 3, 2)), (5, (1, 2, 2)), (4, (1, 2, 2)), (2, (1, 3, 1))])
@pytest.mark.parametrize("late", [True, False])
def test_what_was_sent_once_the_subscription_stood_is_lost_though_nothing_came_of_it(
    late: bool, heard: int | None, row: tuple[int, int, int]
) -> None:
    ledger = Ledger()
    for at_ns in (10, 20, 30, 40, 50):
        ledger.sent(1, STREAM, Kind.MESSAGE, at_ns=at_ns)
    account = ledger.account(2, STREAM)
    if late:
        account.joined(None, None, None, at_ns=25)
    else:
        account.joined(None, None, None, from_start=True, at_ns=0)
        account.interrupted(resumes=False)
        account.joined(None, None, None, at_ns=25)
    if heard is not None:
        account.record(None, stamp(1, 1, heard), 0)
    account.finished(None)
    delivered, lost, before = row
    column = {"boundary" if late else "missed_away": before}
    expected = KindTotals(sent=5, expected=delivered + lost, delivered=delivered, lost=lost, **column)
    assert settled(ledger).kinds["message"] == expected


def test_who_never_came_back_missed_the_rest() -> None:
    ledger = Ledger()
    for at_ns in (10, 20):
        ledger.sent(1, STREAM, Kind.MESSAGE, at_ns=at_ns)
    account = ledger.account(2, STREAM)
    account.joined(None, None, None, from_start=True, at_ns=0)
    account.record(None, stamp(1, 1, 1), 0)
    account.interrupted(resumes=False)
    account.finished(None)
    assert settled(ledger).kinds["message"] == KindTotals(sent=2, expected=1, delivered=1, missed_away=1)


def test_on_clocks_that_cannot_be_compared_nobody_is_blamed_for_what_passed_before_the_first() -> None:
    ledger = Ledger()
    ledger.begin(9)
    for at_ns in (10, 20, 30):
        ledger.sent(1, STREAM, Kind.MESSAGE, at_ns=at_ns)
    account = ledger.account(2, STREAM)
    account.joined(None, None, None, at_ns=5)
    account.record(None, stamp(1, 1, 3), 0)
    account.finished(None)
    log = ledger.sent_log()

    def lost(on_clock: Callable[[int, int], int]) -> int:
        return ledger.settle(log.finals(), on_clock).totals(log).lost

    assert lost(lambda at_ns, clock: NEVER_NS) == 0
    assert lost(lambda at_ns, clock: at_ns + 6 if clock == 9 else NEVER_NS) == 1
    assert lost(lambda at_ns, clock: at_ns) == 2


@pytest.mark.parametrize("numbered", [True, False])
def test_what_was_under_way_at_a_cut_is_lost_only_if_the_relays_numbers_prove_that_it_had_it(numbered: bool) -> None:
    ledger = Ledger()
    send(ledger, 4)
    for counter in (2, 3):
        ledger.under_way(1, STREAM, counter)
    account = ledger.account(2, STREAM)
    account.joined(5 if numbered else None, 0 if numbered else None, None, from_start=True)
    account.record(1 if numbered else None, stamp(1, 1, 1), 0)
    # 2 never came to the relay, which lost 3 after it had given it a number.
    account.record(3 if numbered else None, stamp(1, 1, 4), 0)
    account.finished(3 if numbered else None)
    totals = settled(ledger)
    assert totals.reconciled
    assert totals.kinds["message"] == KindTotals(sent=4, expected=2, delivered=2, under_way=2)
    assert totals.lost == numbered
    assert totals.phantoms == 0


def test_on_a_relay_without_echo_its_own_numbers_leave_no_hole() -> None:
    ledger = Ledger()
    send(ledger, 2, sender=2)
    send(ledger, 1, sender=1)
    account = ledger.account(2, STREAM, echo=False)
    account.joined(5, 0, None)
    account.record(2, stamp(1, 1, 1), 0)
    account.own_number(1)
    account.own_number(3)
    account.finished(3)
    totals = settled(ledger)
    assert (totals.delivered, totals.lost, totals.phantoms, totals.faults) == (1, 0, 0, [])


def test_it_waits_until_all_that_is_owed_has_come() -> None:
    ledger = Ledger()
    send(ledger, 3)
    send(ledger, 1, sender=3)
    ledger.refused(1, STREAM, 2)
    ledger.under_way(1, STREAM, 3)
    finals = ledger.sent_log().finals()
    account = ledger.account(2, STREAM)
    account.joined(None, None, None, from_start=True)
    assert account.waits(finals)
    account.record(None, stamp(1, 3, 1), 0)
    assert account.waits(finals)
    account.record(None, stamp(1, 1, 1), 0)
    assert account.waits(finals) is None, "what was under way may come or not"
    account.record(None, stamp(1, 1, 3), 0)
    assert account.waits(finals) is False
    account.joined(None, None, None)
    assert account.waits(finals) is False, "what was there before an absence is still there"


def test_states_are_superseded_or_dropped_never_lost() -> None:
    ledger = Ledger()
    for _ in range(6):
        ledger.sent(1, STREAM, Kind.TYPING, durable=False)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None, from_start=True)
    assert account.state(stamp(Kind.TYPING, 1, 2), 0)
    assert account.state(stamp(Kind.TYPING, 1, 4), LATE_NS + 1)
    assert not account.state(stamp(Kind.TYPING, 1, 4), 0)
    account.finished(0)
    totals = settled(ledger)
    assert totals.lost == 0
    assert totals.kinds == {
        "typing": KindTotals(sent=6, expected=6, delivered=2, superseded=2, dropped=2, duplicated=1, late=1)
    }


def test_states_that_pass_during_a_resume_are_missed_while_away() -> None:
    ledger = Ledger()
    for _ in range(5):
        ledger.sent(1, STREAM, Kind.TYPING, durable=False)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None, from_start=True)
    account.state(stamp(Kind.TYPING, 1, 1), 0)
    account.joined(5, 0, 0)
    account.state(stamp(Kind.TYPING, 1, 5), 0)
    account.finished(0)
    assert settled(ledger).kinds["typing"] == KindTotals(sent=5, expected=2, delivered=2, missed_away=3)


def test_after_the_drain_everything_is_late() -> None:
    ledger = Ledger()
    send(ledger, 2)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.record(1, stamp(1, 1, 1), 5)
    ledger.drained()
    account.record(2, stamp(1, 1, 2), 5)
    account.finished(2)
    assert settled(ledger).kinds["message"] == KindTotals(sent=2, expected=2, delivered=2, late=1)


def test_a_relay_without_echo_owes_nobody_its_own() -> None:
    ledger = Ledger()
    send(ledger, 3, sender=1)
    send(ledger, 2, sender=2)
    for recipient in (1, 2):
        account = ledger.account(recipient, STREAM, echo=False)
        account.joined(None, None, None, from_start=True)
        other = 3 - recipient
        for counter in range(1, 4 if other == 1 else 3):
            account.record(None, stamp(1, other, counter), 0)
        account.finished(None)
    totals = settled(ledger)
    assert totals.reconciled
    assert totals.kinds["message"] == KindTotals(sent=5, expected=5, delivered=5)


# -- what does not reconcile ------------------------------------------------------------------------------


def faulty(ledger: Ledger) -> str:
    totals = settled(ledger)
    assert not totals.reconciled
    return " ".join(totals.faults)


def test_a_record_that_nobody_sent_is_a_fault() -> None:
    ledger = Ledger()
    send(ledger, 2)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    for seq in (1, 2, 3):
        account.record(seq, stamp(1, 1, seq), 0)
    account.finished(3)
    assert "counter 3 came of sender 1, who sent 2" in faulty(ledger)


def test_a_sender_without_a_final_is_a_fault() -> None:
    ledger = Ledger()
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.record(1, stamp(1, 9, 1), 0)
    account.finished(1)
    assert "sender 9 was heard" in faulty(ledger)


def test_more_than_was_sent_is_a_fault_and_no_negative_count() -> None:
    """As where the log of the senders was lost with their worker."""
    ledger, lost = Ledger(), Ledger()
    send(lost, 3)
    account = ledger.account(0, 0)
    account.joined(7, 0, None, from_start=True)
    for number in range(1, 4):
        account.record(number, stamp(Kind.MESSAGE, 1, number), 0)
    account.finished(3)
    totals = settled(ledger)
    assert (totals.kinds["message"].delivered, totals.kinds["message"].boundary) == (3, 0)
    assert "message: 3 more came than is known to have been sent" in totals.faults


def test_an_open_account_and_a_refused_arrival_are_faults() -> None:
    ledger = Ledger()
    send(ledger, 2)
    ledger.refused(1, STREAM, 1)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.record(1, stamp(1, 1, 1), 0)
    account.record(2, stamp(1, 1, 2), 0)
    text = faulty(ledger)
    assert "never closed" in text
    assert "1 of sender 1 was refused, and yet came" in text


def test_numbers_that_lie_are_counted() -> None:
    ledger = Ledger()
    send(ledger, 3)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.record(1, stamp(1, 1, 1), 0)
    account.record(1, stamp(1, 1, 2), 0)  # a number again, with another record
    account.record(4, stamp(1, 1, 3), 0)  # two numbers left out
    account.finished(4)
    totals = settled(ledger)
    assert (totals.misnumbered, totals.phantoms, totals.lost) == (1, 2, 0)


def test_faults_are_bounded_and_do_not_depend_on_the_order() -> None:
    parts = []
    for start in range(0, 90, 30):
        part = Settlement()
        part.faults = {f"{number:03}" for number in range(start, start + 30)}
        parts.append(part)
    results = []
    for order in (parts, parts[::-1]):
        merged = Settlement()
        for part in order:
            merged.merge(part)
        results.append(merged.faults)
    assert results[0] == results[1] == {f"{number:03}" for number in range(tallies.FAULTS_MAX)}


def test_a_forged_counter_costs_no_memory_and_is_found() -> None:
    ledger = Ledger()
    send(ledger, 1)
    account = ledger.account(2, STREAM)
    account.joined(5, 0, None)
    account.record(1, stamp(1, 1, 2**32 - 2), 0)
    account.finished(1)
    assert "4294967294" in faulty(ledger)
