"""`relaymark gate`: options, files and exit codes; and one real run of a real relay."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from test_gate_report import report
from test_gate_trees import git, top, worktrees

from benchmarks import cli
from benchmarks.gate import command
from benchmarks.gate.metrics import NAMES
from benchmarks.gate.report import load, save
from benchmarks.gate.runs import RunError
from benchmarks.gate.session import FULL, QUICK, Collected, GatePlan
from benchmarks.gate.tree_runs import TreeRuns, costs_ns
from benchmarks.gate.trees import Tree
from benchmarks.rig import instructions
from benchmarks.rig.instructions import Callgrind, Perf
from benchmarks.rig.processes import Cores, choose_cores

__all__ = ["top"]  # a fixture
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, top: Path) -> Callable[[float], None]:
    """Let `collect` return runs of a head that is so much slower."""
    monkeypatch.chdir(top)

    def slower(factor: float) -> None:
        def collect(base: str, plan: GatePlan, say: object, *ways: object) -> Collected:
            assert worktrees(top) == 3
            made = report(slower=factor)
            return Collected(runs=made.runs, counts=made.counts, tool=made.tool)

        monkeypatch.setattr(command, "collect", collect)

    return slower


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.15, 99), (1.048, 121)])
def test_the_verdict_is_the_exit_code(
    measured: Callable[[float], None], capsys: pytest.CaptureFixture[str], top: Path, factor: float, code: int
) -> None:
    measured(factor)
    words = {0: "pass:", 99: "regression:", 121: "inconclusive:"}
    assert cli.gate(base="HEAD~1", quick=True, metrics=["cpu"]) == code
    assert words[code] in capsys.readouterr().out
    assert worktrees(top) == 1


def test_all_files_are_written(measured: Callable[[float], None], tmp_path: Path) -> None:
    measured(1.0)
    files = [tmp_path / name for name in ("gate.json", "gate.md", "gate.xml", "github.json")]
    assert cli.gate(base="HEAD~1", json=files[0], markdown=files[1], junit=files[2], github=files[3]) == 0
    assert all(path.stat().st_size > 100 for path in files)
    stored = load(files[0])
    assert (stored.base.ref, stored.head.ref, stored.metrics) == ("HEAD~1", "HEAD", NAMES)
    other = tmp_path / "other.json"
    save(other, replace(load(files[0]), runs=report(seed=2).runs))
    assert cli.gate(results=(files[0], other)) == 0
    assert cli.gate(results=(files[0], files[0])) == 104


def test_ctrl_c_and_a_relay_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], top: Path
) -> None:
    monkeypatch.chdir(top)
    for error, code in ((KeyboardInterrupt(), 105), (RunError("the relay of HEAD: no address"), 122)):

        def fails(*_: object, error: BaseException = error) -> Collected:
            raise error

        monkeypatch.setattr(command, "collect", fails)
        assert cli.gate(base="HEAD~1") == code
        assert worktrees(top) == 1
    assert "the relay of HEAD: no address" in capsys.readouterr().err


def test_every_problem_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], top: Path
) -> None:
    monkeypatch.chdir(top)
    (top / "relay" / "cli.py").write_text("changed")
    nowhere = top / "nowhere" / "gate.xml"
    assert cli.gate(base="nope", rounds=2, seconds=0.0, budget=-1, junit=nowhere) == 104
    said = capsys.readouterr().err
    for part in ("'nope' names no commit", "--rounds 2: too few", "--seconds 0", "--budget -1", "--junit", "M relay"):
        assert part in said
    assert worktrees(top) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"results": (Path("a"), Path("b")), "base": "HEAD"},
        {"target": ("reference", "reference@uvloop"), "base": "HEAD"},
        {"target": ("reference", "reference@uvloop"), "results": (Path("a"), Path("b"))},
    ],
)
def test_what_does_not_go_together(options: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.gate(**options) == 104  # type: ignore[arg-type]
    assert "--base" in capsys.readouterr().err


def test_a_dirty_checkout_is_measured_on_demand_and_another_head_always(
    measured: Callable[[float], None], top: Path
) -> None:
    measured(1.0)
    (top / "relay" / "cli.py").write_text("changed")
    assert cli.gate(base="HEAD~1") == 104
    assert cli.gate(base="HEAD~1", allow_dirty=True) == 0
    assert cli.gate(base="HEAD~1", head="main") == 0
    assert (top / "relay" / "cli.py").read_text() == "changed"


def test_instructions_alone_need_what_counts_them(
    measured: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(1.0)
    monkeypatch.setattr(instructions, "find", lambda: None)
    assert cli.gate(base="HEAD~1", metrics=["instructions"]) == 104
    assert "install valgrind" in capsys.readouterr().err


def test_outside_of_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.gate(base="HEAD~1") == 104
    assert "not a git repository" in capsys.readouterr().err


def test_stored_results_of_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = report()
    save(tmp_path / "a.json", made)
    save(tmp_path / "b.json", replace(made, machine=replace(made.machine, fingerprint="0" * 16)))
    assert cli.gate(results=(tmp_path / "a.json", tmp_path / "b.json")) == 104
    assert "different machines" in capsys.readouterr().err


def test_quick_is_within_two_minutes() -> None:
    assert QUICK.budget_s <= 120
    assert FULL.rounds > QUICK.rounds


def test_perf_output() -> None:
    csv = "# started on Mon\n\n123456789,,instructions:u,1000000,100.00,,\n"
    assert instructions._perf_count(csv) == 123_456_789
    assert instructions._perf_count("<not supported>,,instructions:u,0,100.00,,\n") is None


def test_callgrind_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    orders = []

    def attempt(arguments: list[str]) -> str:
        orders.append(arguments[1])
        if arguments[1] == "--dump":
            (tmp_path / f"count.{len(orders)}").write_text("events: Ir\nsummary: 4711\n1 2\n")
        return ""

    monkeypatch.setattr(instructions, "_attempt", attempt)
    tool = Callgrind()
    assert f"--callgrind-out-file={tmp_path / 'count'}" in tool.wrap(["python"], tmp_path)
    tool.start(1, tmp_path)
    assert [tool.read(1, tmp_path), tool.read(1, tmp_path)] == [4711, 4711]
    assert orders == ["--instr=on", "--zero", "--dump", "--dump"]
    monkeypatch.setattr(instructions, "_attempt", lambda arguments: None)
    with pytest.raises(instructions.ToolError, match="--dump failed"):
        tool.read(1, tmp_path)


def test_perf_that_cannot_count_is_no_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "_attempt", lambda arguments: "<not supported>,,instructions:u,0,,\n")
    assert not Perf().works()
    monkeypatch.setattr(instructions, "_attempt", lambda arguments: "55,,instructions:u,0,,\n")
    assert Perf().works()


def this_tree() -> Tree:
    return Tree(ref="HEAD", commit=git(CHECKOUT, "rev-parse", "HEAD"), directory=CHECKOUT)


@pytest.fixture
def cores() -> object:
    before = os.sched_getaffinity(0)
    yield choose_cores()
    os.sched_setaffinity(0, before)


@pytest.mark.process
def test_a_real_run_has_all_figures(cores: Cores) -> None:
    runs = TreeRuns(this_tree(), this_tree(), cores)
    pair = runs.pair(("base", "head"), seconds=0.1)
    assert [made.side for made in pair] == ["base", "head"]
    for made in pair:
        assert made.figures.keys() == {"cpu", "throughput", "p50", "p99"}
        assert 0 < made.figures["cpu"] < 1000
        assert 0 < made.figures["p50"] <= made.figures["p99"]
    quick, _ = runs.pair(("base", "base"), seconds=0.1, calibration=True, whole=False)
    assert quick.figures.keys() == {"cpu"}


@pytest.mark.process
def test_a_tree_that_does_not_start_is_named(cores: Cores, tmp_path: Path) -> None:
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "__init__.py").write_text("")
    (tmp_path / "relay" / "cli.py").write_text("raise SystemExit('broken on purpose')")
    with pytest.raises(RunError, match=r"(?s)the relay of old \(0{12}\):.*broken on purpose"):
        costs_ns((Tree(ref="old", commit="0" * 40, directory=tmp_path), this_tree()), cores, 0.1)


@pytest.mark.process
def test_another_relay_than_the_trees_is_not_measured(cores: Cores, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not the tree's"):
        costs_ns((this_tree(), Tree(ref="empty", commit="0" * 40, directory=tmp_path)), cores, 0.1)


@pytest.mark.process
def test_without_what_it_needs_it_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None; sys.argv = ['relaymark', 'gate', '--base', 'HEAD'];"
        "from relay.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 104
    assert "pip install 'relaymark[bench]'" in done.stderr
