"""Holds a dialect against a relay that runs: the part of the contract that only the relay itself can show.

Two connections or more, on streams of their own, a handful of records. `loadtests.dialects.check` has the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random
from typing import Final, TypeAlias

from loadtests.dialects.base import (
    Dialect,
    Published,
    State,
    Subscribed,
    Timed,
    Unsubscribed,
)
from loadtests.dialects.check.contract import Outcome
from loadtests.dialects.check.conversation import PUBLISH, RECEIVE, ContractBroken, show
from loadtests.dialects.fault import told
from loadtests.settings import Settings
from loadtests.target.live_session import ConnectionEnded, LiveSession

SIZES_BYTES: Final = (*[256] * 20, 32_768)
"""Powers of two, to which sealed payloads are padded."""
SLOT: Final = 3


def joins(live: LiveSession, random: Random) -> None:
    live.joined(1, RECEIVE)
    live.joined(1, PUBLISH)


def records_come_once_in_order(live: LiveSession, random: Random) -> None:
    _round(live, random, None)


def the_same_cut_anywhere(live: LiveSession, random: Random) -> None:
    _round(live, random, random)


def _round(live: LiveSession, random: Random, cut: Random | None) -> None:
    reader, writer = live.joined(1, RECEIVE, cut=cut), live.joined(1, PUBLISH, cut=cut)
    records = [b"\x01\x01" + random.randbytes(size - 2) for size in SIZES_BYTES]
    ids = live.publish(writer, 1, *records)
    live.wait(lambda: len(reader.sealed) >= len(records), f"{len(records)} deliveries to another connection", reader)
    if live.features.acknowledges:
        live.wait(lambda: len(writer.of(Published)) >= len(ids), "Published for each record", writer)
    live.silence()
    if reader.sealed != records:
        raise ContractBroken(
            f"the {len(records)} records once, in order",
            _difference(reader.sealed, records),
            "compare what publish says with what a delivery holds",
        )
    acknowledged = sorted(event.id for event in writer.of(Published))
    owed = ids if live.features.acknowledges else []
    if acknowledged != owed:
        raise ContractBroken(
            f"Published once for each of the ids {show(owed)}" if owed else "no Published, as acknowledges=False",
            f"Published for {show(acknowledged)}",
            "Published has the id that publish was given; where the relay never answers, say acknowledges=False",
        )
    if live.features.numbers:
        head = reader.of(Subscribed)[0].head
        if type(head) is not int:
            raise ContractBroken(
                "a number in Subscribed.head, as numbers=True", show(head), "say numbers=False, or give it"
            )
        if [event[1] for event in reader.of(tuple)] != list(range(head + 1, head + 1 + len(records))):
            raise ContractBroken(
                f"numbers from {head + 1} on",
                show([event[1] for event in reader.of(tuple)]),
                "numbers count from the head",
            )


def streams_are_kept_apart(live: LiveSession, random: Random) -> None:
    reader, writer = live.joined(1, RECEIVE), live.joined(1, PUBLISH)
    live.join(reader, live.attach(2, RECEIVE))
    live.join(writer, live.attach(2, PUBLISH))
    sent = [(1, _record(1)), (1, _record(3)), (2, _record(2))]  # each another: some relays take equal ones for one
    for stream, sealed in sent:
        live.publish(writer, stream, sealed)
    live.wait(lambda: len(reader.sealed) >= len(sent), "three deliveries of two streams", reader)
    if sorted((event[0], event[3]) for event in reader.of(tuple)) != sent:
        raise ContractBroken(
            "each record with the number of its stream",
            show(reader.events[-3:]),
            "keep which room is which stream's, both ways",
        )


def own_records_come_back(live: LiveSession, random: Random) -> None:
    """As the feature `echoes` says."""
    both = live.joined(1, RECEIVE | PUBLISH)
    live.publish(both, 1, _record(1))
    if live.features.echoes:
        live.wait(lambda: bool(both.sealed), "the own record, as echoes=True", both)
    live.silence()
    if len(both.sealed) != int(live.features.echoes):
        raise ContractBroken(
            f"{int(live.features.echoes)} own records, as echoes={live.features.echoes}",
            f"{len(both.sealed)}",
            "let the feature say what the relay does",
        )


def states_are_states(live: LiveSession, random: Random) -> None:
    reader, writer = live.joined(1, RECEIVE), live.joined(1, PUBLISH)
    writer.do(lambda dialect: dialect.publish(1, 0, _record(1), durable=False, slot=SLOT))
    live.wait(lambda: bool(reader.of(State)), "a State, as ephemeral=True", reader)
    state = reader.of(State)[0]
    if (state.stream, state.sealed) != (1, _record(1)):
        raise ContractBroken(
            "the state as it was sent, of its stream", show(state), "a State has the number of its stream"
        )


def it_resumes(live: LiveSession, random: Random) -> None:
    reader, writer = live.joined(1, RECEIVE), live.joined(1, PUBLISH)
    live.publish(writer, 1, _record(1))
    live.wait(lambda: bool(reader.sealed), "a delivery", reader)
    missed = [_record(2), _record(3)]
    live.publish(writer, 1, *missed)
    live.wait(lambda: len(reader.sealed) == 3, "three deliveries", reader)
    last, epoch = reader.of(tuple)[0][1], reader.of(Subscribed)[0].epoch
    again = live.joined(1, RECEIVE, after=last, epoch=epoch)
    live.wait(lambda: len(again.sealed) >= len(missed), f"what came after number {last}, as resumes=True", again)
    live.silence()
    if again.sealed != missed:
        raise ContractBroken(
            "the two records that were missed, once", show(again.events), "honour `after` in subscribe"
        )


def it_tells_the_time(live: LiveSession, random: Random) -> None:
    line = live.joined(1, RECEIVE)
    line.do(lambda dialect: dialect.time(12_345))
    live.wait(lambda: bool(line.of(Timed)), "Timed, as times=True", line)
    if line.of(Timed)[0].sent_ns != 12_345:
        raise ContractBroken(
            "Timed(sent_ns=12345, ...)", show(line.of(Timed)), "give back the stamp that time() was given"
        )


def what_was_left_stays_left(live: LiveSession, random: Random) -> None:
    reader, writer = live.joined(1, RECEIVE), live.joined(1, PUBLISH)
    reader.do(lambda dialect: dialect.unsubscribe(1))
    live.wait(lambda: bool(reader.of(Unsubscribed)), "Unsubscribed", reader)
    live.publish(writer, 1, _record(1))
    live.silence()
    if reader.sealed:
        raise ContractBroken(
            "nothing after Unsubscribed", show(reader.events), "tell Unsubscribed when the relay confirms it"
        )


def our_own_close_ends_it(live: LiveSession, random: Random) -> None:
    line = live.joined(1, RECEIVE)
    line.do(lambda dialect: dialect.close())
    with contextlib.suppress(ConnectionEnded):
        live.wait(lambda: False, "the end of the connection", line)


_Check: TypeAlias = Callable[[LiveSession, Random], None]
_CHECKS: Final[tuple[tuple[str, _Check, str, str], ...]] = (
    ("it opens and joins a stream", joins, "", ""),
    ("records come once, in order, acknowledged as its features say", records_come_once_in_order, "", ""),
    ("the same with the bytes cut anywhere", the_same_cut_anywhere, "", ""),
    ("two streams on a connection are kept apart", streams_are_kept_apart, "several", "a connection is for one stream"),
    ("own records come back as its features say", own_records_come_back, "several", "a connection is for one stream"),
    ("a state comes as a state", states_are_states, "ephemeral", "ephemeral=False"),
    ("it resumes after a number", it_resumes, "resumes", "resumes=False"),
    ("it tells the time", it_tells_the_time, "times", "times=False"),
    ("a stream that was left stays left", what_was_left_stays_left, "", ""),
    ("our own close ends it", our_own_close_ends_it, "", ""),
)


def hold(kind: type[Dialect], settings: Settings, seed: int) -> list[Outcome]:
    """Make every check that the features allow, and return what came of each. Raises TargetError if nobody answers.

    Of the settings, the address and how it is reached are used.
    """
    outcomes: list[Outcome] = []
    for name, run, needs, why_not in _CHECKS:
        if outcomes and outcomes[0].broken is not None:
            outcomes.append(Outcome(name, "it joins no stream", None))
        elif needs and not (not kind.features.one_stream if needs == "several" else getattr(kind.features, needs)):
            outcomes.append(Outcome(name, why_not, None))
        else:
            with LiveSession(kind, settings) as live:
                outcomes.append(Outcome(name, None, _broken(run, live, Random(seed))))
    return outcomes


def _broken(run: _Check, live: LiveSession, random: Random) -> ContractBroken | None:
    try:
        run(live, random)
    except ContractBroken as broken:
        return broken
    except (TypeError, AttributeError) as error:  # of an event that holds something else than it says
        return ContractBroken(
            "events as loadtests/dialects/base.py has them", told(error), "look at what the events hold"
        )
    return None


def _record(number: int) -> bytes:
    return b"\x01\x01" + bytes((number,)) * 254


def _difference(came: list[bytes], expected: list[bytes]) -> str:
    """Return how what came differs from what was sent."""
    missing = sum(one not in came for one in expected)
    extra = len(came) - len(expected) + missing
    if missing or extra:
        return f"{len(came)} deliveries, {missing} missing, {extra} too many or changed"
    return "the same records in another order"
