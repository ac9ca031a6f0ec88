"""The tabs in Locust's page: what they add to its arguments and to the answers that it asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flask import Flask
from sample_results import KINDS, recorder, result

from loadtests.locust_glue.tab import LEDGER_KEY, PERCENTILES_KEY, Figures, install, ledger_rows, percentile_rows
from loadtests.results.schema import KindFigures, LedgerColumns


def page(figures: Figures) -> tuple[Any, Any]:
    """A page as Locust's is, as far as the tabs touch it."""
    app = Flask(__name__)
    app.add_url_rule("/stats/requests", "stats", lambda: {"stats": [1], "state": "running"})
    app.add_url_rule("/other", "other", lambda: {"stats": []})
    environment = SimpleNamespace(web_ui=SimpleNamespace(app=app, template_args={}))
    install(environment, lambda: figures)
    return environment.web_ui, app.test_client()


def test_the_tabs_have_tables() -> None:
    web_ui, _ = page(({}, {}))
    keys = [PERCENTILES_KEY, LEDGER_KEY]
    assert [tab["key"] for tab in web_ui.template_args["extended_tabs"]] == keys
    assert [table["key"] for table in web_ui.template_args["extended_tables"]] == keys


def test_the_statistics_get_rows_for_every_column() -> None:
    web_ui, client = page((recorder().totals, result().kinds))
    answer = client.get("/stats/requests").json
    assert (answer["stats"], answer["state"]) == ([1], "running")
    for table, added in zip(web_ui.template_args["extended_tables"], answer["extended_stats"], strict=True):
        assert added["key"] == table["key"]
        columns = {column["key"] for column in table["structure"]}
        assert all(set(row) == columns for row in added["data"])
        # Keys that are one word: the page turns others into camel case.
        assert all(column.isalnum() for column in columns)


def test_other_answers_are_left_alone() -> None:
    _, client = page((recorder().totals, result().kinds))
    assert client.get("/other").json == {"stats": []}


def test_times_are_read_from_the_histograms() -> None:
    totals = recorder().totals
    rows = {(row["name"], row["origin"]): row for row in percentile_rows(totals)}
    row = rows["delivery, message", "intended send"]
    histogram = totals["deliver{basis=intended,kind=message}"]
    assert row["count"] == histogram.count
    assert row["p999"] == float(f"{histogram.percentile(99.9) / 1e6:.3g}")
    assert len(rows) == len(totals)


def test_before_the_end_losses_are_not_known() -> None:
    totals = recorder().totals
    rows = {row["name"]: row for row in ledger_rows(totals, {kind: KindFigures(due=9, sent=9) for kind in KINDS})}
    assert rows["message"]["delivered"] == totals["deliver{basis=intended,kind=message}"].count
    assert rows["message"]["lost"] == "-"
    settled = KindFigures(due=9, sent=9, ledger=LedgerColumns(sent=9, expected=9, delivered=8, lost=1))
    (row,) = ledger_rows(totals, {"message": settled})
    assert (row["delivered"], row["lost"]) == (8, 1)
