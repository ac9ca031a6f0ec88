"""What every dialect makes of the bytes: cut anywhere, broken, or about the connection itself."""

from __future__ import annotations

from random import Random
from typing import Final

from loadtests.dialects.base import Closed, Dialect, Failed, Reply
from loadtests.dialects.check.conversation import (
    RECEIVE,
    SEALED,
    ContractBroken,
    Conversation,
    Subject,
    attach_to,
    briefly,
    called,
    connection,
    publishing,
    received,
    receiving,
    show,
    text_of,
    told_again,
)
from loadtests.dialects.check.scripted_end import OverWebSocket
from loadtests.dialects.frames import FrameReader

SPLITS: Final = 25
ROUNDS: Final = 100
DEEP: Final = 20_000
"""Brackets within brackets, more than any parser recurses."""
NONSENSE: Final = (
    b"",
    b"\x00",
    b"\xff\xfe\xfd",
    b"null",
    b"[]",
    b"{}",
    b'{"',
    b"[" * DEEP,
    b'{"":' * DEEP,
    b"\x91" * DEEP,
    b"1e999",
    b"\r\n\r\n",
    b"+OK\r\n",
)


def any_split_gives_the_same_events(subject: Subject, random: Random) -> None:
    for make in (receiving, publishing):
        whole = make(subject)
        for _ in range(SPLITS):
            same_events(subject, whole, [random.randrange(2**20) for _ in range(random.randrange(12))])
    same_events(subject, briefly(subject, RECEIVE), range(2**12))  # each byte on its own


def same_events(subject: Subject, whole: Conversation, cuts: list[int] | range) -> None:
    """Raise ContractBroken if the conversation gives other events where what the relay said is cut at `cuts`."""
    events = told_again(subject, whole, cuts)
    if events == whole.events:
        return
    pairs = zip([*events, None], [*whole.events, None], strict=False)
    at = next(number for number, (one, other) in enumerate(pairs) if one != other)
    raise ContractBroken(
        f"the same events however the bytes are cut; event {at + 1} should be {show(whole.events[at : at + 1])}",
        show(events[at : at + 1]),
        "a read may end anywhere: keep what is not whole yet, and take it up with the next read",
    )


def nonsense_fails_once(subject: Subject, random: Random) -> None:
    """A relay that breaks the protocol is told once, and the connection is over."""
    conversation = Conversation(subject, RECEIVE).joined()
    good = conversation.delivery(SEALED)
    nonsense = conversation.scripted(lambda: conversation.end.nonsense())
    events = received(conversation.dialect, good + nonsense + good)
    if [type(event) for event in events if type(event) is not Reply] != [tuple, Failed] or type(events[-1]) is Reply:
        raise ContractBroken(
            "the delivery before the nonsense, then one Failed, then nothing",
            show(events),
            "return after the Failed: nothing that follows counts",
        )
    if not text_of(events):
        raise ContractBroken(
            "a sentence in Failed", "an empty one", "say what the relay said: it is what the user will read"
        )
    if late := received(conversation.dialect, good):
        raise ContractBroken("no event after a Failed", show(late), "once it failed, `receive` returns nothing")


def no_bytes_raise(subject: Subject, random: Random) -> None:
    """Whatever comes, `receive` returns events, and an end is the last of them."""
    for data in [*NONSENSE, *(random.randbytes(random.randrange(1, 300)) for _ in range(ROUNDS))]:
        fresh = connection(subject.dialect, attach_to(RECEIVE))
        called(fresh, lambda dialect: dialect.opening())
        takes(fresh, data, random.randrange(len(data) + 1))


def no_bytes_raise_once_joined(subject: Subject, random: Random) -> None:
    """The same on a connection in use: for nonsense, and for a delivery with a few wrong bytes."""
    for data in [*NONSENSE, *([b""] * ROUNDS)]:
        conversation = Conversation(subject, RECEIVE).joined()
        data = data or damaged(conversation.delivery(b"\x01\x01"), random)
        takes(conversation.dialect, data, random.randrange(len(data) + 1))


