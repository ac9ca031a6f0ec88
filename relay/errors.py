"""The errors of the relay: one root, stable numeric codes, and the WebSocket close code of each.

    RelayError
    +-- ProtocolError        the peer broke the protocol; the connection is closed
    +-- Refused              one request is refused; the connection goes on
    +-- StoreUnavailable     the store cannot commit or read now; the request may be repeated
    +-- ConfigurationError   the options cannot work; nothing was started

Codes are part of the protocol and never change their meaning; texts may.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """What went wrong: the `code` of an ERROR record. Where it also ends the connection, close code 4000 + code."""

    MALFORMED = 10
    """A message is not a sequence of records of this protocol."""
    UNEXPECTED = 11
    """A record that this state does not allow, such as anything before HELLO."""
    VERSION = 12
    """HELLO names a version that this relay does not speak."""
    TOO_MANY_RECORDS = 13
    TEXT = 14
    """A text message; records travel in binary ones."""

    CAPABILITY = 20
    """The capability is not one that the stream's key signed."""
    EXPIRED = 21
    RIGHT = 22
    """The capability does not give a right that was asked for."""
    HOLDER = 23
    """The proof is missing or was not made by the capability's holder for this connection's challenge."""
    NOT_SUBSCRIBED = 24
    """The stream number is not one that this connection has."""

    SEALED_SIZE = 30
    """The payload is shorter than 256 bytes, longer than the limit, or not of a PADME size."""
    SEALED_FORM = 31
    """The payload does not begin with a known version and a permitted suite."""
    COMMITMENT = 32
    ID = 33
    """An id or a slot outside its range."""

    RATE = 40
    TOO_MANY_STREAMS = 41
    WINDOW = 42
    """More unacknowledged records than the window allows."""

    CROWDED = 43
    """The relay holds as many streams as its operator allows. Ask again later."""
    INCOMPLETE = 44
    """A message was not whole in time, or the oldest of too many that are not."""

    STORE = 50
    """The store cannot take or give records now. Nothing was acknowledged: repeat with the same id."""
    FULL = 51
    """The stream, or the whole store, holds as much as the operator allows. Space comes back by age, ACK and ERASE."""

    SLOW = 60
    """The client did not take its records in time. Connect again and resume."""
    DRAINING = 61
    """The relay goes down. Connect again after GOAWAY's `retry`, and resume."""
    KEEPALIVE = 62
    """Nothing came from the client for twice the keep-alive time."""
    HANDSHAKE = 63
    """No HELLO in time."""
    INTERNAL = 70
    """A fault of the relay's own; the connection is closed, others go on."""


CLOSE_BASE: Final = 4000


def close_code(code: Code) -> int:
    """Return the WebSocket close code (4000 to 4999: private use, RFC 6455 section 7.4.2) for `code`."""
    return CLOSE_BASE + code


class RelayError(Exception):
    """Root of every error that the relay raises for what others did."""


class _Coded(RelayError):
    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(f"{code.name}: {detail}" if detail else code.name)
        self.code = code


class ProtocolError(_Coded):
    """The peer broke the protocol; answer ERROR and close with `close_code(code)`."""


class Refused(_Coded):
    """One request is refused with `code`; the connection goes on."""


class StoreUnavailable(RelayError):
    """The store could not do its work, for example because the disk is full. Nothing was acknowledged."""


class ConfigurationError(RelayError):
    """Options that cannot work, all of them: `problems` is one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
