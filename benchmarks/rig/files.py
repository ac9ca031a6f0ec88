"""Files that a command was asked to write: whether they can be, before anything is measured; then whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from loadtests.results.files import write_files


def unwritable(paths: Mapping[str, Path | None]) -> list[str]:
    """Return a problem for each option whose file cannot be written."""
    return [
        f"--{option} {path}: its directory does not exist or cannot be written to"
        for option, path in paths.items()
        if path is not None and not os.access(path.parent, os.W_OK)
    ]


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises ResultsError."""
    write_files(path.parent, {path.name: content})
