"""The client's framing against the `websockets` library: what either writes, the other reads, however it is split."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from loadtests.dialects.frames import (
    BINARY,
    CLOSE,
    MESSAGE_BYTES_MAX,
    PING,
    PONG,
    Control,
    Fault,
    FrameReader,
    Handshake,
    HandshakeError,
    Item,
    client_frame,
    close_frame,
)

SIZES = st.sampled_from([0, 1, 2, 125, 126, 127, 285, 286, 1000, 65_535, 65_536, 70_000])


def random_bits(count: int) -> int:
    return random.Random(count).getrandbits(count)


def server_frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), payload, fin=fin).serialize(mask=False)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


@st.composite
def server_output(draw: st.DrawFn) -> tuple[bytes, list[Item]]:
    """Frames as the library writes them, some in fragments with control frames between, and what they mean."""
    data, items = b"", []
    for _ in range(draw(st.integers(1, 6))):
        size = draw(SIZES)
        payload = random.Random(size).randbytes(size)
        shape = draw(st.sampled_from(["whole", "text", "fragments", "control"]))
        if shape == "control":
            opcode = draw(st.sampled_from([PING, PONG, CLOSE]))
            data += server_frame(opcode, payload[:125])
            items.append(Control(opcode, payload[:125]))
        elif shape == "fragments":
            half = size // 2
            data += server_frame(2, payload[:half], fin=False)
            if draw(st.booleans()):
                data += server_frame(PING, b"between")
                items.append(Control(PING, b"between"))
            data += server_frame(0, b"", fin=False) + server_frame(0, payload[half:])
            items.append(payload)
        else:
            data += server_frame(1 if shape == "text" else 2, payload)
            items.append(payload)
    return data, items


@given(output=server_output(), cuts=st.lists(st.integers(0, 2**32), max_size=12))
@settings(max_examples=120, deadline=None)
def test_any_split_gives_what_the_library_wrote(output: tuple[bytes, list[Item]], cuts: list[int]) -> None:
    data, expected = output
    reader = FrameReader()
    assert [item for piece in pieces(data, cuts) for item in reader.feed(piece)] == expected


def parts(items: list[Item]) -> tuple[bytes, list[Item]]:
    """Return the byte stream in the messages, and the controls."""
    stream = b"".join(item for item in items if isinstance(item, bytes))
    return stream, [item for item in items if not isinstance(item, bytes)]


@given(output=server_output(), cuts=st.lists(st.integers(0, 2**32), max_size=12))
@settings(max_examples=120, deadline=None)
def test_any_split_gives_the_same_byte_stream(output: tuple[bytes, list[Item]], cuts: list[int]) -> None:
    data, expected = output
    reader = FrameReader(pieces=True)
    assert parts([item for piece in pieces(data, cuts) for item in reader.feed(piece)]) == parts(expected)


def test_what_there_is_of_a_long_message_is_given_at_once_without_a_limit() -> None:
    reader = FrameReader(pieces=True)
    length = 2 * MESSAGE_BYTES_MAX
    assert reader.feed(b"\x82\x7f" + length.to_bytes(8, "big")) == []
    assert reader.feed(b"abc") == [b"abc"]
    rest = bytes(length - 3)
    assert reader.feed(rest + server_frame(PING, b"") + server_frame(2, b"next")) == [rest, Control(PING, b""), b"next"]


def test_byte_by_byte() -> None:
    payloads = [b"x" * 300, b"", b"y" * 126, b"z" * 70_000]
    data = b"".join(server_frame(2, payload) for payload in payloads) + server_frame(PING, b"")
    reader = FrameReader()
    items = [item for index in range(len(data)) for item in reader.feed(data[index : index + 1])]
    assert items == [*payloads, Control(PING, b"")]


@given(size=SIZES, mask=st.integers(0, 2**32 - 1), opcode=st.sampled_from([BINARY, 1]))
@settings(max_examples=60, deadline=None)
def test_the_library_reads_our_frames(size: int, mask: int, opcode: int) -> None:
    payload = b"a" * size
    server = accepted_server(None)
    server.receive_data(client_frame(payload, mask, opcode))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.data, frame.fin) == (opcode, payload, True)


def test_the_library_reads_our_close() -> None:
    for code in (1000, 4061, 1005):
        server = accepted_server(None)
        server.receive_data(close_frame(code, 7))
        assert server.close_rcvd is not None
        assert server.close_rcvd.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xc2\x00", 1002),  # a reserved bit
        (b"\x82\x80abcd", 1002),  # masked
        (b"\x83\x00", 1002),  # opcode 3
        (b"\x80\x00", 1002),  # a continuation of nothing
        (b"\x02\x01a\x82\x01b", 1002),  # a message in another
        (b"\x02\x01a" + b"\x82\x7e\x01\x00" + bytes(256), 1002),
        (b"\x09\x00", 1002),  # a ping in fragments
        (b"\x89\x7e\x00\x7e" + bytes(126), 1002),  # a long ping
        (b"\x82\x7f" + (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big"), 1009),
        (b"\x02\x01a\x00\x7f" + MESSAGE_BYTES_MAX.to_bytes(8, "big"), 1009),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_broken_frame_ends_the_reading(data: bytes, code: int, step: int) -> None:
    reader = FrameReader()
    data = server_frame(2, b"before") + data + server_frame(2, b"after")
    items = [item for index in range(0, len(data), step) for item in reader.feed(data[index : index + step])]
    assert items[0] == b"before"
    assert isinstance(items[1], Fault)
    assert items[1].code == code
    assert len(items) == 2
    assert reader.feed(server_frame(2, b"more")) == []


def test_close_without_a_code_and_with_a_bad_reason() -> None:
    assert Control(CLOSE, b"").close() == (1005, "")
    assert Control(CLOSE, b"\x0f\xdd" + "späť".encode()).close() == (4061, "späť")
    assert Control(CLOSE, b"\x03\xe8\xff").close() == (1000, "\ufffd")


# -- the handshake -----------------------------------------------------------------------------------


def accepted_server(subprotocol: str | None) -> ServerProtocol:
    return answer_to(Handshake("h:1", "/", subprotocol, random_bits).request, subprotocol)[0]


def answer_to(request: bytes, subprotocol: str | None) -> tuple[ServerProtocol, bytes]:
    server = ServerProtocol(subprotocols=[Subprotocol(subprotocol)] if subprotocol else None)
    server.receive_data(request)
    (parsed,) = server.events_received()
    assert isinstance(parsed, Request)
    response = server.accept(parsed)
    server.send_response(response)
    return server, b"".join(server.data_to_send())


@pytest.mark.parametrize("subprotocol", ["relaymark.v1", None])
@given(cuts=st.lists(st.integers(0, 2**16), max_size=5))
@settings(max_examples=20, deadline=None)
def test_the_handshake_agrees_with_the_library(subprotocol: str | None, cuts: list[int]) -> None:
    handshake = Handshake("127.0.0.1:8080", "/path?x=1", subprotocol, random_bits)
    _, answer = answer_to(handshake.request, subprotocol)
    rest: bytes | None = None
    for piece in pieces(answer + b"frames", cuts):
        rest = handshake.feed(piece) if rest is None else rest + piece
    assert rest == b"frames"


def test_the_library_accepts_only_what_is_offered() -> None:
    server = ServerProtocol(subprotocols=[Subprotocol("other")])
    server.receive_data(Handshake("h", "/", "relaymark.v1", random_bits).request)
    (request,) = server.events_received()
    assert isinstance(request, Request)
    with pytest.raises(InvalidHandshake):
        server.select_subprotocol([Subprotocol("relaymark.v1")])
    assert server.accept(request).status_code != 101


GOOD = answer_to(Handshake("h", "/", "relaymark.v1", random_bits).request, "relaymark.v1")[1]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "HTTP/1.1"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 \r\n\r\n", "instead of an upgrade"),
        (b"HTTP/1.1 101 " + b"x" * 17_000, "16384"),
        (GOOD.replace(b"Accept: ", b"Accept: A"), "Accept"),
        (GOOD.replace(b"relaymark.v1", b"other"), "other"),
        (GOOD.replace(b"Upgrade: websocket", b"Upgrade: h2c"), "upgrade"),
        (GOOD.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "extension"),
    ],
)
def test_other_answers_say_what_is_wrong(answer: bytes, text: str) -> None:
    handshake = Handshake("h", "/", "relaymark.v1", random_bits)
    with pytest.raises(HandshakeError, match=text):
        handshake.feed(answer)
