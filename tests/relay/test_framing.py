"""Frames: golden vectors, any split of the bytes, garbage, and agreement with the websockets library."""

from __future__ import annotations

import json
import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import websockets.utils
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close as CloseData
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from relay import framing
from relay.errors import RelayError
from relay.framing import BINARY, CLOSE, PING, PONG, TEXT, Close, Event, FrameReader, FramingError, Ping, Pong
from relay.limits import FRAGMENTS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "framing.json").read_text())


def event_of(vector: list[Any]) -> Event:
    kind, *values = vector
    if kind == "close":
        return Close(*values)
    if kind == "text":
        return str(values[0])
    payload = bytes.fromhex(values[0])
    return {"binary": payload, "ping": Ping(payload), "pong": Pong(payload)}[kind]


def read(reader: FrameReader, chunks: list[bytes]) -> tuple[list[Event], int | None]:
    """Return all events, and the close code if the bytes broke the protocol."""
    events: list[Event] = []
    try:
        for chunk in chunks:
            events += reader.feed(chunk)
    except FramingError as error:
        return events + error.events, error.close_code
    return events, None


def masked(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    """A client's frame, written by the websockets library."""
    return Frame(opcode, payload, fin).serialize(mask=True)


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# -- golden vectors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bytewise"])
@pytest.mark.parametrize("vector", GOLDEN["client_valid"], ids=lambda vector: vector["name"])
def test_golden_valid(vector: dict[str, Any], whole: bool) -> None:
    data = bytes.fromhex(vector["bytes"])
    events, code = read(FrameReader(), [data] if whole else bytewise(data))
    assert (events, code) == ([event_of(event) for event in vector["events"]], None)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "bytewise"])
@pytest.mark.parametrize("vector", GOLDEN["client_invalid"], ids=lambda vector: vector["name"])
def test_golden_invalid(vector: dict[str, Any], whole: bool) -> None:
    data = bytes.fromhex(vector["bytes"])
    reader = FrameReader()
    events, code = read(reader, [data] if whole else bytewise(data))
    assert (events, code) == ([event_of(event) for event in vector["events"]], vector["close_code"])
    assert reader.feed(b"\x82\x80\0\0\0\0") == [], "after a fault nothing is read"


@pytest.mark.parametrize("vector", GOLDEN["server_frames"], ids=lambda vector: vector["name"])
def test_golden_server_frames(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload"])
    assert framing.encode(vector["opcode"], payload).hex() == vector["bytes"]


@pytest.mark.parametrize("vector", GOLDEN["server_headers"], ids=lambda vector: vector["payload_bytes"])
def test_golden_headers(vector: dict[str, Any]) -> None:
    assert framing.header(vector["opcode"], vector["payload_bytes"]).hex() == vector["bytes"]


@pytest.mark.parametrize("vector", GOLDEN["server_closes"], ids=lambda vector: vector["code"])
def test_golden_close_frames(vector: dict[str, Any]) -> None:
    assert framing.close_frame(vector["code"], vector["reason"]).hex() == vector["bytes"]


def test_masking_without_the_compiled_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "apply_mask", websockets.utils.apply_mask)
    for vector in GOLDEN["client_valid"]:
        events, code = read(FrameReader(), [bytes.fromhex(vector["bytes"])])
        assert (events, code) == ([event_of(event) for event in vector["events"]], None)


# -- the error -----------------------------------------------------------------------------------------


def test_the_error_carries_what_was_complete() -> None:
    data = masked(Opcode.BINARY, b"one") + masked(Opcode.PING, b"two") + b"\xff"
    with pytest.raises(FramingError, match="1002: a reserved bit is set") as caught:
        FrameReader().feed(data)
    assert isinstance(caught.value, RelayError)
    assert caught.value.events == [b"one", Ping(b"two")]
    assert caught.value.reason == "a reserved bit is set"


def test_after_a_close_even_garbage_is_ignored() -> None:
    reader = FrameReader()
    assert reader.feed(masked(Opcode.CLOSE, b"\x03\xe8bye") + b"\xff\xff") == [Close(1000, "bye")]
    assert reader.feed(b"\xff" * 100) == []


