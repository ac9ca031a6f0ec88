"""In which order things come: of one publisher, of several, and states beside durable records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from loadtests.probing.exchange import ANSWER_S_MAX, Exchange
from loadtests.probing.findings import ProbeAnswer, not_asked, of
from loadtests.probing.line import Came, Line
from loadtests.probing.publishing import Publishing
from loadtests.settings import Settings
from loadtests.target.target import Promises

PUBLISHERS: Final = 4
READERS: Final = 4
RECORDS: Final = 400
BURSTS: Final = 100


def order(settings: Settings, promises: Promises) -> ProbeAnswer:
    """Let several publish at once, and compare what every reader got, the publishers too."""
    with Exchange(settings) as exchange:
        readers = exchange.reader(READERS)
        pairs = [exchange.publisher() for _ in range(PUBLISHERS)]
        everybody = [*readers, *(own for _, own in pairs if own is not None)]
        publishing = Publishing(exchange, [line for line, _ in pairs], readers[0])
        publishing.send(RECORDS)
        exchange.until(lambda: all(len(reader.came) >= RECORDS for reader in everybody), 2.0)
        numbers = exchange.features.numbers
    owed = RECORDS * len(everybody)
    counts = {"records": RECORDS, "publishers": PUBLISHERS, "readers": len(everybody), "copies": owed}
    counts |= _disorder(everybody)
    got = [{one.record.id for one in reader.came} for reader in everybody]
    counts["missing"] = owed - sum(map(len, got))
    counts["repeated"] = sum(len(reader.came) for reader in everybody) - sum(map(len, got))
    counts["changed"] = sum(reader.foreign for reader in everybody)
    if numbers:
        counts["number_gaps"] = sum(_jumps(reader.came) for reader in everybody)
    words = [
        (
            f"{PUBLISHERS} publishers, {RECORDS} records, {len(everybody)} readers: {counts['behind_later']:,} of {owed:,}"
            " copies came behind a later one of their publisher"
        ),
        f"{of(counts['other_order'], len(everybody) - 1)} readers had another order over publishers than the first"
        + (f" ({counts['swapped']:,} neighbours swapped)" if counts["swapped"] else ""),
    ]
    rest = ("missing", "repeated", "changed", "number_gaps")
    words += [f"{counts[what]:,} {what.replace('_', ' ')}" for what in rest if counts.get(what)]
    broken = []
    if promises.ordered != "none" and counts["behind_later"]:
        broken.append(f"{of(counts['behind_later'], owed)} copies came behind a later one of the same publisher")
    if promises.ordered == "stream" and counts["other_order"]:
        broken.append(f"{of(counts['other_order'], len(everybody) - 1)} readers got another order than the first")
    if counts["missing"]:
        broken.append(f"{of(counts['missing'], owed)} copies never came to readers who were there")
    if counts["changed"]:
        broken.append(f"{counts['changed']:,} copies were not what was published")
    if counts.get("number_gaps"):
        broken.append(f"the numbers, which have no gaps, had {counts['number_gaps']:,}")
    return ProbeAnswer(
        question="order", said=promises.order, seen="; ".join(words) + ".", counts=counts, broken=tuple(broken)
    )


def _disorder(readers: Sequence[Line]) -> dict[str, int]:
    """Count the copies behind a later one of their publisher, and who got another order than the first reader."""
    behind = other = swapped = 0
    position = {one.record.id: place for place, one in enumerate(readers[0].came)}
    for reader in readers:
        last: dict[int, int] = {}
        for one in reader.came:
            behind += one.record.place < last.get(one.record.publisher, -1)
            last[one.record.publisher] = max(one.record.place, last.get(one.record.publisher, -1))
        places = [position[one.record.id] for one in reader.came if one.record.id in position]
        inverted = sum(second < first for first, second in pairwise(places))
        other += inverted > 0
        swapped += inverted
    return {"behind_later": behind, "other_order": other, "swapped": swapped}


def _jumps(came: Sequence[Came]) -> int:
    numbers = [one.seq for one in came if one.seq is not None]
    return sum(second != first + 1 for first, second in pairwise(numbers))


def states(settings: Settings, promises: Promises) -> ProbeAnswer:
    """Publish a record, a state and a record in one piece, many times, and tell where the state came."""
    name = "states beside records"
    with Exchange(settings) as exchange:
        said = "a class of their own" if exchange.features.ephemeral else "ordinary records"
        if not exchange.features.ephemeral:
            return not_asked(name, said, "its dialect has no states: they travel as records.")
        (reader,) = exchange.reader()
        line, _ = exchange.publisher()
        seen: Counter[str] = Counter()
        for _ in range(BURSTS):
            first, state, last = (exchange.record() for _ in range(3))
            stream, dialect = line.attach.stream, line.dialect
            line.send(
                dialect.publish(stream, first.id, first.sealed)
                + dialect.publish(stream, state.id, state.sealed, durable=False)
                + dialect.publish(stream, last.id, last.sealed)
            )
            wanted = {first.id, state.id, last.id}
            start = len(reader.came)

            def came(wanted: set[int] = wanted, start: int = start) -> set[int]:
                return wanted & {one.record.id for one in reader.came[start:]}

            if exchange.until(lambda came=came, last=last: last.id in came(), ANSWER_S_MAX):  # type: ignore[misc]
                exchange.until(lambda came=came: len(came()) == 3, 0.05)  # type: ignore[misc]
            where = {one.record.id: one.arrival.place for one in reader.came[start:]}
            seen[_where(where.get(first.id), where.get(state.id), where.get(last.id))] += 1
    counts = {
        "bursts": BURSTS,
        "in_order": seen["in order"],
        "overtook": seen["overtook"],
        "overtaken": seen["overtaken"],
        "dropped": seen["dropped"],
    }
    words = (
        f"a state between two records in one write: in order in {of(counts['in_order'], BURSTS)}, before the record that"
        f" went first in {counts['overtook']:,}, behind the one that went last in {counts['overtaken']:,}, never came in"
        f" {counts['dropped']:,}"
    )
    lost = seen["records lost"]
    broken = (f"{of(lost, BURSTS)} bursts did not arrive with both records",) if lost else ()
    return ProbeAnswer(
        question=name, said=said, seen=words + ".", counts=counts | {"records_lost": lost}, broken=broken
    )


def _where(first: int | None, state: int | None, last: int | None) -> str:
    if first is None or last is None:
        return "records lost"
    if state is None:
        return "dropped"
    return "overtook" if state < first else "overtaken" if state > last else "in order"
