"""What a run says, in words: its verdict, its headline sentences, and how figures are written in reports."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from msgspec import Struct

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import parse_series_name
from loadtests.report import terminal
from loadtests.results.schema import LedgerColumns, Result

NONE: Final = "\N{EN DASH}"
"""In place of a figure that there is not."""
WRONG_COLUMNS: Final = ("lost", "duplicated", "reordered", "late")
"""Columns of the ledger in which anything but 0 is a fault of what was measured."""

Tone: TypeAlias = Literal["good", "warn", "bad"]


class Judgement(Struct, frozen=True, kw_only=True):
    """The first thing to read: a word, what it means, and why."""

    word: str
    tone: Tone
    meaning: str
    reasons: tuple[str, ...] = ()


def verdict_of(result: Result) -> Judgement:
    """Return the verdict; validity comes before performance."""
    failed = [outcome for outcome in result.thresholds if not outcome.ok]
    if result.findings:
        return Judgement(
            word="Invalid",
            tone="bad",
            meaning="Do not use these figures: they say more about the generator than about the relay.",
            reasons=tuple(f"{finding.code}: {finding.sentence}" for finding in result.findings),
        )
    if result.interrupted:
        return Judgement(
            word="Interrupted",
            tone="warn",
            meaning="The run was ended early. What was measured until then is sound, but it is not the run asked for.",
        )
    if failed:
        which = (
            "its threshold" if len(result.thresholds) == 1 else f"{len(failed)} of {len(result.thresholds)} thresholds"
        )
        return Judgement(
            word="Failed",
            tone="warn",
            meaning=f"The run is valid and its figures may be believed; {which} failed.",
            reasons=tuple(outcome.text for outcome in failed),
        )
    count = len(result.thresholds)
    hold = {0: "", 1: " Its threshold holds.", 2: " Both thresholds hold."}
    held = hold.get(count, f" All {count} thresholds hold.")
    return Judgement(word="Valid", tone="good", meaning=f"The figures may be believed.{held}")


def headlines(result: Result) -> list[str]:
    """Return what a reader should know of the run, in one sentence each."""
    return [text for text in (_latency(result), _losses(result), _load(result), _connections(result)) if text]


def main_kind(result: Result) -> str | None:
    """Return the kind of record that stands for the run: chat messages, else the one delivered most; None if none."""
    found = {kind: result.histogram("deliver", kind=kind, basis="intended").count for kind in kinds_of(result)}
    if found.get("message"):
        return "message"
    return max(found, key=lambda kind: found[kind]) if any(found.values()) else None


def kinds_of(result: Result) -> list[str]:
    """Return the kinds in the order in which the run counted them, then any that only have latencies."""
    measured = (parse_series_name(name)[1].get("kind", "unknown") for name in result.names("deliver"))
    return list(dict.fromkeys([*result.kinds, *measured]))


def main_histogram(result: Result) -> Histogram:
    """Return the deliveries of the main kind, from the intended send."""
    kind = main_kind(result)
    return result.histogram("deliver", kind=kind, basis="intended") if kind else Histogram()


def _latency(result: Result) -> str:
    kind, histogram = main_kind(result), main_histogram(result)
    if kind is None:
        return "No delivery was measured."
    p50, p99, p999 = (duration(value) for value in histogram.percentiles((50, 99, 99.9)))
    what = "messages" if kind == "message" else f"records of kind {kind}"
    return (
        f"Half of all {what} arrived within {p50} of the moment when they were due to be sent,"
        f" 99% within {p99}, 99.9% within {p999}; the slowest took {duration(histogram.max_ns)}."
    )


def ledger_total(result: Result) -> LedgerColumns:
    """Return the ledger summed over the kinds."""
    sums = {
        column: sum(getattr(kind.ledger, column) for kind in result.kinds.values())
        for column in LedgerColumns.__struct_fields__
    }
    return LedgerColumns(**sums)


def _losses(result: Result) -> str:
    total = ledger_total(result)
    if not total.expected:
        return ""
    wrong = [f"{number(getattr(total, column))} {column}" for column in WRONG_COLUMNS if getattr(total, column)]
    said = ", ".join(wrong) if wrong else "none lost, duplicated, reordered or late"
    return f"{number(total.expected)} deliveries were owed: {said}."


def _load(result: Result) -> str:
    seconds = result.duration_ns / 1e9
    due = sum(kind.due for kind in result.kinds.values())
    if not due or not seconds:
        return ""
    sent = sum(kind.sent for kind in result.kinds.values())
    delivered = sum(kind.ledger.delivered for kind in result.kinds.values())
    cpu = ""
    if result.relay and result.relay.cpu_ns:
        cpu = f", for which the relay used {percent(result.relay.cpu_ns / result.duration_ns)} of a core"
    return (
        f"The schedule asked for {number(due / seconds)} records a second and {number(sent / seconds)} were sent;"
        f" {number(delivered / seconds)} deliveries a second came of them{cpu}."
    )


def _connections(result: Result) -> str:
    said = []
    for metric, attempts in (("join", result.joins), ("resume", result.resumes)):
        if attempts.tried:
            text = (
                f"{number(attempts.tried)} {metric}s, {number(attempts.failed) if attempts.failed else 'none'} failed"
            )
            took = result.histogram(metric)
            if took.count:
                text += f": 99% took no longer than {duration(took.percentile(99))}"
            # Joins are spread over the run by plan; a cut hits all at once, so its end is a figure of its own.
            if metric == "resume" and attempts.p95_after_ns is not None:
                text += f", and 95% were back {duration(attempts.p95_after_ns)} after the first began"
            said.append(f"{text}.")
    return " ".join(said)


def clock_sentence(result: Result) -> str:
    """Return how far one-way times may be off."""
    if result.clock_error_ns is None:
        return "The clock error is not known."
    if result.clock_error_ns == 0:
        return "One clock stamps both ends, so one-way times have no clock error."
    return f"Every one-way time may be off by up to {duration(result.clock_error_ns)}, the error of the clocks."


def duration(value_ns: float) -> str:
    """Return a time to three significant digits, such as 12.3 µs."""
    return terminal.duration(value_ns).replace(" us", " µs").replace(" ", "\N{NO-BREAK SPACE}")


def number(value: float) -> str:
    """Return a count with its thousands apart; below 10 with one decimal unless it is whole."""
    text = f"{value:.1f}" if value < 10 and value != int(value) else f"{value:,.0f}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}")


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"


def size(value: float) -> str:
    """Return bytes to three significant digits in binary units."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    scaled = float(value)
    while abs(scaled) >= 1000 and len(units) > 1:
        scaled /= 1024
        del units[0]
    text = f"{scaled:.0f}" if abs(scaled) >= 100 or units[0] == "B" else f"{scaled:.3g}"
    return f"{text}\N{NO-BREAK SPACE}{units[0]}"
