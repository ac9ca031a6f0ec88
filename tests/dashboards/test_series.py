"""How many series a scrape of the relay has does not depend on who is connected; the harness's are bounded in its own tests."""

from __future__ import annotations

from exposed import page

from relay.errors import Code
from relay.metrics import RelayCollector
from relay.store import MemoryStore
from relay.transports.base import Relay

SERIES_MAX = 200


def series_of(relay: Relay) -> list[str]:
    text = page(RelayCollector(relay, "pump"))
    return [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]


def test_ten_thousand_connections_and_every_refusal_stay_under_the_bound() -> None:
    relay = Relay(MemoryStore(bytes(32)))
    idle = series_of(relay)
    for _ in range(10_000):
        relay.greet("/")
    for code in Code:
        relay.hub.counters.refused[code.name] = 1
    busy = series_of(relay)
    assert busy == idle
    assert len(set(busy)) == len(busy) < SERIES_MAX
