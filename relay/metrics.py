"""Snapshots of the relay as Prometheus samples.

Nothing is counted for Prometheus' sake: the relay keeps plain integers, and a scrape turns them into samples. No label
names a stream, a client or an address.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.buckets import Buckets
from relay.errors import Code
from relay.transports.base import Relay

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return this process's resident memory; Linux /proc, elsewhere its peak."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * PAGE_BYTES
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def open_files() -> int:
    """Return how many descriptors are open. From Linux 6.2 on the folder's size says so; listing 10,000 takes 20 ms."""
    folder = "/proc/self/fd"
    return os.stat(folder).st_size or len(os.listdir(folder))


class RelayCollector(Collector):
    """Reads a Relay when Prometheus asks."""

    def __init__(self, relay: Relay, transport: str) -> None:
        self._relay = relay
        self._transport = transport

    def collect(self) -> Iterator[Metric]:
        relay = self._relay
        hub = relay.hub
        counters = hub.counters
        store = relay.store.statistics()
        yield _info("relay_build_info", "What runs", {"transport": self._transport})
        yield GaugeMetricFamily("relay_ready", "1 while new connections are served", value=int(relay.is_ready))
        yield GaugeMetricFamily("relay_connections", "Open connections", value=len(relay.peers))
        yield GaugeMetricFamily("relay_store_bytes", "What the store holds", value=store.held_bytes)
        yield GaugeMetricFamily("relay_store_bytes_max", "What it may hold", value=store.held_bytes_max)
        yield GaugeMetricFamily("relay_store_streams", "Streams that the store knows", value=store.streams)
        yield GaugeMetricFamily("relay_streams", "Streams in memory", value=len(hub.streams))
        yield GaugeMetricFamily("relay_streams_max", "Streams that may be in memory", value=hub.streams_max)
        yield GaugeMetricFamily(
            "relay_incomplete_bytes", "Bytes of messages that are not whole yet", value=hub.budget.incomplete_bytes
        )
        yield CounterMetricFamily("relay_accepted", "WebSocket handshakes that succeeded", value=relay.accepted)
        yield CounterMetricFamily("relay_rejected", "Connections that failed their handshake", value=relay.rejected)
        yield CounterMetricFamily(
            "relay_handshakes_gave_way", "Handshakes that took long and gave way to new ones", value=relay.gave_way
        )
        yield CounterMetricFamily(
            "relay_refused_accepts",
            "Times that the system had no descriptor for a connection",
            value=relay.accepts_refused,
        )
        yield CounterMetricFamily(
            "relay_scrapes_gave_way", "Requests for metrics that gave way to newer ones", value=relay.scrapes_gave_way
        )
        published = CounterMetricFamily("relay_published", "Records taken from publishers", labels=["class"])
        published.add_metric(["durable"], counters.published_durable)
        published.add_metric(["ephemeral"], counters.published_ephemeral)
        yield published
        for name, text, value in (
            ("deliveries", "Records given to live subscribers", counters.deliveries),
            ("replayed", "Records replayed from the store", counters.replayed),
            ("gaps", "GAP records sent: a client missed what is no longer held", counters.gaps),
            ("received_bytes", "Bytes read from clients, after TLS", counters.received_bytes),
            ("sent_bytes", "Bytes written to clients, before TLS", counters.sent_bytes),
            ("lagging", "Times that a client fell behind and was replayed from the store", counters.lagging),
            ("slow_closed", "Clients closed for not taking their records", counters.slow_closed),
            ("rests", "Times that a connection was not read since its rate was used up", hub.budget.rests),
            ("erased_streams", "Streams erased by their owners", counters.erased),
            ("commit_failures", "Batches that the store refused", counters.commit_failures),
            ("read_failures", "Reads that the store refused", counters.read_failures),
            ("capability_hits", "Capabilities that were remembered", hub.verifier.hits),
            ("capability_misses", "Capabilities whose signature was checked", hub.verifier.misses),
            ("capability_refusals", "Capabilities refused", hub.verifier.refusals),
            ("store_commits", "Batches committed", store.commits),
            ("store_trimmed_records", "Records forgotten by age, acknowledgement or space", store.trimmed),
            ("store_damaged_rows", "Stored rows that were found altered or unreadable", store.damaged),
            ("store_full_runs", "Runs of records refused because their stream or the store was full", store.full),
        ):
            yield CounterMetricFamily(f"relay_{name}", text, value=value)
        dropped = CounterMetricFamily("relay_ephemeral_lost", "States that a subscriber did not get", labels=["reason"])
        dropped.add_metric(["superseded"], counters.ephemeral_superseded)
        dropped.add_metric(["dropped"], counters.ephemeral_dropped)
        yield dropped
        refused = CounterMetricFamily("relay_refused", "Requests refused, by code", labels=["code"])
        for code in Code:  # from zero on: the increase over a window must not miss a code's first refusals
            refused.add_metric([code.name.lower()], counters.refused.get(code.name, 0))
        yield refused
        yield _histogram("relay_commit_seconds", "From taking a batch to its commit", hub.sequencer.commit_times)
        yield _histogram(
            "relay_turn_seconds", "How long one turn of the loop kept the others waiting", relay.turn_times
        )
        yield GaugeMetricFamily("relay_loop_lag_seconds", "How late the last timer was", value=relay.loop_lag_ns / 1e9)
        yield GaugeMetricFamily(
            "relay_commit_waiting_bytes", "Durable bytes not yet taken", value=hub.sequencer.waiting_bytes
        )
        yield from _outbox_metrics(relay)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory", value=resident_bytes())
        yield CounterMetricFamily("process_cpu_seconds", "CPU time, user and system", value=time.process_time())
        yield GaugeMetricFamily("process_open_fds", "Open descriptors", value=open_files())


def _outbox_metrics(relay: Relay) -> Iterator[Metric]:
    standing = lagging = control = durable = ephemeral = 0
    for peer in list(relay.peers):
        lanes = peer.box.standing
        if lanes is not None:
            standing += 1
            control += lanes.control_bytes + len(lanes.rest)
            durable += lanes.durable_bytes
            ephemeral += lanes.ephemeral_bytes
        lagging += peer.box.lagging
    yield GaugeMetricFamily("relay_standing_connections", "Connections whose socket takes no more", value=standing)
    yield GaugeMetricFamily("relay_lagging_connections", "Connections replayed from the store", value=lagging)
    queued = GaugeMetricFamily("relay_queued_bytes", "Bytes that wait in outboxes", labels=["lane"])
    queued.add_metric(["control"], control)
    queued.add_metric(["durable"], durable)
    queued.add_metric(["ephemeral"], ephemeral)
    yield queued


def _histogram(name: str, text: str, buckets: Buckets) -> Metric:
    rows = [(repr(bound), float(count)) for bound, count in buckets.cumulative()]
    rows.append(("+Inf", float(buckets.count())))
    family = HistogramMetricFamily(name, text)
    family.add_metric([], rows, buckets.sum_ns / 1e9)
    return family


def _info(name: str, text: str, labels: dict[str, str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family
