"""Records of the protocol and their bytes: MessagePack arrays that begin with the record's type number.

Normative text: relay/PROTOCOL.md; golden vectors: tests/golden/wire.json. A WebSocket message holds one or more
records, one after the other. Decoding checks shapes and ranges, so what comes out is well-typed.

    decode_client(b"\\x92\\x01\\x01")  ->  [Hello(version=1)]
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from relay.errors import Code, ProtocolError
from relay.limits import (
    CHALLENGE_BYTES,
    COMMITMENT_BYTES,
    HANDLE_BYTES,
    MESSAGE_BYTES_MAX,
    RECORDS_PER_MESSAGE_MAX,
    TAG_BYTES,
)

VERSION: Final = 1
SUBPROTOCOL: Final = "relaymark.v1"

DURABLE: Final = 0
EPHEMERAL: Final = 1

# The types of what a client sends: ERROR names the one that it refuses.
HELLO: Final = 1
SUBSCRIBE: Final = 2
UNSUBSCRIBE: Final = 3
PUBLISH: Final = 4
ACK: Final = 5
ERASE: Final = 6
EXPORT: Final = 7
TIME: Final = 8

U32: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
# Decoders of MessagePack refuse more than 64 bits by themselves; only the sign needs a check.
U64: TypeAlias = Annotated[int, Meta(ge=0)]
Tag: TypeAlias = Annotated[bytes, Meta(min_length=TAG_BYTES, max_length=TAG_BYTES)]
Handle: TypeAlias = Annotated[bytes, Meta(min_length=HANDLE_BYTES, max_length=HANDLE_BYTES)]
Challenge: TypeAlias = Annotated[bytes, Meta(min_length=CHALLENGE_BYTES, max_length=CHALLENGE_BYTES)]
Commitment: TypeAlias = Annotated[bytes, Meta(min_length=COMMITMENT_BYTES, max_length=COMMITMENT_BYTES)]


class _Record(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A frozen array on the wire. Records hold no cycles, so the garbage collector need not look at them."""


# -- client to relay ---------------------------------------------------------------------------------


class Hello(_Record, tag=HELLO, frozen=True):
    version: U32


class Subscribe(_Record, tag=SUBSCRIBE, frozen=True):
    """Attach to the stream that `capability` names and use the rights in the bit set `use`.

    `after` None: only what comes from now on. Otherwise resume after that sequence number of `epoch`.
    """

    request: U64
    capability: bytes
    use: U32
    proof: bytes | None
    epoch: U64 | None
    after: U64 | None


class Unsubscribe(_Record, tag=UNSUBSCRIBE, frozen=True):
    number: U32


class Publish(_Record, tag=PUBLISH, frozen=True):
    """`class_` 0 durable (`id` makes a repetition idempotent), 1 ephemeral (`id` is the slot of the state)."""

    number: U32
    class_: U32
    id: U64
    commitment: Commitment | None
    sealed: bytes


class Ack(_Record, tag=ACK, frozen=True):
    number: U32
    upto: U64


class Erase(_Record, tag=ERASE, frozen=True):
    number: U32


class Export(_Record, tag=EXPORT, frozen=True):
    number: U32
    after: U64


class Time(_Record, tag=TIME, frozen=True):
    """`sent_ns` is the client's own clock and comes back unchanged."""

    sent_ns: U64


ClientRecord: TypeAlias = Hello | Subscribe | Unsubscribe | Publish | Ack | Erase | Export | Time


# -- relay to client ---------------------------------------------------------------------------------


class Limits(Struct, array_like=True, frozen=True, gc=False):
    """What the client must keep to; it grows at its end. `control_per_s_max` 0: an older relay that does not tell it."""

    sealed_bytes_max: U64
    message_bytes_max: U64
    records_per_message_max: U64
    streams_max: U64
    publish_window: U64
    durable_per_s_max: U64
    ephemeral_per_s_max: U64
    keepalive_ms: U64
    control_per_s_max: U64 = 0


