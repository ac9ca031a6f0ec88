"""What each module of the relay exports, pinned: a change is seen, and meant."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

EXPORTS = {
    "relay.buckets": "Buckets",
    "relay.capability": (
        "ALL_RIGHTS CAPABILITY_BYTES Capability Right SERIAL_BYTES SIGNATURE_BYTES Verifier franking_tag "
        "handle_of mint parse prove"
    ),
    "relay.errors": ("CLOSE_BASE Code ConfigurationError ProtocolError Refused RelayError StoreUnavailable close_code"),
    "relay.fanout": "Attachment Counters FanOut Group Stream",
    "relay.framing": (
        "BINARY CLOSE CONTINUATION CONTROL_BYTES_MAX Close Event FrameReader FramingError INVALID_DATA PING "
        "PONG PROTOCOL_ERROR Ping Pong TEXT TOO_BIG close_frame encode header split split_all"
    ),
    "relay.hub": "Client Hub inline",
    "relay.metrics": "MetricsServer RelayCollector open_files resident_bytes",
    "relay.outbox": "Chunk DURABLE EPHEMERAL ORDERED Outbox frame_of published_frame",
    "relay.replay": "Client Done Replay Submit look_whether_caught_up",
    "relay.server": "Options TRANSPORTS open_store parse_address serve",
    "relay.session": "Echo Peer Rates Session State",
    "relay.store": (
        "Batch MemoryStore Record Run SECRET_BYTES SqliteStore Store StoreStatistics StreamState Worker joined run_of"
    ),
    "relay.store.base": "Batch Record Run SECRET_BYTES Store StoreStatistics StreamState joined run_of",
    "relay.store.memory": "MemoryStore",
    "relay.store.runs": "PAGE_BYTES blob_bytes pack_handle pack_run unpack_handle unpack_run",
    "relay.store.sqlite": "APPLICATION_ID SCHEMA_VERSION SqliteStore",
    "relay.store.statements": (
        "ACK ERASE EXPIRED FORGET_BODIES FORGET_SPANS HEADS KEEP_HEADS NEW_FIRSTS OLD_FIRSTS RUNS_AFTER "
        "RUNS_BACKWARDS SCHEMA STATE STRADDLING insert"
    ),
    "relay.store.worker": "Worker",
    "relay.transports.base": "Clock Relay describe",
    "relay.transports.handshake": "Answer Handshake",
    "relay.transports.pump": "Pump run serve",
    "relay.transports.tls": "TlsSocket",
    "relay.transports.trio_websocket": "run",
    "relay.transports.uvloop": "run",
    "relay.wheel": "Timed Wheel",
    "relay.window": "Window",
    "relay.wire": (
        "Ack ClientRecord DURABLE EPHEMERAL Ephemeral Erase Erased Error Export Exported ExportedRecord Gap "
        "GoAway Hello Limits Message Publish Published Record RelayRecord SUBPROTOCOL Subscribe Subscribed "
        "Time Timed Unsubscribe Unsubscribed VERSION Welcome bin_header decode_client decode_one_client "
        "decode_one_relay decode_relay encode message_prefix message_suffix split"
    ),
}

WITHOUT = {"relay", "relay.cli", "relay.limits", "relay.transports"}
"""Empty, a command, or nothing but constants."""


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name: str) -> None:
    module: Any = import_module(name)
    assert sorted(module.__all__) == EXPORTS[name].split()
    for exported in module.__all__:
        assert hasattr(module, exported)


def test_every_module_says_what_it_exports() -> None:
    paths = (ROOT / "relay").rglob("*.py")
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    assert names == EXPORTS.keys() | WITHOUT
