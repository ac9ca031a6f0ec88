"""Tables of text cells."""

from __future__ import annotations

import pytest

from benchmarks.rig.tables import markdown, plain, thousands


def test_the_same_table_in_markdown() -> None:
    assert markdown([["target", "rate"], ["bun", "1"]]) == "| target | rate |\n| --- | ---: |\n| bun | 1 |"


@pytest.mark.parametrize(("value", "text"), [(950.0, "0.9 k"), (104_300.0, "104.3 k"), (1_043_000.0, "1043 k")])
def test_thousands(value: float, text: str) -> None:
    assert thousands(value) == text


def test_the_first_column_stands_left_and_the_others_right() -> None:
    assert plain([["target", "rate"], ["bun", "1"]]) == "target  rate\nbun        1"
