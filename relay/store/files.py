"""The files of a SQLite store: whose they are, that they are still there, and space put by on their disk."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from typing import Final

from relay.errors import ConfigurationError
from relay.store.wal import is_damaged

RESERVE_BYTES_MAX: Final = 8_388_608
"""Kept free for forgetting on a full disk: a write-ahead log of its usual size, copied, and as much again."""
_RESERVE_SHARE: Final = 16
"""Divides a small disk: the reserve is one part in so many."""


class StoreFiles:
    """Holds a database's files for one relay. The lock is on the file itself, under whatever name it was opened."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Lock the database file, and make it if it is not there. Raises ConfigurationError.

        flock and the locks of SQLite (fcntl) do not see one another on a local disk. Closing any descriptor of a file
        gives up the fcntl locks that the process has on it, so this one is closed after SQLite's.
        """
        # SQLite follows symbolic links too before it names the write-ahead log.
        self.path = os.path.realpath(path)
        self._reserve_path = f"{self.path}-reserve"
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                [
                    f"the store {self.path} cannot be used ({error.strerror}): name a writable file in a writable directory"
                ]
            ) from error
        self._same = _identity(os.fstat(self._fd))
        self.reserved = False
        try:
            self._claim()
        except BaseException:
            os.close(self._fd)
            raise

    def _claim(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError([f"another relay uses the store {self.path}: give each relay its own"]) from None
        except OSError as error:
            raise ConfigurationError(
                [f"the store {self.path} cannot be locked ({error.strerror}): name a file on a local disk"]
            ) from error
        found = os.fstat(self._fd)
        if found.st_nlink > 1:
            # The write-ahead log belongs to a name. Under another one, what it holds would be missing.
            raise ConfigurationError(
                [f"the store {self.path} has a second name (a hard link): remove all names but one"]
            )
        if found.st_size == 0:
            self.check_modes()

    def check_modes(self) -> None:
        """Raise ConfigurationError if others than the owner can read or write the files: the relay's secret is there."""
        open_to_others = [path for path in self._present() if stat.S_IMODE(os.stat(path).st_mode) & 0o077]
        if open_to_others:
            command = f"chmod go= {' '.join(open_to_others)}"
            raise ConfigurationError(
                [f"others can use the store {self.path}, which holds the relay's secret: {command}"]
            )

    def _present(self) -> list[str]:
        return [path for path in (self.path, f"{self.path}-wal", f"{self.path}-shm") if os.path.exists(path)]

    def log_is_damaged(self) -> bool:
        """Whether the write-ahead log lost what may have been acknowledged. To be asked before SQLite opens it."""
        try:
            with open(f"{self.path}-wal", "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return False
                with mmap(file.fileno(), 0, access=ACCESS_READ) as log:
                    return is_damaged(log)
        except FileNotFoundError:
            return False

    def watch(self) -> None:
        """Remember the files that SQLite has made by now: from here on `gone` misses them."""
        self._watched = {path: _identity(os.stat(path)) for path in self._present()}

    def gone(self) -> bool:
        """Whether a file was removed, moved or replaced: what is written from now on would be lost."""
        for path, identity in self._watched.items():
            try:
                if _identity(os.stat(path)) != identity:
                    return True
            except OSError:
                return True
        return False

    @property
    def home(self) -> str:
        """What the database is and where: a copy, or a restored one, has another."""
        return f"{self._same[1]}:{self.path}"

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the database file and of its log."""
        found = []
        for path in (self.path, f"{self.path}-wal"):
            try:
                found.append(os.path.getsize(path))
            except OSError:
                found.append(0)
        return found[0], found[1]

    def free_bytes(self) -> int:
        """Return what is left on the disk for us."""
        disk = os.statvfs(os.path.dirname(self.path))
        return disk.f_bavail * disk.f_frsize

    # -- the reserve ---------------------------------------------------------------------------------

    def reserve(self) -> bool:
        """Put space by for forgetting; return whether it is there."""
        if self.reserved:
            return True
        try:
            disk = os.statvfs(os.path.dirname(self.path))
            size = min(RESERVE_BYTES_MAX, disk.f_blocks * disk.f_frsize // _RESERVE_SHARE)
            fd = os.open(self._reserve_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, max(size, 1))
            finally:
                os.close(fd)
        except OSError:
            self.give_reserve()
            return False
        self.reserved = True
        return True

    def give_reserve(self) -> None:
        """Give the space back to the disk, so that what is forgotten can be written down."""
        self.reserved = False
        with suppress(OSError):
            os.unlink(self._reserve_path)

    def close(self) -> None:
        """Let go of the files. SQLite's connections are closed by now."""
        self.give_reserve()
        os.close(self._fd)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
