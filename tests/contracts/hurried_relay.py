"""A relay whose clock runs ten times as fast as time: its limits, as they are, in seconds instead of minutes.

python hurried_relay.py TRANSPORT
"""

from __future__ import annotations

import os
import socket
import sys
import time
from importlib import import_module

from relay.server import TRANSPORTS
from relay.store import MemoryStore
from relay.transports.base import Relay

FACTOR = 10


def main() -> None:
    began_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
    relay = Relay(
        MemoryStore(os.urandom(32)),
        echo=True,
        drain_s=10.0 * FACTOR,
        clock=lambda: began_ns + FACTOR * (time.monotonic_ns() - monotonic_ns),
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    line = f"relaymark: serving ws://127.0.0.1:{listener.getsockname()[1]}"
    transport = import_module(TRANSPORTS[sys.argv[1]])
    transport.run(relay, [listener], None, lambda: print(line, flush=True))  # noqa: T201
    relay.close()


if __name__ == "__main__":
    main()
