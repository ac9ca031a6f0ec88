"""Tells a person at the terminal how far a command is; the result alone goes to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]


def say(line: str) -> None:
    """Print one line to stderr."""
    print(line, file=sys.stderr, flush=True)


def say_as(command: str) -> Say:
    """Return what prints lines to stderr that begin with the name of `command`."""
    return lambda line: say(f"{command}: {line}")


def complain(command: str, problems: Sequence[str], code: int) -> int:
    """Say every problem, and return `code`."""
    for problem in problems:
        say(f"{command}: {problem}")
    return code
