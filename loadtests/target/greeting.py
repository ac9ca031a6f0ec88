"""Does the target speak its dialect? Asked once, before any load, on a connection of its own: to greet, and to attach."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from loadtests.address import PROBE_S_MAX, TargetError, open_stream
from loadtests.dialects.base import Attach, Closed, Dialect, Event, Failed, Ready, Refused, Reply, Subscribed
from loadtests.dialects.fault import told
from loadtests.dialects.find import DialectError, find
from loadtests.sealing.envelope import Keyring
from loadtests.settings import Settings

_RECEIVE: Final = 1
_VALID_S: Final = 600


def greet(settings: Settings) -> None:
    """Return once the target has let us receive from a stream of our own.

    Raises TargetError with one sentence, and DialectError if it is the dialect that fails.
    """
    attach = _attach(settings)
    place = settings.place()
    kind = find(settings.dialect)
    dialect = kind(replace(place, attach=attach) if kind.features.one_stream else place)
    with open_stream(settings.address, settings.client_context()) as stream:
        conversation = _Conversation(settings, dialect, stream)
        conversation.begin(dialect.opening())
        try:
            conversation.wait_for(Ready, "greet")
            conversation.begin(dialect.subscribe(attach))
            conversation.wait_for(Subscribed, "let us subscribe")
            conversation.begin(dialect.close())
        except OSError as error:
            said = error.strerror or error
            raise TargetError(f"The target {conversation.url} ended the connection: {said}.") from None


def _attach(settings: Settings) -> Attach:
    keyring = Keyring(settings.seed, f"{settings.run}/greeting")
    capability = keyring.capability(0, 0, _RECEIVE, expires_s=int(time.time()) + _VALID_S)
    return Attach(stream=0, name=keyring.stream_name(0), use=_RECEIVE, capability=capability)


class _Conversation:
    """What goes back and forth on the connection."""

    def __init__(self, settings: Settings, dialect: Dialect, stream: socket.socket) -> None:
        self.url = settings.address.url
        self._spec = settings.dialect
        self._dialect = dialect
        self._stream = stream
        self._end = time.monotonic() + PROBE_S_MAX
        self._waiting: Iterator[Event] = iter(())

    def begin(self, data: bytes) -> None:
        self._stream.sendall(data)

    def wait_for(self, wanted: type[Ready | Subscribed], what: str) -> None:
        for event in self._events(what):
            if isinstance(event, wanted):
                return
            if isinstance(event, Reply):
                self._stream.sendall(event.data)
            elif isinstance(event, Failed):
                raise TargetError(f"The target {self.url} speaks another protocol: {event.text.rstrip('.')}.")
            elif isinstance(event, Closed):
                raise TargetError(f"The target {self.url} refused us with close code {event.code}.")
            elif isinstance(event, Refused):
                raise TargetError(f"The target {self.url} does not {what}: it refuses with code {event.code}.")

    def _events(self, what: str) -> Iterator[Event]:
        yield from self._waiting
        while (left_s := self._end - time.monotonic()) > 0:
            try:
                self._stream.settimeout(left_s)
                data = self._stream.recv(65_536)
            except TimeoutError:
                break
            if not data:
                raise TargetError(f"The target {self.url} closed the connection instead of answering.")
            try:
                events = self._dialect.receive(data)
            except Exception as error:
                raise DialectError(f"The dialect {self._spec} raised in receive: {told(error)}.") from error
            self._waiting = iter(events)
            yield from self._waiting
        raise TargetError(f"The target {self.url} did not {what} within {PROBE_S_MAX:.0f} s.")
