"""The HTML report: one file that shows one run, or several over each other, without any network.

Everything that comes from a result is escaped. The page's content security policy allows what stands in the file and
nothing else, so that no request can leave it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Final

import msgspec

from loadtests.report import charts, comparison, overlay, ranges, tables
from loadtests.report.charts import Chart
from loadtests.report.comparison import RunGroup
from loadtests.report.tables import Table, Wrong
from loadtests.report.words import (
    Judgement,
    clock_sentence,
    duration,
    headlines,
    ledger_total,
    main_histogram,
    main_kind,
    number,
    percent,
    verdict_of,
)
from loadtests.results.schema import Result

BYTES_MAX: Final = 1_000_000
"""A report stays below: it is sent by mail and opened on phones."""
_SIGNS: Final = {"good": "✓", "warn": "!", "bad": "✗"}
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_PAPER: Final = files("loadtests.report")

_TERMS: Final = {
    "intended send": "The moment when the schedule asked for the send. Counting from there keeps the time that a late"
    " generator, or one held up by the relay, would otherwise hide (coordinated omission).",
    "actual send": "The moment when the record was handed to the network. Shown to tell the generator's share apart.",
    "p99": "99 of 100 deliveries took no longer. Read from merged histograms, never averaged from other percentiles.",
    "lost": "Owed to a recipient and not there at the end of the drain. The ledger counts; it does not estimate.",
    "boundary": "Sent while the recipient was joining or leaving: owed to nobody, so neither delivered nor lost.",
    "missed away": "Sent while the recipient was cut off from a relay that does not resume, which promises none of it.",
    "under way": "Missing, and its sender's connection ended before it was known to be taken: nobody knows its fate.",
    "superseded, dropped": "States such as typing: replaced by a newer one before delivery, or never delivered. How"
    " old a state was when its recipient got it is its delivery time.",
    "invalid": "One of the checks on the generator failed, so the figures may show the generator instead of the relay.",
}


def render(results: Sequence[Result]) -> str:
    """Return the page for one run, or for several that are laid over each other. ValueError without any."""
    if not results:
        raise ValueError("a report needs at least one run")
    return _one(results[0]) if len(results) == 1 else _several(results)


# -- one run -----------------------------------------------------------------------------------------


def _one(result: Result) -> str:
    drawn = _Charts()
    sections = [
        _section(
            "latency",
            "Latency",
            clock_sentence(result) + _negative(result),
            ranges.draw(
                "From due to delivered, by kind", ranges.glance(result), "bar: p50 to p99, dot: p50, tick: slowest"
            ),
            drawn.add(charts.delivery_percentiles(result), tall=True),
            drawn.add(charts.kind_percentiles(result)) if len(result.kinds) > 1 else "",
            _table(tables.latencies(result)),
            _table(
                tables.series(
                    result, "To recipients who read slowly on purpose, from the intended send", "deliver_slow"
                )
            ),
        ),
        _section(
            "time",
            "Over time",
            "",
            drawn.add(charts.bands(result), tall=True),
            _pair(map(drawn.add, charts.throughput(result))),
            _pair(map(drawn.add, charts.target_series(result))),
        ),
        _section(
            "ledger",
            "Ledger",
            "Nothing here is estimated: every sealed record carries a counter, and every recipient's are checked.",
            _table(tables.ledger(result)),
            _table(tables.offered(result)),
        ),
        _section(
            "fanout",
            "Fan-out in rooms",
            "From the intended send to the first, the median and the last recipient, by the size of the room: what lies between"
            " the first and the last is what a room of that size costs its members in fairness.",
            ranges.draw("Fan-out by size of room", ranges.fanout(result), "bar: p50 to p99, dot: p50"),
            _table(
                tables.series(result, "Fan-out by size of room", "fanout_first", "fanout_median", "fanout_last"),
                folded="The figures",
            ),
        ),
        _section(
            "connections",
            "Connections",
            "",
            _table(tables.attempts(result)),
            drawn.add(charts.connection_percentiles(result)),
            _table(
                tables.series(result, "Times of connections", "join", "resume", "ack"),
                folded="All times, by kind",
            ),
        ),
        _section(
            "sealing",
            "Encryption",
            "What one record takes on the participants' side; the relay only ever sees sealed bytes.",
            ranges.draw("Sealing and opening a record", ranges.sealing(result), "bar: p50 to p99, dot: p50"),
            _table(tables.series(result, "Sealing and opening a record", "seal", "open"), folded="The figures"),
        ),
        _section(
            "machine",
            "Relay and generator",
            "",
            _pair(map(drawn.add, charts.usage(result))),
            _pair((_table(tables.relay_costs(result)), _table(tables.processes(result)))),
            _table(tables.workers(result)),
            drawn.add(charts.lag_percentiles(result)),
            _table(tables.series(result, "The generator's lateness", "lag", "loop_lag", "echo"), folded="All times"),
            _table(tables.counters(result), folded="The relay's own counters"),
        ),
        _section(
            "run",
            "The run",
            "",
            _list("What happened", [f"{event.at_ns / 1e9:.1f} s: {event.text}" for event in result.events]),
            _list("Notes", result.notes),
            _command([result]),
            _table(tables.environment(result)),
        ),
        _terms(),
    ]
    title = f"{result.scenario} against {result.target.name}"
    head = (
        _verdict(verdict_of(result))
        + _list("", headlines(result), css="lead")
        + _tiles(result)
        + _table(tables.thresholds(result))
    )
    return _page(title, _under(result), head, sections, drawn)


def _under(result: Result) -> str:
    started = datetime.fromtimestamp(result.started_unix_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = [started, f"{duration(result.duration_ns)} of load"]
    participants = result.options.get("participants")
    if participants is not None:
        said.append(f"{participants} participants")
    return " · ".join([*said, f"seed {result.seed}"])


def _negative(result: Result) -> str:
    negative = sum(summary.negative for summary in result.series.values())
    if not negative:
        return ""
    said = "1 sample was negative; it is" if negative == 1 else f"{number(negative)} samples were negative; they are"
    return f" {said} in no percentile. Only a clock error can cause that."


def _tiles(result: Result) -> str:
    tiles: list[tuple[str, str, str, bool]] = []
    histogram, kind = main_histogram(result), main_kind(result)
    if histogram.count:
        for name, value in zip(("p50", "p99", "p99.9"), histogram.percentiles((50, 99, 99.9)), strict=True):
            tiles.append((f"{kind} {name}", duration(value), "from intended send", False))
    total = ledger_total(result)
    if total.expected:
        tiles.append(("lost", number(total.lost), f"of {number(total.expected)} owed", total.lost > 0))
        if result.duration_ns:
            rate = number(total.delivered / (result.duration_ns / 1e9))
            tiles.append(("deliveries", f"{rate}/s", f"{number(total.delivered)} in all", False))
    if result.relay is not None and result.duration_ns:
        cost = result.relay.cpu_ns_per_delivery
        note = "of one core" if cost is None else f"{duration(cost)} a delivery"
        tiles.append(("relay CPU", percent(result.relay.cpu_ns / result.duration_ns), note, False))
    cells = "".join(
        f'<li{" class=wrong" if wrong else ""}><span class="name">{escape(name)}</span>'
        f'<span class="value">{escape(value)}</span><span class="note">{escape(note)}</span></li>'
        for name, value, note, wrong in tiles
    )
    return f'<ul class="tiles" aria-label="Key figures">{cells}</ul>' if tiles else ""


# -- several runs ------------------------------------------------------------------------------------


def _several(results: Sequence[Result]) -> str:
    groups = comparison.group(results)
    labelled = _labelled(groups)
    drawn = _Charts()
    compared = comparison.verdicts(groups)
    sections = [
        _section(
            "comparison",
            "How much better",
            comparison.meaning(groups) if len(groups) > 1 else "",
            _ratios(compared),
            _table(comparison.ratio_table(groups)) if compared else "",
            _table(comparison.figures(groups)),
            _table(comparison.promises(groups)),
        ),
        _section("latency", "Latency", "", drawn.add(overlay.percentiles(groups, labelled), tall=True)),
        _section("time", "Over time", "", *(drawn.add(chart) for chart in overlay.over_time(groups, labelled))),
        _section("ledger", "Ledgers", "", _table(comparison.ledgers(groups))),
        *(
            _section(
                f"run-{index}",
                label,
                "",
                _verdict(verdict_of(run)),
                _list("", headlines(run), css="lead"),
                _table(tables.latencies(run), folded="Latencies"),
                _table(tables.processes(run), folded="Processes"),
                _table(tables.environment(run), folded="Environment"),
            )
            for index, (label, run) in enumerate(labelled, 1)
        ),
        _section("run", "The commands", "", _command(results)),
        _terms(),
    ]
    labels = [each.label for each in groups]
    title = " against ".join(labels) if 1 < len(labels) <= 3 else f"{len(results)} runs of {results[0].scenario}"
    under = f"{len(results)} runs of {len(groups)} {'configuration' if len(groups) == 1 else 'configurations'}"
    head = _verdict(_overall(groups)) + _list("", comparison.sentences(groups), css="lead")
    return _page(title, under, head, sections, drawn)


def _overall(groups: Sequence[RunGroup]) -> Judgement:
    """Say which configuration is better, if that can be said."""
    if len(groups) == 1:
        sound = len(groups[0].usable) == len(groups[0].runs)
        meaning = "Its runs are laid over each other" + ("." if sound else "; not all of them are valid and complete.")
        return Judgement(word="One configuration", tone="good" if sound else "warn", meaning=meaning)
    if comparison.obstacles(groups):
        return Judgement(word="No verdict", tone="bad", meaning="These runs cannot be compared as measurements.")
    better = {verdict.better for verdict in comparison.verdicts(groups) if verdict.better}
    if not better:
        return Judgement(
            word="No difference shown", tone="warn", meaning="Every interval includes 1, or there is none."
        )
    if len(groups) > 2:
        word = f"Differences from {groups[0].label} are shown"
        meaning = "Each configuration is compared with the first, not with the others; see below."
        return Judgement(word=word, tone="warn", meaning=meaning)
    if len(better) == 2:
        meaning = "Each of them is better in something; see below."
        return Judgement(word="It depends on the figure", tone="warn", meaning=meaning)
    (winner,) = (each for each in groups if each.label in better)
    meaning = "In every figure in which a difference is shown"
    if winner.wrong:
        meaning += "; but some of its records were lost, duplicated, reordered or late."
        return Judgement(word=f"{winner.label} is better, but at fault", tone="bad", meaning=meaning)
    return Judgement(word=f"{winner.label} is better", tone="good", meaning=f"{meaning}.")


def _labelled(groups: Sequence[RunGroup]) -> list[tuple[str, Result]]:
    labelled = []
    for each in groups:
        for index, run in enumerate(each.runs, 1):
            labelled.append((f"{each.label}, round {index}" if len(each.runs) > 1 else each.label, run))
    return labelled


def _ratios(compared: Sequence[comparison.Compared]) -> str:
    rows = ranges.ratios(compared)
    return ranges.draw("Ratios with their 95% intervals, 1 being equal", rows, "line: interval, dot: ratio", ratio=True)


# -- parts -------------------------------------------------------------------------------------------


class _Charts:
    """Gives each chart its place in the page and keeps its data for the end."""

    def __init__(self) -> None:
        self.kept: list[Chart] = []

    def add(self, chart: Chart | None, *, tall: bool = False) -> str:
        if chart is None:
            return ""
        self.kept.append(chart)
        name = f"chart-{chart.id}"
        switch = ""
        if len(chart.views) > 1:
            options = "".join(
                f'<label><input type="radio" name="{name}" value="{index}"{" checked" if not index else ""}>'
                f"<span>{escape(view.name)}</span></label>"
                for index, view in enumerate(chart.views)
            )
            legend = f'<legend class="unseen">{escape(chart.title)}: show</legend>'
            switch = f'<fieldset class="switch" hidden>{legend}{options}</fieldset>'
        return (
            f'<figure class="chart{" tall" if tall else ""}" id="{name}"><figcaption><h3>{escape(chart.title)}</h3>'
            f"<p>{escape(chart.text)}</p></figcaption>{switch}"
            f'<div class="plot" role="img" aria-label="{escape(chart.title)}. {escape(chart.text)} The table after it has'
            ' the figures; the arrow keys move along the chart."></div><div class="keys"></div>'
            f"{_table(chart.table, folded='The figures of this chart')}</figure>"
        )

    def json(self) -> str:
        """Return the data for page.js; `<` is escaped so that no text in it can end the script element."""
        rows = [
            {**msgspec.to_builtins(chart), "id": f"chart-{chart.id}", "title": "", "text": "", "table": None}
            for chart in self.kept
        ]
        return msgspec.json.encode(rows).decode().replace("<", "\\u003c")


def _section(id: str, title: str, text: str, *parts: str) -> str:  # noqa: A002 - the attribute's name
    content = "".join(parts)
    if not content:
        return ""
    said = f"<p>{escape(text)}</p>" if text else ""
    return f'<section id="{id}" aria-labelledby="{id}-title"><h2 id="{id}-title">{escape(title)}</h2>{said}{content}</section>'


def _verdict(verdict: Judgement) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    return (
        f'<div class="verdict {verdict.tone}"><span class="sign" aria-hidden="true">{_SIGNS[verdict.tone]}</span>'
        f"<h2>{escape(verdict.word)}</h2><p>{escape(verdict.meaning)}</p>{f'<ul>{reasons}</ul>' if reasons else ''}</div>"
    )


def _list(title: str, items: Sequence[str], css: str = "") -> str:
    if not items:
        return ""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f"{head}<ul{f' class={css}' if css else ''}>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _pair(parts: Iterable[str]) -> str:
    filled = [f"<div>{part}</div>" for part in parts if part]
    return f'<div class="pair">{"".join(filled)}</div>' if filled else ""


def _table(table: Table, *, folded: str = "") -> str:
    if not table.rows:
        return ""

    def cell(index: int, text: str) -> str:
        css = " ".join(["words"] * (index in table.words) + ["wrong"] * isinstance(text, Wrong))
        tag = 'th scope="row"' if index == 0 else "td"
        return f"<{tag}{f' class={css!r}' if css else ''}>{escape(text)}</{tag[:2]}>"

    head = "".join(
        f"<th scope=col{' class=words' if index in table.words else ''}>{escape(name)}</th>"
        for index, name in enumerate(table.head)
    )
    rows = "".join(f"<tr>{''.join(cell(index, text) for index, text in enumerate(row))}</tr>" for row in table.rows)
    caption = escape(table.caption)
    content = (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table>'
        f"<caption><span>{caption}</span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    return f"<details><summary>{escape(folded)}</summary>{content}</details>" if folded else content


def _command(results: Sequence[Result]) -> str:
    commands = list(dict.fromkeys(shlex.join(result.command) for result in results))
    title = "The command that repeats this run" if len(commands) == 1 else "The commands that repeat these runs"
    return (
        f'<h3>{title}</h3><pre id="command" tabindex="0">{escape(chr(10).join(commands))}</pre>'
        '<button class="copy" type="button" data-of="command" hidden>Copy</button>'
    )


def _terms() -> str:
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in _TERMS.items())
    return _section("terms", "Terms", "", f'<dl class="terms">{terms}</dl>')


_NAVIGATION: Final = {
    "comparison": "Comparison",
    "latency": "Latency",
    "time": "Over time",
    "ledger": "Ledger",
    "fanout": "Fan-out",
    "connections": "Connections",
    "sealing": "Encryption",
    "machine": "Relay and generator",
    "run": "The run",
    "terms": "Terms",
}


def _page(title: str, under: str, head: str, sections: Sequence[str], drawn: _Charts) -> str:
    body = "".join(sections)
    links = "".join(
        f'<li><a href="#{id_}">{text}</a></li>' for id_, text in _NAVIGATION.items() if f'<section id="{id_}"' in body
    )
    # The licence asks that its notice goes with every copy.
    notice = _asset("vendor/README.md").partition("```")[2].rpartition("```")[0].strip()
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)} | relaymark</title>
<style>{_asset("vendor/uPlot.min.css")}
{_asset("page.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header class="top wide"><p class="eyebrow">relaymark</p><h1>{escape(title)}</h1>
<p class="under">{escape(under)}</p>{head}</header>
<nav aria-label="Sections"><ul class="wide">{links}</ul></nav>
<main class="wide" id="main">{body}</main>
<footer class="wide">Measured and written by relaymark. Charts: uPlot, MIT licence.</footer>
<script type="application/json" id="charts">{drawn.json()}</script>
<script>/*
{notice}
*/
{_asset("vendor/uPlot.iife.min.js")}</script>
<script>{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return _PAPER.joinpath(name).read_text(encoding="utf-8")
