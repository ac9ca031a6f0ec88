"""The opening handshake: what is accepted, what is refused with which status, at any split of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from relay.limits import HANDSHAKE_BYTES_MAX
from relay.transports.handshake import Answer, Handshake


def request(target: str = "/", **changes: str | None) -> bytes:
    """A good request; changes name header fields, with _ for -, and None leaves one out."""
    fields: dict[str, str | None] = {
        "Host": "relay.example",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "relaymark.v1",
    }
    fields |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode()


def answer_to(data: bytes, *, echo: bool = False) -> Answer:
    answer = Handshake(echo=echo).feed(data)
    assert answer is not None
    return answer


def status(answer: Answer) -> int:
    line = answer.response.split(b"\r\n", 1)[0].split(b" ", 2)
    assert line[0] == b"HTTP/1.1"
    return int(line[1])


def field(answer: Answer, name: bytes) -> bytes | None:
    for line in answer.response.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def test_a_good_request_is_accepted() -> None:
    answer = answer_to(request())
    assert status(answer) == 101
    assert answer.path == "/"
    assert field(answer, b"Sec-WebSocket-Accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455 section 1.3"
    assert field(answer, b"Sec-WebSocket-Protocol") == b"relaymark.v1"
    assert field(answer, b"Sec-WebSocket-Extensions") is None


def test_the_websockets_client_agrees() -> None:
    client = ClientProtocol(parse_uri("ws://relay.example/"), subprotocols=[Subprotocol("relaymark.v1")])
    client.send_request(client.connect())
    answer = answer_to(b"".join(client.data_to_send()))
    client.receive_data(answer.response)
    assert isinstance(client.events_received()[0], Response)
    assert client.handshake_exc is None
    assert client.subprotocol == "relaymark.v1"


def test_the_subprotocol_is_found_among_others_and_extensions_are_ignored() -> None:
    many = request(Sec_WebSocket_Protocol="chat, relaymark.v1", Sec_WebSocket_Extensions="permessage-deflate")
    answer = answer_to(many)
    assert status(answer) == 101
    assert field(answer, b"Sec-WebSocket-Extensions") is None


@pytest.mark.parametrize("split", [True, False])
def test_first_frames_may_come_with_the_request(split: bool) -> None:
    handshake = Handshake(echo=False)
    data = request() + b"\x82\x80\0\0\0\0"
    answer = None
    for part in [data[:-7], data[-7:]] if split else [data]:
        answer = handshake.feed(part)
    assert answer is not None
    assert answer.rest == b"\x82\x80\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request("/other"), 404),
        (request("/echo"), 404),
        (request(Sec_WebSocket_Protocol=None), 400),
        (request(Sec_WebSocket_Protocol="relaymark.v2"), 400),
        (request(Sec_WebSocket_Version="8"), 400),
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key="short"), 400),
        (request(Upgrade=None), 426),
        (request(Connection="close"), 426),
        (request().replace(b"GET", b"POST"), 405),
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505),
        (b"\r\n\r\n", 400),
        (b" \r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (request(Cookie="x" * HANDSHAKE_BYTES_MAX), 431),
        (b"x" * (HANDSHAKE_BYTES_MAX + 1), 431),
    ],
)
def test_what_is_refused(data: bytes, expected: int) -> None:
    answer = answer_to(data)
    assert status(answer) == expected
    assert answer.path is None


def test_a_request_without_its_end_waits() -> None:
    assert Handshake(echo=False).feed(request()[:-2]) is None


def test_echo_needs_no_subprotocol_where_it_is_open() -> None:
    answer = answer_to(request("/echo", Sec_WebSocket_Protocol=None), echo=True)
    assert (status(answer), answer.path) == (101, "/echo")
    assert answer_to(request("/echo?n=1", Sec_WebSocket_Protocol=None), echo=True).path == "/echo"
    assert status(answer_to(request("/other"), echo=True)) == 404
    assert status(answer_to(request(Sec_WebSocket_Protocol=None), echo=True)) == 400


@given(st.lists(st.integers(1, 300), max_size=5))
@settings(max_examples=50, deadline=None)
def test_any_split_gives_the_same_answer(cuts: list[int]) -> None:
    data = request() + b"first frame"
    handshake, position, answer = Handshake(echo=False), 0, None
    for cut in [*cuts, len(data)]:
        part = data[position : position + cut]
        position += len(part)
        if answer is not None:
            answer = Answer(answer.response, answer.path, answer.rest + part)
        elif part:
            answer = handshake.feed(part)
    assert answer is not None
    expected = answer_to(data)
    assert (status(answer), answer.path, answer.rest) == (101, expected.path, expected.rest)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused_and_never_crash(data: bytes) -> None:
    answer = Handshake(echo=False).feed(data + b"\r\n\r\n")
    assert answer is not None
    assert answer.path is None
    assert 400 <= status(answer) <= 505


def test_headers_up_to_the_documented_bound_work() -> None:
    for line_bytes in (9_000, 15_000):
        answer = Handshake(echo=False).feed(request(Cookie="x" * line_bytes))
        assert answer is not None
        assert answer.path == "/"
    many = Handshake(echo=False).feed(request(**{f"X-{at}": "y" for at in range(300)}))
    assert many is not None
    assert many.path == "/"


def test_a_client_that_speaks_tls_is_told_at_once() -> None:
    answer = Handshake(echo=False).feed(bytes.fromhex("16030100"))
    assert answer is not None
    assert answer.path is None
    assert answer.response.startswith(b"HTTP/1.1 400 ")
    assert b"use ws://" in answer.response
