"""Metrics: they parse, they count what happened, and no label tells whom or what."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scripted import NOW_NS, SUBSCRIBE, Client, Net, capability_of, sealed_of, stream_key

from relay import wire
from relay.buckets import Buckets
from relay.errors import Code
from relay.metrics import open_files, resident_bytes
from relay.metrics_server import REQUESTS_MAX, MetricsServer
from relay.store import MemoryStore
from relay.transports.base import Relay


class OneRelay(Net):
    """The clients' net on the hub of a Relay."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(bytes(32)))
        self.relay = Relay(self.store, clock=lambda: NOW_NS)
        self.hub = self.relay.hub


def greeted(net: OneRelay, path: str = "/") -> Client:
    client = Client(net, net.relay.greet(path))
    net.clients.append(client)
    if path == "/":
        client.send(wire.Hello(1))
    return client


@pytest.fixture
def net() -> OneRelay:
    return OneRelay()


@pytest.fixture
def address(net: OneRelay) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = MetricsServer(net.relay, "pump", [listener])
    yield f"http://127.0.0.1:{port}"
    server.close()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, "a sample comes once"
            found[key] = sample.value
    return found


def test_everything_parses_and_has_a_text(address: str) -> None:
    status, text = get(f"{address}/metrics")
    assert status == 200
    families = list(text_string_to_metric_families(text))
    assert len(families) > 20
    for family in families:
        assert family.documentation, family.name
        assert family.name.startswith(("relay_", "process_")), family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name


def test_counters_tell_what_happened(net: OneRelay, address: str) -> None:
    before = samples(get(f"{address}/metrics")[1])
    author, reader = greeted(net), greeted(net)
    number = author.subscribe()[0].number
    reader.subscribe(member=2)
    author.publish(number, 1, 2)
    author.send(wire.Publish(number, 1, 0, None, sealed_of()), wire.Publish(number, 1, 0, None, sealed_of()))
    author.send(wire.Publish(99, 0, 1, None, sealed_of()))
    late = greeted(net)
    late.subscribe(member=3, after=0)
    after = samples(get(f"{address}/metrics")[1])
    expected = {
        "relay_connections": 3,
        "relay_accepted_total": 3,
        "relay_streams": 1,
        "relay_published_total{class=durable}": 2,
        "relay_published_total{class=ephemeral}": 2,
        "relay_deliveries_total": 6,
        "relay_replayed_total": 2,
        "relay_ephemeral_lost_total{reason=superseded}": 2,  # both subscribers missed one
        "relay_refused_total{code=not_subscribed}": 1,
        "relay_commit_seconds_count": after["relay_store_commits_total"],
    }
    assert {name: after[name] - before.get(name, 0) for name in expected} == expected
    assert after["relay_commit_seconds_bucket{le=+Inf}"] == after["relay_commit_seconds_count"] >= 1


def test_queues_show_by_lane(net: OneRelay, address: str) -> None:
    author, reader = greeted(net), greeted(net)
    number = author.subscribe()[0].number
    reader.subscribe(use=SUBSCRIBE, member=2)
    reader.stop()
    author.publish(number, 1)
    author.publish(number, 2)
    author.send(wire.Publish(number, 1, 0, None, sealed_of()))
    shown = samples(get(f"{address}/metrics")[1])
    assert shown["relay_standing_connections"] == 1
    assert shown["relay_queued_bytes{lane=durable}"] > 512
    assert 256 < shown["relay_queued_bytes{lane=ephemeral}"] < 512
    assert shown["relay_lagging_connections"] == 0


def test_no_label_names_a_stream_a_client_or_an_address(net: OneRelay, address: str) -> None:
    author = greeted(net)
    number = author.subscribe()[0].number
    author.publish(number, 1)
    author.send(wire.Publish(99, 0, 1, None, b""))
    text = get(f"{address}/metrics")[1]
    allowed = {"class", "code", "lane", "le", "reason", "transport", "version"}
    labels = {
        name for family in text_string_to_metric_families(text) for sample in family.samples for name in sample.labels
    }
    assert labels <= allowed
    for secret in (bytes(stream_key(1).verify_key), capability_of(), author.peer.challenge):  # type: ignore[attr-defined]
        assert secret.hex() not in text
    assert "127.0.0.1" not in text


def test_every_code_is_there_from_zero_on(address: str) -> None:
    shown = samples(get(f"{address}/metrics")[1])
    codes = {name for name in shown if name.startswith("relay_refused_total{")}
    assert codes == {f"relay_refused_total{{code={code.name.lower()}}}" for code in Code}


def test_health_and_readiness(net: OneRelay, address: str) -> None:
    assert get(f"{address}/healthz") == (200, "alive\n")
    assert get(f"{address}/readyz")[0] == 503
    net.relay.ready = True
    assert get(f"{address}/readyz") == (200, "ready\n")
    net.relay.go_away()
    assert get(f"{address}/readyz")[0] == 503
    assert get(f"{address}/healthz")[0] == 200
    assert get(f"{address}/")[0] == 404


def test_scrapes_are_not_logged(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    get(f"{address}/metrics")
    get(f"{address}/nowhere")
    assert capfd.readouterr() == ("", "")


def test_requests_that_take_long_give_way(net: OneRelay, address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(2 * REQUESTS_MAX)]
    try:
        assert get(f"{address}/healthz") == (200, "alive\n")
        slow[0].settimeout(10)
        assert slow[0].recv(1) == b"", "the oldest was closed"
        assert samples(get(f"{address}/metrics")[1])["relay_scrapes_gave_way_total"] >= REQUESTS_MAX
    finally:
        for one in slow:
            one.close()


def test_buckets_count_every_duration_once() -> None:
    buckets = Buckets()
    durations = (0, 1, 16_383, 16_384, 16_385, 10**9, 10**12)
    for duration_ns in durations:
        buckets.add(duration_ns)
    rows = buckets.cumulative()
    assert buckets.count() == len(durations)
    assert buckets.sum_ns == sum(durations)
    counts = [count for _, count in rows]
    assert counts == sorted(counts)
    for bound_s, count in rows:
        below = sum(duration_ns < bound_s * 1e9 for duration_ns in durations)
        assert count == below
    assert rows[-1][1] == len(durations) - 1, "the last only shows in +Inf"


def test_resident_memory_is_of_this_process() -> None:
    assert 10_000_000 < resident_bytes() < 10_000_000_000


def test_open_descriptors_are_counted() -> None:
    before = open_files()
    opened = [socket.socket() for _ in range(5)]
    try:
        assert open_files() == before + 5
    finally:
        for one in opened:
            one.close()
    assert open_files() == before
