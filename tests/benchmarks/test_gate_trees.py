"""Commits as worktrees, and that none stays behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.gate.trees import TreeError, changes, checked_out, refuse_changes, repository, resolve


def git(directory: Path, *arguments: str) -> str:
    author = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(directory), *author, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Two commits of a relay."""
    directory = tmp_path / "checkout"
    (directory / "relay").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(directory))
    for text in ("first", "second"):
        (directory / "relay" / "cli.py").write_text(text)
        git(directory, "add", ".")
        git(directory, "commit", "--quiet", "-m", text)
    return directory


def worktrees(top: Path) -> int:
    return len(git(top, "worktree", "list").splitlines())


def test_both_commits_are_checked_out_and_removed(top: Path) -> None:
    with checked_out(top, "HEAD~1", "main") as (base, head):
        assert (base.directory / "relay" / "cli.py").read_text() == "first"
        assert (head.directory / "relay" / "cli.py").read_text() == "second"
        assert (base.ref, base.commit) == ("HEAD~1", git(top, "rev-parse", "HEAD~1"))
        assert worktrees(top) == 3
    assert not base.directory.exists()
    assert worktrees(top) == 1


def test_one_commit_can_be_both(top: Path) -> None:
    with checked_out(top, "HEAD", "HEAD") as (base, head):
        assert base.commit == head.commit
        assert base.directory != head.directory


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_worktrees_go_whatever_happens(top: Path, error: type[BaseException]) -> None:
    found: list[Path] = []

    def fail() -> None:
        with checked_out(top, "HEAD~1", "HEAD") as (base, _):
            found.append(base.directory)
            (base.directory / "relay" / "left-over.pyc").write_bytes(b"")
            raise error

    with pytest.raises(error):
        fail()
    assert worktrees(top) == 1
    assert not found[0].exists()


def test_a_worktree_that_git_will_not_remove_goes_too(top: Path) -> None:
    with checked_out(top, "HEAD~1", "HEAD") as (base, _):
        (base.directory / ".git").unlink()
    assert worktrees(top) == 1


@pytest.mark.parametrize("ref", ["nope", "--all", "", "HEAD~9", "HEAD:relay"])
def test_a_ref_that_names_no_commit(top: Path, ref: str) -> None:
    with pytest.raises(TreeError, match="names no commit here: `git log"):
        resolve(top, ref)
    with pytest.raises(TreeError), checked_out(top, ref, "HEAD"):
        pass
    assert worktrees(top) == 1


def test_a_commit_without_a_relay(top: Path) -> None:
    git(top, "rm", "--quiet", "-r", "relay")
    git(top, "commit", "--quiet", "-m", "no relay")
    with pytest.raises(TreeError, match="HEAD holds no relay"), checked_out(top, "HEAD~1", "HEAD"):
        pass
    assert worktrees(top) == 1


def test_where_there_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match=r"in a git checkout of the relay; .*not a git repository"):
        repository(tmp_path)


def test_of_a_checkout_of_another_owner_git_tells_the_remedy(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(TreeError, match=r"(?s)dubious ownership.*git config --global --add safe\.directory"):
        repository(top)


def test_where_there_is_no_relay(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", str(tmp_path))
    with pytest.raises(TreeError, match="holds no relay"):
        repository(tmp_path)


def test_the_top_is_found_from_below(top: Path) -> None:
    assert repository(top / "relay") == top


def test_changes_are_refused_and_named(top: Path) -> None:
    refuse_changes(top)
    (top / "notes.txt").write_text("not of the relay")
    refuse_changes(top)
    (top / "relay" / "cli.py").write_text("third")
    (top / "relay" / "new.py").write_text("")
    assert changes(top) == [" M relay/cli.py", "?? relay/new.py"]
    with pytest.raises(TreeError, match=r"(?s)M relay/cli\.py.*--allow-dirty"):
        refuse_changes(top)
