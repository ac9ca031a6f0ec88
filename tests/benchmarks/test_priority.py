"""What runs preferred is put back afterwards, whatever the machine's scheduler offers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.rig import priority


class Group:
    """The kernel's file: it is written as a number, and read as a line."""

    def __init__(self) -> None:
        self.nice = 4

    def read_text(self) -> str:
        return f"/autogroup-12 nice {self.nice}\n"

    def write_text(self, text: str) -> None:
        self.nice = int(text)


@pytest.fixture
def nice(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The values that this process was set to, in order; the process itself is left alone."""
    values: list[int] = []
    monkeypatch.setattr(os, "getpriority", lambda _which, _who: 3)
    monkeypatch.setattr(os, "setpriority", lambda _which, _who, value: values.append(value))
    return values


def test_the_process_and_its_group_go_ahead_and_back(nice: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group()
    monkeypatch.setattr(priority, "_GROUP", group)
    with priority.preferred() as allowed:
        assert allowed
        assert group.nice == priority.NICE
    assert group.nice == 4
    assert nice == [priority.NICE, 3]


@pytest.mark.parametrize("text", ["", "no group at all\n", None])
def test_a_process_that_is_in_no_group_is_preferred_all_the_same(
    nice: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    group = tmp_path / "autogroup"
    if text is not None:
        group.write_text(text)
    monkeypatch.setattr(priority, "_GROUP", group)
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