# -- bounds ----------------------------------------------------------------------------------------------


def test_the_largest_message_and_one_byte_more() -> None:
    largest = bytes(MESSAGE_BYTES_MAX)
    assert FrameReader().feed(masked(Opcode.BINARY, largest)) == [largest]
    header_only = b"\x82\xff" + (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big")
    with pytest.raises(FramingError) as caught:
        FrameReader().feed(header_only)
    assert caught.value.close_code == 1009


@pytest.mark.parametrize("size", [0, 10, 125, 126, 300, 65_535, 65_536])
def test_a_limit_of_ones_own(size: int) -> None:
    assert FrameReader(size).feed(masked(Opcode.BINARY, bytes(size))) == [bytes(size)]
    with pytest.raises(FramingError) as caught:
        FrameReader(size).feed(masked(Opcode.BINARY, bytes(size + 1)))
    assert caught.value.close_code == 1009
    two = masked(Opcode.BINARY, bytes(size), fin=False) + masked(Opcode.CONT, b"x")
    with pytest.raises(FramingError) as caught:
        FrameReader(size).feed(two)
    assert caught.value.close_code == 1009


def test_as_many_fragments_as_allowed() -> None:
    frames = [masked(Opcode.BINARY, b"0", fin=False)]
    frames += [masked(Opcode.CONT, b"1", fin=False)] * (FRAGMENTS_PER_MESSAGE_MAX - 2)
    reader = FrameReader()
    assert reader.feed(b"".join(frames)) == []
    assert reader.feed(masked(Opcode.CONT, b"2")) == [b"0" + b"1" * (FRAGMENTS_PER_MESSAGE_MAX - 2) + b"2"]


def test_control_frames_do_not_count_as_fragments() -> None:
    data = masked(Opcode.BINARY, b"0", fin=False) + masked(Opcode.PING, b"") * 300 + masked(Opcode.CONT, b"1")
    assert FrameReader().feed(data) == [Ping(b"")] * 300 + [b"01"]


class CountingBytes(bytes):
    """Counts the bytes that slices of it and sums with it copy."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, bytes):
            CountingBytes.copied += len(part)
        return part

    def __radd__(self, other: bytes) -> bytes:
        CountingBytes.copied += len(self) + len(other)
        return CountingBytes(bytes(other) + bytes(self))


@pytest.mark.parametrize("step", [1, 100, 65_536])
@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.TEXT])
def test_a_trickled_message_is_copied_a_fixed_number_of_times(opcode: Opcode, step: int) -> None:
    payload = b"x" * MESSAGE_BYTES_MAX
    data = masked(opcode, payload)
    reader = FrameReader()
    CountingBytes.copied = 0
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += reader.feed(CountingBytes(data[start : start + step]))
    assert events == [payload if opcode is Opcode.BINARY else payload.decode()]
    assert CountingBytes.copied < 2 * len(data)


def test_an_announced_length_reserves_no_memory() -> None:
    reader = FrameReader()
    reader.feed(b"\x82\xff" + MESSAGE_BYTES_MAX.to_bytes(8, "big") + b"mask" + b"x")
    assert reader.partial is not None
    assert sys.getsizeof(reader.partial.data) < 200


def test_an_idle_reader_holds_nothing() -> None:
    reader = FrameReader()
    reader.feed(masked(Opcode.TEXT, b"x" * 1000, fin=False) + masked(Opcode.CONT, b"y"))
    reader.feed(masked(Opcode.PING, b"x"))
    assert (reader.partial, reader._rest) == (None, b"")
    assert not hasattr(reader, "__dict__")
    assert sys.getsizeof(reader) < 100


# -- properties ----------------------------------------------------------------------------------------


payloads = st.one_of(
    st.binary(max_size=12),
    st.integers(0, 700).map(lambda size: random.Random(size).randbytes(size)),
    st.sampled_from([125, 126, 65_535, 65_536]).map(lambda size: random.Random(size).randbytes(size)),
)
texts = st.text(max_size=40)
controls = st.one_of(
    st.binary(max_size=125).map(lambda payload: (masked(Opcode.PING, payload), Ping(payload))),
    st.binary(max_size=125).map(lambda payload: (masked(Opcode.PONG, payload), Pong(payload))),
)
closes = st.one_of(
    st.just((masked(Opcode.CLOSE, b""), Close(None, ""))),
    st.builds(
        lambda code, reason: (masked(Opcode.CLOSE, CloseData(code, reason).serialize()), Close(code, reason)),
        st.sampled_from([1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4010, 4999]),
        st.text(max_size=30),
    ),
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """One message, in one or several fragments, perhaps with control frames between them."""
    value: bytes | str = draw(st.one_of(payloads, texts))
    data = value.encode() if isinstance(value, str) else value
    parts = cut(data, draw(st.lists(st.integers(0, 70_000), max_size=3)))
    frames: list[bytes] = []
    events: list[Event] = []
    for index, part in enumerate(parts):
        opcode = Opcode.CONT if index else Opcode.TEXT if isinstance(value, str) else Opcode.BINARY
        frames.append(masked(opcode, part, fin=index == len(parts) - 1))
        if index < len(parts) - 1:
            for frame, event in draw(st.lists(controls, max_size=1)):
                frames.append(frame)
                events.append(event)
    return b"".join(frames), [*events, value]


@st.composite
def sequences(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """A valid client: messages and control frames, perhaps a close at the end."""
    single = controls.map(lambda pair: (pair[0], [pair[1]]))
    parts = draw(st.lists(st.one_of(messages(), single), max_size=5))
    data = b"".join(part for part, _ in parts)
    events = [event for _, some in parts for event in some]
    if draw(st.booleans()):
        frame, event = draw(closes)
        return data + frame, [*events, event]
    return data, events


splits = st.lists(st.integers(0, 140_000), max_size=8)


@settings(max_examples=150, deadline=None)
@given(sequences(), splits)
def test_any_split_gives_the_same_events(sequence: tuple[bytes, list[Event]], places: list[int]) -> None:
    data, events = sequence
    assert read(FrameReader(), [data]) == (events, None)
    assert read(FrameReader(), cut(data, places)) == (events, None)
    if len(data) < 3000:
        assert read(FrameReader(), bytewise(data)) == (events, None)


faulty = st.one_of(
    st.binary(max_size=200),
    # Garbage that passes the first checks more often.
    st.lists(
        st.tuples(
            st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A]),
            st.sampled_from([0x80, 0x81, 0x82, 0x83, 0x85, 0xFD, 0xFE]),
            st.binary(min_size=4, max_size=10),
        ).map(lambda parts: bytes(parts[:2]) + parts[2]),
        max_size=12,
    ).map(b"".join),
)


@settings(max_examples=400, deadline=None)
@given(faulty, splits)
def test_garbage_raises_nothing_else_and_is_read_alike_at_any_split(data: bytes, places: list[int]) -> None:
    whole = read(FrameReader(), [data])
    assert read(FrameReader(), cut(data, places)) == whole
    assert read(FrameReader(), bytewise(data)) == whole


@settings(max_examples=100, deadline=None)
@given(sequences(), st.integers(0, 2**31), st.integers(0, 7), splits)
def test_a_flipped_bit_is_read_alike_at_any_split(
    sequence: tuple[bytes, list[Event]], place: int, bit: int, places: list[int]
) -> None:
    data = bytearray(sequence[0] or b"\0")
    data[place % len(data)] ^= 1 << bit
    flipped = bytes(data)
    assert read(FrameReader(), cut(flipped, places)) == read(FrameReader(), [flipped])


# -- the websockets library ------------------------------------------------------------------------------


def read_by_websockets(data: bytes) -> list[Event]:
    """What the library's sans-IO server makes of the same bytes, its frames put together into messages."""
    server = ServerProtocol(state=OPEN, max_size=MESSAGE_BYTES_MAX)
    server.receive_data(data)
    events: list[Event] = []
    kind, parts = Opcode.BINARY, list[bytes]()
    for frame in server.events_received():
        assert isinstance(frame, Frame)
        content = bytes(frame.data)
        if frame.opcode is Opcode.PING:
            events.append(Ping(content))
        elif frame.opcode is Opcode.PONG:
            events.append(Pong(content))
        elif frame.opcode is Opcode.CLOSE:
            close = CloseData.parse(content)
            events.append(Close(close.code if content else None, close.reason))
        else:
            if frame.opcode is not Opcode.CONT:
                kind, parts = frame.opcode, []
            parts.append(content)
            if frame.fin:
                joined = b"".join(parts)
                events.append(joined.decode() if kind is Opcode.TEXT else joined)
    assert server.parser_exc is None
    return events


@settings(max_examples=100, deadline=None)
@given(sequences())
def test_agrees_with_the_websockets_library(sequence: tuple[bytes, list[Event]]) -> None:
    data, _ = sequence
    assert read(FrameReader(), [data]) == (read_by_websockets(data), None)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([TEXT, BINARY]), payloads)
