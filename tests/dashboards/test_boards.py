"""The boards' files are current and complete, and name only metrics that are exported or recorded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from exposed import loadtest_page, relay_page, sample_names
from promql import BOARDS, annotation_expressions, load_board, metric_names, panel_expressions, panels, rules

from dashboards import build
from loadtests.results.validity import CPU_MAX
from relay.limits import COMMIT_BATCH_BYTES_MAX

ALL_PANELS = [
    pytest.param(panel, id=f"{path.stem}: {panel['title']}") for path in BOARDS for panel in panels(load_board(path))
]


def test_the_files_are_what_the_code_builds() -> None:
    made = {name: build.text_of(content) for name, content in build.boards().items()}
    files = {path.name: path.read_text(encoding="utf-8") for path in BOARDS}
    assert made.keys() == files.keys()
    stale = [name for name, text in made.items() if files[name] != text]
    assert not stale, "run python -m dashboards.build"
    assert build.main(["--check"]) == 0


def test_check_finds_a_stale_file_and_a_build_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    assert build.main(["--check"]) == 1
    assert "relay.json" in capsys.readouterr().err
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    (tmp_path / "relay.json").write_text("{}")
    assert build.main(["--check"]) == 1
    assert build.main(["--chekc"]) == 2


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_every_panel_has_a_unit_and_says_what_is_bad(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    shows, _, bad = panel["description"].partition("\n\nBad: ")
    assert len(shows) > 20
    assert len(bad) > 12
    assert shows.endswith(".")
    assert bad.endswith(".")
    assert panel["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def panel_of(board: str, title: str) -> dict[str, Any]:
    (found,) = (panel for panel in panels(load_board(build.FOLDER / f"{board}.json")) if panel["title"] == title)
    return found


def test_lines_are_drawn_where_the_code_has_its_bounds() -> None:
    for board, title, bound, said in (
        ("loadtest", "Busiest worker", CPU_MAX, f"{100 * CPU_MAX:.0f} %"),
        ("relay", "Waiting for a commit", COMMIT_BATCH_BYTES_MAX // 4, "1 MiB"),
    ):
        panel = panel_of(board, title)
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] == bound
        assert said in panel["description"]


def test_what_has_died_is_not_shown_by_its_last_value() -> None:
    for board, title in (("relay", "Ready"), ("loadtest", "Load")):
        (target,) = panel_of(board, title)["targets"]
        assert (target["instant"], target["range"]) == (True, False)


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_lie_side_by_side_in_whole_rows(path: Path) -> None:
    content = load_board(path)
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_board_has_the_variables_and_the_marks_of_a_run(path: Path) -> None:
    content = load_board(path)
    variables = [variable["name"] for variable in content["templating"]["list"]]
    assert variables == ["datasource", "scenario", "target", "run"]
    assert [mark["name"] for mark in content["annotations"]["list"]] == ["Start", "End", "Fault"]
    assert all(mark["useValueForTime"] for mark in content["annotations"]["list"])
    assert content["uid"].startswith("relaymark-")


def test_every_query_of_a_panel_follows_the_variables() -> None:
    for where, expression in (*panel_expressions(), *annotation_expressions()):
        selectors = re.findall(r"\{([^}]*)\}", expression)
        assert len(selectors) == len(re.findall(r"(?:relay_|loadtest_|process_)\w+(?::\w+)?\{", expression)), where
        for selector in selectors:
            for variable in ("scenario", "target", "run"):
                assert f'{variable}=~"${variable}"' in selector, where


def test_every_metric_that_is_named_is_exported_or_recorded() -> None:
    exported = sample_names(relay_page()) | sample_names(loadtest_page()) | {"up"}
    recorded = {name for name, _ in rules("record")}
    for where, expression in (*panel_expressions(), *annotation_expressions()):
        assert metric_names(expression) <= exported | recorded, where
    for kind in ("record", "alert"):
        for name, rule in rules(kind):
            assert metric_names(rule["expr"]), name
            assert metric_names(rule["expr"]) <= exported | (recorded if kind == "alert" else set()), name
    for path in BOARDS:
        for variable in load_board(path)["templating"]["list"][1:]:
            assert re.match(r"label_values\((\w+)", variable["query"])[1] in exported


def test_a_name_that_nobody_exports_would_be_found() -> None:
    expression = 'sum by (le) (rate(relay_nothing_bucket{run=~"$run"}[5m] offset 5m)) / 2 > run:other:rate15s or up'
    assert metric_names(expression) == {"relay_nothing_bucket", "run:other:rate15s", "up"}


def test_percentiles_come_from_merged_histograms() -> None:
    for where, expression in panel_expressions():
        if "histogram_quantile" in expression:
            assert re.search(r"histogram_quantile\([\d.]+, sum by \((\w+, )*le\) \(", expression), where
        assert "quantile=" not in expression, where
        assert not re.search(r"\bavg", expression), where


def test_every_recording_rule_is_used() -> None:
    used: set[str] = set()
    for _, expression in panel_expressions():
        used |= metric_names(expression)
    for _, rule in rules("alert"):
        used |= metric_names(rule["expr"])
    assert {name for name, _ in rules("record")} <= used
