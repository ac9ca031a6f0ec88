"""Whether a write-ahead log was damaged, or only cut short. Read before SQLite opens it.

SQLite takes from a log what comes before the first frame whose checksum is wrong, and forgets the rest without a word.
That is right for what a crash cut short: the last transaction had not been synced, so nobody was told of it. It is wrong
where a bit flipped in the middle, for what comes after was acknowledged. The two are told apart so:

- A transaction is begun only when the one before is synced. So if frames of this log follow a commit behind the first
  bad frame, the bad frame had been synced: damaged.
- Within the last transaction a power cut can leave any mixture of old and new sectors. A frame that one flipped bit
  makes good was written whole, and is damaged; anything else was cut short.
- The log's header is synced before its first frame, and lies in one sector. If it is bad and frames follow: damaged.

Source: SQLite, "WAL-mode File Format", section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from struct import Struct as Layout
from typing import Final, TypeAlias

_Sums: TypeAlias = tuple[int, int]

_HEADER: Final = Layout(">8I")
_FRAME: Final = Layout(">6I")
_MAGIC: Final = 0x377F0682
"""The last bit says in which byte order the checksums take words: set for big-endian."""
_SUMMED_BYTES: Final = 8
"""Parts of a frame's header: page number and, in a commit, the database's size."""
_MASK: Final = 0xFFFF_FFFF


def is_damaged(log: bytes | mmap) -> bool:
    """Whether what SQLite will leave out of this log may have been acknowledged. Takes some 25 ms for a megabyte."""
    if len(log) <= _HEADER.size + _FRAME.size:
        return False
    magic, _, page_bytes, _, *salts, sum_1, sum_2 = _HEADER.unpack_from(log)
    order = ">" if magic & 1 else "<"
    if magic & ~1 != _MAGIC or _sums(log[: _HEADER.size - 8], order, (0, 0)) != (sum_1, sum_2):
        return True
    frame_bytes = _FRAME.size + page_bytes
    sums = (sum_1, sum_2)
    for start in range(_HEADER.size, len(log) - frame_bytes + 1, frame_bytes):
        frame = log[start : start + frame_bytes]
        found = _frame_sums(frame, order, sums)
        if found != _told(frame) or not _of_log(frame, salts):
            later = (log[at : at + frame_bytes] for at in range(start, len(log) - frame_bytes + 1, frame_bytes))
            return _goes_on_behind_a_commit(later, salts) or _is_one_bit_off(frame, order, sums, salts)
        sums = found
    return False


def _goes_on_behind_a_commit(frames: Iterator[bytes], salts: list[int]) -> bool:
    committed = False
    for frame in frames:
        if _of_log(frame, salts):
            if committed:
                return True
            committed = _FRAME.unpack_from(frame)[1] > 0
    return False


def _is_one_bit_off(frame: bytes, order: str, sums: _Sums, salts: list[int]) -> bool:
    value = int.from_bytes(frame, "big")
    for bit in range(8 * len(frame)):
        mended = (value ^ 1 << bit).to_bytes(len(frame), "big")
        if _of_log(mended, salts) and _frame_sums(mended, order, sums) == _told(mended):
            return True
    return False


def _of_log(frame: bytes, salts: list[int]) -> bool:
    """Whether a frame belongs to the log as it is now: one that begins again takes new salts."""
    page, _, *own, _, _ = _FRAME.unpack_from(frame)
    return page > 0 and own == salts


def _told(frame: bytes) -> _Sums:
    *_, sum_1, sum_2 = _FRAME.unpack_from(frame)
    return sum_1, sum_2


def _frame_sums(frame: bytes, order: str, sums: _Sums) -> _Sums:
    return _sums(frame[_FRAME.size :], order, _sums(frame[:_SUMMED_BYTES], order, sums))


def _sums(data: bytes, order: str, sums: _Sums) -> _Sums:
    """Go on with SQLite's checksum over `data`, a whole number of pairs of words."""
    sum_1, sum_2 = sums
    words = iter(Layout(f"{order}{len(data) // 4}I").unpack(data))
    for first, second in zip(words, words, strict=True):
        sum_1 = sum_1 + first + sum_2 & _MASK
        sum_2 = sum_2 + second + sum_1 & _MASK
    return sum_1, sum_2
