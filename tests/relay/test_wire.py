"""Records: golden vectors decoded by the independent msgpack library, malformed messages, the hot encoder, split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import wire
from relay.errors import Code, ProtocolError
from relay.limits import MESSAGE_BYTES_MAX, RECORDS_PER_MESSAGE_MAX, SEALED_SIZES

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "wire.json").read_text())
DECODE = {"client": wire.decode_client, "relay": wire.decode_relay}
DECODE_ONE = {"client": wire.decode_one_client, "relay": wire.decode_one_relay}

# Type numbers of PROTOCOL.md section 2, written out again: a changed tag must fail here.
TYPES = {
    "Hello": 1, "Subscribe": 2, "Unsubscribe": 3, "Publish": 4, "Ack": 5, "Erase": 6, "Export": 7, "Time": 8,
    "Welcome": 16, "Subscribed": 17, "Published": 18, "Message": 19, "Ephemeral": 20, "Gap": 21, "Error": 22,
    "GoAway": 23, "Timed": 24, "Erased": 25, "Exported": 26, "Unsubscribed": 27,
}  # fmt: skip


def named(vector: dict[str, Any]) -> str:
    return f"{vector.get('record', vector['from'])} {vector['note']}".strip()


def unhex(value: Any) -> Any:
    """The vectors write byte strings in hexadecimal; the protocol has no text."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    if isinstance(value, list):
        return [unhex(element) for element in value]
    return value


def record_of(vector: dict[str, Any]) -> Any:
    """The record that the vector describes, made from its values alone."""
    number, *values = unhex(vector["values"])
    assert number == TYPES[vector["record"]]
    if vector["record"] == "Welcome":
        values[-1] = wire.Limits(*values[-1])
    if vector["record"] == "Exported":
        values[-1] = [wire.ExportedRecord(*record) for record in values[-1]]
    return getattr(wire, vector["record"])(*values)


# -- golden vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", GOLDEN["records"], ids=named)
def test_golden_record(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    assert msgpack.unpackb(data) == unhex(vector["values"])
    record = record_of(vector)
    assert DECODE[vector["from"]](data) == [record]
    assert DECODE_ONE[vector["from"]](data) == record
    assert wire.encode(record) == data
    assert wire.split(data) == [data]


@pytest.mark.parametrize("vector", GOLDEN["other_widths"], ids=named)
def test_golden_other_widths(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    assert msgpack.unpackb(data) == unhex(vector["values"])
    assert DECODE[vector["from"]](data) == [record_of(vector)]
    assert wire.split(data) == [data]


@pytest.mark.parametrize("vector", GOLDEN["messages"], ids=named)
def test_golden_message_of_several_records(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    members = [GOLDEN["records"][index] for index in vector["records"]]
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    assert list(unpacker) == [unhex(member["values"]) for member in members]
    assert DECODE[vector["from"]](data) == [record_of(member) for member in members]


@pytest.mark.parametrize("vector", GOLDEN["malformed"], ids=named)
def test_golden_malformed(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    with pytest.raises(ProtocolError) as caught:
        DECODE[vector["from"]](data)
    assert caught.value.code == vector["code"]
    with pytest.raises(msgspec.DecodeError):
        DECODE_ONE[vector["from"]](data)


def test_every_record_has_a_vector() -> None:
    assert {vector["record"] for vector in GOLDEN["records"]} == set(TYPES)
    subclasses = {cls.__name__ for cls in wire.Hello.__mro__[1].__subclasses__()}
    assert subclasses == set(TYPES)


# -- properties ----------------------------------------------------------------------------------------

u32 = st.integers(0, 2**32 - 1)
u64 = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
sealed = st.one_of(st.binary(max_size=300), st.sampled_from(sorted(SEALED_SIZES)).map(bytes))
tags = st.none() | st.binary(min_size=32, max_size=32)
client_records: st.SearchStrategy[wire.ClientRecord] = st.one_of(
    st.builds(wire.Hello, u32),
    st.builds(wire.Subscribe, u64, st.binary(max_size=200), u32, st.none() | st.binary(max_size=64),
              st.none() | u64, st.none() | u64),
    st.builds(wire.Unsubscribe, u32),
    st.builds(wire.Publish, u32, u32, u64, tags, sealed),
    st.builds(wire.Ack, u32, u64),
    st.builds(wire.Erase, u32),
    st.builds(wire.Export, u32, u64),
    st.builds(wire.Time, u64),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(client_records, min_size=1, max_size=8))
def test_a_message_gives_its_records_back(records: list[wire.ClientRecord]) -> None:
    data = b"".join(map(wire.encode, records))
    assert wire.decode_client(data) == records
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    assert list(unpacker) == [msgspec.to_builtins(record, builtin_types=(bytes,)) for record in records]


@settings(max_examples=150, deadline=None)
@given(u32, st.integers(0, 2**64 - 1), u64, tags, sealed)
def test_the_hot_encoder_means_the_same(number: int, seq: int, at_ns: int, tag: bytes | None, payload: bytes) -> None:
    suffix = wire.message_suffix(at_ns, tag, len(payload))
    data = wire.message_prefix(number) + seq.to_bytes(8, "big") + suffix + payload
    record = wire.Message(number, seq, at_ns, tag, payload)
    assert wire.decode_one_relay(data) == record == wire.decode_one_relay(wire.encode(record))
    assert msgpack.unpackb(data) == [19, number, seq, at_ns, tag, payload]


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_535, 65_536, 131_072])
def test_bin_header_is_that_of_msgpack(length: int) -> None:
    payload = bytes(length)
    assert wire.bin_header(length) + payload == msgpack.packb(payload)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=40)
    | st.text(max_size=40)
    | st.sampled_from([b"x" * 256, b"x" * 65_536, "x" * 256, "x" * 65_536]),
    lambda children: st.lists(children, max_size=5) | st.lists(children, min_size=16, max_size=20),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, min_size=1, max_size=6))
