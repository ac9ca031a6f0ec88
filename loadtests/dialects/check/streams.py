"""What every dialect does with a stream: joins it, receives, publishes, leaves."""

from __future__ import annotations

from random import Random
from typing import Any

from loadtests.dialects.base import Event, Published, Reply, Subscribed, Unsubscribed
from loadtests.dialects.check.calls import raises_lookup_error
from loadtests.dialects.check.conversation import (
    IDS,
    LONG,
    PUBLISH,
    RECEIVE,
    SEALED,
    STREAM,
    ContractBroken,
    Conversation,
    Subject,
    publishing,
    receiving,
    show,
)


def joins(subject: Subject, random: Random) -> None:
    """It opens, and joins a stream."""
    for use in (RECEIVE, PUBLISH):
        subscribed = Conversation(subject, use).joined().told[1]
        assert isinstance(subscribed, Subscribed)
        if subscribed.stream != STREAM:
            raise ContractBroken(
                f"Subscribed(stream={STREAM}, ...)",
                show(subscribed),
                "the stream of an event is the number that subscribe was given in its attach",
            )
        _numbers(subject, "Subscribed.epoch", subscribed.epoch)
        _numbers(subject, "Subscribed.head", subscribed.head)


def deliveries_come_in_order(subject: Subject, random: Random) -> None:
    conversation = Conversation(subject, RECEIVE).joined()
    records = [SEALED, LONG, SEALED, *(b"\x01\x01" + random.randbytes(size) for size in (254, 998, 65_534, 70_000))]
    events = [event for one in records for event in conversation.deliver(one)]
    _are_deliveries(events, records, conversation)


def one_read_may_hold_many(subject: Subject, random: Random) -> None:
    conversation = Conversation(subject, RECEIVE).joined()
    _are_deliveries(conversation.deliver(*[SEALED] * 100), [SEALED] * 100, conversation)


def publishes_are_acknowledged(subject: Subject, random: Random) -> None:
    conversation = publishing(subject)
    acknowledges = subject.dialect.features.acknowledges
    came = conversation.told[2:]
    ids = [event.id for event in came if isinstance(event, Published)]
    if len(ids) != len(came) or ids != (list(IDS) if acknowledges else []):
        expected = f"Published for the ids {', '.join(map(str, IDS))}, in order" if acknowledges else "no event"
        raise ContractBroken(
            expected,
            show(came),
            "each durable publish gets one Published with the id that publish was given, when the relay answers it; "
            "where it never answers, say acknowledges=False",
        )
    for event in came:
        assert isinstance(event, Published)
        _numbers(subject, "Published.seq", event.seq)


def one_connection_may_do_both(subject: Subject, random: Random) -> None:
    conversation = Conversation(subject, RECEIVE | PUBLISH).joined()
    conversation.do(lambda dialect: dialect.publish(STREAM, 5, SEALED))
    conversation.deliver(LONG)
    came: list[Any] = conversation.told[2:]
    ids = [event.id for event in came if isinstance(event, Published)]
    if ids != ([5] if subject.dialect.features.acknowledges else []):
        raise ContractBroken(
            "Published for the id 5, if it acknowledges", show(came), "who receives is acknowledged all the same"
        )
    sealed = [event[3] for event in came if type(event) is tuple]
    if sealed not in ([LONG], [SEALED, LONG]):  # an end need not echo
        raise ContractBroken(
            "the delivery, after the own copy if any", show(came), "who publishes receives all the same"
        )


def leaves(subject: Subject, random: Random) -> None:
    """What is left stays left."""
    conversation = receiving(subject)
    left = [event for event in conversation.told if isinstance(event, Unsubscribed)]
    if [event.stream for event in left] != [STREAM] or conversation.told[-1] is not left[-1]:
        raise ContractBroken(
            f"Unsubscribed(stream={STREAM}, ...) as the last event",
            show(conversation.told[-2:]),
            "tell Unsubscribed when the relay has confirmed it, and nothing of the stream afterwards",
        )
    _numbers(subject, "Unsubscribed.head", left[0].head)
    raises_lookup_error("publish to a stream that was left", lambda: conversation.dialect.publish(STREAM, 1, SEALED))


def _are_deliveries(events: list[Event], records: list[bytes], conversation: Conversation) -> None:
    came: list[Any] = [event for event in events if type(event) is tuple]
    others = [event for event in events if type(event) is not tuple and not isinstance(event, Reply)]
    if others or len(came) != len(records):
        raise ContractBroken(
            f"{len(records)} deliveries, one a record",
            show(events),
            "a delivery is the plain tuple (stream, seq, at_ns, sealed), not a class of its own",
        )
    head = next(event.head for event in conversation.told if isinstance(event, Subscribed))
    numbers = conversation.dialect.features.numbers
    for place, (event, sealed) in enumerate(zip(came, records, strict=True), 1):
        stream, seq, at_ns, got = event
        if stream != STREAM:
            raise ContractBroken(f"deliveries to stream {STREAM}", show(event), "keep which topic is which stream's")
        if got != sealed or type(got) is not bytes:
            raise ContractBroken(show(sealed), show(got), "the sealed bytes must come out as they went in, as bytes")
        if seq != ((head or 0) + place if numbers else None):
            wanted = f"number {(head or 0) + place}, after the head {head}" if numbers else "None, as numbers=False"
            raise ContractBroken(f"seq {wanted}", show(seq), "numbers count from Subscribed.head without a hole")
        if at_ns is not None and type(at_ns) is not int:
            raise ContractBroken("at_ns in whole nanoseconds or None", show(at_ns), "give Unix time as an int")


def _numbers(subject: Subject, what: str, value: int | None) -> None:
    if (type(value) is int) is not subject.dialect.features.numbers:
        wanted = "a number, as numbers=True" if subject.dialect.features.numbers else "None, as numbers=False"
        raise ContractBroken(f"{what} to be {wanted}", show(value), "let the features say what the relay has")
