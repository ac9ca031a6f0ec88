"""The files of a result, and how they are read back.

runs/<time>-<scenario>/
    result.json       everything, one `Result`; other versions of the schema are refused
    latency.hlog      histograms over time, the series as tags
    hgrm/*.hgrm       one percentile distribution a series
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from loadtests.measuring.hdr_files import hgrm, hlog
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.recorder import Interval
from loadtests.measuring.series import parse_series_name
from loadtests.results.schema import SCHEMA_VERSION, RateColumns, Result, SeriesColumns, Track, Usage

LOG_METRICS: Final = ("deliver", "ack", "join", "resume")
"""Series in the histogram log. From the actual send only the totals are kept: the log is for time lines."""
LOG_INTERVALS_MAX: Final = 300
"""Intervals of a series in the log. A longer run has longer ones, so that writing it never takes minutes."""


class ResultsError(Exception):
    """Results cannot be written, or are not ones that this version reads."""


# -- files -------------------------------------------------------------------------------------------


def create_run_directory(out: Path, scenario: str, started_unix_ns: int) -> Path:
    """Make `<out>/<time>-<scenario>` and return it. Raises ResultsError where nothing can be written.

    Called before any load, so that a run is not lost at its end. A second run in the same second gets "-2" at the end.
    """
    stamp = datetime.fromtimestamp(started_unix_ns / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{scenario}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            directory = out / (name if attempt == 1 else f"{name}-{attempt}")
            try:
                directory.mkdir()
            except FileExistsError:
                continue
            return directory
    except OSError as error:
        raise ResultsError(f"cannot write results to {out}: {error.strerror}") from None
    raise ResultsError(f"cannot write results to {out}: {name} and its next 998 names are taken")


def write(run_dir: Path, result: Result, intervals: Iterable[Interval] = ()) -> Path:
    """Write the files of a run into `run_dir`, result.json last; return its path. Raises ResultsError."""
    contents = {f"hgrm/{_file_name(name)}.hgrm": hgrm(result.series[name].to_histogram()) for name in result.series}
    contents["latency.hlog"] = hlog(_for_log(intervals, result.duration_ns), result.started_unix_ns)
    contents["result.json"] = msgspec.json.encode(result) + b"\n"
    write_files(run_dir, contents)
    return run_dir / "result.json"


def write_files(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files by their relative names: first all under other names, then renamed in order. Raises ResultsError.

    If one cannot be written, none appears; whoever finds the last finds them all.
    """
    waiting: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        for name, content in contents.items():
            path = directory / name
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                made.append(path.parent)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            waiting.append((Path(temporary), path))
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
        while waiting:
            temporary_path, path = waiting[0]
            temporary_path.replace(path)
            waiting.pop(0)
    except OSError as error:
        for temporary_path, _ in waiting:
            temporary_path.unlink(missing_ok=True)
        for directory_made in reversed(made):
            _remove_if_empty(directory_made)
        raise ResultsError(f"cannot write results to {directory}: {error.strerror}") from None


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return


def _file_name(name: str) -> str:
    """deliver{basis=intended,kind=message} -> deliver-intended-message"""
    metric, labels = parse_series_name(name)
    return re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join((metric, *labels.values())))


def _for_log(intervals: Iterable[Interval], duration_ns: int) -> list[Interval]:
    step_s = max(1, -(-duration_ns // (LOG_INTERVALS_MAX * 1_000_000_000)))
    merged: dict[tuple[int, str], Histogram] = {}
    widths: dict[tuple[int, str], int] = {}
    for interval in intervals:
        metric, labels = parse_series_name(interval.name)
        if metric not in LOG_METRICS or labels.get("basis") == "sent":
            continue
        key = (interval.second - interval.second % step_s, interval.name)
        merged.setdefault(key, Histogram()).merge(interval.histogram)
        widths[key] = max(step_s, interval.width_s)
    return [Interval(second, widths[second, name], name, merged[second, name]) for second, name in sorted(merged)]


class _Version(Struct):
    schema_version: int


def load(path: Path) -> Result:
    """Read a run by its directory or its result.json. Raises ResultsError, for other versions of the schema too."""
    file = path / "result.json" if path.is_dir() else path
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ResultsError(f"cannot read {file}: {error.strerror}") from None
    try:
        found = msgspec.json.decode(content, type=_Version).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ResultsError(f"{file} is not the result of a run") from None
    if found != SCHEMA_VERSION:
        raise ResultsError(
            f"{file} has version {found} of the result schema and this relaymark reads version {SCHEMA_VERSION}:"
            " use the relaymark that wrote it, or repeat the run"
        )
    try:
        result = msgspec.json.decode(content, type=Result)
        for name, summary in result.series.items():
            parse_series_name(name)
            summary.to_histogram()
        if result.calibration:
            result.calibration.to_histogram()
        timed = (result.history, result.target_series)
        tables: list[_Columns] = [result.rates, *result.usage, *(one for by_name in timed for one in by_name.values())]
        for columns in tables:
            _check_columns(columns)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ResultsError(f"{file} is damaged: {error}") from None
    return result


_Columns: TypeAlias = RateColumns | SeriesColumns | Track | Usage


def _check_columns(columns: _Columns) -> None:
    """Raise ValueError unless all columns are as long as that of the seconds; of a process some may be missing."""
    for name in columns.__struct_fields__:
        column = getattr(columns, name)
        if (
            isinstance(column, list)
            and len(column) != len(columns.second)
            and (column or not isinstance(columns, Usage))
        ):
            raise ValueError(f"a column {name} has {len(column)} values for {len(columns.second)} seconds")
