"""What a result says of its surroundings: enough to tell machines apart, nothing that names one."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from loadtests.results import environment


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True, capture_output=True)


def test_this_machine_is_described_and_recognised() -> None:
    found = environment.machine()
    assert found == environment.machine()
    assert found.cpus >= 1
    assert found.memory_bytes > 2**20
    assert len(bytes.fromhex(found.fingerprint)) == 8
    assert platform.node() not in (found.fingerprint, found.cpu, found.system)


@pytest.mark.parametrize("differing", ["_machine_id", "_cpu_model"])
def test_another_machine_has_another_fingerprint(monkeypatch: pytest.MonkeyPatch, differing: str) -> None:
    here = environment.machine().fingerprint
    monkeypatch.setattr(environment, differing, lambda: "another")
    assert environment.machine().fingerprint != here


def test_versions_are_those_installed() -> None:
    found = environment.versions()
    assert {"locust", "numpy", "msgspec"} <= found.keys()
    assert environment.python_version().endswith(platform.python_version())


def test_the_commit_says_whether_files_were_changed(tmp_path: Path) -> None:
    assert environment.commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert environment.commit(tmp_path) is None, "no commit yet"
    file = tmp_path / "file"
    file.write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-q", "-m", "one")
    clean = environment.commit(tmp_path)
    assert clean is not None
    assert len(clean) == 12
    (tmp_path / "untracked").write_text("1")
    assert environment.commit(tmp_path) == clean
    file.write_text("2")
    assert environment.commit(tmp_path) == f"{clean}-dirty"


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit(tmp_path) is None
