"""What one worker process of the load harness takes: deliveries a second, parsed and opened, and connections.

    python -m benchmarks.swarm_throughput [--seconds 3] [--json]

The reference relay runs on the first core, this process on the second. A publisher keeps a few records under way in a
room of 500; as every subscriber is in this process, the room can be no faster than this process drains it. Shown are
(a) deliveries that are parsed and counted, (b) deliveries that participants of the harness open, check, enter into the
ledger and record, and (c) how many connections the loop holds, with the lag of its loop meanwhile.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402  # gevent must come first
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Final  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

from loadtests.address import Address  # noqa: E402
from loadtests.dialects.base import Attach, Place, Published, Ready, Reply, Subscribed  # noqa: E402
from loadtests.dialects.reference import Reference  # noqa: E402
from loadtests.driver.event_loop import EventLoop  # noqa: E402
from loadtests.driver.population import Population  # noqa: E402
from loadtests.driver.publisher import Due  # noqa: E402
from loadtests.driver.sockets import allow_descriptors  # noqa: E402
from loadtests.measuring.histogram import Histogram  # noqa: E402
from loadtests.sealing.envelope import Keyring, Suite  # noqa: E402
from loadtests.sealing.records import Kind  # noqa: E402
from loadtests.settings import Settings  # noqa: E402
from loadtests.target.reference_relay import ReferenceRelay  # noqa: E402
from relay.capability import Right  # noqa: E402

SUBSCRIBERS: Final = 500
WINDOW: Final = 8
CONNECTIONS: Final = 8_000
PATIENCE_S: Final = 60.0
GOALS: Final = {"parsed_per_s": 250_000, "opened_per_s": 40_000, "connections": CONNECTIONS}


class Counting:
    """A subscriber that parses and counts; with `window` a publisher that keeps so many records under way."""

    def __init__(
        self, loop: EventLoop, address: Address, attach: Attach | None, sealed: bytes = b"", window: int = 0
    ) -> None:
        self._dialect = Reference(Place(host=f"{address.host}:{address.port}"))
        self._attach = attach
        self._sealed = sealed
        self._window = window
        self.published = 0
        self.acknowledged = 0
        self.count = 0
        self.ready = False
        self._connection = loop.connect(self, address.numeric())

    def connected(self, now_ns: int) -> None:
        self._connection.send(self._dialect.opening())

    def received(self, data: bytes, now_ns: int) -> None:
        for event in self._dialect.receive(data):
            if type(event) is tuple:
                self.count += 1
            elif isinstance(event, Published):
                self.acknowledged += 1
                self._publish()
            elif isinstance(event, Reply):
                self._connection.send(event.data)
            elif isinstance(event, Ready) and self._attach is not None:
                self._connection.send(self._dialect.subscribe(self._attach))
            elif isinstance(event, Ready | Subscribed):
                self.ready = True

    def begin(self) -> None:
        for _ in range(self._window):
            self._publish()

    def _publish(self) -> None:
        if self._window:
            self.published += 1
            self._connection.send(self._dialect.publish(1, self.published, self._sealed))

    def stop(self) -> None:
        self._window = 0

    def closed(self, reason: str, now_ns: int) -> None:
        sys.stderr.write(f"closed: {reason}\n")


def _wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > end:
            raise SystemExit("the relay did not take part in time")
        gevent.sleep(0.01)


def _rate(counted: Callable[[], int], seconds: float) -> tuple[float, float]:
    """Return (per second, CPU share of this process) over `seconds`, after a moment to get going."""
    gevent.sleep(0.5)
    began, cpu, before = time.perf_counter(), time.process_time(), counted()
    gevent.sleep(seconds)
    took = time.perf_counter() - began
    return (counted() - before) / took, (time.process_time() - cpu) / took


def parsed(address: Address, seconds: float) -> dict[str, Any]:
    """Subscribers that parse and count."""
    loop = EventLoop()
    loop.start()
    keyring = Keyring(1, f"parsed-{time.time_ns()}")
    sealed = keyring.sealer(Suite.SENDER_KEY, 1, 0).seal(Kind.MESSAGE, 1, 0, 0)

    def attach(member: int, rights: int) -> Attach:
        expires_s = int(time.time()) + 3600
        capability = keyring.capability(1, member, rights, expires_s=expires_s)
        return Attach(stream=1, name=keyring.stream_name(1), use=rights, capability=capability)

    everyone = [Counting(loop, address, attach(member, int(Right.SUBSCRIBE))) for member in range(1, SUBSCRIBERS + 1)]
    publisher = Counting(loop, address, attach(0, int(Right.PUBLISH)), sealed, WINDOW)
    _wait(lambda: publisher.ready and all(one.ready for one in everyone))
    publisher.begin()
    rate, cpu = _rate(lambda: sum(one.count for one in everyone), seconds)
    publisher.stop()
    # A figure that looks too good must still add up: every subscriber got every record once.
    _wait(lambda: all(one.count >= publisher.acknowledged == publisher.published for one in everyone))
    gevent.sleep(0.1)
    exact = {one.count for one in everyone} == {publisher.published}
    loop.stop()
    return {"parsed_per_s": round(rate), "parsed_cpu": round(cpu, 3), "parsed_exactly_once": exact}


def opened(address: Address, seconds: float) -> dict[str, Any]:
    """Participants of the scenario `room`, whose performer publishes as fast as it is acknowledged."""
    settings = Settings(
        scenario="room",
        url=address.url,
        participants=SUBSCRIBERS,
        rate=0.001,
        duration_s=3600.0,
        run=f"{time.time_ns()}",
    )
    population = Population(settings, worker=0)
    population.open()
    for index in range(SUBSCRIBERS):
        population.enter(index)
    _wait(lambda: population.context.presence.joined == SUBSCRIBERS)
    room = next(plan for plan in population.context.workload.streams if plan.purpose == "room")
    performer = population.participants[room.owner]
    population.begin(time.monotonic_ns(), 1)
    running = True

    def keep_going(_due_ns: int, now_ns: int) -> None:
        while running and performer.publisher.unacknowledged < WINDOW:
            performer.publish(Due(room.index, Kind.MESSAGE, True, 0, b"", now_ns))
        if running:
            population.context.loop.at(now_ns + 200_000, keep_going)

    population.context.loop.at(0, keep_going)
    folding = gevent.spawn(_fold_for_ever, population)
    rate, cpu = _rate(lambda: population.context.counts.received, seconds)
    running = False
    population.stop()
    _wait(lambda: performer.publisher.unacknowledged == 0)
    population.drain(population.context.ledger.sent_log().finals())
    _wait(lambda: population.gone)
    folding.kill()
    log = population.context.ledger.sent_log()
    totals = population.context.ledger.settle(log.finals()).totals(log)
    population.close()
    return {
        "opened_per_s": round(rate),
        "opened_cpu": round(cpu, 3),
        "opened_lost": totals.lost,
        "opened_reconciled": totals.reconciled,
    }


def _fold_for_ever(population: Population) -> None:
    while True:
        gevent.sleep(1)
        population.recorder.fold(time.monotonic_ns())


def held(address: Address, seconds: float) -> dict[str, Any]:
    """Connections that have been greeted and then stay."""
    lags = Histogram()
    loop = EventLoop(on_tick=lags.record)
    loop.start()
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    everyone = [Counting(loop, address, None) for _ in range(CONNECTIONS)]
    _wait(lambda: all(one.ready for one in everyone))
    took = time.perf_counter() - began
    size = psutil.Process().memory_info().rss - before
    lags.__init__()  # type: ignore[misc]  # the lag of the connecting is not that of the holding
    gevent.sleep(seconds)
    connections = len(loop)
    loop.stop()
    return {
        "connections": connections,
        "connect_s": round(took, 2),
        "bytes_a_connection": size // CONNECTIONS,
        "idle_loop_lag_p99_us": round(lags.percentile(99) / 1e3, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    allow_descriptors()
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, Any] = {}
    for measure in (parsed, opened, held):
        with tempfile.TemporaryDirectory() as folder:
            relay = ReferenceRelay(Path(folder), cores={cores[0]} if len(cores) > 1 else None)
            try:
                address = relay.start()
                os.sched_setaffinity(0, set(cores[1:2] or cores))
                began = relay.usage()
                start = time.monotonic_ns()
                found |= measure(address, options.seconds)
                ended = relay.usage()
                if began and ended:
                    share = (ended.cpu_ns - began.cpu_ns) / (time.monotonic_ns() - start)
                    found[f"{measure.__name__}_relay_cpu"] = round(share, 3)
            finally:
                relay.stop()
    if options.json:
        print(json.dumps(found))
        return 0
    if len(cores) < 2:
        print("one core: relay and worker share it, so these figures are of both")
    for name, value in found.items():
        goal = GOALS.get(name)
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        print(f"{name:24}{shown!s:>12}" + (f"   goal {goal:,}" if goal else ""))
    return 0 if found["parsed_exactly_once"] and all(found[name] >= goal for name, goal in GOALS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
