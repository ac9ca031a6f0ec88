"""What relay and harness export, taken from their collectors without starting anything."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from loadtests.control.exporter import LoadtestCollector, Snapshot
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.results.schema import KindFigures
from loadtests.sealing.records import KIND_NAMES
from relay.metrics import RelayCollector
from relay.store import MemoryStore
from relay.transports.base import Relay


def page(collector: Collector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def relay_page() -> str:
    return page(RelayCollector(Relay(MemoryStore(bytes(32))), "pump"))


def loadtest_page() -> str:
    snapshot = Snapshot(
        series={series_name("deliver", kind="message", basis="intended"): Histogram()},
        kinds=dict.fromkeys(KIND_NAMES[1:], KindFigures()),
        running=True,
        clock_error_ns=0,
        started_unix_ns=1,
        ended_unix_ns=2,
        events=[("the relay was stopped", 1)],
    )
    return page(LoadtestCollector(lambda: snapshot, scenario="room", target="reference", run="a"))


def sample_names(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
