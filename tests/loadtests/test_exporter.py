"""The exposition parses, agrees with the histograms, and stays small with every kind there is."""

from __future__ import annotations

import json
from itertools import pairwise

import gevent
import pytest
from gevent import socket
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sample_results import recorder, result

from loadtests.control.exporter import (
    DELIVERY_BOUNDS_NS,
    EVENTS_MAX,
    OTHER_BOUNDS_NS,
    SERIES_MAX,
    LoadtestCollector,
    Snapshot,
    parse_address,
    serve,
)
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.results.schema import KindFigures
from loadtests.sealing.records import KIND_NAMES

IDENTITY = {"scenario": "evening-peak", "target": "reference", "run": "r1"}


def snapshot() -> Snapshot:
    return Snapshot(
        series=recorder().totals,
        kinds=result().kinds,
        running=True,
        connections=400,
        workers=2,
        worker_cpu_max=0.5,
        clock_error_ns=20_000,
        started_unix_ns=1_000_000_000_000_000_000,
        ended_unix_ns=1_000_000_030_000_000_000,
        events=[("the relay was stopped", 1_000_000_010_500_000_000)],
    )


def scrape(taken: Snapshot) -> list[Sample]:
    registry = CollectorRegistry()
    registry.register(LoadtestCollector(lambda: taken, **IDENTITY))
    text = generate_latest(registry).decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def test_the_exposition_parses_and_names_follow_the_conventions() -> None:
    samples = scrape(snapshot())
    assert len({(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.name.startswith("loadtest_")
        assert sample.labels.keys() <= {*IDENTITY, "kind", "outcome", "event", "le"}
        assert IDENTITY.items() <= sample.labels.items()


def test_all_kinds_together_stay_under_the_bound() -> None:
    full = snapshot()
    one = Histogram()
    one.record(1_000_000)
    series = dict(full.series)
    for kind in KIND_NAMES:
        for metric, basis in (("deliver", "intended"), ("deliver", "sent"), ("ack", "")):
            labels = {"kind": kind} | ({"basis": basis} if basis else {})
            series[series_name(metric, **labels)] = one
    everything = Snapshot(
        series=series,
        kinds=dict.fromkeys(KIND_NAMES, KindFigures()),
        running=True,
        clock_error_ns=1,
        started_unix_ns=1,
        ended_unix_ns=2,
        events=[(f"event {number}", number) for number in range(2 * EVENTS_MAX)],
    )
    samples = scrape(everything)
    assert len(samples) < SERIES_MAX
    shown = {sample.labels["event"] for sample in samples if "event" in sample.labels}
    assert shown == {f"event {number}" for number in range(EVENTS_MAX, 2 * EVENTS_MAX)}, "the latest"


def test_buckets_count_what_the_histogram_holds() -> None:
    taken = snapshot()
    histogram = taken.series[series_name("deliver", kind="tip", basis="intended")]
    mine = [sample for sample in scrape(taken) if sample.labels.get("kind") == "tip"]
    buckets = [sample for sample in mine if sample.name == "loadtest_delivery_seconds_bucket"]
    assert len(buckets) == len(DELIVERY_BOUNDS_NS) + 1
    assert [sample.value for sample in buckets] == [*histogram.cumulative(DELIVERY_BOUNDS_NS), histogram.count]
    assert [float(sample.labels["le"]) for sample in buckets[:-1]] == [bound / 1e9 for bound in DELIVERY_BOUNDS_NS]
    (total,) = [sample.value for sample in mine if sample.name == "loadtest_delivery_seconds_sum"]
    assert total == pytest.approx(histogram.sum_ns / 1e9)


def test_counters_and_gauges_carry_the_snapshot() -> None:
    values = {
        (sample.name, sample.labels.get("kind"), sample.labels.get("outcome")): sample.value
        for sample in scrape(snapshot())
    }
    assert values["loadtest_ledger_total", "tip", "boundary"] == 5
    assert values["loadtest_due_total", "tip", None] == 121
    assert values["loadtest_sent_total", "tip", None] == 120
    assert values["loadtest_negative_samples_total", None, None] == 3
    assert values["loadtest_events_total", None, None] == 1
    assert values["loadtest_event_time_seconds", None, None] == 1_000_000_010.5
    assert values["loadtest_start_time_seconds", None, None] == 1_000_000_000
    assert values["loadtest_end_time_seconds", None, None] == 1_000_000_030
    assert values["loadtest_running", None, None] == 1
    assert values["loadtest_connections", None, None] == 400
    assert values["loadtest_worker_cpu_ratio", None, None] == 0.5
    assert values["loadtest_clock_error_seconds", None, None] == pytest.approx(20e-6)
    assert values["loadtest_ack_seconds_count", None, None] == 360, "kinds are merged where only one line is wanted"


def test_before_the_first_sample_there_are_zeros_and_no_invention() -> None:
    samples = scrape(Snapshot(series={}, kinds={}, running=False))
    assert {sample.value for sample in samples} == {0}
    unknown = {"loadtest_clock_error_seconds", "loadtest_start_time_seconds", "loadtest_end_time_seconds"}
    assert not unknown & {sample.name for sample in samples}


@pytest.mark.parametrize("bounds", [DELIVERY_BOUNDS_NS, OTHER_BOUNDS_NS])
def test_bounds_ascend_and_p999_falls_into_a_narrow_bucket(bounds: tuple[int, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))
    assert (bounds[0], bounds[-1]) == (100_000, 60_000_000_000)
    if bounds is DELIVERY_BOUNDS_NS:
        below_a_second = [bound for bound in bounds if bound <= 10**9]
        ratios = [high / low for low, high in pairwise(below_a_second)]
        assert max(ratios) <= 1.56


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:1", ("::1", 1)),
        ("h:65535", ("h", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "9100", "host", "host:", "host:x", "host:65536", "host:-1", "::1:9100"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no HOST:PORT"):
        parse_address(text)


def fetch(port: int, path: str) -> tuple[bytes, bytes]:
    with gevent.Timeout(10), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
        answer = b""
        while chunk := client.recv(65_536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    return head, body


def test_it_is_served_over_http_from_gevents_loop() -> None:
    server = serve(LoadtestCollector(snapshot, **IDENTITY), "127.0.0.1", 0)
    try:
        head, body = fetch(server.server_port, "/metrics")
        with pytest.raises(OSError, match="in use"):
            serve(LoadtestCollector(snapshot, **IDENTITY), "127.0.0.1", server.server_port)
    finally:
        server.stop()
    assert b"text/plain" in head
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {"loadtest_delivery_seconds", "loadtest_ledger", "loadtest_running"} <= names


def test_prometheus_is_told_where_the_relay_is_while_it_runs() -> None:
    addresses = ["127.0.0.1:9", None]
    server = serve(LoadtestCollector(snapshot, **IDENTITY), "127.0.0.1", 0, lambda: addresses.pop(0))
    try:
        head, running = fetch(server.server_port, "/targets")
        _, stopped = fetch(server.server_port, "/targets")
    finally:
        server.stop()
    assert b"application/json" in head
    assert json.loads(running) == [{"targets": ["127.0.0.1:9"], "labels": IDENTITY}]
    assert json.loads(stopped) == []
