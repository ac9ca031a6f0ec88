"""Does the target speak the protocol? Asked once, before any load, on a connection of its own."""

from __future__ import annotations

import ssl
import time

from loadtests.address import PROBE_S_MAX, Address, TargetError, open_stream
from loadtests.dialects.base import Closed, Failed, Place, Ready, Reply
from loadtests.dialects.reference import Reference


def probe(address: Address, context: ssl.SSLContext | None) -> None:
    """Return once the target has greeted us in its protocol. Raises TargetError with one sentence."""
    dialect = Reference(Place(host=f"{address.host}:{address.port}", path=address.path))
    end = time.monotonic() + PROBE_S_MAX
    with open_stream(address, context) as stream:
        try:
            stream.sendall(dialect.opening())
            while time.monotonic() < end:
                data = stream.recv(65_536)
                if not data:
                    raise TargetError(f"The target {address.url} closed the connection instead of greeting.")
                for event in dialect.receive(data):
                    if isinstance(event, Ready):
                        return
                    if isinstance(event, Reply):
                        stream.sendall(event.data)
                    elif isinstance(event, Failed):
                        raise TargetError(f"The target {address.url} speaks another protocol: {event.text}.")
                    elif isinstance(event, Closed):
                        raise TargetError(f"The target {address.url} refused us with close code {event.code}.")
        except TimeoutError:
            pass
        except OSError as error:
            raise TargetError(f"The target {address.url} ended the connection: {error.strerror or error}.") from None
    raise TargetError(f"The target {address.url} did not greet within {PROBE_S_MAX:.0f} s.")
