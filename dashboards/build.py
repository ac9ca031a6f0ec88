"""Builds the JSON of every board: `python -m dashboards.build`; with --check it only says whether the files are current.

Exit codes: 0 done or current, 1 not current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards import capacity, loadtest, relay
from dashboards.panels import COLUMNS, DATASOURCE, RUN, Row

FOLDER: Final = Path(__file__).parent / "grafana"
TAG: Final = "relaymark"
VARIABLES: Final = ("scenario", "target", "run")


class _Mark(board.AnnotationQuery):
    """An annotation whose time is the sample's value, so that it is exact and there only once, at any zoom."""

    def __init__(self, name: str, metric: str, text: str, color: str) -> None:
        super().__init__()
        self.name(name).datasource(DATASOURCE).enable(True).icon_color(color).expr(f"1000 * {metric}{{{RUN}}}")
        self._more = {"useValueForTime": True, "titleFormat": name, "textFormat": text, "step": "1s"}

    def to_json(self) -> dict[str, Any]:
        """The SDK's model lacks the fields of the Prometheus data source."""
        return {**self.build().to_json(), **self._more}


MARKS: Final = (
    _Mark("Start", "loadtest_start_time_seconds", "{{scenario}} on {{target}}, run {{run}}", "green"),
    _Mark("End", "loadtest_end_time_seconds", "{{scenario}} on {{target}}, run {{run}}", "blue"),
    _Mark("Fault", "loadtest_event_time_seconds", "{{event}}", "red"),
)


def build(uid: str, title: str, description: str, variables_from: str, rows: tuple[Row, ...]) -> dict[str, Any]:
    """Return one board as Grafana reads it. The variables take their values from the labels of `variables_from`."""
    made = (
        board.Dashboard(f"relaymark: {title}")
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time("now-15m", "now")
        .refresh("5s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(board.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            board.DashboardLink(TAG)
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(True)
        )
    )
    for variable in _variables(variables_from):
        made.with_variable(variable)
    for row in rows:
        assert sum(panel.width for panel in row.panels) % COLUMNS == 0, f"{title}, {row.title}: a ragged row"
        made.with_row(board.Row(row.title))
        for panel in row.panels:
            made.with_panel(panel)
    content: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    content["annotations"] = {"list": json.loads(json.dumps([mark.to_json() for mark in MARKS], cls=JSONEncoder))}
    for number, panel_json in enumerate(content["panels"], 1):
        panel_json["id"] = number
    return content


def boards() -> dict[str, dict[str, Any]]:
    """Return every board by the name of its file."""
    return {
        f"{module.UID.removeprefix('relaymark-')}.json": build(
            module.UID, module.TITLE, module.DESCRIPTION, module.VARIABLES_FROM, module.ROWS
        )
        for module in (relay, loadtest, capacity)
    }


def text_of(content: dict[str, Any]) -> str:
    """Return the file's text: sorted, so that a change shows as itself."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _variables(metric: str) -> list[board.QueryVariable]:
    """Each depends on those before it."""
    made = []
    earlier: list[str] = []
    for name in VARIABLES:
        selector = ",".join(f'{other}=~"${other}"' for other in earlier)
        query = f"label_values({metric}{{{selector}}}, {name})" if selector else f"label_values({metric}, {name})"
        made.append(
            board.QueryVariable(name)
            .label(name.capitalize())
            .datasource(DATASOURCE)
            .query(query)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(models.VariableOption(text="All", value="$__all", selected=True))
        )
        earlier.append(name)
    return made


def main(arguments: list[str]) -> int:
    """Write the boards, or with --check compare them with the files."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m dashboards.build [--check]" + "\n")
        return 2
    stale = []
    for name, content in boards().items():
        path, text = FOLDER / name, text_of(content)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not arguments:
            path.write_text(text, encoding="utf-8")
    if arguments and stale:
        sys.stderr.write(f"Not current: {', '.join(stale)}. Run python -m dashboards.build." + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
