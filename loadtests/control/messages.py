"""What master and workers of a run say to each other. They travel as bytes, inside two messages of Locust's.

    master -> worker   TellTime, Go, CompareClocks, Stop, Drain
    worker -> master   WorkerReport (once a second), WorkerTime, Quiet, Settled

A lone process (`locust -f` without workers) sends them to itself, hence a name for each direction.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct, field

from loadtests.sealing.records import KIND_NAMES

TO_WORKER: Final = "relaymark.to-worker"
TO_MASTER: Final = "relaymark.to-master"
"""The names that Locust knows them by."""


class Go(Struct, frozen=True, kw_only=True, tag=True):
    """The load begins `lead_ns` from now; `clock` names the worker's clock in stamps."""

    lead_ns: int
    clock: int
    offsets_ns: list[tuple[int, int]]
    """Pairs for every clock: its name, and the common clock (the relay's, or the master's) less it."""


class CompareClocks(Struct, frozen=True, kw_only=True, tag=True):
    """The clocks as they are estimated now."""

    offsets_ns: list[tuple[int, int]]


class TellTime(Struct, frozen=True, kw_only=True, tag=True):
    """What does the worker's clock say? Asked where several clocks stamp and the relay tells no time; by the master's."""

    sent_ns: int


class Stop(Struct, frozen=True, kw_only=True, tag=True):
    """Send nothing new. `cut`: the load is cut short; otherwise what was due before its end is still sent."""

    cut: bool


class Drain(Struct, frozen=True, kw_only=True, tag=True):
    """Everybody has fallen quiet: what is still owed may come, then settle. `finals`: `Finals.to_wire()`."""

    finals: list[Any]


def _per_kind() -> list[int]:
    return [0] * len(KIND_NAMES)


class WorkerCounts(Struct, frozen=True, kw_only=True):
    """What a worker has counted since the run began; the lists are by kind. See loadtests.driver for each."""

    due: list[int] = field(default_factory=_per_kind)
    sent: list[int] = field(default_factory=_per_kind)
    acknowledged: list[int] = field(default_factory=_per_kind)
    refused: list[int] = field(default_factory=_per_kind)
    sealed_bytes: list[int] = field(default_factory=_per_kind)
    received: int = 0
    skipped: int = 0
    unopened: int = 0
    cuts: int = 0
    events: dict[str, int] = {}


class Status(Struct, frozen=True, kw_only=True):
    """A worker at one moment. CPU in shares of one core: since the last report, and over the load so far."""

    participants: int = 0
    joined: int = 0
    attached: int = 0
    expected_first: int = 0
    joined_first: int = 0
    unsent: int = 0
    unacknowledged: int = 0
    cpu: float = 0.0
    load_cpu: float = 0.0
    rss_bytes: int = 0
    connections: int = 0
    offset_ns: int | None = None
    clock_error_ns: int | None = None
    descriptors_exhausted: int = 0
    ports_exhausted: int = 0
    counts: WorkerCounts = WorkerCounts()


class WorkerReport(Struct, frozen=True, kw_only=True, tag=True):
    """What came in the last second. `intervals`: histograms by series; `fanout`: `SpreadNotes.take()`."""

    second: int
    intervals: dict[str, dict[str, Any]]
    fanout: list[Any]
    clock_id: int
    status: Status


class WorkerTime(Struct, frozen=True, kw_only=True, tag=True):
    """The answer to TellTime: its stamp, and the worker's clock at receipt and at reply."""

    sent_ns: int
    received_ns: int
    replied_ns: int


class Quiet(Struct, frozen=True, kw_only=True, tag=True):
    """Nothing more will be sent. `sent`: `SentLog.to_wire()`."""

    sent: list[Any]


class Settled(Struct, frozen=True, kw_only=True, tag=True):
    """Every account is closed. `settlement`: `Settlement.to_wire()`; `attempts`: of joins and of resumes."""

    settlement: dict[str, Any]
    attempts: dict[str, Any]


ToWorker: TypeAlias = TellTime | Go | CompareClocks | Stop | Drain
ToMaster: TypeAlias = WorkerReport | WorkerTime | Quiet | Settled

_encoder: Final = msgspec.msgpack.Encoder()
_to_worker: Final[msgspec.msgpack.Decoder[ToWorker]] = msgspec.msgpack.Decoder(ToWorker)
_to_master: Final[msgspec.msgpack.Decoder[ToMaster]] = msgspec.msgpack.Decoder(ToMaster)


def encode(message: ToWorker | ToMaster) -> bytes:
    return _encoder.encode(message)


def read_by_worker(data: bytes) -> ToWorker:
    return _to_worker.decode(data)


def read_by_master(data: bytes) -> ToMaster:
    return _to_master.decode(data)
