"""What others took of a core is what is left of it."""

from __future__ import annotations

import os

import pytest

from benchmarks.rig.processes import Cores
from benchmarks.rig.usage import CoreUsage, Meter, core_busy_ns, cpu_ns, resident_bytes, run_time_ns

APART = CoreUsage(elapsed_ns=100, server_ns=50, load_ns=20, server_core_ns=60, load_core_ns=40, shared=False)


def test_shares_are_of_one_core() -> None:
    assert (APART.server, APART.load, APART.others, APART.others_on_load) == (0.5, 0.2, 0.1, 0.2)


def test_on_one_core_the_load_is_no_other() -> None:
    together = CoreUsage(elapsed_ns=100, server_ns=50, load_ns=20, server_core_ns=90, load_core_ns=90, shared=True)
    assert together.others == together.others_on_load == pytest.approx(0.2)


def test_ticks_that_were_counted_elsewhere_make_no_negative_share() -> None:
    behind = CoreUsage(elapsed_ns=100, server_ns=50, load_ns=20, server_core_ns=45, load_core_ns=10, shared=False)
    assert (behind.others, behind.others_on_load) == (0, 0)


def test_blocks_add_up() -> None:
    both = APART + APART
    assert (both.elapsed_ns, both.others) == (200, APART.others)


def test_a_meter_reads_its_own_process() -> None:
    core = min(os.sched_getaffinity(0))
    meter = Meter(Cores(server=core, load=core), os.getpid())
    sum(range(3_000_000))
    usage = meter.read()
    assert usage.shared
    assert usage.elapsed_ns >= usage.load_ns > 0
    assert usage.server_ns >= 0
    assert run_time_ns(os.getpid()) > 0
    assert cpu_ns(os.getpid()) >= 0
    assert core_busy_ns(core) > 0
    assert resident_bytes(os.getpid()) > 1_000_000
