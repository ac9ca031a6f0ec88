"""The tables of `relaymark bench overhead`, one a question, and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from benchmarks.overhead.end_to_end import Added, EndToEndLoad, Point
from benchmarks.overhead.operations import GROUP_PAYLOAD, MEMBERS_MADE_MAX, GroupCost, Operation, Setup
from benchmarks.rig.tables import markdown, plain
from loadtests.results.environment import Machine

SCHEMA_VERSION = 1
Lines: TypeAlias = list[list[str]]


class Overhead(Struct, frozen=True, kw_only=True):
    """Everything one call measured."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["relaymark-overhead"] = "relaymark-overhead"
    relaymark: str
    commit: str | None
    machine: Machine
    python: str
    versions: dict[str, str]
    started_unix_ns: int
    titles: dict[str, str]
    operations: list[Operation]
    groups: list[GroupCost]
    setups: list[Setup]
    load: EndToEndLoad | None
    points: list[Point]
    added: list[Added]
    notes: list[str]
    interrupted: bool


def render(overhead: Overhead, *, as_markdown: bool) -> str:
    """Return all tables."""
    table: Callable[[Sequence[Sequence[str]]], str] = markdown if as_markdown else plain
    head = "### " if as_markdown else ""
    parts = []
    if overhead.operations:
        parts += [f"{head}One operation: processor time, bytes on the wire", table(operation_lines(overhead))]
        parts += [f"{head}One message of {GROUP_PAYLOAD} bytes to a group", table(group_lines(overhead))]
        parts += [f"{head}Until a member that joins can read everybody", table(setup_lines(overhead))]
        parts.append(f"* reckoned from {MEMBERS_MADE_MAX} members that were made")
    if overhead.load is not None:
        load = overhead.load
        title = f"{load.scenario}, {load.participants} participants, {load.duration_s:g} s, {load.rounds} rounds"
        parts += [f"{head}End to end: {title}", table(added_lines(overhead.added))]
    parts += overhead.notes
    parts.append(f"{overhead.machine.cpu}, {overhead.machine.cpus} cores, {overhead.python}")
    return "\n\n".join(parts)


def operation_lines(overhead: Overhead) -> Lines:
    """Return a line a scheme and payload."""
    lines = [["scheme", "payload", "seal", "open", "sealed bytes", "padding"]]
    lines += [
        [
            overhead.titles[one.scheme],
            size(one.payload_bytes),
            duration(one.seal_ns),
            duration(one.open_ns),
            f"{one.sealed_bytes:,}",
            f"{one.padding_share:.0%}",
        ]
        for one in overhead.operations
    ]
    return lines


def group_lines(overhead: Overhead) -> Lines:
    """Return a line a scheme and group."""
    lines = [["scheme", "members", "sender's CPU", "a recipient's CPU", "bytes sent"]]
    for one in overhead.groups:
        star = " *" if one.made == MEMBERS_MADE_MAX < one.members - 1 else ""
        lines.append(
            [
                overhead.titles[one.scheme],
                f"{one.members:,}",
                duration(one.sender_ns) + star,
                duration(one.recipient_ns),
                f"{one.sent_bytes:,}",
            ]
        )
    return lines


def setup_lines(overhead: Overhead) -> Lines:
    """Return a line a scheme and group."""
    lines = [["scheme", "members", "joining one's CPU", "each member's CPU", "bytes received"]]
    for one in overhead.setups:
        star = " *" if one.made == MEMBERS_MADE_MAX < one.members - 1 else ""
        lines.append(
            [
                overhead.titles[one.scheme],
                f"{one.members:,}",
                duration(one.joining_ns) + star,
                duration(one.each_member_ns),
                f"{one.received_bytes:,}",
            ]
        )
    return lines


_FIGURES = {"p50_us": "latency p50", "p99_us": "latency p99", "relay_cpu_us": "relay CPU a delivery"}


def added_lines(added: Sequence[Added]) -> Lines:
    """Return a line a comparison and figure."""
    lines = [["what is added", "figure", "without", "with", "added", "95%"]]
    for one in added:
        interval = f"{one.cost.low:+.1f}..{one.cost.high:+.1f} us" if one.cost else "3 rounds give one"
        value = one.cost.value if one.cost else one.head - one.base
        lines.append(
            [one.what, _FIGURES[one.figure], f"{one.base:.1f} us", f"{one.head:.1f} us", f"{value:+.1f} us", interval]
        )
    return lines


def duration(ns: int) -> str:
    """Return 1_234 as `1.23 us`."""
    for unit, name in ((10**9, "s"), (10**6, "ms"), (10**3, "us")):
        if ns >= unit:
            return f"{ns / unit:.3g} {name}"
    return f"{ns} ns"


def size(count: int) -> str:
    """Return 4096 as `4 KiB`, and 65_000 as `65,000 B`."""
    return f"{count // 1024} KiB" if count >= 1024 and count % 1024 == 0 else f"{count:,} B"
