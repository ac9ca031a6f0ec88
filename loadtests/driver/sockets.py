"""What is asked of the system about sockets, beyond opening them."""

from __future__ import annotations

import resource
import socket
import struct
from typing import Final

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def reset_on_close(one: socket.socket) -> None:
    """Let the socket's close be a reset: it leaves no TIME_WAIT, and to the peer it looks like a cut line."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def allow_descriptors() -> int:
    """Raise the limit of open descriptors as far as the system lets us, and return it; -1 is no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def allow_descriptors_at_least(count: int) -> None:
    """Raise the limit of open descriptors to `count` for what is started from here, as far as the system lets us.

    Not further: some programs, Erlang among them, make tables of that size.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in (resource.RLIM_INFINITY, hard) and soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )
