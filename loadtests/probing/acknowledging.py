"""What an acknowledgement means: when it comes beside the copies, and what a second publish of the same record does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Final

from loadtests.probing.exchange import ANSWER_S_MAX, Exchange
from loadtests.probing.findings import ProbeAnswer, not_asked, of
from loadtests.probing.line import LEFT, Arrival, Came, Line, ProbeRecord
from loadtests.probing.publishing import Publishing
from loadtests.settings import Settings
from loadtests.target.target import Promises

PUBLISHES: Final = 300
OTHERS: Final = 8
RETRIES: Final = 50
_PLACES: Final = ("before", "after", "undecided", "missing")
_STAMPS_S_MAX: Final = 0.5
"""How long the kernel may take until it stamps what comes; with TLS there are no stamps."""
_MISSED_S_MAX: Final = 0.3
"""How long the next ones are waited for once something never came."""


def acknowledgement(settings: Settings, promises: Promises) -> ProbeAnswer:
    """Publish one record after the other, and tell who had it when the acknowledgement came.

    First by one who gets no copies of its own, so that what comes to it is the acknowledgement alone; then by one who does.
    """
    name = "acknowledgement"
    with Exchange(settings) as exchange:
        if not exchange.features.acknowledges:
            return not_asked(name, promises.acknowledged, "its dialect has no acknowledgement.")
        others = exchange.reader(OTHERS)
        sender = exchange.sender()
        end_s = time.monotonic() + _STAMPS_S_MAX
        while time.monotonic() < end_s and not all(one.stamped for one in (sender, *others)):
            _one_by_one(exchange, sender, others, 1)
        records = _one_by_one(exchange, sender, others, PUBLISHES)
        line, own = exchange.publisher()
        mine = [] if own is None else _one_by_one(exchange, line, [*others, own], PUBLISHES)
    counts = _beside_others(records, sender, others)
    words, broken = _told_of_others(promises, counts)
    if own is not None:
        counts |= _beside_own(mine, line, own)
        words.append(
            f"on {'the same connection' if own is line else 'another connection of its own'} it came behind the own copy in"
            f" {of(counts['own_before'], counts['own_acknowledged'])}"
        )
        if counts["own_undecided"]:
            words.append(f"{counts['own_undecided']:,} too close to tell")
    for one in {sender, line}:
        if one.ended not in (None, LEFT):
            words.append(f"a publisher's connection ended: {one.ended.rstrip('.')}")
    return ProbeAnswer(
        question=name, said=promises.acknowledged, seen="; ".join(words) + ".", counts=counts, broken=tuple(broken)
    )


def _one_by_one(exchange: Exchange, line: Line, readers: list[Line], total: int) -> list[ProbeRecord]:
    """Publish the records, each when the last is acknowledged and has come to all."""
    start = {id(reader): len(reader.came) for reader in readers}
    records: list[ProbeRecord] = []
    wait_s = ANSWER_S_MAX
    for count in range(1, total + 1):
        record = exchange.record()
        records.append(record)
        line.publish(record)

        def done(count: int = count, record: ProbeRecord = record) -> bool:
            there = all(len(one.came) - start[id(one)] >= count for one in readers)
            return (there and record.id in line.acknowledged) or line.ended is not None

        if not exchange.until(done, wait_s):
            wait_s = _MISSED_S_MAX
        if line.ended is not None:
            break
    return records


def _beside_others(records: list[ProbeRecord], line: Line, others: list[Line]) -> dict[str, int]:
    """Count where the copies for the others came beside the acknowledgements."""
    copies = [_first_copies(reader.came) for reader in others]
    acks = [(record.id, line.acknowledged[record.id][1]) for record in records if record.id in line.acknowledged]
    places = [[_place(of_one.get(id_), ack, same=False) for of_one in copies] for id_, ack in acks]
    had = [row.count("before") for row in places]
    counts = {"publishes": len(records), "acknowledged": len(acks), "others": len(others)}
    counts |= {f"others_{place}": sum(row.count(place) for row in places) for place in _PLACES}
    return counts | {
        "had_it_min": min(had, default=0),
        "had_it_median": int(median(had or [0])),
        "had_it_max": max(had, default=0),
    }


def _told_of_others(promises: Promises, counts: dict[str, int]) -> tuple[list[str], list[str]]:
    """Return the sentences about the acknowledgement beside the others' copies, and which promises they break."""
    copies = counts["others"] * counts["acknowledged"]
    fates = ", ".join(
        f"{counts[f'others_{place}']:,} {how}"
        for place, how in (("before", "came before it"), ("after", "after it"), ("undecided", "too close to tell"))
    )
    words = [
        (
            f"of {counts['others']} others {counts['had_it_median']} had it then ({counts['had_it_min']} to"
            f" {counts['had_it_max']} in {counts['acknowledged']:,} publishes); of {copies:,} copies {fates}"
        )
    ]
    broken = []
    if counts["others_missing"]:
        words.append(f"{counts['others_missing']:,} never came")
        broken.append(
            f"{of(counts['others_missing'], copies)} copies of acknowledged records never came to readers there"
        )
    if promises.acknowledges_last and counts["others_after"]:
        broken.append(
            f"{of(counts['others_after'], copies)} copies came after the acknowledgement, which was to be the last"
        )
    unanswered = counts["publishes"] - counts["acknowledged"]
    if unanswered:
        broken.append(f"{of(unanswered, counts['publishes'])} publishes were not acknowledged")
    return words, broken