def test_server_frames_are_those_of_the_websockets_library(opcode: int, payload: bytes) -> None:
    assert framing.encode(opcode, payload) == Frame(Opcode(opcode), payload).serialize(mask=False)


@given(st.sampled_from([PING, PONG]), st.binary(max_size=125))
def test_server_control_frames_are_those_of_the_websockets_library(opcode: int, payload: bytes) -> None:
    assert framing.encode(opcode, payload) == Frame(Opcode(opcode), payload).serialize(mask=False)


@given(st.sampled_from([1000, 1002, 4010]), st.text(max_size=80))
def test_a_close_reason_is_cut_between_characters(code: int, reason: str) -> None:
    frame = framing.close_frame(code, reason)
    assert frame[0] == 0x80 | CLOSE
    assert frame[1] == len(frame) - 2 <= 125
    kept = frame[4:].decode()
    assert reason.startswith(kept)
    assert kept == reason or len(kept.encode()) > 123 - 4


# -- split -------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(payloads, max_size=6))
def test_split_undoes_encode(some: list[bytes]) -> None:
    assert framing.split(b"".join(framing.encode(BINARY, payload) for payload in some)) == some


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([TEXT, BINARY, CLOSE, PING, PONG]), st.binary(max_size=125)), max_size=6))
def test_split_all_undoes_encode(some: list[tuple[int, bytes]]) -> None:
    assert framing.split_all(b"".join(framing.encode(opcode, payload) for opcode, payload in some)) == some