class Welcome(_Record, tag=16, frozen=True):
    version: U32
    challenge: Challenge
    now_ns: U64
    limits: Limits


class Subscribed(_Record, tag=17, frozen=True):
    """`recovered`: everything after `after` follows. If not, a GAP says what is missing."""

    request: U64
    number: U32
    epoch: U64
    head: U64
    recovered: bool


class Published(_Record, tag=18, frozen=True):
    """Acknowledgements gathered over a turn: `acks` is id, sequence number, id, sequence number, ..."""

    acks: list[U64]


class Message(_Record, tag=19, frozen=True):
    """A durable record. `at_ns`: when the relay numbered it, Unix time."""

    number: U32
    seq: U64
    at_ns: U64
    tag: Tag | None
    sealed: bytes


class Ephemeral(_Record, tag=20, frozen=True):
    number: U32
    handle: Handle
    slot: U32
    sealed: bytes


class Gap(_Record, tag=21, frozen=True):
    """Sequence numbers `first` to `last`, both included, cannot be replayed."""

    number: U32
    first: U64
    last: U64


class Error(_Record, tag=22, frozen=True):
    """`record` is the type of the refused record, `about` its request, id or stream number."""

    code: U32
    record: U32
    about: U64


class GoAway(_Record, tag=23, frozen=True):
    """The relay goes down: connect again after `retry_ms`, and resume."""

    retry_ms: U64


class Timed(_Record, tag=24, frozen=True):
    """Answer to TIME: the client's stamp, and the relay's clock at receipt and at reply."""

    sent_ns: U64
    received_ns: U64
    replied_ns: U64


class Erased(_Record, tag=25, frozen=True):
    """Everything in the stream was deleted; it starts again at 1 in the new `epoch`."""

    number: U32
    epoch: U64


class ExportedRecord(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    seq: U64
    at_ns: U64
    handle: Handle
    id: U64
    tag: Tag | None
    sealed: bytes


class Exported(_Record, tag=26, frozen=True):
    """A page of all that the relay holds. Ask again after the last `seq` while `more`."""

    number: U32
    epoch: U64
    head: U64
    more: bool
    records: list[ExportedRecord]


class Unsubscribed(_Record, tag=27, frozen=True):
    """The client was sent everything up to `head`, and nothing of the stream follows."""

    number: U32
    head: U64


RelayRecord: TypeAlias = (
    Welcome
    | Subscribed
    | Published
    | Message
    | Ephemeral
    | Gap
    | Error
    | GoAway
    | Timed
    | Erased
    | Exported
    | Unsubscribed
)

_encoder: Final = msgspec.msgpack.Encoder()
_client_decoder: Final = msgspec.msgpack.Decoder(ClientRecord)
_relay_decoder: Final = msgspec.msgpack.Decoder(RelayRecord)

encode = _encoder.encode
"""encode(record) -> bytes."""
decode_one_client = _client_decoder.decode
"""Decode a message of exactly one client record; msgspec.DecodeError otherwise. The hot path tries this first."""
decode_one_relay = _relay_decoder.decode

_R = TypeVar("_R")


def decode_client(payload: bytes) -> list[ClientRecord]:
    """Decode a message from a client into its records. Raises ProtocolError."""
    return _decode_all(_client_decoder, payload, _CLIENT_VALUES_MAX)


def decode_relay(payload: bytes) -> list[RelayRecord]:
    """Decode a message from a relay into its records. Raises ProtocolError."""
    return _decode_all(_relay_decoder, payload, MESSAGE_BYTES_MAX)


def _decode_all(decoder: msgspec.msgpack.Decoder[_R], payload: bytes, values_max: int) -> list[_R]:
    try:
        try:
            return [decoder.decode(payload)]
        except msgspec.DecodeError:
            parts = split(payload, values_max)
            if len(parts) == 1:
                raise
            return [decoder.decode(part) for part in parts]
    except msgspec.DecodeError as error:
        raise ProtocolError(Code.MALFORMED, str(error)) from None


# How many bytes follow the first byte of each MessagePack type: (bytes of its length field, fixed bytes, children).
_FIXED: Final = {
    **dict.fromkeys((*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)), 0),
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
    0xCA: 4,
    0xCB: 8,
    **{first: first & 0x1F for first in range(0xA0, 0xC0)},
}
_COUNTED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}

