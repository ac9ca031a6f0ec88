"""Runs git on a repository."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

GIT_S_MAX: Final = 60.0


class GitError(Exception):
    """git is not there, or refused; the text says why."""


def git(directory: Path, *arguments: str) -> str:
    """Return what git printed in `directory`. Raises GitError."""
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_S_MAX,
            check=False,
            process_group=0,  # Ctrl-C reaches us alone: a worktree is not left half made or half removed
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError(f"git could not be run: {error}") from None
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout.rstrip("\n")
