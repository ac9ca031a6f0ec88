"""Names and expressions out of boards and rule files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import dashboards

FOLDER = Path(dashboards.__file__).parent
BOARDS = sorted((FOLDER / "grafana").glob("*.json"))
RULES = (FOLDER / "prometheus" / "recording.yml", FOLDER / "prometheus" / "alerts.yml")
NOT_METRICS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}


def load_board(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def panels(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in content["panels"] if panel["type"] != "row"]


def panel_expressions() -> Iterator[tuple[str, str]]:
    """Yield (where it stands, expression) for every query of every panel."""
    for path in BOARDS:
        for panel in panels(load_board(path)):
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']} {target['refId']}", target["expr"]


def annotation_expressions() -> Iterator[tuple[str, str]]:
    for path in BOARDS:
        for annotation in load_board(path)["annotations"]["list"]:
            yield f"{path.stem}: {annotation['name']}", annotation["expr"]


def rules(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, rule) for each rule of kind `record` or `alert`."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if kind in rule:
                    yield rule[kind], rule


def filled_in(expression: str, *, interval: str) -> str:
    """Put in what Grafana would, with every variable at All."""
    expression = expression.replace("$__rate_interval", interval).replace("$__range", "1m")
    return re.sub(r"\$(scenario|target|run)\b", ".*", expression)


def metric_names(expression: str) -> set[str]:
    """Return the names of the series that an expression asks for."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    names = re.findall(r"(?<![\w.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    return {name for name in names if name not in NOT_METRICS}
