"""Runs: the records that one commit adds to one stream, as one blob, laid out so that erasing is complete.

SQLite moves rows between pages when it balances a B-tree, and what moved away can stay behind in the unused part of a
page, where `secure_delete` does not reach it. Overflow pages are never moved or shared: each belongs to one row, and
`secure_delete` overwrites it with zeros when the row goes. So a run's blob begins with zeros, and its length is chosen
such that exactly these zeros stay in the B-tree page, and everything that must be erasable lies on overflow pages.

    zeros | at_ns u64, id u64, handle 16, frame length u32 for each record | the frames | zeros

Source: SQLite, "Database File Format", section 1.6 (cell payload overflow), and `PRAGMA secure_delete`.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Final

from relay.store.base import Run

PAGE_BYTES: Final = 512
"""The smallest page: a run of one small record takes one overflow page, some 600 bytes in all."""

_OVERFLOW_BYTES: Final = PAGE_BYTES - 4
_LOCAL_BYTES: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
"""M of the file format: what stays in the B-tree page where the rest fills its overflow pages exactly."""
_INDEX_LOCAL_BYTES_MAX: Final = (PAGE_BYTES - 12) * 64 // 255 - 23
"""X of the file format for index B-trees (WITHOUT ROWID tables): never more than this stays in the page."""

_LEAD: Final = bytes(_LOCAL_BYTES)
_HANDLE_LEAD: Final = bytes(_INDEX_LOCAL_BYTES_MAX)
_META: Final = Layout(">QQ16sI")
_pack_meta: Final = _META.pack


def pack_run(run: Run) -> bytes:
    """Return the blob of a run."""
    at_ns = run.at_ns
    parts = [_LEAD]
    parts += [
        _pack_meta(at_ns, id_, handle, size) for id_, handle, size in zip(run.ids, run.handles, run.sizes, strict=True)
    ]
    parts.append(run.data)
    blob = b"".join(parts)
    return blob.ljust(blob_bytes(len(blob)), b"\0")


def unpack_run(first: int, last: int, blob: bytes) -> Run:
    """Return the run of the records `first` to `last` from its blob."""
    metas_end = len(_LEAD) + (last - first + 1) * _META.size
    metas = list(_META.iter_unpack(memoryview(blob)[len(_LEAD) : metas_end]))
    sizes = [frame_bytes for _, _, _, frame_bytes in metas]
    return Run(
        first,
        metas[0][0],
        [handle for _, _, handle, _ in metas],
        [id_ for _, id_, _, _ in metas],
        sizes,
        blob[metas_end : metas_end + sum(sizes)],
    )


def blob_bytes(length: int) -> int:
    """Return the blob length, at least `length`, with which only the zeros in front stay in the B-tree page.

    A row of (INTEGER PRIMARY KEY, BLOB) has a header of two bytes and the length of the blob as a varint.
    """
    for varint_bytes, blob_bytes_max in ((2, 8_185), (3, 1_048_569), (4, 134_217_721)):
        header_bytes = 2 + varint_bytes
        pages = -(-(header_bytes + length - _LOCAL_BYTES) // _OVERFLOW_BYTES)
        padded = _LOCAL_BYTES + max(pages, 1) * _OVERFLOW_BYTES - header_bytes
        if padded <= blob_bytes_max:
            return padded
    raise AssertionError("a run larger than any batch")


def pack_handle(handle: bytes) -> bytes:
    """Return a handle for a column at the end of a WITHOUT ROWID row: zeros in front, itself on an overflow page."""
    return _HANDLE_LEAD + handle


def unpack_handle(blob: bytes) -> bytes:
    """Return the handle that `pack_handle` packed."""
    return blob[len(_HANDLE_LEAD) :]


__all__ = ["PAGE_BYTES", "blob_bytes", "pack_handle", "pack_run", "unpack_handle", "unpack_run"]
