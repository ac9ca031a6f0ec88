"""Two commits of a repository as worktrees in a temporary directory, removed whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from benchmarks.rig.git import GitError, git
from benchmarks.rig.processes import uninterrupted

_CHANGES_SHOWN: Final = 5


class TreeError(Exception):
    """The repository or one of the refs cannot be used; the text is a sentence with its remedy."""


class Tree(Struct, frozen=True, kw_only=True):
    """A commit, and where it is checked out."""

    ref: str
    commit: str
    directory: Path


def repository(start: Path) -> Path:
    """Return the top of the checkout around `start`. Raises TreeError if it holds no relay."""
    try:
        top = Path(git(start, "rev-parse", "--show-toplevel"))
    except GitError as error:
        # Its own words: a checkout of another owner, for one, has a remedy that only git knows.
        raise TreeError(
            f"run the gate in a git checkout of the relay; {start} is none that can be used: {error}"
        ) from None
    if not (top / "relay" / "cli.py").is_file():
        raise TreeError(f"{top} holds no relay (relay/cli.py): run the gate in a checkout of it.")
    return top


def resolve(top: Path, ref: str) -> str:
    """Return the commit that `ref` names. Raises TreeError."""
    try:
        return git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except GitError:
        shallow = git(top, "rev-parse", "--is-shallow-repository") == "true"
        remedy = "this clone is shallow, fetch more of it" if shallow else "`git log --oneline` lists commits"
        raise TreeError(f"{ref!r} names no commit here: {remedy}.") from None


def changes(top: Path) -> list[str]:
    """Return what differs from the commit: changed files, and new ones of the relay."""
    lines = git(top, "status", "--porcelain", "--untracked-files=normal").splitlines()
    return [line for line in lines if not line.startswith("??") or line[3:].startswith("relay/")]


def refuse_changes(top: Path) -> None:
    """Raise TreeError if HEAD is not what the files say: the gate measures commits."""
    if found := changes(top):
        shown = "".join(f"\n  {line}" for line in found[:_CHANGES_SHOWN])
        rest = f"\n  and {len(found) - _CHANGES_SHOWN} more" if len(found) > _CHANGES_SHOWN else ""
        raise TreeError(
            f"the checkout has changes that are in no commit, so HEAD is not what you see:{shown}{rest}\n"
            "Commit them, or measure the commit without them by --allow-dirty."
        )


@contextmanager
def checked_out(top: Path, base: str, head: str) -> Iterator[tuple[Tree, Tree]]:
    """Check both refs out, and remove the worktrees on the way out. Raises TreeError."""
    commits = [(ref, resolve(top, ref)) for ref in (base, head)]
    with tempfile.TemporaryDirectory(prefix="relaymark-gate-", ignore_cleanup_errors=True) as directory:
        trees = [
            Tree(ref=ref, commit=commit, directory=Path(directory) / name)
            for name, (ref, commit) in zip(("base", "head"), commits, strict=True)
        ]
        try:
            for tree in trees:
                try:
                    with uninterrupted():
                        git(top, "worktree", "add", "--detach", "--force", str(tree.directory), tree.commit)
                except GitError as error:
                    raise TreeError(f"{tree.ref} cannot be checked out: {error}") from None
                if not (tree.directory / "relay" / "cli.py").is_file():
                    raise TreeError(f"{tree.ref} holds no relay (relay/cli.py).")
            yield trees[0], trees[1]
        finally:
            with uninterrupted():
                for tree in trees:
                    if tree.directory.exists():
                        _remove(top, tree.directory)


def _remove(top: Path, directory: Path) -> None:
    try:
        git(top, "worktree", "remove", "--force", str(directory))
    except GitError:  # half made, or something in it is open: by hand then
        shutil.rmtree(directory, ignore_errors=True)
        git(top, "worktree", "prune")
