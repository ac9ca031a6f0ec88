"""Addresses, and a relay as a child process that starts, is observed and ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from loadtests.address import Address, TargetError, parse_url
from loadtests.settings import Settings
from loadtests.target.greeting import greet
from loadtests.target.reference_relay import ReferenceRelay


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://127.0.0.1:8765", Address(host="127.0.0.1", port=8765, tls=False)),
        ("wss://relay.example/chat", Address(host="relay.example", port=443, tls=True, path="/chat")),
        ("ws://[::1]:9/", Address(host="::1", port=9, tls=False)),
        ("ws://host", Address(host="host", port=80, tls=False)),
        ("tcp://host:6379", Address(host="host", port=6379, tls=False, websocket=False)),
        ("redis://[::1]", Address(host="::1", port=6379, tls=False, websocket=False)),
        ("rediss://host:7", Address(host="host", port=7, tls=True, websocket=False)),
        (
            "ws://Bücher.example:80/päth a",
            Address(host="xn--bcher-kva.example", port=80, tls=False, path="/p%C3%A4th%20a"),
        ),
        ("ws://日本.example", Address(host="xn--wgv71a.example", port=80, tls=False)),
        ("ws://host/a%20b/%C3%A4;c=1", Address(host="host", port=80, tls=False, path="/a%20b/%C3%A4;c=1")),
        ("ws://host./\udcff", Address(host="host.", port=80, tls=False, path="/%FF")),
    ],
)
def test_addresses_are_read(url: str, address: Address) -> None:
    assert parse_url(url) == address
    assert parse_url(address.url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:80",
        "http://x",
        "ws://",
        "ws://x:port",
        "ws://x:70000",
        "ws://me:secret@x",
        "ws://x/?y=1",
        "ws://x/#y",
        "tcp://x",
        "ws://x:0",
        "wss://x:00/",
        "redis://x:0",
        "ws://[::1",
        "ws://a b:80",
        "ws://a..b:80",
        f"ws://{'a' * 64}.example",
        f"ws://{'ä' * 64}.example",
        "ws://b%C3%BCcher:80",
        "ws://x\u2100y",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(
        ValueError, match=r"no address|no valid port|names no port|no user, query|names no host|not the name"
    ):
        parse_url(url)


@pytest.mark.process
def test_a_relay_is_started_observed_and_stopped(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    relay = ReferenceRelay(tmp_path, tls=True, cores={core})
    address = relay.start()
    assert address.tls
    assert os.sched_getaffinity(relay.pid) == {core}
    greet(Settings(scenario="room", url=address.url, participants=2, own_certificate=True))
    usage = relay.usage()
    assert usage is not None
    assert usage.rss_bytes > 1_000_000
    assert relay.statistics()["relay_accepted_total"] >= 1
    assert relay.stop() == 0
    assert relay.usage() is None
    assert relay.statistics() == {}


@pytest.mark.process
def test_a_relay_that_stands_still_is_stopped_all_the_same(tmp_path: Path) -> None:
    relay = ReferenceRelay(tmp_path)
    relay.start()
    os.kill(relay.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert relay.stop() == 0
    assert time.monotonic() - began < 10


@pytest.mark.process
def test_a_relay_that_does_not_start_leaves_its_last_words(tmp_path: Path) -> None:
    relay = ReferenceRelay(tmp_path, store="sqlite:/no/such/folder/relay.sqlite")
    with pytest.raises(TargetError, match="ended with code 104") as error:
        relay.start()
    assert "/no/such/folder" in str(error.value)
    assert relay.exit_code() == 104
