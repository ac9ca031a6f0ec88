"""The planted slow-down burns by the delivery, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_gate_trees import git, top

from benchmarks import plant

__all__ = ["top"]  # a fixture


def test_passes_go_by_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    burnt: list[int] = []

    class Counters:
        deliveries = 100

    class Hub:
        counters = Counters()

        def turn(self) -> bool:
            self.counters.deliveries += 8
            return True

    def repeat(_: object, times: int) -> range:
        burnt.append(times)
        return range(times)

    monkeypatch.setattr("itertools.repeat", repeat)
    scope: dict[str, object] = {"Hub": Hub}
    exec(plant._CODE.format(passes="2.500"), scope)
    assert Hub().turn() is True
    assert burnt == [20]


def test_the_plant_is_a_commit_on_top_and_the_checkout_stays(top: Path) -> None:
    (top / "relay" / "hub.py").write_text("class Hub:\n    def turn(self): ...\n")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "-m", "a hub")
    base = git(top, "rev-parse", "HEAD")
    planted = plant._plant(top, base, 12.0)
    assert git(top, "rev-parse", f"{planted}~1") == base
    assert git(top, "diff", "--name-only", base, planted) == "relay/hub.py"
    assert "Hub.turn = _planted(Hub.turn, 12.000)" in git(top, "show", f"{planted}:relay/hub.py")
    assert git(top, "rev-parse", "HEAD") == base
    assert git(top, "status", "--porcelain") == ""


def test_passes_are_reckoned_until_the_share_is_right(monkeypatch: pytest.MonkeyPatch, top: Path) -> None:
    planted: list[float] = []

    def commit(clone: Path, base: str, passes: float) -> str:
        planted.append(passes)
        return "planted"

    monkeypatch.setattr(plant, "_plant", commit)
    # A pass costs 0.6% of a delivery, the plant itself 1%.
    monkeypatch.setattr(plant, "_added", lambda clone, base, commit: 0.01 + 0.006 * planted[-1])
    passes, share = plant._calibrate(top, "base", 0.10)
    assert share == pytest.approx(0.10, abs=0.005)
    assert passes == pytest.approx(15, abs=1)


@pytest.mark.parametrize("arguments", [["--gates", "0"], ["--share", "0"]])
def test_options_that_cannot_work(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plant._parse(arguments)
    assert "--gates must be at least 1" in capsys.readouterr().err
