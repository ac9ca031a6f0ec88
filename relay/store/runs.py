"""The blobs that rows of the SQLite store hold: checked when they are read, and laid out so that erasing is complete.

SQLite moves rows between pages when it balances a B-tree, and what moved away can stay behind in the unused part of a
page, where `secure_delete` does not reach it. Overflow pages are never moved or shared: each belongs to one row, and
`secure_delete` overwrites it with zeros when the row goes. So a run's blob begins with zeros, and its length is chosen
such that only these zeros stay in the B-tree page, and everything that must be erasable lies on overflow pages.

    run     zeros | check u32 | id u64, handle 16, frame length u32 for each record | the frames | zeros
    state   epoch u64, head u64, stamped_ns u64, held_bytes u64 | check u32
    handle  zeros | handle 16

A check is the CRC-32 of everything that the row says, the columns beside the blob included, begun with the CRC-32 of the
stream's key and its number: a row that is another stream's, or another number's, fails like one that was altered. A
single flipped bit is always found, other damage but for one case in four billion. (For 300 bytes crc32 takes 0.2 us,
BLAKE2b 0.7.)

Source: SQLite, "Database File Format", section 1.6 (cell payload overflow), and `PRAGMA secure_delete`.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Final
from zlib import crc32

import msgspec

from relay.store.base import Run

PAGE_BYTES: Final = 512
"""The smallest page: a run of one small record takes one overflow page, some 600 bytes in all."""

_OVERFLOW_BYTES: Final = PAGE_BYTES - 4
_LOCAL_BYTES: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
"""M of the file format: what stays in the B-tree page where the rest fills its overflow pages exactly."""
_INDEX_LOCAL_BYTES_MAX: Final = (PAGE_BYTES - 12) * 64 // 255 - 23
"""X of the file format for index B-trees (WITHOUT ROWID tables): never more than this stays in the page."""
_COLUMN_BYTES: Final = [0, 0, *(1,) * 6, *(2,) * 8, *(3,) * 8, *(4,) * 8, *(6,) * 16, *(8,) * 16]
"""By bit length: what an integer column takes in a row; 0 and 1 are in the row's header."""
_BLOB_LENGTHS: Final = ((2, 8_185), (3, 1_048_569), (4, 134_217_721))
"""How many bytes tell the length of a blob up to so many; the shortest here has some 500."""
_HEADER_BYTES: Final = 5
"""Header of a row (INTEGER PRIMARY KEY, INTEGER, INTEGER, INTEGER, BLOB), without the blob's own length."""

_LEAD: Final = bytes(_LOCAL_BYTES)
_CHECK_BYTES: Final = 4
_METAS: Final = len(_LEAD) + _CHECK_BYTES
_HANDLE_LEAD: Final = bytes(_INDEX_LOCAL_BYTES_MAX)
_META: Final = Layout(">Q16sI")
_pack_meta: Final = _META.pack
_SPAN: Final = Layout(">QQQ")
_CHECK: Final = Layout(">I")
_STATE: Final = Layout(">QQQQ")
_ACK: Final = Layout(">IQ16s")


def pack_run(number: int, seed: int, run: Run) -> bytes:
    """Return the blob of a run of the stream `number`; `seed` is the CRC-32 of the stream's key."""
    metas = b"".join(
        [_pack_meta(id_, handle, size) for id_, handle, size in zip(run.ids, run.handles, run.sizes, strict=True)]
    )
    first = run.first
    check = crc32(run.data, crc32(metas, crc32(_SPAN.pack(first, first + len(run.ids) - 1, run.at_ns), seed ^ number)))
    blob = b"".join((_LEAD, _CHECK.pack(check), metas, run.data))
    return blob.ljust(blob_bytes(len(blob), number, first, run.at_ns), b"\0")


def unpack_run(number: int, seed: int, first: object, last: object, at_ns: object, blob: object) -> Run | None:
    """Return the run of the records `first` to `last` from its row, None if it is not what was stored.

    The columns may be of any type: in a damaged row SQLite finds what is not there.
    """
    if not (isinstance(first, int) and isinstance(last, int) and isinstance(at_ns, int) and isinstance(blob, bytes)):
        return None
    metas_end = _METAS + (last - first + 1) * _META.size
    if not (0 < first <= last and at_ns >= 0 and metas_end <= len(blob)):
        return None
    metas = list(_META.iter_unpack(memoryview(blob)[_METAS:metas_end]))
    sizes = [frame_bytes for _, _, frame_bytes in metas]
    data_end = metas_end + sum(sizes)
    if data_end > len(blob):
        return None
    check = crc32(memoryview(blob)[_METAS:data_end], crc32(_SPAN.pack(first, last, at_ns), seed ^ number))
    if _CHECK.pack(check) != blob[len(_LEAD) : _METAS]:
        return None
    return Run(
        first, at_ns, [handle for _, handle, _ in metas], [id_ for id_, _, _ in metas], sizes, blob[metas_end:data_end]
    )


def blob_bytes(length: int, number: int, first: int, at_ns: int) -> int:
    """Return the blob length, at least `length`, with which only the zeros in front stay in the B-tree page."""
    column_bytes = _COLUMN_BYTES
    row_bytes = (
        _HEADER_BYTES
        + column_bytes[number.bit_length()]
        + column_bytes[first.bit_length()]
        + column_bytes[at_ns.bit_length()]
    )
    for varint_bytes, blob_bytes_max in _BLOB_LENGTHS:
        in_front_bytes = _LOCAL_BYTES - row_bytes - varint_bytes
        pages = (length - in_front_bytes + _OVERFLOW_BYTES - 1) // _OVERFLOW_BYTES
        padded = in_front_bytes + (pages if pages > 0 else 1) * _OVERFLOW_BYTES
        if padded <= blob_bytes_max:
            return padded
    raise AssertionError("a run larger than any batch")


class StreamRow(msgspec.Struct, gc=False):
    """What must be right of a stream at every moment. `seed` is the CRC-32 of its key."""

    seed: int
    epoch: int
    head: int = 0
    stamped_ns: int = 0
    """The stamp of the newest record."""
    held_bytes: int = 0
    """The blobs of its runs."""


def pack_state(number: int, state: StreamRow) -> bytes:
    """Return the blob of a stream's state."""
    packed = _STATE.pack(state.epoch, state.head, state.stamped_ns, state.held_bytes)
    return packed + _CHECK.pack(crc32(packed, state.seed ^ number))


def unpack_state(number: int, seed: int, blob: object) -> StreamRow | None:
    """Return the state from its blob, None if it is not what was stored."""
    if not isinstance(blob, bytes) or len(blob) != _STATE.size + _CHECK_BYTES:
        return None
    state = StreamRow(seed, *_STATE.unpack_from(blob))
    return state if pack_state(number, state) == blob else None


def pack_handle(handle: bytes) -> bytes:
    """Return a handle for a column at the end of a WITHOUT ROWID row: zeros in front, itself on an overflow page."""
    return _HANDLE_LEAD + handle


def unpack_handle(blob: bytes) -> bytes:
    """Return the handle that `pack_handle` packed."""
    return blob[len(_HANDLE_LEAD) :]


def ack_check(number: int, seed: int, upto: int, handle: bytes) -> int:
    """Return the check of an acknowledgement's row."""
    return crc32(_ACK.pack(number, upto, handle), seed)
