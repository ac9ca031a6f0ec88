"""Records and frames: msgspec beside msgpack, framing, masking."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgpack
from websockets.speedups import apply_mask

from benchmarks.fast_load.counting import frame
from relay import framing, wire

SEALED = b"\x01\x01" + random.Random(4).randbytes(254)
RECORDS = 16
"""In one read, as busy clients send them."""


def publish(id_: int = 10_000) -> wire.Publish:
    return wire.Publish(number=7, class_=wire.DURABLE, id=id_, commitment=None, sealed=SEALED)


def encode_msgspec() -> Callable[[], object]:
    record = publish()
    return lambda: wire.encode(record)


def encode_msgpack() -> Callable[[], object]:
    packer = msgpack.Packer(autoreset=True)
    # The same bytes as `wire.encode` gives.
    record = [4, 7, wire.DURABLE, 10_000, None, SEALED]
    assert packer.pack(record) == wire.encode(publish())
    return lambda: packer.pack(record)


def decode_msgspec() -> Callable[[], object]:
    data = wire.encode(publish())
    return lambda: wire.decode_client(data)


def decode_msgpack() -> Callable[[], object]:
    data = wire.encode(publish())
    unpackb = msgpack.unpackb
    return lambda: unpackb(data, use_list=False)


def frames_in() -> Callable[[], object]:
    """One read of sixteen masked frames; a reader carries nothing over whole frames."""
    data = b"".join(frame(wire.encode(publish(10_000 + at)), mask=b"abcd") for at in range(RECORDS))
    reader = framing.FrameReader()
    assert len(reader.feed(data)) == RECORDS
    return lambda: reader.feed(data)


def frame_out() -> Callable[[], object]:
    data = wire.encode(publish())
    return lambda: framing.encode(framing.BINARY, data)


def mask_1k() -> Callable[[], object]:
    data = random.Random(5).randbytes(1024)
    return lambda: apply_mask(data, b"abcd")
