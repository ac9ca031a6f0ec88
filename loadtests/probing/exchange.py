"""The connections of one question, served together by one thread, on a stream of their own."""

from __future__ import annotations

import itertools
import secrets
import selectors
import time
from collections.abc import Callable
from typing import Final, Self

from msgspec.structs import replace

from loadtests.address import open_stream
from loadtests.dialects.base import Attach
from loadtests.dialects.find import DialectError, find
from loadtests.probing.line import Line, ProbeRecord
from loadtests.sealing.envelope import STAMP_BYTES, Keyring, Suite
from loadtests.settings import Settings

ANSWER_S_MAX: Final = 5.0
"""How long one answer may take, on a relay that has hardly anything else to do."""
RECORD_BYTES: Final = 256
PUBLISHERS_MAX: Final = 16
_TURN_S_MAX: Final = 0.05
_VALID_S: Final = 600
_RECEIVE, _PUBLISH = 1, 2
_SEALING_BYTES: Final = STAMP_BYTES + 46
"""Bytes of a record sealed with a sender key: its stamp, and what is around it (loadtests/sealing/envelope.py)."""
_MESSAGE: Final = 1


class Trouble(Exception):
    """A question could not be asked to its end: one sentence."""


class Exchange:
    """All connections of one question, on a stream of its own. Close it, or use it in a `with` block."""

    def __init__(self, settings: Settings) -> None:
        """Raises DialectError."""
        self.kind = find(settings.dialect)
        self.features = self.kind.features
        self.known: dict[bytes, ProbeRecord] = {}
        """What we published, by its sealed bytes: a copy is recognised only if it is whole."""
        self._settings = settings
        self._context = settings.client_context()
        self._keyring = Keyring(settings.seed, secrets.token_hex(8))  # a stream that no relay remembers
        self._stream = 1
        self._sealers = [
            self._keyring.sealer(Suite.SENDER_KEY, self._stream, sender) for sender in range(PUBLISHERS_MAX)
        ]
        self._places: dict[int, int] = {}
        self._ids = itertools.count(1)
        self._members = itertools.count()
        self._polled_ns = time.time_ns()
        self._selector = selectors.DefaultSelector()
        self._lines: list[Line] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            line.leave()
        self._selector.close()

    # -- members -------------------------------------------------------------------------------------

    def reader(self, count: int = 1) -> list[Line]:
        return [self._join(next(self._members), _RECEIVE) for _ in range(count)]

    def sender(self) -> Line:
        """Return a line that publishes, and gets nothing of it where the relay lets it be so."""
        return self._join(next(self._members), _PUBLISH)

    def publisher(self) -> tuple[Line, Line | None]:
        """Return the line that publishes, and the one on which its own copies come: the same where one can be both.

        None where it gets no own copies.
        """
        member = next(self._members)
        if self.features.one_stream:
            return self._join(member, _PUBLISH), self._join(member, _RECEIVE) if self.features.echoes else None
        line = self._join(member, _RECEIVE | _PUBLISH)
        return line, line if self.features.echoes else None

    def back(self, line: Line, *, after: int | None = None, epoch: int | None = None) -> Line:
        """Return a new connection of the same member for the same use, resumed after a number where there is one."""
        return self._join(line.member, line.attach.use, after=after, epoch=epoch)

    def moved(self, url: str) -> None:
        """Connect to another address from now on."""
        self._settings = replace(self._settings, url=url)

    def _join(self, member: int, use: int, *, after: int | None = None, epoch: int | None = None) -> Line:
        capability = self._keyring.capability(
            self._stream, member, _RECEIVE | _PUBLISH, expires_s=int(time.time()) + _VALID_S
        )
        name = self._keyring.stream_name(self._stream)
        attach = Attach(stream=self._stream, name=name, use=use, capability=capability)
        place = self._settings.place()
        try:
            dialect = self.kind(replace(place, attach=attach) if self.features.one_stream else place)
            opening = dialect.opening()
        except Exception as error:
            raise DialectError(f"The dialect {self._settings.dialect} raised {error!r} when it was made.") from error
        stream = open_stream(self._settings.address, self._context)
        line = Line(self, member, attach, dialect, stream)
        self._lines.append(line)
        line.watch()
        line.send(opening)
        self._reach(line, lambda: line.ready, "greet a member")
        line.send(dialect.subscribe(attach, after=after, epoch=epoch))
        self._reach(line, lambda: line.subscribed is not None, "let a member join")
        return line

    def _reach(self, line: Line, done: Callable[[], bool], what: str) -> None:
        if not self.until(lambda: done() or line.ended is not None or bool(line.refused)) or not done():
            why = line.ended or (f"refused with code {line.refused[0].code}" if line.refused else "no answer")
            raise Trouble(f"The relay did not {what}: {why.rstrip('.')}.")

    # -- records -------------------------------------------------------------------------------------

    def record(self, publisher: int = 0, size: int = RECORD_BYTES) -> ProbeRecord:
        """Seal the next record of a publisher, `size` bytes long: 256 or more, a size to which PADME pads."""
        place = self._places.get(publisher, 0)
        self._places[publisher] = place + 1
        now_ns = time.monotonic_ns()
        sealed = self._sealers[publisher].seal(_MESSAGE, place + 1, now_ns, now_ns, bytes(size - _SEALING_BYTES))
        made = self.known[sealed] = ProbeRecord(publisher, place, next(self._ids), sealed)
        return made

    # -- time passes ---------------------------------------------------------------------------------

    def turn(self, wait_s: float = _TURN_S_MAX) -> None:
        """Serve what is ready, waiting for the first of it at most so long."""
        # What is there at once may have come since the last poll before it was served.
        before_ns, self._polled_ns = self._polled_ns, time.time_ns()
        ready = self._selector.select(0)
        empty_ns = before_ns
        if not ready:
            empty_ns = self._polled_ns
            ready = self._selector.select(wait_s)
        for key, mask in ready:
            key.data.serve(mask, empty_ns)

    def until(self, done: Callable[[], bool], wait_s: float = ANSWER_S_MAX) -> bool:
        """Serve until `done`; return whether it is in time."""
        end_s = time.monotonic() + wait_s
        while not done():
            if time.monotonic() > end_s:
                return False
            self.turn()
        return True

    def hear_out(self, line: Line, silence_s: float, wait_s: float) -> bool:
        """Serve until nothing came on `line` for so long, or it ended; return whether that is in time."""
        end_s = time.monotonic() + wait_s
        heard, heard_s = -1, time.monotonic()
        while line.ended is None and (now_s := time.monotonic()) - heard_s < silence_s:
            if now_s > end_s:
                return False
            self.turn()
            if line.heard != heard:
                heard, heard_s = line.heard, time.monotonic()
        return True

    def watch(self, line: Line, events: int) -> None:
        """Wait for these events of a line from now on; 0 for none."""
        registered = self._selector.get_map().get(line.socket) if line.socket.fileno() >= 0 else None
        if registered is None:
            if events:
                self._selector.register(line.socket, events, line)
        elif not events:
            self._selector.unregister(line.socket)
        elif registered.events != events:
            self._selector.modify(line.socket, events, line)
