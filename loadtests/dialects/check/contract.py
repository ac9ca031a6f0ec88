"""What every dialect must do, whatever relay it speaks to: the checks, in the order in which they are best mended.

Each returns if all is well and raises ContractBroken if not. They ask of randomness what the seed gives, and of the machine
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, Literal, NamedTuple, TypeAlias

from loadtests.dialects.check import calls, streams, wire
from loadtests.dialects.check.conversation import RECEIVE, ContractBroken, Subject, attach_to, connection
from loadtests.dialects.check.scripted_end import OverWebSocket
from loadtests.dialects.fault import told

NO_END: Final = "it needs the other end"
Needs: TypeAlias = Literal[
    "nothing", "a WebSocket", "an end", "an end behind a WebSocket", "an end for several streams"
]


class Check(NamedTuple):
    """`needs`: what must be there for it; `joined`: it begins with a stream that was joined."""

    name: str
    run: Callable[[Subject, Random], None]
    needs: Needs = "an end"
    joined: bool = True


CHECKS: Final = (
    Check("the calls take what they are given", calls.calls_take_what_they_are_given, "nothing", False),
    Check("its features fit together", calls.features_fit_together, "nothing", False),
    Check("calls before their time raise LookupError", calls.calls_before_their_time_raise, "nothing", False),
    Check("a refused upgrade is named", calls.refused_upgrades_are_named, "a WebSocket", False),
    Check("no bytes make it raise", wire.no_bytes_raise, "nothing", False),
    Check("it opens and joins a stream", streams.joins, "an end", False),
    Check("deliveries come once, in order", streams.deliveries_come_in_order),
    Check("one read may hold many deliveries", streams.one_read_may_hold_many),
    Check("publishes are acknowledged as its features say", streams.publishes_are_acknowledged),
    Check("one connection may receive and publish", streams.one_connection_may_do_both, "an end for several streams"),
    Check("a stream that was left stays left", streams.leaves),
    Check("any split of the bytes gives the same events", wire.any_split_gives_the_same_events),
    Check("no bytes make it raise once it has joined", wire.no_bytes_raise_once_joined),
    Check("nonsense ends it, once", wire.nonsense_fails_once),
    Check("no message makes it raise", wire.no_message_raises, "an end behind a WebSocket"),
    Check("a ping is answered", wire.pings_are_answered, "an end behind a WebSocket"),
    Check("a close of the relay ends it", wire.a_close_ends_it, "an end behind a WebSocket"),
    Check("our own close ends it", wire.our_own_close_ends_it),
)


class Outcome(NamedTuple):
    """What became of one check. `why_not`: why it was not made; `broken`: what was found."""

    name: str
    why_not: str | None
    broken: ContractBroken | None


def hold(subject: Subject, seed: int) -> list[Outcome]:
    """Make every check that can be made, and return what came of each."""
    outcomes: list[Outcome] = []
    never_joined = False
    for check in CHECKS:
        why_not = "it joins no stream" if never_joined and check.joined else missing(subject, check)
        broken = None if why_not else fault_of(check, subject, seed)
        never_joined = never_joined or (check.run is streams.joins and broken is not None)
        outcomes.append(Outcome(check.name, why_not, broken))
    return outcomes


def fault_of(check: Check, subject: Subject, seed: int) -> ContractBroken | None:
    """Make one check; what it raises that is not ContractBroken is broken too."""
    try:
        check.run(subject, Random(seed))
    except ContractBroken as broken:
        return broken
    except Exception as error:
        return ContractBroken("no exception", told(error), "look at the line that raised")
    return None


def missing(subject: Subject, check: Check) -> str | None:
    """Return why a check cannot be made of this subject, None if it can."""
    if "end" in check.needs and subject.end is None:
        return NO_END
    match check.needs:
        case "a WebSocket":
            opening = connection(subject.dialect, attach_to(RECEIVE)).opening()
            return None if opening.startswith(b"GET ") else "it is not over WebSocket"
        case "an end behind a WebSocket":
            behind = subject.end is not None and isinstance(subject.end(), OverWebSocket)
            return None if behind else "the other end is no OverWebSocket"
        case "an end for several streams":
            return "a connection is for one stream" if subject.dialect.features.one_stream else None
    return None
