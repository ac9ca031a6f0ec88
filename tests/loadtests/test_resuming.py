"""Where a reader of a numbered log begins."""

from __future__ import annotations

import pytest

from loadtests.dialects.resuming import Start, start_of


@pytest.mark.parametrize(
    ("after", "asked_epoch", "first", "expected"),
    [
        (None, None, 1, Start(9, False, None)),
        (None, None, 10, Start(9, False, None)),
        (4, 77, 1, Start(4, True, None)),
        (4, None, 5, Start(4, True, None)),
        (9, 77, 10, Start(9, True, None)),
        (4, 77, 7, Start(6, False, (5, 6))),
        (4, 77, 10, Start(9, False, (5, 9))),
        (4, 78, 1, Start(0, False, None)),
        (4, 78, 3, Start(2, False, (1, 2))),
        (12, 77, 1, Start(9, False, None)),
    ],
)
def test_start(after: int | None, asked_epoch: int | None, first: int, expected: Start) -> None:
    assert start_of(after, asked_epoch, epoch=77, first=first, head=9) == expected
