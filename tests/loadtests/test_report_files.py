"""Reports as files: which runs are read, which form is written, and what is said of what cannot be."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from sample_results import SECOND_NS, result

from loadtests.cli import report
from loadtests.report import files, junit, markdown
from loadtests.results.exit_codes import EXIT_CONFIGURATION
from loadtests.results.files import ResultsError, write
from loadtests.results.schema import MeasuredTarget, Result, ThresholdOutcome
from loadtests.results.validity import Finding

SLOW = ThresholdOutcome(
    threshold="deliver: p(99)<1ms", ok=False, observed=2e6, text="deliver: p(99)<1ms: not met, 2 ms"
)
HELD = ThresholdOutcome(threshold="lost==0", ok=True, observed=0, text="lost==0: met, 0")


def kept(folder: Path, name: str, run: Result) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    write(path, run)
    return path


# -- files -------------------------------------------------------------------------------------------


def test_runs_are_found_by_folder_file_and_comparison(tmp_path: Path) -> None:
    first, second = (kept(tmp_path / "comparison", name, result()) for name in ("1", "2"))
    assert files.find([first]) == [first]
    assert files.find([second / "result.json", tmp_path]) == [second / "result.json", first]


def test_a_run_that_is_named_twice_is_no_second_round(tmp_path: Path) -> None:
    run = kept(tmp_path, "run", result())
    assert files.find([run, tmp_path, run / "result.json", tmp_path / "run" / ".." / "run"]) == [run]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="there is no run in"):
        files.find([tmp_path])


def test_every_damaged_run_is_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("{")
    with pytest.raises(ResultsError, match=r"one is not.*two is not"):
        files.read([tmp_path / "one", tmp_path / "two"])


@pytest.mark.parametrize(("name", "start"), [("a.html", "<!DOCTYPE html>"), ("a.md", "## "), ("a.xml", "<?xml")])
def test_the_name_decides_the_form(tmp_path: Path, name: str, start: str) -> None:
    files.write([result()], tmp_path / name)
    assert (tmp_path / name).read_text().startswith(start)


def test_where_a_report_goes_by_itself(tmp_path: Path) -> None:
    runs = [kept(tmp_path, name, result()) for name in ("1", "2")]
    assert files.default_output(runs[:1]) == tmp_path / "1" / "report.html"
    assert files.default_output([runs[0] / "result.json"]) == tmp_path / "1" / "report.html"
    assert files.default_output(runs) == tmp_path / "comparison.html"


# -- the command -------------------------------------------------------------------------------------


def test_the_command_shows_a_run_and_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = kept(tmp_path, "run", result())
    assert report(run) == 0
    assert (run / "report.html").stat().st_size > 100_000
    out = capsys.readouterr().out
    assert "evening-peak against reference" in out
    assert str(run / "report.html") in out.replace("\n", "")


def test_the_command_compares_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        kept(tmp_path, name, result(target=MeasuredTarget(name=name)))
    assert report(tmp_path, output=tmp_path / "both.md") == 0
    assert "b against a: too few data to decide on p50" in capsys.readouterr().out
    assert "2 runs of 2 configurations" in (tmp_path / "both.md").read_text()


@pytest.mark.parametrize(
    ("names", "output", "said"),
    [
        ((), None, "name one run at least"),
        (("missing",), None, "No such file"),
        (("run",), "a.txt", "must end in .html, .md, .xml"),
        (("run",), "run/result.json/a.html", "cannot write"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], output: str | None, said: str
) -> None:
    kept(tmp_path, "run", result())
    code = report(*(tmp_path / name for name in names), output=None if output is None else tmp_path / output)
    assert code == EXIT_CONFIGURATION
    assert said in capsys.readouterr().err


# -- Markdown ----------------------------------------------------------------------------------------


def test_markdown_has_verdict_tables_and_command() -> None:
    text = markdown.render([result(thresholds=[SLOW, HELD])])
    assert "⚠️ **Failed.** The run is valid" in text
    assert "| deliver: p(99)&lt;1ms | **not met, 2 ms** |" in text
    assert "| message | intended send |" in text
    assert "```sh\nrelaymark run evening-peak --seed 1\n```" in text


def test_markdown_cannot_be_broken_out_of() -> None:
    hostile = "a|b\n# c <b>`x` *y* [z](q)"
    text = markdown.render([result(scenario=hostile, notes=[hostile], command=["run", "```", "x"])])
    assert "\n# c" not in text
    assert "a\\|b # c &lt;b&gt;\\`x\\` \\*y\\* \\[z\\](q)" in text
    assert "````sh\nrun '```' x\n````" in text


def test_markdown_of_several_has_the_ratios() -> None:
    text = markdown.render([result(), result(target=MeasuredTarget(name="other"))])
    assert "| other | CPU a delivery | 1 |" in text
    assert "| reference | 20251009T085320Z-evening-peak | valid |" in text


# -- JUnit -------------------------------------------------------------------------------------------


def test_thresholds_are_test_cases() -> None:
    root = ElementTree.fromstring(junit.render([result(thresholds=[SLOW, HELD])]))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    assert float(suite.get("time", "")) == result().duration_ns / SECOND_NS
    names = [case.get("name") for case in suite]
    assert names == ["the run is valid", "deliver: p(99)<1ms", "lost==0"]
    assert [case.find("failure") is not None for case in suite] == [False, True, False]


def test_an_invalid_run_fails_and_decides_no_threshold() -> None:
    root = ElementTree.fromstring(junit.render([result(findings=[Finding("no-samples", "No.")], thresholds=[HELD])]))
    (suite,) = root
    assert (suite.get("failures"), suite.get("errors")) == ("1", "1")


def test_an_interrupted_run_fails() -> None:
    root = ElementTree.fromstring(junit.render([result(interrupted=True, thresholds=[HELD])]))
    assert (root[0].get("failures"), root[0].get("errors")) == ("1", "1")


def test_several_runs_are_several_suites_and_illegal_characters_are_replaced() -> None:
    runs = [result(), result(), result(findings=[Finding("x", "\x00\x1b]0;\ud800\ufffe<&>")])]
    root = ElementTree.fromstring(junit.render(runs).encode())
    names = [suite.get("name") for suite in root]
    assert names == ["evening-peak against reference", *(f"evening-peak against reference ({n})" for n in (2, 3))]
    assert root[2].find("testcase/failure").text == "x: \ufffd\ufffd]0;\ufffd\ufffd<&>"


@pytest.mark.parametrize("form", [markdown.render, junit.render])
def test_no_run_has_no_report(form: object) -> None:
    assert callable(form)
    with pytest.raises(ValueError, match="at least one run"):
        form([])


def test_what_is_open_is_skipped_and_neither_failed_nor_passed() -> None:
    cases = [junit.Case(name="speed", skipped="too few rounds"), junit.Case(name="size", text="as before")]
    (suite,) = ElementTree.fromstring(junit.document({"gate": (1_500_000_000, cases)}))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "2",
        "0",
        "0",
        "1",
    )
    skipped = suite[0].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "too few rounds"
    assert suite[1].find("skipped") is None
