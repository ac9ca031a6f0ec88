"""One connection of one member: what it sends, what came on it, and when.

What came on one connection has an exact order. Between connections, of each arrival the earliest and the latest time are
kept at which it can have come, and only what does not overlap is ordered. The kernel stamps the newest segment of what is
read (socket(7), SO_TIMESTAMPNS): where that holds one thing, the time is exact; otherwise it lies between the last poll
that found nothing and the stamp, or the reading where there is no stamp, as with TLS.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from loadtests.dialects.base import (
    Attach,
    Closed,
    Delivered,
    Dialect,
    Event,
    Failed,
    Gap,
    GoingAway,
    Published,
    Ready,
    Refused,
    Reply,
    State,
    Subscribed,
)
from loadtests.driver.sockets import reset_on_close

_READ_BYTES: Final = 262_144
_SO_TIMESTAMPNS: Final = 35
"""From asm-generic/socket.h; Python's socket has no name for it."""
_TIMESPEC: Final = struct.Struct("@qq")
_STAMP_BYTES_MAX: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_HUNG_UP: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR
LEFT: Final = "we left"
"""Why a line ended that we closed in good form."""


class ProbeRecord(NamedTuple):
    """One record that we sealed: its publisher's number, its place among that one's records from 0, its id, its bytes."""

    publisher: int
    place: int
    id: int
    sealed: bytes


class Arrival(NamedTuple):
    """When something came: its place on its connection, and between which times, of the wall clock."""

    place: int
    first_ns: int
    last_ns: int

    def before(self, other: Arrival) -> bool:
        """It certainly came before `other`, which came on another connection."""
        return self.last_ns < other.first_ns


class Came(NamedTuple):
    """A copy of a record of ours. `state`: it was published as a state."""

    record: ProbeRecord
    seq: int | None
    arrival: Arrival
    state: bool


class LineOwner(Protocol):
    """What a line asks of those who serve it."""

    @property
    def known(self) -> Mapping[bytes, ProbeRecord]:
        """What was published, by its sealed bytes: a copy is recognised only if it is whole."""
        ...

    def watch(self, line: Line, events: int) -> None:
        """Wait for these events from now on; 0 for none."""


