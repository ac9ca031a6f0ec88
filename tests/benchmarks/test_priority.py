"""What runs preferred is put back afterwards, whatever the machine's scheduler offers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rig import priority


class Group:
    """The kernel's files: each is written as a number, and read as a line."""

    def __init__(self) -> None:
        self.nice: dict[str, int] = {}

    def __truediv__(self, name: str) -> Group:
        self.name = name if name != "autogroup" else self.name
        return self

    def read_text(self) -> str:
        return f"/autogroup-12 nice {self.nice.get(self.name, 4)}\n"

    def write_text(self, text: str) -> None:
        self.nice[self.name] = int(text)


@pytest.fixture
def nice(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The values that this process was set to, in order; the process itself is left alone."""
    values: list[int] = []
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: 3)
    monkeypatch.setattr(os, "setpriority", lambda _which, _who, value: values.append(value))
    return values


def test_the_process_and_its_group_go_ahead_and_back(nice: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group()
    monkeypatch.setattr(priority, "_PROC", group)
    own = str(os.getpid())
    with priority.preferred() as allowed:
        assert allowed
        assert group.nice == {own: priority.NICE}
        with priority.giving_way(preferred=allowed):
            assert group.nice == {own: 0}
        assert group.nice == {own: priority.NICE}
    assert group.nice == {own: 4}
    assert nice == [priority.NICE, 0, 3, 3]


def test_who_is_not_preferred_cannot_give_way_for_a_while(nice: list[int]) -> None:
    with priority.giving_way(preferred=False):
        assert nice == []


@pytest.mark.process
def test_sessions_of_children_go_ahead_too(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group()
    monkeypatch.setattr(priority, "_PROC", group)
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with (
        subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as apart,
        subprocess.Popen(command, stdout=subprocess.PIPE) as beside,
    ):
        for process in (apart, beside):
            assert process.stdout is not None
            process.stdout.readline()
        priority.prefer_sessions()
        apart.kill()
        beside.kill()
    assert group.nice[str(apart.pid)] == priority.NICE
    assert str(beside.pid) not in group.nice, "it is in our session"


@pytest.mark.parametrize("text", ["", "no group at all\n", None])
def test_a_process_that_is_in_no_group_is_preferred_all_the_same(
    nice: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    group = tmp_path / str(os.getpid()) / "autogroup"
    group.parent.mkdir()
    if text is not None:
        group.write_text(text)
    monkeypatch.setattr(priority, "_PROC", tmp_path)
    with priority.preferred() as allowed:
        assert allowed
    assert (group.read_text() if group.exists() else None) == text
    assert nice == [priority.NICE, 3]


def test_where_it_is_not_allowed_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_which: int, _who: int, _value: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    with priority.preferred() as allowed:
        assert not allowed