def _beside_own(records: list[ProbeRecord], line: Line, own: Line) -> dict[str, int]:
    copies = _first_copies(own.came)
    acks = [(record.id, line.acknowledged[record.id][1]) for record in records if record.id in line.acknowledged]
    places = [_place(copies.get(id_), ack, same=own is line) for id_, ack in acks]
    return {"own_acknowledged": len(acks)} | {f"own_{place}": places.count(place) for place in _PLACES}


def _first_copies(came: Sequence[Came]) -> dict[int, Arrival]:
    first: dict[int, Arrival] = {}
    for one in came:
        first.setdefault(one.record.id, one.arrival)
    return first


def _place(copy: Arrival | None, ack: Arrival, *, same: bool) -> str:
    """Return where a copy came beside the acknowledgement. `same`: on the same connection, where the order is exact."""
    if copy is None:
        return "missing"
    if same:
        return "before" if copy.place < ack.place else "after"
    return "before" if copy.before(ack) else "after" if ack.before(copy) else "undecided"


def retry(settings: Settings, promises: Promises) -> ProbeAnswer:
    """Publish acknowledged records again with their ids: on the same connection, then on a new one of the same member."""
    name = "retry of what was acknowledged"
    with Exchange(settings) as exchange:
        idempotent = exchange.features.idempotent
        said = "its dialect says: taken once, by its id" if idempotent else "not told"
        if not exchange.features.acknowledges:
            return not_asked(name, said, "nothing is acknowledged, so nothing is ever repeated.")
        (reader,) = exchange.reader()
        line, _ = exchange.publisher()
        publishing = Publishing(exchange, [line], reader)
        publishing.send(RETRIES)
        exchange.hear_out(reader, 0.5, ANSWER_S_MAX)
        first = len(reader.came)
        counts = {"publishes": RETRIES, "delivered": first}
        counts |= _again(exchange, line, publishing.sent, reader, "same_connection")
        line.cut()
        line = exchange.back(line)
        counts |= _again(exchange, line, publishing.sent, reader, "new_connection")
    words = [
        (
            f"on {where} connection {of(counts[f'{key}_delivered'], RETRIES)} were delivered again and"
            f" {counts[f'{key}_acknowledged']:,} acknowledged again"
        )
        for where, key in (("the same", "same_connection"), ("a new", "new_connection"))
    ]
    twice = counts["new_connection_delivered"]
    broken = (f"{of(twice, RETRIES)} retries on a new connection were delivered twice",) if idempotent and twice else ()
    return ProbeAnswer(question=name, said=said, seen="; ".join(words) + ".", counts=counts, broken=broken)


def _again(exchange: Exchange, line: Line, records: list[ProbeRecord], reader: Line, where: str) -> dict[str, int]:
    """Publish the records again by `line`, and count what came of it."""
    before = len(reader.came)
    line.acknowledged.clear()
    for record in records:
        line.publish(record)
        exchange.turn(0)
    exchange.until(lambda: len(line.acknowledged) >= len(records) or line.ended is not None, 1.0)
    exchange.hear_out(reader, 0.5, ANSWER_S_MAX)
    return {f"{where}_delivered": len(reader.came) - before, f"{where}_acknowledged": len(line.acknowledged)}