def no_message_raises(subject: Subject, random: Random) -> None:
    """The same for a message in a sound WebSocket frame, of text and of bytes."""
    for number, message in enumerate([*NONSENSE, *(random.randbytes(random.randrange(1, 200)) for _ in range(ROUNDS))]):
        conversation = Conversation(subject, RECEIVE).joined()
        said = [one for one in FrameReader().feed(conversation.delivery(b"\x01\x01")) if isinstance(one, bytes)]
        deep = [one[:-1] + b',"":' + b"[" * DEEP + b"]" * DEEP + b"}" for one in said if one[:1] == b"{"]
        messages = [message, damaged(said[0], random), *(deep if number == 0 else [])]
        for one in messages:
            data = frame(one, random.choice((1, 2)))
            takes(Conversation(subject, RECEIVE).joined().dialect, data, random.randrange(len(data) + 1))


def damaged(data: bytes, random: Random) -> bytes:
    """Return `data` with one to three bytes changed, or cut short."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed[: random.randrange(1, 2 * len(changed))])


def takes(dialect: Dialect, data: bytes, cut: int) -> None:
    """Raise ContractBroken if `data`, in two pieces, makes it raise, or tell more after it has told the end."""
    events = received(dialect, data[:cut]) + received(dialect, data[cut:])
    ends = [at for at, event in enumerate(events) if isinstance(event, Closed | Failed)]
    if ends not in ([], [len(events) - 1]):
        raise ContractBroken(
            "nothing after a Closed or Failed", show(events), "once it is over, `receive` returns nothing"
        )


def frame(message: bytes, opcode: int) -> bytes:
    """Return one frame as a server sends it (RFC 6455 section 5.2)."""
    size = len(message)
    head = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65_536 else None
    return bytes((0x80 | opcode,)) + (head or b"\x7f" + size.to_bytes(8, "big")) + message


def pings_are_answered(subject: Subject, random: Random) -> None:
    conversation, end = _over_websocket(subject)
    events = received(conversation.dialect, end.ping(b"there?"))
    if [type(event) for event in events] != [Reply]:
        raise ContractBroken("one Reply, the pong", show(events), "pass on the WebSocket's Reply: it is an event")
    assert isinstance(events[0], Reply)
    end.websocket.receive_data(events[0].data)
    heard = [getattr(event, "data", b"") for event in end.websocket.events_received()]
    if heard != [b"there?"]:
        raise ContractBroken("a pong with the ping's bytes", show(heard), "pass on the WebSocket's Reply as it is")


def a_close_ends_it(subject: Subject, random: Random) -> None:
    conversation, end = _over_websocket(subject)
    late = conversation.delivery(SEALED)
    events = received(conversation.dialect, end.close(1001, "going"))
    if [type(event) for event in events] != [Reply, Closed] or events[-1] != Closed(1001, "going"):
        raise ContractBroken(
            "a Reply and Closed(1001, 'going')", show(events), "pass on what the WebSocket says: both are events"
        )
    if events := received(conversation.dialect, late):
        raise ContractBroken("no event after Closed", show(events), "once it is over, `receive` returns nothing")


def our_own_close_ends_it(subject: Subject, random: Random) -> None:
    conversation = Conversation(subject, RECEIVE).joined()
    before = len(conversation.events)
    conversation.do(lambda dialect: dialect.close())
    came = conversation.events[before:]
    if not isinstance(conversation.end, OverWebSocket):
        # The relay may hang up without a word, and what was asked before may be answered first.
        came = [event for event in came if not isinstance(event, Reply)] or [Closed(1000, "")]
    if came != [Closed(1000, "")]:
        raise ContractBroken(
            "Closed(1000, '') and no Reply",
            show(came),
            "close() says what the relay takes as the end; the answer to that is Closed, and is not answered again",
        )


def _over_websocket(subject: Subject) -> tuple[Conversation, OverWebSocket]:
    conversation = Conversation(subject, RECEIVE).joined()
    assert isinstance(conversation.end, OverWebSocket)
    return conversation, conversation.end
