"""Where a reader begins in a numbered log that a server keeps from some number on."""

from __future__ import annotations

from typing import NamedTuple


class Start(NamedTuple):
    """`last`: the number before the first that is to be sent; `missing`: what can no longer be, both included."""

    last: int
    recovered: bool
    missing: tuple[int, int] | None


def start_of(after: int | None, asked_epoch: int | None, *, epoch: int, first: int, head: int) -> Start:
    """Return where who asked for what comes `after` a number of `asked_epoch` begins. `first`: the oldest kept.

    In another epoch, everything is owed from its beginning. A server that stands before `after`, in the same epoch, has
    forgotten: what it numbers anew is passed on.
    """
    if after is None:
        return Start(head, False, None)
    same = asked_epoch is None or asked_epoch == epoch
    last = min(after, head) if same else 0
    missing = (last + 1, first - 1) if last + 1 < first else None
    return Start(missing[1] if missing else last, same and last == after and missing is None, missing)
