"""docs/your-own-dialect.md: its blocks are written to a folder and run, in their order, as its reader would."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.dialect_cli import written
from loadtests.dialects.base import Features
from loadtests.dialects.find import GROUP
from loadtests.results.exit_codes import EXIT_INVALID

PAGE = (Path(__file__).parents[1] / "docs" / "your-own-dialect.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {name: text for _, name, text in BLOCKS if name not in ("", "mine.py")}
EXCERPTS = [text for _, name, text in BLOCKS if name == "mine.py"]
COMMANDS = [text for language, _, text in BLOCKS if language == "sh"]
COMMANDS_S_MAX = 120


def test_what_it_shows_of_the_dialect_is_what_is_written() -> None:
    text = written("mine", "Mine")
    places = [text.find(excerpt) for excerpt in EXCERPTS]
    assert len(places) == 5
    assert -1 not in places
    assert places == sorted(places)


def test_it_says_what_every_feature_changes() -> None:
    for name in Features.__struct_fields__:
        assert f"| `{name}` |" in PAGE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> Iterator[str]:
    """What the page's commands print, at a free port, with shorter runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = "".join(COMMANDS).replace("9000", str(port)).replace("--duration 5s", "--duration 1s")
    # On a busy machine a run may say that its figures are invalid; they are not what counts here.
    script = re.sub(r"^(relaymark run .*)$", rf"\1 || [ $? = {EXIT_INVALID} ]", script, flags=re.MULTILINE)
    script = f"set -ex\ntrap 'kill $(jobs -p)' EXIT\n{script}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=COMMANDS_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    yield done.stdout
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the relay still runs"


@pytest.mark.process
def test_its_commands_do_what_it_says(said: str, folder: Path) -> None:
    assert (folder / "mine.py").read_text() == written("mine", "Mine")
    assert "18 checks passed, 0 failed, 0 not made" in said
    assert "7 checks passed, 0 failed, 3 not made" in said
    results = [json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*/result.json"))]
    assert [result["scenario"] for result in results] == ["room", "private-chat"]
    for result in results:
        ledger = result["kinds"]["message"]["ledger"]
        assert ledger["delivered"] == ledger["expected"] > 0
        assert "ledger" not in [finding["code"] for finding in result["findings"]]


@pytest.mark.process
def test_a_package_offers_it_by_its_entry_point(said: str, folder: Path, tmp_path: Path) -> None:
    entries = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]
    assert list(entries) == [GROUP]
    about = tmp_path / "mine-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in entries[GROUP].items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    (tmp_path / "mine.py").write_text((folder / "mine.py").read_text())
    relaymark = Path(sys.executable).with_name("relaymark")
    done = subprocess.run(
        [relaymark, "dialect", "check", "mine", "--relay", "mine.py:MineEnd"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=COMMANDS_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mine against mine.py:MineEnd" in done.stdout
