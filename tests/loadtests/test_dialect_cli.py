"""`relaymark dialect`: what it writes, what it prints, and its codes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from loadtests import dialect_cli
from loadtests.options import HandshakeOptions
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_OK, EXIT_TARGET, EXIT_THRESHOLD


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_written_passes_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dialect_cli.new("my_relay") == EXIT_OK
    said = capsys.readouterr().out
    assert "relaymark dialect check my_relay.py:MyRelay --relay my_relay.py:MyRelayEnd" in said
    text = (folder / "my_relay.py").read_text()
    assert "keleton" not in text
    assert "noqa" not in text
    assert dialect_cli.check("my_relay.py:MyRelay", relay="my_relay.py:MyRelayEnd") == EXIT_OK
    assert capsys.readouterr().out.splitlines()[-1] == "18 checks passed, 0 failed, 0 not made"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-relay", "'my-relay' cannot name a module of Python: use letters, digits and _, as in my_relay."),
        ("../mine", "cannot name a module"),
        ("class", "cannot name a module"),
        ("__main__", "cannot name a module"),
        ("websockets", "A file websockets.py would hide the installed module websockets"),
        ("json", "would hide the installed module json"),
        ("place", "'place' gives the class Place, and the file has one of that name"),
        ("there", "there.py is there already: choose another name."),
    ],
)
def test_names_that_cannot_be(name: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "there.py").write_text("mine")
    assert dialect_cli.new(name) == EXIT_CONFIGURATION
    said = capsys.readouterr().err
    assert said.startswith("relaymark dialect new: ")
    assert says in said
    assert [path.name for path in folder.iterdir()] == ["there.py"]
    assert (folder / "there.py").read_text() == "mine"


def test_a_failed_check_is_told_in_three_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dialect_cli.new("mine")
    mine = folder / "mine.py"
    mine.write_text(mine.read_text().replace("None, None, said.sealed)", "None, None, said.sealed + b'!')"))
    capsys.readouterr()
    assert dialect_cli.check("mine.py:Mine", relay="mine.py:MineEnd") == EXIT_THRESHOLD
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("  FAIL  deliveries come once, in order")
    assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["expected", "came", "to"]
    assert (
        lines[at + 1]
        == "          expected  <256 bytes b'\\x01\\x01\\x00\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08\\t'...>"
    )


def test_without_an_end_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert dialect_cli.check("raw") == EXIT_OK
    said = capsys.readouterr().out
    assert "5 checks passed, 0 failed, 13 not made" in said
    assert "Give --relay FILE.py:Class" in said


def test_all_that_is_wrong_is_told_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ends.py").write_text(
        "class Bare:\n    pass\nclass Lame:\n    hear = deliver = nonsense = print\n    a = b = 1\n"
    )
    options = HandshakeOptions(tls_ca="/no/such.pem", header=["nothing"])
    assert dialect_cli.check("nobody", relay="ends.py:Bare", url="ws://h", options=options) == EXIT_CONFIGURATION
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("relaymark dialect check: ") for line in said)
    for sentence in (
        "There is no dialect 'nobody'",
        "The relay's end ends.py:Bare lacks hear, deliver, nonsense",
        "Give --relay or --url, not both",
        "--tls-ca: there is no file /no/such.pem.",
        "--tls-ca is for a relay at wss:// or tls://.",
        '--header must be "NAME: VALUE"',
    ):
        assert any(sentence in line for line in said), sentence
    assert dialect_cli.check("raw", relay="Bare") == EXIT_CONFIGURATION
    assert dialect_cli.check("raw", url="http://h") == EXIT_CONFIGURATION
    assert dialect_cli.check("raw", options=options) == EXIT_CONFIGURATION
    said = capsys.readouterr().err.splitlines()
    assert "write FILE.py:Class." in said[0]
    assert "is no address of a relay" in said[1]
    assert "are for a relay that runs: give its --url." in said[2]


def test_an_end_that_cannot_be_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ends.py").write_text(
        "class Dear:\n    hear = deliver = nonsense = print\n    def __init__(self, price):\n        pass\n"
    )
    assert dialect_cli.check("raw", relay="ends.py:Dear") == EXIT_CONFIGURATION
    assert "The relay's end ends.py:Dear cannot be made as Dear(): TypeError: " in capsys.readouterr().err


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert dialect_cli.check("raw", url=f"ws://127.0.0.1:{port}") == EXIT_TARGET
    assert "cannot be reached: Connection refused." in capsys.readouterr().err
