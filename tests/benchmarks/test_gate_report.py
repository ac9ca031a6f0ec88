"""Stored results, their comparison, and the four outputs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from msgspec.structs import replace

from benchmarks.gate import outputs
from benchmarks.gate.decide import Word
from benchmarks.gate.metrics import NAMES, MetricName
from benchmarks.gate.report import Contender, Report, ReportError, compare, judged, load, save
from benchmarks.gate.runs import GateRun, Side
from loadtests.results.environment import Machine
from loadtests.results.files import ResultsError

MACHINE = Machine(
    system="Linux 6", architecture="x86_64", cpu="A processor", cpus=2, memory_bytes=8 << 30, fingerprint="f" * 16
)


def report(*, slower: float = 1.0, seed: int = 1, others: float = 0.0, machine: Machine = MACHINE) -> Report:
    source = random.Random(seed)

    def run(side: Side, calibration: bool) -> GateRun:
        cost = (slower if side == "head" else 1.0) * (1 + source.gauss(0, 0.005))
        figures: dict[MetricName, float] = {"cpu": cost, "throughput": 1e6 / cost, "p50": 90 * cost, "p99": 400 * cost}
        return GateRun(side=side, calibration=calibration, figures=figures, others=others)

    order: list[Side] = ["base", "head", "head", "base"]
    return Report(
        relaymark="0.1.0",
        machine=machine,
        python="CPython 3.13.0",
        versions={"relaymark": "0.1.0", "trio": "0.30"},
        started_unix_ns=1,
        duration_ns=90 * 10**9,
        command=["relaymark", "gate"],
        base=Contender(ref="main", commit="a" * 40),
        head=Contender(ref="HEAD", commit="b" * 40),
        harness="b" * 12,
        metrics=NAMES,
        seconds=0.8,
        runs=[run("base", calibration=True) for _ in range(6)] + [run(side, False) for side in order * 4],
        counts=[(3000 + source.gauss(0, 9), slower * (3000 + source.gauss(0, 9))) for _ in range(6)],
        tool="callgrind",
        notes=[],
    )


def test_a_result_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save(path, report())
    assert load(path) == report()
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is no result"),
        (b"[]", "is no result"),
        (b'{"schema_version": 1, "scenario": "room"}', "no result of the gate"),
        (b'{"kind": "relaymark-gate", "schema_version": 99}', "version 99 of the schema, this relaymark reads 1"),
        (b'{"kind": "relaymark-gate", "schema_version": 1}', "is damaged"),
        (b'{"kind": "relaymark-gate\xff", "schema_version": 1}', "is no result"),
        (b'{"kind": "relaymark-gate", "schema_version": 1, "relaymark": "\xff"}', "is damaged"),
        (msgspec.json.encode(report()).replace(b'"p50":', b'"p50":-'), "a figure is not above 0"),
        (msgspec.json.encode(report())[:-500], "is no result"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=said):
        load(path)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="cannot be read: No such file"):
        load(tmp_path / "nothing.json")
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="File exists"):
        save(tmp_path / "file" / "result.json", report())


@pytest.mark.parametrize(("slower", "word"), [(1.0, Word.PASS), (1.1, Word.REGRESSION)])
def test_a_stored_gate_is_judged_again(slower: float, word: Word) -> None:
    assert judged(report(slower=slower)).word is word


def test_disturbed_runs_are_noted() -> None:
    verdict = judged(report(others=0.3))
    assert verdict.word is Word.PASS
    assert "22 of 22 runs" in verdict.notes[-1]
    assert "Left open: Throughput, Latency p50, Latency p99." in outputs.sentence(verdict)
    alone = judged(replace(report(others=0.3), metrics=("throughput",)))
    assert alone.word is Word.INCONCLUSIVE
    assert "Too few undisturbed runs" in outputs.sentence(alone)


def test_two_heads_are_compared() -> None:
    same = compare(report(seed=1), report(seed=2))
    assert same.word is Word.PASS
    assert same.base == Contender(ref="HEAD", commit="b" * 40)
    slower = compare(report(seed=1), report(seed=2, slower=1.15))
    assert slower.word is Word.REGRESSION
    assert "different times" in slower.notes[0]


def test_results_of_different_machines_are_refused() -> None:
    other = msgspec.structs.replace(MACHINE, fingerprint="e" * 16)
    with pytest.raises(ReportError, match="different machines"):
        compare(report(), report(machine=other))


def test_runs_of_different_lengths_are_refused() -> None:
    with pytest.raises(ReportError, match=r"0\.8 s and 1\.5 s"):
        compare(report(), replace(report(), seconds=1.5))


def test_a_result_is_not_compared_with_itself() -> None:
    with pytest.raises(ReportError, match="the same measurement"):
        compare(report(), report())


def test_results_that_share_no_figure_are_refused() -> None:
    with pytest.raises(ReportError, match="share no figure"):
        compare(replace(report(), metrics=("cpu",)), replace(report(), metrics=("p50",)))


def test_other_versions_are_noted() -> None:
    verdict = compare(report(), replace(report(), python="CPython 3.14.0", versions={"trio": "0.31"}))
    assert verdict.notes[1:] == ["CPython 3.13.0 against CPython 3.14.0", "trio 0.30 against 0.31"]


def test_the_text_says_what_by_how_much_and_for_whom() -> None:
    text = outputs.text(judged(report(slower=1.15)))
    assert text.splitlines()[0].split() == [
        *("base", "head", "cost", "95%", "limit", "A/A", "within", "finds", "from"),
    ]
    assert "regression: HEAD (bbbbbbbbbbbb) is slower than main (aaaaaaaaaaaa)." in text
    assert "CPU a delivery: +1" in text


def test_an_open_verdict_says_how_many_rounds_more() -> None:
    text = outputs.sentence(judged(replace(report(slower=1.048), metrics=("cpu",))))
    assert text.startswith("inconclusive: whether HEAD")
    assert "more rounds would decide" in text or "too near to its limit" in text


def test_an_open_verdict_says_what_was_missing() -> None:
    no_round = replace(report(), runs=report().runs[:6], counts=[])
    assert "use a larger --budget, for at least 3 more rounds." in outputs.sentence(judged(no_round))
    # Throughput is short of calm runs here, but it is the processor time that is open.
    open_ = replace(report(slower=1.048, others=0.3), metrics=("cpu", "throughput"))
    assert "undisturbed" not in outputs.sentence(judged(open_))
    assert "use a larger --budget" in outputs.sentence(judged(replace(no_round, metrics=("throughput",))))
    nothing = judged(replace(no_round, metrics=("instructions",)))
    assert nothing.word is Word.INCONCLUSIVE
    assert "Nothing that was asked for could be measured." in outputs.text(nothing)


def test_markdown_is_one_table_with_a_line_a_metric() -> None:
    lines = outputs.markdown(judged(report())).splitlines()
    assert lines[0] == "### relaymark gate: pass"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(NAMES)
    assert {line.count("|") for line in table} == {table[0].count("|")}


def test_junit_counts_what_it_holds() -> None:
    (suite,) = ElementTree.fromstring(outputs.junit(judged(report(slower=1.1)), 90 * 10**9))
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == [*NAMES, "verdict"]
    assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
    assert cases["verdict"].find("failure") is not None
    assert suite.get("time") == "90.000"
    (passing,) = ElementTree.fromstring(outputs.junit(judged(report()), 1))
    assert passing.get("failures") == passing.get("skipped") == "0"


def test_github_gets_figures_of_which_smaller_is_better() -> None:
    entries = json.loads(outputs.github(judged(report(slower=1.1))))
    assert [entry["name"] for entry in entries][:2] == ["CPU a delivery", "Time a delivery at saturation"]
    assert all(entry.keys() == {"name", "unit", "value", "extra", "range"} for entry in entries)
    assert entries[1]["value"] == pytest.approx(1100, rel=0.02)
    assert entries[1]["unit"] == "ns"


def test_github_gets_no_figure_that_was_not_measured() -> None:
    entries = json.loads(outputs.github(judged(report(others=0.3))))
    assert [entry["name"] for entry in entries] == ["CPU a delivery", "Instructions a delivery"]
