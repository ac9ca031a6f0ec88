"""The counters of the throughput benchmark: exact at any split, and never fooled by what payloads contain."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fast_load import counting
from benchmarks.fast_load.clients import (
    FIRST_ID,
    BunClient,
    ClientSide,
    JoinedStream,
    NatsClient,
    RelayClient,
    Role,
    payloads,
)
from benchmarks.fast_load.counting import CYCLE, Counter, CountingError, Unframed, frame, split_frame
from relay import wire

HEAD = 41
READY = JoinedStream(number=7, head=HEAD)


def no_answer(_: bytes) -> None:
    pytest.fail("nothing was to be answered")


def relay_message(index: int, payload: bytes | None = None) -> bytes:
    sealed = payloads()[index % CYCLE] if payload is None else payload
    record = wire.message_prefix(7) + (HEAD + 1 + index).to_bytes(8, "big")
    return frame(record + wire.message_suffix(1_700_000_000_000_000_000, None, len(sealed)) + sealed)


def bun_message(index: int, payload: bytes | None = None) -> bytes:
    return frame(payloads()[index % CYCLE] if payload is None else payload)


def nats_message(index: int, payload: bytes | None = None) -> bytes:
    return b"MSG s00003 1 256\r\n" + (payloads()[index % CYCLE] if payload is None else payload) + b"\r\n"


def relay_ack(first: int, count: int) -> bytes:
    acks = [value for at in range(first, first + count) for value in (FIRST_ID + at, HEAD + 1 + at)]
    return frame(wire.encode(wire.Published(acks=acks)))


def feed(counter: Counter, data: bytes, cuts: list[int]) -> int:
    """Feed `data` cut into pieces, through one large buffer as the load does."""
    buffer = bytearray(counting.READ_BYTES_MAX)
    count = 0
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        buffer[: end - start] = data[start:end]
        count += counter.feed(buffer, end - start)
    assert counter.total == count
    return count


def nats_frames(stream: bytes, sizes: list[int]) -> bytes:
    """Frame a run of bytes without regard to where its messages end."""
    parts, position = [], 0
    for size in sizes:
        parts.append(frame(stream[position : position + size]))
        position += size
    return b"".join((*parts, frame(stream[position:])))


MESSAGES: list[tuple[ClientSide, Callable[..., bytes]]] = [(RelayClient(), relay_message), (BunClient(), bun_message)]


@pytest.mark.parametrize(("client", "message"), MESSAGES)
@given(count=st.integers(0, 40), cuts=st.lists(st.integers(0, 12_000), max_size=8))
@settings(max_examples=60)
def test_framed_records_are_counted_at_any_split(
    client: ClientSide, message: Callable[..., bytes], count: int, cuts: list[int]
) -> None:
    counter = client.deliveries(3, READY, no_answer)
    assert feed(counter, b"".join(message(index) for index in range(count)), cuts) == count


@given(
    count=st.integers(0, 30),
    sizes=st.lists(st.integers(0, 2_000), max_size=5),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
)
@settings(max_examples=100)
def test_nats_messages_are_counted_across_frames(count: int, sizes: list[int], cuts: list[int]) -> None:
    stream = b"".join(nats_message(index) for index in range(count))
    counter = NatsClient().deliveries(3, READY, no_answer)
    assert feed(counter, nats_frames(stream, sizes), cuts) == count


@given(
    groups=st.lists(st.integers(1, 20), max_size=10),
    cuts=st.lists(st.integers(0, 2_000), max_size=8),
)
@settings(max_examples=100)
def test_acknowledgements_are_counted_at_any_split(groups: list[int], cuts: list[int]) -> None:
    total = sum(groups)
    data, first = b"", 0
    for count in groups:
        data += relay_ack(first, count)
        first += count
    assert feed(RelayClient().acknowledgements(3, READY, no_answer), data, cuts) == total
    assert feed(BunClient().acknowledgements(3, READY, no_answer), BunClient.ACK * total, cuts) == total
    nats = NatsClient().acknowledgements(3, READY, no_answer)
    assert feed(nats, nats_frames(b"+OK\r\n" * total, groups), cuts) == total


@pytest.mark.parametrize(("client", "message"), [*MESSAGES, (NatsClient(), lambda index: frame(nats_message(index)))])
def test_the_index_runs_on_over_the_end_of_a_cycle(client: ClientSide, message: Callable[..., bytes]) -> None:
    counter = client.deliveries(3, READY, no_answer)
    data = b"".join(message(index) for index in range(2 * CYCLE + 5))
    assert feed(counter, data, list(range(0, len(data), 100_003))) == 2 * CYCLE + 5


@pytest.mark.parametrize(("client", "message"), [*MESSAGES, (NatsClient(), lambda index: frame(nats_message(index)))])
@pytest.mark.parametrize(
    "order",
    [
        [0, 2],
        [0, 0],
        [1, 0],
        [0, 1, 2, 4, 4, 5],  # as many as there should be, one lost and one repeated
        [0, 2, 1, 3],
        [256],
    ],
)
def test_what_is_lost_repeated_or_out_of_order_is_an_error(
    client: ClientSide, message: Callable[..., bytes], order: list[int]
) -> None:
    counter = client.deliveries(3, READY, no_answer)
    with pytest.raises(CountingError):
        feed(counter, b"".join(message(index) for index in order), [])


def test_a_payload_full_of_markers_is_one_record_and_not_many() -> None:
    inner = bytearray(payloads()[0])
    fake = (b"\x82\x08" + bytes(8)) * 10 + b"MSG s00003 1 256\r\n" * 5 + b"+OK\r\n" * 5 + b"\x82\x7e\x01\x1d\x96\x13"
    inner[4 : 4 + len(fake)] = fake
    full = (bytes(inner), *payloads()[1:])
    assert counting.relay_records(7, HEAD, full, no_answer).feed(relay_message(0, full[0]), 289) == 1
    assert counting.Frames(b"\x82\x7e\x01\x00", 0, full, no_answer).feed(bun_message(0, full[0]), 260) == 1
    nats = counting.NatsRecords(b"MSG s00003 1 256\r\n", full, no_answer)
    data = frame(nats_message(0, full[0]))
    assert nats.feed(data, len(data)) == 1


@pytest.mark.parametrize(("client", "message"), [*MESSAGES, (NatsClient(), lambda *of: frame(nats_message(*of)))])
def test_a_changed_payload_is_an_error(client: ClientSide, message: Callable[..., bytes]) -> None:
    changed = bytearray(payloads()[0])
    changed[200] ^= 1
    data = message(0, bytes(changed))
    with pytest.raises(CountingError):
        client.deliveries(3, READY, no_answer).feed(data, len(data))


def test_a_sequence_number_left_out_is_an_error_though_the_payloads_run_on() -> None:
    data = relay_message(0) + relay_message(1)[:11] + (HEAD + 3).to_bytes(8, "big") + relay_message(1)[19:]
    assert data[11 : 11 + 8] != data[289 + 11 : 289 + 11 + 8]
    counter = RelayClient().deliveries(3, READY, no_answer)
    counter.feed(data, 289)
    with pytest.raises(CountingError):
        counter.feed(data[289:], 289)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("client", [RelayClient(), BunClient()])
def test_pings_between_records_are_answered(client: ClientSide, at: int) -> None:
    message = relay_message if isinstance(client, RelayClient) else bun_message
    answers: list[bytes] = []
    parts = [message(index) for index in range(3)]
    parts.insert(at, frame(b"here?", opcode=counting.PING))
    assert feed(client.deliveries(3, READY, answers.append), b"".join(parts), []) == 3
    assert answers == [frame(b"here?", opcode=counting.PONG, mask=bytes(4))]


@given(cuts=st.lists(st.integers(0, 1_200), max_size=8))
@settings(max_examples=50)
def test_a_nats_ping_is_answered_between_messages_and_between_acknowledgements(cuts: list[int]) -> None:
    pong = frame(b"PONG\r\n", mask=bytes(4))
    answers: list[bytes] = []
    stream = nats_message(0) + b"PING\r\n" + nats_message(1) + b'INFO {"x":1}\r\n' + nats_message(2)
    assert feed(NatsClient().deliveries(3, READY, answers.append), nats_frames(stream, [300]), cuts) == 3
    stream = b"+OK\r\nPING\r\n+OK\r\n"
    assert feed(NatsClient().acknowledgements(3, READY, answers.append), nats_frames(stream, [7]), cuts) == 2
    assert answers == [pong, pong]


@pytest.mark.parametrize(
    ("counter", "data"),
    [
        (RelayClient().deliveries(3, READY, no_answer), frame(wire.encode(wire.Gap(number=7, first=1, last=2)))),
        (RelayClient().deliveries(3, READY, no_answer), frame(b"\x03\xe8late", opcode=counting.CLOSE)),
        (RelayClient().deliveries(3, READY, no_answer), frame(b"text", opcode=counting.TEXT)),
        (RelayClient().acknowledgements(3, READY, no_answer), frame(wire.encode(wire.Error(40, 4, 1024)))),
        (RelayClient().acknowledgements(3, READY, no_answer), relay_ack(1, 1)),
        (RelayClient().acknowledgements(3, READY, no_answer), relay_ack(0, 2) + relay_ack(1, 1)),
        (RelayClient().acknowledgements(3, READY, no_answer), frame(b"\xc1")),
        (BunClient().acknowledgements(3, READY, no_answer), frame(bytes(9))),
        (NatsClient().acknowledgements(3, READY, no_answer), frame(b"-ERR 'Slow'\r\n")),
        (NatsClient().deliveries(3, READY, no_answer), frame(b"MSG s00004 1 256\r\n")),
    ],
)
def test_what_was_not_expected_is_an_error(counter: Counter, data: bytes) -> None:
    with pytest.raises(CountingError):
        counter.feed(data, len(data))


@given(payload=st.binary(max_size=300), more=st.binary(max_size=5))
def test_a_frame_is_found_whole_or_not_at_all(payload: bytes, more: bytes) -> None:
    data = frame(payload)
    found = split_frame(data + more, 0, len(data + more))
    assert found is not None
    opcode, start, end = found
    assert (opcode, data[start:end], end) == (counting.BINARY, payload, len(data))
    assert split_frame(data, 0, len(data) - 1) is None


def test_a_long_frame_has_a_length_of_eight_bytes() -> None:
    data = frame(bytes(70_000))
    assert split_frame(data, 0, len(data)) == (counting.BINARY, 10, 70_010)


@given(
    stream=st.binary(max_size=500),
    sizes=st.lists(st.integers(0, 300), max_size=5),
    cuts=st.lists(st.integers(0, 600), max_size=6),
)
@settings(max_examples=60)
def test_unframing_gives_the_bytes_back_at_any_split(stream: bytes, sizes: list[int], cuts: list[int]) -> None:
    data = nats_frames(stream, sizes)
    unframed = Unframed(no_answer)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    got = b"".join(unframed.feed(data[start:end], end - start) for start, end in itertools.pairwise(edges))
    assert got == stream


@pytest.mark.parametrize("client", [RelayClient(), NatsClient(), BunClient()])
def test_prepared_publishes_are_masked_and_hold_the_payloads_in_turn(client: ClientSide) -> None:
    frames = client.frames(3, READY)
    assert len(frames) == CYCLE
    assert len({len(one) for one in frames}) == 1
    assert len({one[4:8] for one in frames}) > CYCLE // 2, "masks are random"
    for index in (0, 1, CYCLE - 1):
        one = frames[index]
        unmasked = bytes(byte ^ one[4 + at % 4] for at, byte in enumerate(one[8:]))
        assert payloads()[index] in unmasked


@pytest.mark.parametrize("number", [3, 200, 70_000])
def test_the_relays_publishers_go_on_counting_from_cycle_to_cycle(number: int) -> None:
    client, ready = RelayClient(), JoinedStream(number=number, head=0)
    prepared = client.frames(3, ready)
    length = len(prepared[0])
    frames = bytearray(b"".join(prepared + prepared[:5]))  # and the beginning of the next cycle
    for cycle in (0, 1, 2, 700):
        client.renew(ready, frames, cycle)
        for index in (0, 1, CYCLE - 1, CYCLE, CYCLE + 4):
            one = frames[index * length : (index + 1) * length]
            record = wire.decode_one_client(bytes(byte ^ one[4 + at % 4] for at, byte in enumerate(one[8:])))
            id_, payload = FIRST_ID + cycle * CYCLE + index, payloads()[index % CYCLE]
            assert record == wire.Publish(number=number, class_=0, id=id_, commitment=None, sealed=payload)


def test_the_relay_is_asked_for_one_right_by_each_role() -> None:
    client = RelayClient()
    for role, use in ((Role.SUBSCRIBE, 1), (Role.PUBLISH, 2)):
        data = client.greeting(0, role)
        _, start, end = split_frame(bytes([data[0], data[1] & 0x7F]) + data[6:], 0, len(data) - 4) or (0, 0, 0)
        hello = data[6 : 6 + end - start]
        assert wire.decode_one_client(hello) == wire.Hello(version=1)
        rest = data[6 + len(hello) :]
        subscribe = wire.decode_one_client(rest[8:])
        assert isinstance(subscribe, wire.Subscribe)
        assert subscribe.use == use
        assert client.greeting(0, role) == data, "capabilities are minted once"
