"""Power cuts, simulated: what SQLite writes and syncs is noted, and files are made as a cut could have left them.

SQLite's own functions are called by way of ours: its default VFS is patched through ctypes, in the library that the sqlite3
module uses. What was not synced at the cut is kept, dropped, or kept by sectors of 512 bytes.
"""

from __future__ import annotations

import ctypes
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECTOR_BYTES = 512
_METHODS_BYTES = 8 + 18 * 8
_POINTER = ctypes.c_void_p
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_int)
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_int, _POINTER)


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("path_bytes_max", ctypes.c_int),
        ("next", _POINTER),
        ("name", ctypes.c_char_p),
        ("data", _POINTER),
        ("open", _POINTER),
    )


@dataclass(frozen=True, slots=True)
class Event:
    """A write (data), a truncation (data None), or a sync (offset -1) of a file."""

    name: str
    offset: int
    data: bytes | None


class Recorder:
    """What was done to files whose names end as databases and logs do."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._kept: list[Any] = []  # what ctypes must not let go

    def wrap(self, file: int, name: str) -> None:
        """Put our functions before those of a file that was opened."""
        methods = ctypes.cast(file, ctypes.POINTER(_POINTER))
        if not methods[0]:
            return
        copy = ctypes.create_string_buffer(ctypes.string_at(methods[0], _METHODS_BYTES), _METHODS_BYTES)
        slots = ctypes.cast(copy, ctypes.POINTER(_POINTER))
        write, truncate, sync = _WRITE(slots[3]), _TRUNCATE(slots[4]), _SYNC(slots[5])

        def on_write(file: int, data: int, count: int, offset: int) -> int:
            self.events.append(Event(name, offset, ctypes.string_at(data, count)))
            return int(write(file, data, count, offset))

        def on_truncate(file: int, size: int) -> int:
            self.events.append(Event(name, size, None))
            return int(truncate(file, size))

        def on_sync(file: int, flags: int) -> int:
            result = int(sync(file, flags))
            self.events.append(Event(name, -1, None))
            return result

        ours = _WRITE(on_write), _TRUNCATE(on_truncate), _SYNC(on_sync)
        for place, function in zip((3, 4, 5), ours, strict=True):
            slots[place] = ctypes.cast(function, _POINTER)
        methods[0] = ctypes.cast(copy, _POINTER)
        self._kept += [copy, *ours]


@contextmanager
def recording() -> Iterator[Recorder | None]:
    """Note what is done to the databases that are opened within; None where SQLite's library cannot be reached."""
    try:
        library = ctypes.CDLL("libsqlite3.so.0")
        library.sqlite3_libversion.restype = ctypes.c_char_p
        if library.sqlite3_libversion().decode() != sqlite3.sqlite_version or not _is_ours(library):
            yield None
            return
    except OSError:
        yield None
        return
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    vfs = library.sqlite3_vfs_find(None).contents
    theirs = vfs.open
    call = _OPEN(theirs)
    recorder = Recorder()

    def on_open(vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        result = int(call(vfs, name, file, flags, out))
        if result == 0 and name:
            # The pointer itself is passed on: SQLite keeps it as the file's name.
            recorder.wrap(file, Path(ctypes.string_at(name).decode()).name)
        return result

    ours = _OPEN(on_open)
    vfs.open = ctypes.cast(ours, _POINTER)
    try:
        yield recorder
    finally:
        vfs.open = theirs


def _is_ours(library: ctypes.CDLL) -> bool:
    """Whether the sqlite3 module uses this library: its memory is counted there."""
    library.sqlite3_memory_used.restype = ctypes.c_int64
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE x (y)")
    used = library.sqlite3_memory_used()
    connection.close()
    return bool(used > library.sqlite3_memory_used())


def files_after_a_cut(events: list[Event], chance: random.Random) -> dict[str, bytes]:
    """Return files as they may be where the power was cut behind the last event."""
    files: dict[str, bytearray] = {}
    for name in sorted({event.name for event in events}):
        own = [event for event in events if event.name == name]
        synced = max((place for place, event in enumerate(own) if event.offset < 0), default=-1)
        content = files[name] = bytearray()
        for place, event in enumerate(own):
            if event.offset < 0:
                continue
            if place < synced:
                _apply(content, event)
            elif event.data is None:
                if chance.random() < 0.5:
                    _apply(content, event)
            else:
                for start in range(0, len(event.data), SECTOR_BYTES):
                    if chance.random() < 0.6:
                        part = Event(name, event.offset + start, event.data[start : start + SECTOR_BYTES])
                        _apply(content, part)
    return {name: bytes(content) for name, content in files.items()}


def _apply(content: bytearray, event: Event) -> None:
    if event.data is None:
        del content[event.offset :]
        return
    if len(content) < event.offset:
        content.extend(bytes(event.offset - len(content)))
    content[event.offset : event.offset + len(event.data)] = event.data
