"""Connections to a relay that runs, through a dialect that is under check: blocking, and every wait has its end."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import ssl
import time
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any, Final, Self

from msgspec.structs import replace

from loadtests.address import open_stream
from loadtests.dialects.base import (
    Attach,
    Closed,
    Dialect,
    Event,
    Failed,
    Ready,
    Refused,
    Reply,
    Subscribed,
)
from loadtests.dialects.check.conversation import ContractBroken, called, received, show
from loadtests.sealing.envelope import Keyring
from loadtests.settings import Settings

WAIT_S: Final = 5.0
"""How long an answer may take."""
SILENCE_S: Final = 0.3
"""How long nothing more must come where nothing more is owed."""
_VALID_S: Final = 600
_READ_BYTES: Final = 262_144
_PIECES_MAX: Final = 20


LOOK: Final = "look at what was sent last, and into the relay's log"


class ConnectionEnded(ContractBroken):
    """The relay ended a connection."""

    def __init__(self, came: str) -> None:
        super().__init__("that the connection lasts", came, LOOK)


class LiveConnection:
    """One connection. `events` are all that came but the replies, which are sent; `cut`: what comes is cut into pieces."""

    def __init__(self, dialect: Dialect, stream: socket.socket, cut: Random | None) -> None:
        self._dialect = dialect
        self._cut = cut
        self.socket = stream
        self.events: list[Event] = []

    def do(self, call: Callable[[Dialect], bytes]) -> None:
        self._send(called(self._dialect, call))

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise ConnectionEnded(error.strerror or str(error)) from error

    def hear(self) -> None:
        """Take what has come. Raises ContractBroken if that is the end."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except (ssl.SSLWantReadError, TimeoutError):
            return
        except OSError as error:
            raise ConnectionEnded(error.strerror or str(error)) from error
        if not data:
            raise ConnectionEnded("the relay hung up")
        cuts = [] if self._cut is None else [self._cut.randrange(len(data) + 1) for _ in range(_PIECES_MAX)]
        for start, stop in pairwise([0, *sorted(cuts), len(data)]):
            for event in received(self._dialect, data[start:stop]):
                if isinstance(event, Reply):
                    self._send(event.data)
                else:
                    self.events.append(event)
                if isinstance(event, Closed):
                    raise ConnectionEnded(show(event))
                if isinstance(event, Failed | Refused):
                    raise ContractBroken("that the relay does as it is asked", show(event), LOOK)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    @property
    def sealed(self) -> list[bytes]:
        return [event[3] for event in self.of(tuple)]


class LiveSession:
    """The connections of one check, which are closed when its block ends."""

    def __init__(self, kind: type[Dialect], settings: Settings) -> None:
        self.features = kind.features
        self._kind = kind
        self._address, self._place, self._context = settings.address, settings.place(), settings.client_context()
        self._keyring = Keyring(1, secrets.token_hex(8))
        self._participants = 0
        self._ids = 0
        self._lines: list[LiveConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            # A relay that is hung up on without a word may fill its log.
            with contextlib.suppress(ContractBroken):
                line.do(lambda dialect: dialect.close())
            line.socket.close()

    def attach(self, stream: int, use: int) -> Attach:
        self._participants += 1
        capability = self._keyring.capability(stream, self._participants, use, expires_s=int(time.time()) + _VALID_S)
        return Attach(stream=stream, name=self._keyring.stream_name(stream), use=use, capability=capability)

    def joined(
        self, stream: int, use: int, *, after: int | None = None, epoch: int | None = None, cut: Random | None = None
    ) -> LiveConnection:
        """Return a connection that has joined a stream. Raises ContractBroken, and TargetError if there is no connection."""
        attach = self.attach(stream, use)
        place = replace(self._place, attach=attach) if self.features.one_stream else self._place
        line = LiveConnection(self._kind(place), open_stream(self._address, self._context), cut)
        self._lines.append(line)
        line.do(lambda dialect: dialect.opening())
        self.wait(lambda: bool(line.of(Ready)), "Ready after the opening", line)
        self.join(line, attach, after=after, epoch=epoch)
        return line

    def join(self, line: LiveConnection, attach: Attach, *, after: int | None = None, epoch: int | None = None) -> None:
        line.do(lambda dialect: dialect.subscribe(attach, after=after, epoch=epoch))
        self.wait(
            lambda: any(event.stream == attach.stream for event in line.of(Subscribed)),
            f"Subscribed(stream={attach.stream}, ...)",
            line,
        )

    def publish(self, line: LiveConnection, stream: int, *records: bytes) -> list[int]:
        """Publish durable records in one piece; return their ids."""
        first, self._ids = self._ids + 1, self._ids + len(records)
        ids = list(range(first, self._ids + 1))
        line.do(
            lambda dialect: b"".join(dialect.publish(stream, id_, one) for id_, one in zip(ids, records, strict=True))
        )
        return ids

    def wait(self, done: Callable[[], bool], expected: str, line: LiveConnection) -> None:
        """Hear all connections until `done`. Raises ContractBroken, with what came on `line`, if that takes too long."""
        end_s = time.monotonic() + WAIT_S
        while not done():
            if time.monotonic() > end_s:
                raise ContractBroken(f"{expected} within {WAIT_S:g} s", show(line.events[-3:]), LOOK)
            self._hear(0.05)

    def silence(self) -> None:
        """Hear what still comes."""
        end_s = time.monotonic() + SILENCE_S
        while (left_s := end_s - time.monotonic()) > 0:
            self._hear(left_s)

    def _hear(self, wait_s: float) -> None:
        pending = [one for one in self._lines if isinstance(one.socket, ssl.SSLSocket) and one.socket.pending()]
        readable, _, _ = select.select([one.socket for one in self._lines], [], [], 0 if pending else wait_s)
        for line in self._lines:
            if line in pending or line.socket in readable:
                line.hear()
