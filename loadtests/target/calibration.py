"""The floor of the rig: round trips to an echo by the same loop, on the same core, before the load.

What a message takes beyond half of this is the relay's doing; what it takes up to this, any relay would show here. The
reference relay has an echo of its own; for any other, a reference relay is started for it alone.
"""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from time import monotonic_ns
from typing import Final, NamedTuple

import gevent
from gevent.event import Event

from loadtests.address import Address, TargetError, client_context
from loadtests.dialects.frames import FrameReader, Handshake, HandshakeError, client_frame
from loadtests.driver.connection import Connection
from loadtests.driver.event_loop import EventLoop
from loadtests.measuring.histogram import Histogram
from loadtests.settings import Settings
from loadtests.target.reference_relay import ReferenceRelay

CONNECTIONS: Final = 8
ROUNDS: Final = 100
PACE_NS: Final = 5_000_000
"""Round trips a connection: an idle rig, as the floor is what an unloaded one takes."""
PAYLOAD: Final = bytes(256)
"""As a small sealed record."""
PATIENCE_S: Final = 5.0


class _Pinger:
    """One connection that sends a frame, waits for it, and sends the next when its time has come."""

    def __init__(self, loop: EventLoop, address: Address, histogram: Histogram, done: Event) -> None:
        self._loop = loop
        self._shake = Handshake(f"{address.host}:{address.port}", "/echo", None, random.getrandbits)
        self._reader: FrameReader | None = None
        self._histogram = histogram
        self.done = done
        self._sent_ns = 0
        self._left = ROUNDS
        self.connection: Connection = loop.connect(self, address.numeric())

    def connected(self, now_ns: int) -> None:
        self.connection.send(self._shake.request)

    def received(self, data: bytes, now_ns: int) -> None:
        if self._reader is None:
            try:
                rest = self._shake.feed(data)
            except HandshakeError:
                self.done.set()
                return
            if rest is None:
                return
            self._reader = FrameReader()
            data = rest
            self._ping(0, now_ns)
        for item in self._reader.feed(data) if data else ():
            if isinstance(item, bytes):
                self._histogram.record(now_ns - self._sent_ns)
                self._left -= 1
                if not self._left:
                    self.done.set()
                    return
                self._loop.at(self._sent_ns + PACE_NS, self._ping)

    def _ping(self, _due_ns: int, _now_ns: int) -> None:
        frame = client_frame(PAYLOAD, random.getrandbits(32))
        self._sent_ns = monotonic_ns()
        self.connection.send(frame)

    def closed(self, reason: str, now_ns: int) -> None:
        self.done.set()


class Floor(NamedTuple):
    """Round trips in ns, None if they could not be had; `note`: what a reader must know of them."""

    histogram: Histogram | None
    note: str = ""


def floor(settings: Settings, folder: Path, cores: set[int] | None) -> Floor:
    """Measure the floor for the target of `settings`; call inside gevent.

    Where the target has no echo, one is started on `cores`, with its log in a folder within `folder`.
    """
    address = settings.address
    if settings.dialect == "reference" and address.websocket:
        histogram = calibrate(address, settings.client_context())
        if histogram is not None:
            return Floor(histogram)
    echo_folder = folder / "echo"
    echo_folder.mkdir()
    relay = ReferenceRelay(echo_folder, tls=address.tls, cores=cores)
    try:
        local = relay.start()
        context = client_context(None, own=True) if local.tls else None
        return Floor(
            calibrate(local, context),
            "the target has no echo: the floor of this rig is that of the reference relay's, on this machine and without"
            " the network to the target",
        )
    except TargetError:
        return Floor(None, "the floor of this rig is not known: the target has no echo, and none could be started here")
    finally:
        relay.stop()


def calibrate(address: Address, context: ssl.SSLContext | None) -> Histogram | None:
    """Return the round trips to the /echo at `address` in ns; None where it has none. Call inside gevent."""
    loop = EventLoop(tls=context, server_name=address.host if context else None)
    loop.start()
    histogram = Histogram()
    pingers = [_Pinger(loop, address, histogram, Event()) for _ in range(CONNECTIONS)]
    with gevent.Timeout(PATIENCE_S, False):
        for pinger in pingers:
            pinger.done.wait()
    loop.stop()
    return histogram if histogram.count else None
