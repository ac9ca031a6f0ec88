"""Results: they come back as they were written, whole or not at all, and other versions are refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from sample_results import MACHINE, SECOND_NS, STARTED_NS, recorder, result

from loadtests.measuring.histogram import VALUE_NS_MAX, Histogram
from loadtests.measuring.recorder import Interval, Recorder
from loadtests.results.exit_codes import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK, EXIT_THRESHOLD
from loadtests.results.files import LOG_INTERVALS_MAX, ResultsError, create_run_directory, load, write, write_files
from loadtests.results.schema import SCHEMA_VERSION, RelayFigures, Summary, ThresholdOutcome, differences, tracks
from loadtests.results.validity import Finding, Verdict

FAILED = ThresholdOutcome(threshold="ack: max<1ms", ok=False, observed=2e6, text="")
FINDING = Finding("ledger", "")


def log_rows(path: Path) -> list[Any]:
    reader = HistogramLogReader(str(path), HdrHistogram(1, VALUE_NS_MAX, 3))
    try:
        return list(iter(reader.get_next_interval_histogram, None))
    finally:
        reader.close()


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = result(thresholds=[FAILED], findings=[FINDING], notes=["a note"])
    path = write(tmp_path, written, recorder().intervals())
    assert path == tmp_path / "result.json"
    assert load(path) == load(tmp_path) == written


def test_the_files_beside_it_are_standard_ones(tmp_path: Path) -> None:
    written = result()
    write(tmp_path, written, recorder().intervals())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hgrm", "latency.hlog", "result.json"]
    percentiles = {path.name for path in (tmp_path / "hgrm").iterdir()}
    assert len(percentiles) == len(written.series)
    assert {"deliver-intended-message.hgrm", "join.hgrm", "fanout_last-100-999.hgrm"} <= percentiles
    rows = log_rows(tmp_path / "latency.hlog")
    tags = {row.get_tag() for row in rows}
    assert "deliver{basis=intended;kind=message}" in tags
    assert not any("sent" in tag or tag.startswith("lag") for tag in tags)
    total = sum(row.get_total_count() for row in rows if row.get_tag() == "join")
    assert total == written.series["join"].count


def test_the_log_of_a_long_run_has_wider_intervals(tmp_path: Path) -> None:
    one = Histogram()
    one.record(1000)
    seconds = 2 * LOG_INTERVALS_MAX
    write(
        tmp_path,
        result(duration_ns=seconds * SECOND_NS),
        [Interval(second, 1, "join", one) for second in range(seconds)],
    )
    rows = log_rows(tmp_path / "latency.hlog")
    assert len(rows) == LOG_INTERVALS_MAX
    assert sum(row.get_total_count() for row in rows) == seconds
    assert {row.get_end_time_stamp() - row.get_start_time_stamp() for row in rows} == {2000}


def test_writing_again_replaces(tmp_path: Path) -> None:
    write(tmp_path, result())
    write(tmp_path, result(seed=2))
    assert load(tmp_path).seed == 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 10**9])
def test_other_versions_are_refused(tmp_path: Path, version: int) -> None:
    path = write(tmp_path, result())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version}))
    with pytest.raises(ResultsError, match=f"version {version} of the result schema.*reads version {SCHEMA_VERSION}"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"schema_version": "1"}', b"{" * 9000])
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="is not the result of a run"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "1"},
        {"machine": None},
        {"series": {"join": {}}},
        {"series": {"no such metric": msgspec.to_builtins(Summary.of(Histogram()))}},
        {"series": {"join": msgspec.to_builtins(Summary.of(Histogram())) | {"histogram": {"count": 1}}}},
        {"calibration": msgspec.to_builtins(Summary.of(Histogram())) | {"histogram": {}}},
    ],
)
def test_a_damaged_result_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path, result())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ResultsError, match="is damaged"):
        load(path)


def test_a_missing_result_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(ResultsError, match="cannot read"):
            load(path)


# -- writing fails -----------------------------------------------------------------------------------


def test_a_folder_that_is_a_file_leaves_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    with pytest.raises(ResultsError, match="cannot write results"):
        write(blocked, result())
    with pytest.raises(ResultsError, match="cannot write results"):
        create_run_directory(blocked, "room", STARTED_NS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert blocked.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_leaves_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ResultsError, match="cannot write results"):
            write(tmp_path, result())
        with pytest.raises(ResultsError, match="cannot write results"):
            create_run_directory(tmp_path / "runs", "room", STARTED_NS)
        assert list(tmp_path.iterdir()) == []
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("failing", range(3))
def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    calls = 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ResultsError, match="No space left"):
        write_files(tmp_path, {"a": b"1", "deep/b": b"2", "c": b"3"})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, result(seed=7))

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ResultsError):
        write(tmp_path, result(seed=8))
    assert load(tmp_path).seed == 7


def test_run_directories_have_names_of_their_own(tmp_path: Path) -> None:
    made = [create_run_directory(tmp_path / "runs", "room", STARTED_NS) for _ in range(3)]
    assert [path.name for path in made] == [f"20251009T085320Z-room{suffix}" for suffix in ("", "-2", "-3")]
    assert all(path.is_dir() for path in made)


# -- reading -----------------------------------------------------------------------------------------


def test_the_exit_code_follows_the_gravest_reason() -> None:
    assert result().exit_code == EXIT_OK
    assert result(thresholds=[FAILED]).exit_code == EXIT_THRESHOLD
    assert result(thresholds=[FAILED], findings=[FINDING]).exit_code == EXIT_INVALID
    assert result(thresholds=[FAILED], findings=[FINDING], interrupted=True).exit_code == EXIT_INTERRUPTED
    assert (result().verdict, result(findings=[FINDING]).verdict) == (Verdict.VALID, Verdict.INVALID)


def test_histograms_are_merged_over_the_labels_left_open() -> None:
    sample = result()
    merged = sample.histogram("deliver", basis="intended")
    parts = [summary for name, summary in sample.series.items() if name.startswith("deliver{basis=intended")]
    assert merged.count == sum(summary.count for summary in parts)
    assert merged.max_ns == max(summary.max_ns for summary in parts)
    assert merged.negative_count == 3
    assert sample.histogram("deliver", basis="intended", kind="message").count == parts[0].count
    assert sample.histogram("deliver", kind="none").count == 0


def test_a_summary_reads_what_its_histogram_holds() -> None:
    histogram = recorder().totals["join"]
    summary = Summary.of(histogram)
    assert summary.to_histogram() == histogram
    assert (summary.count, summary.p999_ns, summary.max_ns) == (120, histogram.percentile(99.9), histogram.max_ns)


def test_tracks_hold_the_history() -> None:
    kept = Recorder()
    for second in (0, 2):
        kept.series("join").extend([second + 1] * 5)
        kept.fold(second * SECOND_NS)
    track = tracks(kept.history())["join"]
    assert (track.second, track.width_s, track.count, track.p50_ns) == ([0, 2], [1, 1], [5, 5], [1, 3])


def test_what_a_relay_costs_is_unknown_without_work() -> None:
    idle = RelayFigures(cpu_ns=5, memory_bytes_idle=1, memory_bytes_max=2, connections=0, deliveries=0)
    assert (idle.cpu_ns_per_delivery, idle.memory_bytes_per_connection) == (None, None)
    busy = RelayFigures(cpu_ns=500, memory_bytes_idle=100, memory_bytes_max=300, connections=4, deliveries=100)
    assert (busy.cpu_ns_per_delivery, busy.memory_bytes_per_connection) == (5.0, 50.0)


def test_runs_under_different_conditions_are_told_apart() -> None:
    assert differences([result(), result()]) == []
    other = result(machine=msgspec.structs.replace(MACHINE, fingerprint="1" * 16), seed=2, scenario="room")
    assert len(differences([result(), other])) == 3


@pytest.mark.parametrize("part", ["history", "rates", "usage"])
def test_columns_of_unequal_length_are_damage(tmp_path: Path, part: str) -> None:
    write(tmp_path, result())
    path = tmp_path / "result.json"
    content = json.loads(path.read_bytes())
    columns = next(iter(content[part].values())) if part == "history" else content[part]
    (columns[0] if part == "usage" else columns)["second"].append(9)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultsError, match="is damaged: a column"):
        load(tmp_path)
