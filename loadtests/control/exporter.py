"""The run as Prometheus metrics while it goes on: `loadtest_*`, computed from a snapshot when scraped.

Histograms are classic ones. Deliveries have six bounds to the factor of ten, so that p99.9 can be read within a bucket
of a fifth to a half; the rest have three. Labels are scenario, target, run and, where it says something, kind: never a
stream, a user or an address. With all kinds there are fewer than 500 series.

Source: Prometheus documentation, "Exposition formats" and "Metric and label naming".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from gevent import socket
from gevent.pywsgi import WSGIServer
from msgspec import Struct
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import parse_series_name
from loadtests.results.schema import KindFigures, LedgerColumns

_MANTISSAS_FINE: Final = (100, 150, 200, 300, 450, 700)
_MANTISSAS_COARSE: Final = (100, 200, 500)
DELIVERY_BOUNDS_NS: Final = (
    *(mantissa * 1_000 * 10**decade for decade in range(4) for mantissa in _MANTISSAS_FINE),
    *(seconds * 1_000_000_000 for seconds in (1, 2, 5, 10, 30, 60)),
)
"""0.1 ms to 60 s, 30 bounds."""
OTHER_BOUNDS_NS: Final = (
    *(mantissa * 1_000 * 10**decade for decade in range(4) for mantissa in _MANTISSAS_COARSE),
    *(seconds * 1_000_000_000 for seconds in (1, 5, 10, 60)),
)
"""0.1 ms to 60 s, 16 bounds."""
SERIES_MAX: Final = 500
EVENTS_MAX: Final = 16
"""Events that are shown with their time, the latest; all are counted."""

_MERGED: Final[Mapping[str, tuple[str, str]]] = {
    "ack": ("loadtest_ack_seconds", "From publishing to the relay's acknowledgement."),
    "join": ("loadtest_join_seconds", "From connecting to being subscribed."),
    "resume": ("loadtest_resume_seconds", "From connecting again to having caught up."),
    "lag": ("loadtest_schedule_lag_seconds", "How late the generator sent, against its schedule."),
    "loop_lag": ("loadtest_loop_lag_seconds", "How late the generator's loop ran."),
}
_OUTCOMES: Final = tuple(field for field in LedgerColumns.__struct_fields__ if field != "sent")


class Snapshot(Struct, frozen=True, kw_only=True):
    """The state of a run at one moment, merged over its workers."""

    series: Mapping[str, Histogram]
    kinds: Mapping[str, KindFigures]
    running: bool
    connections: int = 0
    workers: int = 0
    worker_cpu_max: float = 0.0
    """Share of one core that the busiest worker used over the last second."""
    clock_error_ns: int | None = None
    started_unix_ns: int | None = None
    """When the load began; None before."""
    ended_unix_ns: int | None = None
    events: Sequence[tuple[str, int]] = ()
    """What and when (unix, ns): injected faults, and other things worth a mark on a chart."""


class LoadtestCollector(Collector):
    """Turns what `snapshot` returns into samples. Scraping computes; nothing is done in between."""

    def __init__(self, snapshot: Callable[[], Snapshot], *, scenario: str, target: str, run: str) -> None:
        self._snapshot = snapshot
        self.identity = {"scenario": scenario, "target": target, "run": run}

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked for at registration, when there may be no run yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        yield from self._histograms(snapshot.series)
        yield from self._counters(snapshot.kinds)
        yield from self._gauges(snapshot)

    def _histograms(self, series: Mapping[str, Histogram]) -> Iterator[Metric]:
        by_kind: dict[str, Histogram] = {}
        from_send = Histogram()
        merged = {metric: Histogram() for metric in _MERGED}
        negative = 0
        for name, histogram in series.items():
            metric, labels = parse_series_name(name)
            if metric == "deliver" and labels.get("basis") == "sent":
                from_send.merge(histogram)
            elif metric == "deliver":
                by_kind.setdefault(labels.get("kind", "unknown"), Histogram()).merge(histogram)
                negative += histogram.negative_count
            elif metric in merged:
                merged[metric].merge(histogram)

        family = self._histogram("loadtest_delivery_seconds", "From the intended send to the recipient.", "kind")
        for kind, histogram in sorted(by_kind.items()):
            _add(family, self._values(kind), histogram, DELIVERY_BOUNDS_NS)
        yield family
        family = self._histogram("loadtest_delivery_from_send_seconds", "From the actual send to the recipient.")
        _add(family, self._values(), from_send, DELIVERY_BOUNDS_NS)
        yield family
        for metric, (name, text) in _MERGED.items():
            family = self._histogram(name, text)
            _add(family, self._values(), merged[metric], OTHER_BOUNDS_NS)
            yield family
        text = "Deliveries that seem to come before they were sent: the clock error shows."
        yield self._counter("loadtest_negative_samples", text, {(): negative})

    def _counters(self, kinds: Mapping[str, KindFigures]) -> Iterator[Metric]:
        for field, text in (
            ("due", "Sends that the schedule asked for."),
            ("sent", "Sends that were made."),
            ("acknowledged", "Durable sends that the relay acknowledged."),
            ("refused", "Sends that the relay refused."),
        ):
            values: dict[tuple[str, ...], int] = {
                (kind,): getattr(found, field) for kind, found in sorted(kinds.items())
            }
            yield self._counter(f"loadtest_{field}", text, values, "kind")
        yield self._counter(
            "loadtest_ledger",
            "Records by what became of them, summed over recipients.",
            {
                (kind, outcome): getattr(found.ledger, outcome)
                for kind, found in sorted(kinds.items())
                for outcome in _OUTCOMES
            },
            "kind",
            "outcome",
        )

    def _gauges(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield self._counter("loadtest_events", "Faults injected, and other marks.", {(): len(snapshot.events)})
        latest = dict(sorted(snapshot.events, key=lambda event: event[1])[-EVENTS_MAX:])
        times = GaugeMetricFamily("loadtest_event_time_seconds", "When it was, unix time.", labels=self._names("event"))
        for text, at_unix_ns in latest.items():
            times.add_metric(self._values(text), at_unix_ns / 1e9)
        yield times
        gauges: list[tuple[str, str, float]] = [
            ("loadtest_running", "1 while load is offered.", float(snapshot.running)),
            ("loadtest_connections", "Open connections.", snapshot.connections),
            ("loadtest_workers", "Processes that offer the load.", snapshot.workers),
            ("loadtest_worker_cpu_ratio", "Busiest worker's share of one core.", snapshot.worker_cpu_max),
        ]
        if snapshot.clock_error_ns is not None:
            gauges.append(
                ("loadtest_clock_error_seconds", "Bound on the error of one-way times.", snapshot.clock_error_ns / 1e9)
            )
        if snapshot.started_unix_ns is not None:
            gauges.append(("loadtest_start_time_seconds", "When the load began.", snapshot.started_unix_ns / 1e9))
        if snapshot.ended_unix_ns is not None:
            gauges.append(("loadtest_end_time_seconds", "When the load ended.", snapshot.ended_unix_ns / 1e9))
        for name, text, value in gauges:
            gauge = GaugeMetricFamily(name, text, labels=self._names())
            gauge.add_metric(self._values(), value)
            yield gauge

    def _names(self, *more: str) -> list[str]:
        return [*self.identity, *more]

    def _values(self, *more: str) -> list[str]:
        return [*self.identity.values(), *more]

    def _histogram(self, name: str, text: str, *labels: str) -> HistogramMetricFamily:
        return HistogramMetricFamily(name, text, labels=self._names(*labels))

    def _counter(self, name: str, text: str, values: Mapping[tuple[str, ...], int], *labels: str) -> Metric:
        family = CounterMetricFamily(name, text, labels=self._names(*labels))
        for label_values, value in values.items():
            family.add_metric(self._values(*label_values), value)
        return family


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram, bounds_ns: tuple[int, ...]) -> None:
    counts = [*histogram.cumulative(bounds_ns), histogram.count]
    names = [*(repr(bound / 1e9) for bound in bounds_ns), "+Inf"]
    family.add_metric(labels, list(zip(names, map(float, counts), strict=True)), histogram.sum_ns / 1e9)


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of "HOST:PORT", "[::1]:9100" or ":9100" (loopback). ValueError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535 or (":" in host and not host.startswith("[")):
        raise ValueError(f"{text!r} is no HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def _listener(host: str, port: int) -> Any:
    """Bind here, since WSGIServer leaves its socket open where it cannot."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    return listener


def serve(collector: LoadtestCollector, host: str, port: int, relay: Callable[[], str | None] = lambda: None) -> Any:
    """Serve `collector` on http://host:port/metrics from gevent's loop; return the started WSGIServer.

    Its `server_port` is the port that was taken (for port 0), its `stop()` ends it. OSError if it cannot listen.
    /targets tells Prometheus where the relay's own metrics are, with the run's labels: `relay` returns that HOST:PORT
    while the relay runs. Source: Prometheus documentation, "HTTP SD".
    """
    registry = CollectorRegistry()
    registry.register(collector)
    metrics = make_wsgi_app(registry)

    def answer(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/targets":
            return metrics(environ, start_response)
        address = relay()
        found = [{"targets": [address], "labels": collector.identity}] if address else []
        start_response("200 OK", [("Content-Type", "application/json")])
        return [msgspec.json.encode(found)]

    server = WSGIServer(_listener(host, port), answer, log=None)
    server.start()
    return server
