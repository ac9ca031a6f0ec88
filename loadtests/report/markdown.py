"""The Markdown report: a summary for a job's page or a merge request, in GitHub's dialect."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from loadtests.report import comparison, tables
from loadtests.report.tables import Table, Wrong
from loadtests.report.words import Judgement, clock_sentence, headlines, verdict_of
from loadtests.results.schema import Result

_SIGNS: Final = {"good": "✅", "warn": "⚠️", "bad": "❌"}
_MARKUP: Final = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "\\`*_[]|~"},
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        "\n": " ",
        "\r": " ",
    }
)


def render(results: Sequence[Result]) -> str:
    """Return the summary of one run, or of several beside each other. ValueError without any."""
    if not results:
        raise ValueError("a report needs at least one run")
    return _one(results[0]) if len(results) == 1 else _several(results)


def _one(result: Result) -> str:
    parts = [
        f"## {_text(result.scenario)} against {_text(result.target.name)}",
        *_verdict(verdict_of(result)),
        _list([*headlines(result), clock_sentence(result)]),
        _table(tables.thresholds(result)),
        _table(tables.latencies(result)),
        _table(tables.ledger(result)),
        _table(tables.attempts(result)),
        _table(tables.relay_costs(result)),
        _list(result.notes),
        _command([result]),
        _folded("Environment", _table(tables.environment(result))),
    ]
    return _join(parts)


def _several(results: Sequence[Result]) -> str:
    groups = comparison.group(results)
    compared = comparison.verdicts(groups)
    parts = [
        f"## {len(results)} runs of {len(groups)} configuration{'s' if len(groups) > 1 else ''}",
        _list(comparison.sentences(groups)),
        _table(comparison.ratio_table(groups)) if compared else "",
        _text(comparison.meaning(groups)) if len(groups) > 1 else "",
        _table(comparison.figures(groups)),
        _table(comparison.promises(groups)),
        _table(comparison.ledgers(groups)),
        _command(results),
    ]
    return _join(parts)


def _join(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(verdict: Judgement) -> list[str]:
    said = f"{_SIGNS[verdict.tone]} **{_text(verdict.word)}.** {_text(verdict.meaning)}"
    return [said, "\n>\n".join(f"> {_text(reason)}" for reason in verdict.reasons)]


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {_text(item)}" for item in items)


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    rule = [":---" if index in table.words else "---:" for index in range(len(table.head))]
    lines = [[_text(name) for name in table.head], rule]
    lines += [[f"**{_text(cell)}**" if isinstance(cell, Wrong) else _text(cell) for cell in row] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{_text(table.caption)}**\n\n{body}"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _command(results: Sequence[Result]) -> str:
    commands = "\n".join(dict.fromkeys(shlex.join(result.command) for result in results))
    fence = "`" * 3
    while fence in commands:
        fence += "`"
    return f"{fence}sh\n{commands}\n{fence}"


def _text(text: str) -> str:
    return text.translate(_MARKUP)