class Line:
    """One connection of one member. What came stands in `came` (copies), `acknowledged` (by id) and the others."""

    def __init__(self, owner: LineOwner, member: int, attach: Attach, dialect: Dialect, stream: socket.socket) -> None:
        self.member = member
        self.attach = attach
        self.dialect = dialect
        self.socket = stream
        self.came: list[Came] = []
        self.acknowledged: dict[int, tuple[int | None, Arrival]] = {}
        self.refused: list[Refused] = []
        self.gaps: list[Gap] = []
        self.subscribed: Subscribed | None = None
        self.ready = False
        self.foreign = 0
        """Copies of what we never published: changed on the way, or somebody else's."""
        self.ended: str | None = None
        """Why the connection is over, None while it lives."""
        self.stamped = False
        """What was read last had the kernel's stamp."""
        self._owner = owner
        self._place = 0
        self._out = bytearray()
        self._reading = True
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._left_ns: int | None = None  # since when there may be what the last read left behind

    # -- sending -------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        if self.ended is None:
            self._out += data
            self._flush()

    def _flush(self) -> None:
        while self._out and self.ended is None:
            try:
                del self._out[: self.socket.send(self._out)]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                break
            except OSError as error:
                self.end(error.strerror or str(error))
        self.watch()

    def publish(self, *records: ProbeRecord, durable: bool = True) -> None:
        """Send the records in one piece."""
        stream = self.attach.stream
        self.send(b"".join(self.dialect.publish(stream, one.id, one.sealed, durable=durable) for one in records))

    # -- receiving -----------------------------------------------------------------------------------

    @property
    def heard(self) -> int:
        """How many events have come."""
        return self._place

    def pause(self) -> None:
        """Stop reading."""
        self._reading = False
        self.watch()

    def resume(self) -> None:
        self._reading = True
        self.watch()

    def hung_up(self) -> bool:
        """The relay has closed the connection, as far as that shows without reading."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return any(mask & _HUNG_UP for _, mask in poll.poll(0))

    def watch(self) -> None:
        events = (selectors.EVENT_READ if self._reading else 0) | (selectors.EVENT_WRITE if self._out else 0)
        self._owner.watch(self, 0 if self.ended is not None else events)

    def serve(self, mask: int, empty_ns: int) -> None:
        """Do what the socket is ready for. `empty_ns`: when there was nothing to read yet."""
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if not mask & selectors.EVENT_READ or self.ended is not None:
            return
        first_ns = empty_ns if self._left_ns is None else self._left_ns
        data, stamp_ns, over = self._read()
        self.stamped = stamp_ns is not None
        self._left_ns = first_ns if len(data) >= _READ_BYTES else None
        if data:
            self._take(data, first_ns, stamp_ns)
        if over:
            self.end(over)

    def _read(self) -> tuple[bytes, int | None, str]:
        """Return what is there, the kernel's stamp of it, and why the connection is over; empty while it lives."""
        try:
            if isinstance(self.socket, ssl.SSLSocket):
                return *self._read_tls(self.socket), ""
            data, told, _, _ = self.socket.recvmsg(_READ_BYTES, _STAMP_BYTES_MAX)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b"", None, ""
        except OSError as error:
            return b"", None, error.strerror or str(error)
        stamps = [value for level, kind, value in told if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)]
        stamp_ns = None
        if stamps:
            seconds, rest_ns = _TIMESPEC.unpack(stamps[0])
            stamp_ns = seconds * 1_000_000_000 + rest_ns
        return data, stamp_ns, "" if data else "it hung up without a word"

    @staticmethod
    def _read_tls(stream: ssl.SSLSocket) -> tuple[bytes, None]:
        """Read a record and all that TLS holds back, which no poll shows. Raises OSError."""
        parts = [stream.recv(_READ_BYTES)]
        if not parts[0]:
            raise OSError("it hung up without a word")
        while stream.pending():
            parts.append(stream.recv(_READ_BYTES))
        return b"".join(parts), None

    def _take(self, data: bytes, first_ns: int, stamp_ns: int | None) -> None:
        try:
            events = self.dialect.receive(data)
        except Exception as error:  # a dialect may be a user's own
            self.end(f"the dialect raised {error!r}")
            return
        last_ns = time.time_ns() if stamp_ns is None else stamp_ns
        if stamp_ns is not None and len(events) == 1:
            first_ns = stamp_ns
        for event in events:
            self._place += 1
            self._event(event, Arrival(self._place, first_ns, last_ns))

    def _event(self, event: Event, arrival: Arrival) -> None:
        if type(event) is tuple:
            delivered: Delivered = event  # type: ignore[assignment]  # the only event that is a plain tuple
            self._copy(delivered[3], delivered[1], arrival, state=False)
        elif isinstance(event, State):
            self._copy(event.sealed, None, arrival, state=True)
        elif isinstance(event, Published):
            self.acknowledged[event.id] = (event.seq, arrival)
        elif isinstance(event, Reply):
            self.send(event.data)
        elif isinstance(event, Ready):
            self.ready = True
        elif isinstance(event, Subscribed):
            self.subscribed = event
        elif isinstance(event, Refused):
            self.refused.append(event)
        elif isinstance(event, Gap):
            self.gaps.append(event)
        elif isinstance(event, Closed):
            self.end(f"closed with code {event.code}")
        elif isinstance(event, Failed):
            self.end(event.text)
        elif isinstance(event, GoingAway):
            self.end("it went away in order")

    def _copy(self, sealed: bytes, seq: int | None, arrival: Arrival, *, state: bool) -> None:
        record = self._owner.known.get(sealed)
        if record is None:
            self.foreign += 1
        else:
            self.came.append(Came(record, seq, arrival, state))

    # -- ending --------------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            self.watch()
            self.socket.close()

    def cut(self) -> None:
        """End the connection as a broken line does: with a reset."""
        with contextlib.suppress(OSError):
            reset_on_close(self.socket)
        self.end("we cut it")

    def leave(self) -> None:
        """End the connection in good form, without waiting for an answer."""
        with contextlib.suppress(Exception):
            self.send(self.dialect.close())
        self.end(LEFT)
