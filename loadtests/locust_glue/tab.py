"""Two tabs in Locust's own web page: the true percentiles of every series, and the ledger. They follow the run.

Source: Locust's documentation, "Extending Locust", and its example extend_web_ui.py: `extended_tabs` and
`extended_tables` of the template's arguments, and `extended_stats` in the answer of /stats/requests, which the page asks
for every two seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from flask import Response, request

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import parse_series_name
from loadtests.report.tables import TITLES
from loadtests.results.schema import KindFigures, LedgerColumns

PERCENTILES_KEY: Final = "percentiles"
LEDGER_KEY: Final = "ledger"
_STATS: Final = "/stats/requests"

Figures: TypeAlias = tuple[Mapping[str, Histogram], Mapping[str, KindFigures]]
"""Histograms by series name, and what was done by kind."""

_TIMES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}
_COUNTED: Final = ("due", "sent", "acknowledged", "refused")
_SETTLED: Final = tuple(column for column in LedgerColumns.__struct_fields__ if column not in ("sent", "delivered"))


def install(environment: Any, snapshot: Callable[[], Figures]) -> None:
    """Add the tabs to the page of `environment`, which has one already; `snapshot` is called at each refresh."""
    page = environment.web_ui
    arguments = page.template_args
    arguments.setdefault("extended_tabs", []).extend(
        [{"title": "True percentiles", "key": PERCENTILES_KEY}, {"title": "Ledger", "key": LEDGER_KEY}]
    )
    arguments.setdefault("extended_tables", []).extend(
        [
            {"key": PERCENTILES_KEY, "structure": _structure(_percentile_titles())},
            {"key": LEDGER_KEY, "structure": _structure(_ledger_titles())},
        ]
    )

    @page.app.after_request  # type: ignore[untyped-decorator]  # the page is Locust's, which publishes no types
    def add_figures(response: Response) -> Response:
        if request.path.endswith(_STATS) and isinstance(response.json, dict):
            series, kinds = snapshot()
            ours = [
                {"key": PERCENTILES_KEY, "data": percentile_rows(series)},
                {"key": LEDGER_KEY, "data": ledger_rows(series, kinds)},
            ]
            others = response.json.get("extended_stats", [])
            response.set_data(environment.web_ui.app.json.dumps({**response.json, "extended_stats": [*others, *ours]}))
        return response


def _structure(titles: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "title": title} for key, title in titles.items()]


def _percentile_titles() -> dict[str, str]:
    times = {key: f"p{percent:g} (ms)" for key, percent in _TIMES.items()}
    return {"name": "Series", "origin": "From", "count": "Count", **times, "max": "Max (ms)"}


def _ledger_titles() -> dict[str, str]:
    return {
        "name": "Kind",
        **{_key(column): column.replace("_", " ").capitalize() for column in (*_COUNTED, "delivered", *_SETTLED)},
    }


def _key(column: str) -> str:
    """Return a column's key in one word: the page turns others into camel case, and finds them no more."""
    return column.replace("_", "")


def percentile_rows(series: Mapping[str, Histogram]) -> list[dict[str, str | float]]:
    """Return a row a series; times in ms, numbers, so that the page can sort them."""
    rows: list[dict[str, str | float]] = []
    for name in sorted(series):
        histogram = series[name]
        if histogram.count:
            metric, labels = parse_series_name(name)
            basis = {"intended": "intended send", "sent": "actual send"}.get(labels.pop("basis", ""), "")
            times = zip(_TIMES, histogram.percentiles(tuple(_TIMES.values())), strict=True)
            rows.append(
                {
                    "name": ", ".join((TITLES[metric], *labels.values())),
                    "origin": basis,
                    "count": histogram.count,
                    **{key: _ms(value) for key, value in times},
                    "max": _ms(histogram.max_ns),
                }
            )
    return rows


def ledger_rows(series: Mapping[str, Histogram], kinds: Mapping[str, KindFigures]) -> list[dict[str, str | int]]:
    """Return a row a kind. What only the settling at the end tells is a dash until then."""
    rows: list[dict[str, str | int]] = []
    for name, kind in kinds.items():
        settled = kind.ledger.sent > 0
        delivered = kind.ledger.delivered if settled else _delivered(series.items(), name)
        rows.append(
            {
                "name": name,
                **{column: getattr(kind, column) for column in _COUNTED},
                "delivered": delivered,
                **{_key(column): getattr(kind.ledger, column) if settled else "-" for column in _SETTLED},
            }
        )
    return rows


def _delivered(series: Iterable[tuple[str, Histogram]], kind: str) -> int:
    total = 0
    for name, histogram in series:
        metric, labels = parse_series_name(name)
        if metric == "deliver" and labels.get("kind") == kind and labels.get("basis") == "intended":
            total += histogram.count
    return total


def _ms(value_ns: int) -> float:
    return float(f"{value_ns / 1e6:.3g}")