# The longest records of a client, SUBSCRIBE and PUBLISH, have 7 and 6 elements, none of them an array. Without this
# bound a message of empty values would cost the relay a tenth of a microsecond for each of its bytes.
_CLIENT_VALUES_MAX: Final = 7


def split(payload: bytes, values_max: int = MESSAGE_BYTES_MAX) -> list[bytes]:
    """Cut a message into its records, at most 64 of at most `values_max` array elements, without decoding them.

    Raises ProtocolError for bytes that are not a sequence of MessagePack values. Maps and extensions have no place
    in this protocol and are refused here.
    Source: the MessagePack specification, "Formats".
    """
    parts: list[bytes] = []
    start = 0
    while start < len(payload):
        if len(parts) == RECORDS_PER_MESSAGE_MAX:
            raise ProtocolError(Code.TOO_MANY_RECORDS, f"more than {RECORDS_PER_MESSAGE_MAX} records in a message")
        end = _end_of_value(payload, start, values_max)
        parts.append(payload[start:end])
        start = end
    if not parts:
        raise ProtocolError(Code.MALFORMED, "an empty message")
    return parts


def _end_of_value(payload: bytes, position: int, values_max: int) -> int:
    pending = 1  # values still to be passed; a loop, so that nesting cannot exhaust the stack
    elements = 0
    try:
        while pending:
            first = payload[position]
            position += 1
            pending -= 1
            if first in _FIXED:
                position += _FIXED[first]
            elif first in _COUNTED:
                width = _COUNTED[first]
                position += width + int.from_bytes(payload[position : position + width], "big")
            elif 0x90 <= first <= 0x9F or first in _ARRAYS:
                width = _ARRAYS.get(first, 0)
                count = int.from_bytes(payload[position : position + width], "big") if width else first & 0x0F
                position += width
                pending += count
                elements += count
                if elements > values_max:
                    raise ProtocolError(Code.MALFORMED, "too many values in a record")
            else:
                raise ProtocolError(Code.MALFORMED, f"type byte 0x{first:02x}")
    except IndexError:
        raise ProtocolError(Code.MALFORMED, "cut short") from None
    if position > len(payload):
        raise ProtocolError(Code.MALFORMED, "cut short")
    return position


# -- the hot encoder ---------------------------------------------------------------------------------
#
# A MESSAGE has a fixed layout but for its number, sequence number, time, tag and payload. The hub joins
# `message_prefix` (cached per stream), the sequence number, `message_suffix` (cached per turn where there is no
# tag) and the payload: a third of the time that the general encoder takes, and one bytes object for all subscribers.

_PREFIX: Final = Layout(">BBBIB").pack
_SUFFIX: Final = Layout(">BQ").pack
MESSAGE_PREFIX_BYTES: Final = 8


def message_prefix(number: int) -> bytes:
    """Return what stands before the eight bytes of the sequence number."""
    return _PREFIX(0x96, 19, 0xCE, number, 0xCF)


def message_suffix(at_ns: int, tag: bytes | None, sealed_bytes: int) -> bytes:
    """Return what stands between the sequence number and a payload of `sealed_bytes`."""
    middle = b"\xc0" if tag is None else b"\xc4\x20" + tag
    return _SUFFIX(0xCF, at_ns) + middle + bin_header(sealed_bytes)


def bin_header(length: int) -> bytes:
    """Return the MessagePack header of a byte string."""
    if length < 1 << 8:
        return b"\xc4" + length.to_bytes(1, "big")
    if length < 1 << 16:
        return b"\xc5" + length.to_bytes(2, "big")
    return b"\xc6" + length.to_bytes(4, "big")
