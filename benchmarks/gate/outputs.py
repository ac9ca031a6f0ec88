"""A verdict as text, Markdown, JUnit and github-action-benchmark.

Source: github-action-benchmark's README, "customSmallerIsBetter".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from benchmarks.gate.decide import Decision, Word, needed
from benchmarks.gate.report import Contender, Judged
from benchmarks.rig.tables import markdown as markdown_table
from benchmarks.rig.tables import plain
from loadtests.report.junit import Case, document

_HEAD: Final = ("", "base", "head", "cost", "95%", "limit", "A/A within", "finds from", "")
_SUMMARY: Final = {
    Word.PASS: "not slower",
    Word.REGRESSION: "slower",
    Word.INCONCLUSIVE: "cannot be told yet",
}


def lines(decisions: Sequence[Decision]) -> list[list[str]]:
    """Return the table: a heading, and a line a metric. Costs above 1 are worse."""
    return [list(_HEAD), *([_title(one), *_cells(one)] for one in decisions)]


def _title(one: Decision) -> str:
    return f"{one.metric.title}, {one.metric.unit}" if one.metric.unit else one.metric.title


def _cells(one: Decision) -> list[str]:
    return [
        _number(one.base),
        _number(one.head),
        f"{one.cost.value:.3f}" if one.cost else "",
        f"{one.cost.low:.3f}..{one.cost.high:.3f}" if one.cost else "",
        f"{one.limit:.3f}",
        _share(one.same.reach) if one.same else "",
        _share(one.detectable) if one.detectable else "",
        "open" if one.word is Word.INCONCLUSIVE else one.word.value,
    ]


def _number(value: float) -> str:
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _share(factor: float) -> str:
    share = factor - 1
    return f"{share:+.2%}" if share < 0.01 else f"{share:+.1%}"


def sentence(judged: Judged) -> str:
    """Return the verdict in one sentence."""
    said = [f"{judged.word.value}: {_named(judged.head)} is {_SUMMARY[judged.word]} than {_named(judged.base)}."]
    if judged.word is Word.INCONCLUSIVE:
        said[0] = (
            f"inconclusive: whether {_named(judged.head)} is slower than {_named(judged.base)} cannot be told yet."
        )
        said.append(_what_would_decide(judged))
    if judged.word is Word.PASS and (unknown := [one for one in judged.decisions if one.word is Word.INCONCLUSIVE]):
        said.append(f"Left open: {', '.join(one.metric.title for one in unknown)}.")
    worse = [one for one in judged.decisions if one.word is Word.REGRESSION and one.cost]
    said += [
        f"{one.metric.title}: {one.cost.value - 1:+.1%} cost, at least {one.cost.low - 1:+.1%}."
        for one in worse
        if one.cost
    ]
    return " ".join(said)


def _what_would_decide(judged: Judged) -> str:
    short = [one.metric.name for one in needed(judged.decisions) if one.cost is None or one.same is None]
    rounds = f"{judged.more_rounds} more round{'s' * (judged.more_rounds != 1)}"
    if not judged.decisions:
        return "Nothing that was asked for could be measured."
    if judged.more_rounds is None:
        return "A figure lies too near to its limit for any number of rounds to be foreseen."
    if not short:
        return f"About {rounds} would decide."
    if "cpu" in short or "instructions" in short or not judged.disturbed:
        return f"There was no time for as many runs as an interval needs: use a larger --budget, for at least {rounds}."
    return f"Too few undisturbed runs: try again when nothing else uses this machine, for at least {rounds}."


def _named(subject: Contender) -> str:
    if not subject.commit or subject.commit.startswith(subject.ref):
        return subject.commit[:12] or subject.ref
    return f"{subject.ref} ({subject.commit[:12]})"


def text(judged: Judged) -> str:
    """Return the whole verdict for a terminal."""
    return "\n".join([plain(lines(judged.decisions)), "", *judged.notes, sentence(judged)])


def markdown(judged: Judged) -> str:
    """Return the verdict for a job summary."""
    parts = [f"### relaymark gate: {judged.word.value}", sentence(judged), markdown_table(lines(judged.decisions))]
    parts += [f"- {note}" for note in judged.notes]
    parts.append(
        "Cost above 1 is worse. Limit: what is allowed, or this machine's noise if that is more. Finds from: the "
        "smallest slow-down that this many runs find in 9 of 10 gates. "
        f"Machine: {judged.machine.cpu}, {judged.machine.cpus} cores."
    )
    return "\n\n".join(parts) + "\n"


def junit(judged: Judged, duration_ns: int) -> bytes:
    """Return one test case a metric: a regression is a failure, what is open is skipped; and one for the verdict."""
    cases = [
        _case(one.metric.name, one.word, " ".join(f"{name} {cell}".strip() for name, cell in _labelled(one) if cell))
        for one in judged.decisions
    ]
    cases.append(_case("verdict", judged.word, sentence(judged)))
    return document({"relaymark gate": (duration_ns, cases)}).encode()


def _case(name: str, word: Word, said: str) -> Case:
    return Case(
        name=name,
        text=said,
        failure=said if word is Word.REGRESSION else "",
        skipped=said if word is Word.INCONCLUSIVE else "",
    )


def _labelled(one: Decision) -> list[tuple[str, str]]:
    return list(zip(_HEAD[1:], _cells(one), strict=True))


def github(judged: Judged) -> bytes:
    """Return github-action-benchmark's list, smaller is better: throughput becomes the time a delivery takes."""
    entries = []
    for one in judged.decisions:
        if not one.head:
            continue  # nothing but disturbed runs
        higher = one.metric.better == "higher"
        entry = {
            "name": "Time a delivery at saturation" if higher else one.metric.title,
            "unit": "ns" if higher else one.metric.unit or "instructions",
            "value": 1e9 / one.head if higher else one.head,
            "extra": f"{_named(judged.head)}, {one.word.value}",
        }
        if one.cost:
            # The interval is the ratio's; as a share of the value it says how far to trust a step in the chart.
            entry["range"] = f"± {(one.cost.high - one.cost.low) / 2 / one.cost.value:.1%}"
        entries.append(entry)
    return msgspec.json.format(msgspec.json.encode(entries), indent=1) + b"\n"
