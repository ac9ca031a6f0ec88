"""Schedules depend on seed, scenario and participant alone, and have the statistics that their names promise."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.workload.arrivals import (
    RATE_MIN,
    Bursts,
    Constant,
    Diurnal,
    FlashCrowd,
    Poisson,
    Process,
    Ramp,
    arrivals,
    generator,
    zipf_sizes,
)

NS = 1_000_000_000

rates = st.one_of(st.just(0.0), st.floats(RATE_MIN, 50))
processes: st.SearchStrategy[Process] = st.one_of(
    st.builds(Constant, rates),
    st.builds(Poisson, rates),
    st.builds(Ramp, rates, rates),
    st.builds(FlashCrowd, st.integers(0, 50), st.floats(0, 5), st.floats(0, 5)),
    st.builds(Diurnal, rates, st.floats(0.1, 100), st.floats(0, 1)),
    st.builds(Bursts, rates, st.floats(0, 0.9), st.floats(0.01, 5)),
)


def due(process: Process, participant: int = 0, seconds: float = 5, seed: int = 1, purpose: str = "") -> list[int]:
    return list(
        arrivals(
            process,
            seed=seed,
            scenario="room",
            participant=participant,
            duration_ns=int(seconds * NS),
            purpose=purpose,
        )
    )


@settings(max_examples=60)
@given(processes, st.integers(0, 2**64), st.integers(1, 4), st.randoms(use_true_random=False))
def test_who_asks_and_in_which_order_changes_nothing(process: Process, seed: int, workers: int, random: Any) -> None:
    alone = {participant: due(process, participant, seed=seed) for participant in range(6)}
    split: dict[int, list[int]] = {}
    for worker in range(workers):
        mine = [participant for participant in range(6) if participant % workers == worker]
        random.shuffle(mine)
        # Interleaved, as a worker pulls them: one arrival of each in turn.
        running = {
            participant: arrivals(process, seed=seed, scenario="room", participant=participant, duration_ns=5 * NS)
            for participant in mine
        }
        for row in itertools.zip_longest(*running.values()):
            for participant, offset in zip(running, row, strict=True):
                if offset is not None:
                    split.setdefault(participant, []).append(offset)
    assert split == {participant: offsets for participant, offsets in alone.items() if offsets}


@settings(max_examples=100)
@given(processes, st.integers(0, 100), st.floats(0, 5))
def test_offsets_ascend_within_the_duration(process: Process, participant: int, seconds: float) -> None:
    offsets = due(process, participant, seconds)
    assert offsets == sorted(offsets)
    assert all(0 <= offset < int(seconds * NS) for offset in offsets)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    for process in (Constant(3), Poisson(3), Diurnal(3, 10), Bursts(3)):
        short, long = due(process, seconds=5), due(process, seconds=50)
        assert long[: len(short)] == short


def test_seed_scenario_participant_and_purpose_all_count() -> None:
    process = Poisson(10)
    drawn = [
        due(process),
        due(process, seed=2),
        due(process, participant=1),
        due(process, purpose="typing"),
        list(arrivals(process, seed=1, scenario="tips", participant=0, duration_ns=5 * NS)),
    ]
    assert len({tuple(offsets) for offsets in drawn}) == len(drawn)


def test_parts_do_not_run_into_each_other() -> None:
    assert generator(1, "2", 3).random() != generator(12, "", 3).random()


def test_another_process_with_another_hash_seed_draws_the_same() -> None:
    program = (
        "from loadtests.workload.arrivals import *; "
        "print(list(arrivals(Bursts(5), seed=9, scenario='tips', participant=4, duration_ns=10**10)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 20


# -- statistics, at fixed seeds ----------------------------------------------------------------------


def counts(process: Process, seconds: float, participants: int = 200) -> np.ndarray[Any, Any]:
    return np.array([len(due(process, participant, seconds)) for participant in range(participants)])


@pytest.mark.parametrize(
    "process", [Constant(2.5), Poisson(2.5), Ramp(1, 4), Ramp(4, 1), Ramp(0, 5), Ramp(5, 0), Diurnal(2.5, 10, 0.9)]
)
def test_the_mean_rate_is_the_one_asked_for(process: Process) -> None:
    assert counts(process, 20).mean() == pytest.approx(50, rel=0.03)


def test_constant_arrivals_keep_their_distance_and_differ_in_phase() -> None:
    gaps = np.diff(due(Constant(3), seconds=1000))
    assert gaps.min() >= NS // 3
    assert gaps.max() <= NS // 3 + 1
    firsts = [due(Constant(1), participant, 1)[0] for participant in range(200)]
    assert np.mean(firsts) == pytest.approx(NS / 2, rel=0.1)


def test_poisson_arrivals_are_poisson() -> None:
    drawn = counts(Poisson(5), 20)
    assert drawn.var() / drawn.mean() == pytest.approx(1, abs=0.3)
    gaps = np.diff(due(Poisson(100), seconds=100))
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)


def test_a_ramp_rises_linearly() -> None:
    offsets = np.concatenate([due(Ramp(0, 10), participant, 20) for participant in range(200)])
    # With a rate that grows from 0, a quarter of the arrivals fall into the first half.
    assert np.mean(offsets < 10 * NS) == pytest.approx(0.25, abs=0.02)


def test_a_flash_crowd_comes_within_its_time() -> None:
    offsets = due(FlashCrowd(1000, within_s=2, at_s=1))
    assert len(offsets) == 1000
    assert min(offsets) >= NS
    assert max(offsets) < 3 * NS
    assert np.mean(offsets) == pytest.approx(2 * NS, rel=0.03)


def test_a_diurnal_rate_has_its_peak_in_the_middle() -> None:
    offsets = np.concatenate([due(Diurnal(5, period_s=20, swing=0.8), participant, 20) for participant in range(200)])
    fifths = np.histogram(offsets, bins=5, range=(0, 20 * NS))[0]
    assert fifths.argmax() == 2
    # The mean of 1 - 0.8 cos over the middle and over the first fifth of a period.
    assert fifths[2] / fifths[0] == pytest.approx(1.748 / 0.395, rel=0.1)


@pytest.mark.parametrize("branching", [0.0, 0.5, 0.8])
def test_bursts_cluster_as_their_branching_says(branching: float) -> None:
    process = Bursts(rate=2, branching=branching, decay_s=0.5)
    drawn = counts(process, 400, participants=60)
    # Bursts that the end of the run cuts off are missing: some decay / (1 - branching) seconds' worth.
    assert drawn.mean() == pytest.approx(800, rel=0.05)
    # A Hawkes process has variance over mean of 1 / (1 - branching)^2 in long windows.
    windows = np.concatenate(
        [np.histogram(due(process, index, 400), bins=20, range=(0, 400 * NS))[0] for index in range(60)]
    )
    assert windows.var() / windows.mean() == pytest.approx(1 / (1 - branching) ** 2, rel=0.2)


def test_bursts_at_the_limit_end() -> None:
    assert len(due(Bursts(rate=5, branching=0.95, decay_s=0.1), seconds=100)) < 5_000


# -- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(-1),
        lambda: Poisson(float("nan")),
        lambda: Poisson(5e-324),
        lambda: Poisson(1e7),
        lambda: Poisson(float("inf")),
        lambda: Ramp(1, -1),
        lambda: FlashCrowd(-1, 1),
        lambda: FlashCrowd(10_000_000, 1),
        lambda: Diurnal(1, 0),
        lambda: Diurnal(1, 1, 1.1),
        lambda: Bursts(1, 1.0),
        lambda: Bursts(1, 0.5, 0),
    ],
)
def test_impossible_processes_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


@given(processes)
def test_processes_round_trip_through_json(process: Process) -> None:
    assert msgspec.json.decode(msgspec.json.encode(process), type=Process) == process


# -- room sizes --------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3000), st.floats(0, 3))
def test_zipf_sizes_add_up(rooms: int, least: int, spare: int, exponent: float) -> None:
    total = rooms * least + spare
    sizes = zipf_sizes(total, exponent, rooms=rooms, least=least)
    assert sum(sizes) == total
    assert len(sizes) == rooms
    assert min(sizes) >= least
    assert sizes == sorted(sizes, reverse=True)


def test_zipf_sizes_fall_with_the_rank() -> None:
    sizes = zipf_sizes(100_000, 1.0, rooms=100, least=0)
    assert sizes[0] / sizes[9] == pytest.approx(10, rel=0.01)
    assert sizes[0] / sizes[99] == pytest.approx(100, rel=0.01)
    assert zipf_sizes(100, 0.0, rooms=4) == [25, 25, 25, 25]


@pytest.mark.parametrize(("total", "rooms", "least"), [(3, 4, 1), (5, 0, 1), (5, 1, -1)])
def test_too_few_members_are_refused(total: int, rooms: int, least: int) -> None:
    with pytest.raises(ValueError, match="do not fill"):
        zipf_sizes(total, 1.0, rooms=rooms, least=least)
