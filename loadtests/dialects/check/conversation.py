"""A dialect and its scripted end talk, over no network: what each said, and every event, so that it can be told again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from loadtests.dialects.base import Attach, Closed, Dialect, Event, Failed, Place, Ready, Reply, Subscribed
from loadtests.dialects.check.scripted_end import ScriptedEnd
from loadtests.dialects.fault import told

RECEIVE: Final = 1
PUBLISH: Final = 2
STREAM: Final = 70_001
SEALED: Final = b"\x01\x01" + bytes(range(254))
LONG: Final = b"\x01\x01\r\n" + bytes(40_000)
HOST: Final = "127.0.0.1:1"
IDS: Final = (12, 13, 14)
"""Ids of what `publishing` publishes."""

Call: TypeAlias = Callable[[Dialect], bytes]


class ContractBroken(AssertionError):
    """The contract is broken: what was expected, what came, and what to do about it."""

    def __init__(self, expected: str, came: str, remedy: str) -> None:
        super().__init__(f"expected {expected}; came {came}; {remedy}")
        self.expected = expected
        self.came = came
        self.remedy = remedy


class Subject(NamedTuple):
    """What is checked. `end`: makes the other end of a connection; None where there is none."""

    dialect: type[Dialect]
    end: Callable[[], ScriptedEnd] | None


class Said(NamedTuple):
    """Bytes of one side. `call`: what made the dialect say them; None for replies, and for what the relay said."""

    who: str
    data: bytes
    call: Call | None


def attach_to(use: int, *, stream: int = STREAM, first_byte: int = 1) -> Attach:
    """Return what a connection says to use the stream whose name begins with `first_byte`."""
    return Attach(stream=stream, name=bytes(range(first_byte, first_byte + 32)), use=use, capability=b"c")


def fixed(bits: int) -> int:
    """Return no random bits, but the same ones each time: masks and keys of two tellings agree."""
    return 0x1234 & (1 << bits) - 1


def connection(dialect: type[Dialect], attach: Attach) -> Dialect:
    """Return the dialect of a new connection, which `attach` is what it will be used for."""
    place = Place(host=HOST, attach=attach if dialect.features.one_stream else None)
    return dialect(place, random_bits=fixed)


class Conversation:
    """One connection. Replies are sent at once, as the event loop does. Raises ContractBroken where a side raises."""

    def __init__(self, subject: Subject, use: int) -> None:
        assert subject.end is not None
        self.attach = attach_to(use)
        self.dialect = connection(subject.dialect, self.attach)
        self.end = subject.end()
        self.said: list[Said] = []
        self.events: list[Event] = []

    def joined(self) -> Conversation:
        """Open it and join its stream. Raises ContractBroken if that does not come about."""
        self.do(lambda dialect: dialect.opening())
        _expect_kind(self.told, Ready, "after the opening")
        self.do(lambda dialect: dialect.subscribe(self.attach))
        _expect_kind(self.told[1:], Subscribed, "after subscribe")
        return self

    def do(self, call: Call) -> None:
        """Have the dialect say something, and hear the answer."""
        self._say(called(self.dialect, call), call)

    def _say(self, data: bytes, call: Call | None) -> None:
        self.said.append(Said("client", data, call))
        if answer := self.scripted(lambda: self.end.hear(data)):
            self.hear(answer)

    def hear(self, data: bytes) -> list[Event]:
        """Let the dialect have what the relay said, and send what it replies; return the events."""
        self.said.append(Said("relay", data, None))
        events = received(self.dialect, data)
        self.events += events
        for event in events:
            if isinstance(event, Reply) and not any(isinstance(one, Closed | Failed) for one in events):
                self._say(event.data, None)
        return events

    def deliver(self, *records: bytes) -> list[Event]:
        """Have the relay deliver records, all in one piece."""
        return self.hear(self.delivery(*records))

    def delivery(self, *records: bytes) -> bytes:
        """Return what the relay sends to deliver records."""
        return self.scripted(lambda: b"".join([self.end.deliver(self.attach, one) for one in records]))

    def scripted(self, call: Callable[[], bytes]) -> bytes:
        try:
            return call()
        except Exception as error:
            raise ContractBroken(
                "that the scripted end understands what the dialect says",
                f"{told(error)} from the end",
                "one of the two is wrong about the protocol: compare both with its description",
            ) from error

    @property
    def told(self) -> list[Event]:
        """The events without the replies."""
        return [event for event in self.events if not isinstance(event, Reply)]


def receiving(subject: Subject) -> Conversation:
    """Return a whole connection that receives."""
    conversation = Conversation(subject, RECEIVE).joined()
    for sealed in (SEALED, LONG, SEALED):
        conversation.deliver(sealed)
    conversation.do(lambda dialect: dialect.unsubscribe(STREAM))
    return conversation


def publishing(subject: Subject) -> Conversation:
    """Return a whole connection that publishes."""
    first, second, third = IDS
    conversation = Conversation(subject, PUBLISH).joined()
    conversation.do(lambda dialect: dialect.publish(STREAM, first, SEALED) + dialect.publish(STREAM, second, LONG))
    conversation.do(lambda dialect: dialect.publish(STREAM, third, SEALED))
    return conversation


def briefly(subject: Subject, use: int) -> Conversation:
    """Return a whole connection with one record, and its close."""
    conversation = Conversation(subject, use).joined()
    if use == RECEIVE:
        conversation.deliver(SEALED)
        conversation.do(lambda dialect: dialect.unsubscribe(STREAM))
    else:
        conversation.do(lambda dialect: dialect.publish(STREAM, IDS[0], SEALED))
    conversation.do(lambda dialect: dialect.close())
    return conversation


def told_again(subject: Subject, whole: Conversation, cuts: Sequence[int]) -> list[Event]:
    """Return the events of the same conversation where everything the relay says comes in pieces, cut at `cuts`."""
    dialect = connection(subject.dialect, whole.attach)
    events: list[Event] = []
    for who, data, call in whole.said:
        if who == "client":
            if call is not None:
                called(dialect, call)
            continue
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for start, stop in pairwise(edges):
            events += received(dialect, data[start:stop])
    return events


def called(dialect: Dialect, call: Call) -> bytes:
    """Return the bytes that a call gives. Raises ContractBroken if it raises or gives anything else."""
    try:
        data = call(dialect)
    except Exception as error:
        raise ContractBroken(
            "bytes to send", told(error), "the call is made where it is allowed: look at the line that raised"
        ) from error
    if not isinstance(data, bytes):
        raise ContractBroken("bytes to send", show(data), "return bytes; b'' where there is nothing to send")
    return data


def received(dialect: Dialect, data: bytes) -> list[Event]:
    """Return the events of `data`. Raises ContractBroken if `receive` raises or returns no list."""
    try:
        events = dialect.receive(data)
    except Exception as error:
        raise ContractBroken(
            f"events, whatever comes; it got {show(data)}",
            told(error),
            "mend that line; what breaks the protocol is no exception but a Failed: `events += websocket.fail(...)`",
        ) from error
    if not isinstance(events, list):
        raise ContractBroken(
            "a list of events", show(events), "return a list from `receive`, an empty one for no event"
        )
    return events


def _expect_kind(events: list[Event], kind: type[Ready | Subscribed], when: str) -> None:
    if [type(event) for event in events] != [kind]:
        raise ContractBroken(
            f"one {kind.__name__} {when}, and nothing else",
            show(events),
            "Ready says that the connection may be used, Subscribed that the relay confirmed the stream",
        )


_SHOWN_MAX: Final = 6


def show(value: object) -> str:
    """Return `value` for a person: events by their names, long bytes by their length."""
    if isinstance(value, list):
        parts = [show(one) for one in value[:_SHOWN_MAX]]
        more = [f"{len(value) - _SHOWN_MAX} more"] if len(value) > _SHOWN_MAX else []
        return ", ".join(parts + more) or "no event"
    if type(value) is tuple:
        return f"Delivered({', '.join(show(part) for part in value)})"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(show(part) for part in value)})"
    if isinstance(value, bytes) and len(value) > 40:
        return f"<{len(value)} bytes {value[:12]!r}...>"
    return repr(value)[:200]


def text_of(events: list[Event]) -> str:
    return next((event.text for event in events if isinstance(event, Failed)), "")