NOT_SERVER_FRAMES = {
    "half a header": "82",
    "cut short": "8205414243",
    "half a 16-bit length": "827e01",
    "half a 64-bit length": "827f00",
    "no FIN": "020141",
    "a reserved bit": "c20141",
    "masked": "82810000000041",
    "masked, without its length": "82ff",
    "masked, 64-bit": "82ff000000000000000141",
    "a good frame and a byte": "82014189",
}


@pytest.mark.parametrize("frames", NOT_SERVER_FRAMES.values(), ids=NOT_SERVER_FRAMES.keys())
def test_split_refuses_what_is_not_whole_server_frames(frames: str) -> None:
    for split in (framing.split, framing.split_all):
        with pytest.raises(ValueError, match="not whole server frames"):
            split(bytes.fromhex(frames))


def test_split_takes_only_binary_frames() -> None:
    with pytest.raises(ValueError, match="not only binary frames"):
        framing.split(framing.encode(BINARY, b"x") + framing.encode(TEXT, b"y"))


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_split_of_garbage_never_loses_bytes(data: bytes) -> None:
    try:
        parts = framing.split(data)
    except ValueError:
        return
    assert sum(map(len, parts)) + 2 * len(parts) <= len(data)


@settings(max_examples=200, deadline=None)
@given(sequences(), splits, st.integers(1, 7))
def test_a_limit_on_small_frames_changes_nothing_but_when(
    sequence: tuple[bytes, list[Event]], places: list[int], small_max: int
) -> None:
    data, events = sequence
    reader = FrameReader()
    found: list[Event] = []
    for part in cut(data, places):
        if reader.waiting:
            reader.hold(part)
        else:
            found += reader.feed(part, small_max)
        if len(part) % 2:
            continue
        while reader.waiting:
            found += reader.feed(b"", small_max)
    while reader.waiting:
        found += reader.feed(b"", small_max)
    assert found == events
