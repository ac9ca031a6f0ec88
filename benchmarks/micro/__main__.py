"""The list of microbenchmarks, for pyperf. A figure is the time of one item: a record, a delivery, a sample."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import pyperf

from benchmarks.micro import codec, hub, load, stores
from relaymark import child_module

Make = Callable[[], Callable[[], object]]
BENCHMARKS: Final[dict[str, tuple[Make, int]]] = {
    "wire encode, msgspec": (codec.encode_msgspec, 1),
    "wire encode, msgpack": (codec.encode_msgpack, 1),
    "wire decode, msgspec with checks": (codec.decode_msgspec, 1),
    "wire decode, msgpack without": (codec.decode_msgpack, 1),
    "frames in, 16 a read": (codec.frames_in, codec.RECORDS),
    "frame out": (codec.frame_out, 1),
    "mask 1 KiB": (codec.mask_1k, 1),
    "fan-out, a delivery, 1 subscriber": (hub.fan_out_1, hub.BATCH),
    "fan-out, a delivery, 100 subscribers": (hub.fan_out_100, hub.BATCH * 100),
    "fan-out, a delivery, 10000 subscribers": (hub.fan_out_10_000, hub.BATCH * 10_000),
    "outbox, socket accepts": (hub.outbox_direct, 2),
    "outbox, socket full": (hub.outbox_standing, 2),
    **stores.BENCHMARKS,
    "capability, cold": (hub.capability_cold, 1),
    "capability, remembered": (hub.capability_remembered, 1),
    "histogram, one by one": (load.record_one, load.SAMPLES),
    "histogram, array": (load.record_many, load.SAMPLES),
    "histogram, appended and folded": (load.record_folded, load.SAMPLES),
    "schedule, poisson": (load.schedule_poisson, load.SAMPLES),
    "schedule, bursts": (load.schedule_bursts, load.SAMPLES),
}


def _timed(loops: int, make: Make) -> float:
    """Make the subject, which is not timed, and time `loops` calls of it."""
    call = make()
    call()
    started = time.perf_counter()
    for _ in range(loops):
        call()
    return time.perf_counter() - started


def main() -> None:
    """Hand the list to pyperf, which starts this module again for its worker processes."""
    runner = pyperf.Runner(program_args=tuple(child_module("benchmarks.micro")[1:]), add_cmdline_args=_pass_only)
    runner.argparser.description = "Time the parts of the relay and of the load."
    runner.argparser.add_argument("--only", metavar="TEXT", default="", help="benchmarks whose name has this in it")
    only = runner.parse_args().only
    for name, (make, inner_loops) in BENCHMARKS.items():
        if only in name:
            runner.bench_time_func(name, _timed, make, inner_loops=inner_loops)


def _pass_only(command: list[str], arguments: object) -> None:
    if only := getattr(arguments, "only", ""):
        command.extend(("--only", only))


if __name__ == "__main__":
    main()
