"""The gate's result: its schema, its file, and the comparison of two stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from benchmarks.gate.decide import Decision, Word, decide_groups, more_rounds, overall
from benchmarks.gate.metrics import METRICS, MetricName
from benchmarks.gate.runs import GateRun
from benchmarks.gate.session import OTHERS_MAX, Collected, Pairs, count_pairs, disturbed, judge, pairs, usable
from benchmarks.rig.files import write
from loadtests.results.environment import Machine

SCHEMA_VERSION: Final = 1
"""Rises whenever a field changes its meaning or a needed one is added."""


class ReportError(Exception):
    """A result cannot be read, or two cannot be compared; the text is a sentence."""


class Contender(Struct, frozen=True, kw_only=True):
    """What is compared: a ref and its commit, or a target and its version, if it tells one."""

    ref: str
    commit: str


class Report(Struct, frozen=True, kw_only=True):
    """Everything a gate measured; the decisions can be made again from it."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["relaymark-gate"] = "relaymark-gate"
    relaymark: str
    machine: Machine
    python: str
    versions: dict[str, str]
    started_unix_ns: int
    duration_ns: int
    command: list[str]
    base: Contender
    head: Contender
    work: str = ""
    """What targets were measured under; of commits it is always the same, and empty."""
    harness: str | None
    """The commit of the load, `-dirty` if files were changed."""
    metrics: tuple[MetricName, ...]
    seconds: float
    runs: list[GateRun]
    counts: Pairs
    tool: str | None
    notes: list[str]


class Judged(Struct, frozen=True, kw_only=True):
    """What is printed: decisions and the word for all of them."""

    base: Contender
    head: Contender
    decisions: list[Decision]
    word: Word
    more_rounds: int | None
    disturbed: int
    """Runs of which only CPU a delivery counts."""
    notes: list[str]
    machine: Machine


def judged(report: Report) -> Judged:
    """Decide a gate's own measurements."""
    collected = Collected(runs=report.runs, counts=report.counts, tool=report.tool)
    decisions = judge(collected, report.metrics)
    notes = list(report.notes)
    found = disturbed(report.runs)
    if found:
        notes.append(
            f"of {found} of {len(report.runs)} runs only CPU a delivery counts: other processes took more than "
            f"{OTHERS_MAX:.0%} of a core, or the load came too late"
        )
    return Judged(
        base=report.base,
        head=report.head,
        decisions=decisions,
        word=overall(decisions),
        more_rounds=more_rounds(decisions),
        disturbed=found,
        notes=notes,
        machine=report.machine,
    )


def compare(base: Report, head: Report) -> Judged:
    """Compare the heads of two stored gates. Raises ReportError if they were not measured alike."""
    if base.machine.fingerprint != head.machine.fingerprint:
        raise ReportError(
            f"they are of different machines ({base.machine.cpu}, {base.machine.cpus} cores; {head.machine.cpu}, "
            f"{head.machine.cpus} cores; fingerprints {base.machine.fingerprint} and {head.machine.fingerprint}): "
            "measure both on one"
        )
    if base == head:
        raise ReportError("both are the same measurement: name two")
    if base.work != head.work:
        raise ReportError(
            f"one was measured under {base.work or 'the work for commits'}, the other under "
            f"{head.work or 'the work for commits'}: use the same options for both"
        )
    if base.seconds != head.seconds:
        raise ReportError(f"their runs took {base.seconds:g} s and {head.seconds:g} s: use the same options for both")
    notes = ["the two were measured at different times: what drifted in between is part of the difference"]
    if base.python != head.python:
        notes.append(f"{base.python} against {head.python}")
    notes += [f"{name} {base.versions[name]} against {head.versions[name]}" for name in _changed(base, head)]
    decisions = []
    for metric in METRICS:
        if metric.name not in base.metrics or metric.name not in head.metrics:
            continue
        figures, same = zip(*(_own(report, metric.name) for report in (base, head)), strict=True)
        if all(figures):
            decisions.append(decide_groups(metric, figures[0], figures[1], [*same[0], *same[1]]))
    if not decisions:
        raise ReportError("they share no figure")
    return Judged(
        base=base.head,
        head=head.head,
        decisions=decisions,
        word=overall(decisions),
        more_rounds=more_rounds(decisions),
        disturbed=disturbed(base.runs) + disturbed(head.runs),
        notes=notes,
        machine=head.machine,
    )


def _changed(base: Report, head: Report) -> list[str]:
    shared = base.versions.keys() & head.versions.keys() - {"relaymark"}
    return sorted(name for name in shared if base.versions[name] != head.versions[name])


def _own(report: Report, name: MetricName) -> tuple[list[float], Pairs]:
    """Return what the head of a gate measured, and the gate's A/A pairs."""
    if name == "instructions":
        return [head for _, head in report.counts], count_pairs(report.counts)
    figures = [run.figures[name] for run in report.runs if run.side == "head" and usable(run, name)]
    return figures, pairs(report.runs, name)[1]


def save(path: Path, report: Report) -> None:
    """Write a result as JSON. Raises ResultsError."""
    write(path, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


class _Head(Struct):
    kind: str | None = None
    schema_version: int | None = None


def load(path: Path) -> Report:
    """Read a result. Raises ReportError with what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from None
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is no result: {error}") from None
    if head.kind != "relaymark-gate":
        raise ReportError(f"{path} is no result of the gate: `relaymark gate ... --json PATH` writes one")
    if head.schema_version != SCHEMA_VERSION:
        raise ReportError(
            f"{path} has version {head.schema_version} of the schema, this relaymark reads {SCHEMA_VERSION}: "
            "measure again, or compare with the relaymark that wrote it"
        )
    try:
        report = msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{path} is damaged: {error}") from None
    figures = [figure for run in report.runs for figure in run.figures.values()]
    if min([*figures, *(count for pair in report.counts for count in pair)], default=1) <= 0:
        raise ReportError(f"{path} is damaged: a figure is not above 0")
    return report
