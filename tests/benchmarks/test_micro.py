"""Every microbenchmark does what it times, and pyperf takes the list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyperf
import pytest

from benchmarks import cli
from benchmarks.micro import codec, stores
from benchmarks.micro.__main__ import BENCHMARKS
from benchmarks.micro.hub import BATCH, _Room
from relay import wire


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if "10000" not in name])
def test_it_runs_more_than_once(name: str) -> None:
    make, items = BENCHMARKS[name]
    call = make()
    call()
    call()
    assert items >= 1


def test_both_codecs_make_and_read_the_same_bytes() -> None:
    assert codec.encode_msgspec()() == codec.encode_msgpack()()
    records = codec.decode_msgspec()()
    assert isinstance(records, list)
    assert isinstance(records[0], wire.Publish)
    assert codec.decode_msgpack()() == (4, 7, wire.DURABLE, 10_000, None, codec.SEALED)


def test_frames_in_one_read() -> None:
    frames = codec.frames_in()()
    assert isinstance(frames, list)
    assert len(frames) == codec.RECORDS


def test_every_subscriber_gets_every_record_though_ids_come_again() -> None:
    room = _Room(3)
    for _ in range(200):
        room.batch()
    assert room._hub.counters.deliveries == 200 * BATCH * 3
    assert room._hub.counters.published_durable == 200 * BATCH


@pytest.mark.parametrize("size", stores.SIZES)
def test_a_batch_has_its_size(size: int) -> None:
    store = stores.MemoryStore(bytes(32))
    commit = stores._committer(store, size)
    commit()
    assert store.statistics().records == size
    commit()
    assert store.statistics().records == 2 * size


@pytest.mark.process
def test_pyperf_writes_what_it_can_compare(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    pyperf_options = ["--processes", "1", "--values", "3", "--warmups", "0", "--loops", "1", "--quiet"]
    assert cli.micro(only="frame out", output=path, pyperf=pyperf_options) == 0
    suite = pyperf.BenchmarkSuite.load(str(path))
    assert suite.get_benchmark_names() == ["frame out"]
    compared = subprocess.run(
        [sys.executable, "-m", "pyperf", "compare_to", str(path), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "frame out" in compared.stdout


def test_options_that_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there.json").write_text("")
    assert cli.micro(output=tmp_path / "there.json") == 104
    assert cli.micro(output=tmp_path / "nowhere" / "a.json") == 104
    assert cli.micro(only="nonsense") == 104
    said = capsys.readouterr().err
    for part in ("exists already", "does not exist", "no benchmark has this in its name"):
        assert part in said