def test_split_finds_the_boundaries_that_msgpack_finds(some: list[Any]) -> None:
    data = b"".join(map(msgpack.packb, some))
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    ends = []
    for _ in some:
        unpacker.skip()
        ends.append(unpacker.tell())
    starts = [0, *ends[:-1]]
    assert wire.split(data) == [data[start:end] for start, end in zip(starts, ends, strict=True)]


@settings(max_examples=150, deadline=None)
@given(values, st.integers(1, 1000))
def test_split_refuses_what_is_cut_short(value: Any, missing: int) -> None:
    data = msgpack.packb(value)
    with pytest.raises(ProtocolError) as caught:
        wire.split(data[: max(0, len(data) - missing)])
    assert caught.value.code == Code.MALFORMED


@pytest.mark.parametrize("first", [*range(0x80, 0x90), 0xC1, *range(0xC7, 0xCA), *range(0xD4, 0xD9), 0xDE, 0xDF])
def test_split_refuses_maps_and_extensions(first: int) -> None:
    with pytest.raises(ProtocolError, match=f"0x{first:02x}"):
        wire.split(bytes((first,)) + bytes(40))


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        # Right heads with wrong tails get further.
        st.tuples(st.integers(0x90, 0x9F), st.integers(0, 30), st.binary(max_size=60)).map(
            lambda parts: bytes(parts[:2]) + parts[2]
        ),
    )
)
def test_arbitrary_bytes_raise_only_protocol_errors(data: bytes) -> None:
    for decode in DECODE.values():
        try:
            records = decode(data)
        except ProtocolError as error:
            assert error.code in (Code.MALFORMED, Code.TOO_MANY_RECORDS)  # noqa: PT017 - either outcome is right
        else:
            assert records


@settings(max_examples=200, deadline=None)
@given(client_records, st.integers(0, 2**31), st.integers(0, 7))
def test_a_flipped_bit_raises_only_protocol_errors(record: wire.ClientRecord, place: int, bit: int) -> None:
    data = bytearray(wire.encode(record))
    data[place % len(data)] ^= 1 << bit
    try:
        records = wire.decode_client(bytes(data))
    except ProtocolError:
        return
    assert all(isinstance(record, wire.ClientRecord) for record in records)


# -- bounds ----------------------------------------------------------------------------------------------


def test_the_number_of_records_is_bounded() -> None:
    one = wire.encode(wire.Time(1))
    assert len(wire.decode_client(one * RECORDS_PER_MESSAGE_MAX)) == RECORDS_PER_MESSAGE_MAX
    with pytest.raises(ProtocolError) as caught:
        wire.decode_client(one * (RECORDS_PER_MESSAGE_MAX + 1))
    assert caught.value.code == Code.TOO_MANY_RECORDS


@pytest.mark.parametrize(
    "head", [b"\xdd\xff\xff\xff\xff", b"\x92\x01\xdd\x00\x03\xff\x00", b"\x91" * 1000], ids=["wide", "inside", "deep"]
)
def test_hostile_arrays_are_refused_at_their_heads(head: bytes) -> None:
    data = head + bytes(MESSAGE_BYTES_MAX - len(head))
    with pytest.raises(ProtocolError, match="too many values"):
        wire.decode_client(data)


def test_records_are_frozen() -> None:
    record: Any = wire.Hello(1)
    with pytest.raises(AttributeError):
        record.version = 2


def test_limits_may_grow_and_may_be_those_of_an_older_relay() -> None:
    limits = [131072, 262144, 64, 4096, 256, 20000, 20000, 30000]
    for told, control_per_s_max in (([], 0), ([5000], 5000), ([5000, 7, 8], 5000)):
        message = msgspec.msgpack.encode([16, 1, bytes(32), 5, limits + told])
        (welcome,) = wire.decode_relay(message)
        assert isinstance(welcome, wire.Welcome)
        assert welcome.limits == wire.Limits(*limits, control_per_s_max)
