"""Tables of text cells, for a terminal and for Markdown; pure."""

from __future__ import annotations

from collections.abc import Sequence


def thousands(value: float) -> str:
    """Return 104_300.0 as `104.3 k`, and 1_043_000.0 as `1043 k`."""
    return f"{value / 1000:.0f} k" if value >= 1e6 else f"{value / 1000:.1f} k"


def plain(lines: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return the same table for Markdown."""
    head, *body = lines
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))
