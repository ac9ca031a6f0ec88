"""What a target is called, on the command line and in targets.toml; all that is wrong is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.target.catalogue import CATALOGUE
from loadtests.target.spec import SpecError, read, sections_of
from loadtests.target.target import Command

MINE = """
from loadtests.dialects.raw import Raw

class Mine(Raw):
    pass
"""

WHOLE = """
[started]
dialect = "mine.py:Mine"
command = ["./relay", "--port", "{port}", "--data={dir}", "--tls", "{cert}", "{key}"]
environment = { HOME = "{dir}" }
path = "/chat"
ready = "http://127.0.0.1:{port}/healthz"
version = ["--version"]
how_to_get = "make relay"
about = "mine"
metrics = "http://127.0.0.1:{port}/metrics"
series = ["mine_sessions"]

[started.promises]
order = "as they come"
ordered = "stream"
resumes = true

[running]
dialect = "redis"
url = "rediss://cache.example:6380"
pid = 4711
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_names_of_the_catalogue(folder: Path) -> None:
    assert read("nats") is CATALOGUE["nats"]
    assert read("reference@uvloop").name == "reference@uvloop"


def test_addresses_of_relays_that_run(folder: Path) -> None:
    assert read("ws://127.0.0.1:8765").dialect == "reference"
    nats = read("nats@wss://host:4/x")
    assert (nats.dialect, nats.url, nats.started) == ("nats", "wss://host:4/x", False)
    assert nats.label == "nats", "an address is no label of a metric"
    assert read("mine.py:Mine@ws://h:1").label == "Mine"
    assert CATALOGUE["reference@uvloop"].label == "reference@uvloop"
    redis = read("redis@redis://127.0.0.1")
    assert (redis.url, redis.websocket) == ("tcp://127.0.0.1:6379", False)


def test_a_dialect_in_a_file_is_named_by_its_place_for_the_workers(folder: Path) -> None:
    assert read("mine.py:Mine@ws://h:1").dialect == f"{folder.resolve()}/mine.py:Mine"


def test_sections_of_the_file_of_this_folder(folder: Path) -> None:
    (folder / "targets.toml").write_text(WHOLE)
    started = read("started")
    assert isinstance(started.program, Command)
    assert started.dialect == f"{folder.resolve()}/mine.py:Mine"
    assert started.promises.words()["order"] == "as they come"
    assert (started.promises.ordered, started.promises.resumes, started.promises.survives) == (
        "stream",
        True,
        "nothing",
    )
    command = started.program.command("relay", Path("/d"), 9, Path("/c.pem"))
    assert command[:5] == ["relay", "--port", "9", "--data=/d", "--tls"]
    assert command[5] == "/c.pem"
    assert command[6].endswith("key.pem")
    assert started.program.environment(Path("/d"), 9) == {"HOME": "/d"}
    assert started.program.encrypts
    running = read("running")
    assert (running.url, running.pid, running.websocket) == ("tls://cache.example:6380", 4711, False)


def test_a_path_in_other_letters_is_percent_encoded(folder: Path) -> None:
    (folder / "targets.toml").write_text("[a]\ndialect = 'raw'\ncommand = ['x', '{port}']\npath = '/chät'", "utf-8")
    assert read("a").path == "/ch%C3%A4t"


def test_a_file_that_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.py").write_text(MINE)
    (folder / "sub" / "own.toml").write_text(WHOLE)
    assert read("started", Path("sub/own.toml")).dialect == f"{folder.resolve()}/sub/mine.py:Mine"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nast", "There is no target 'nast'. Did you mean nats? Write one of"),
        ("smtp@ws://h:1", "There is no dialect 'smtp'"),
        ("no.py:Mine@ws://h:1", "there is no file"),
        ("mine.py:Yours@ws://h:1", "has no class Yours"),
        ("nats@http://h:1", "is no address of a relay"),
        ("http://h:1", "is no address of a relay"),
        ("raw@tcp://h", "names no port"),
    ],
)
def test_what_names_no_target(text: str, says: str, folder: Path) -> None:
    with pytest.raises(SpecError) as error:
        read(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\ndialekt = 'raw'\nurl = 'ws://h:1'", "[a]: unknown key 'dialekt': did you mean dialect?"),
        ("[a]\nurl = 'ws://h:1'", "[a]: dialect is missing: reference, nats"),
        ("[a]\ndialect = 'raw'", "[a]: give either url, of a relay that runs, or command, which starts one."),
        ("[a]\ndialect = 'raw'\nurl = 'ws://h:1'\ncommand = ['x', '{port}']", "give either url"),
        ("[a]\ndialect = 'raw'\ncommand = ['x']", "command must say {port} where"),
        ("[a]\ndialect = 'raw'\ncommand = 'x {port}'", "command: Expected `array | null`, got `str`."),
        ("[a]\ndialect = 'raw'\nurl = 'ftp://h'", "url: 'ftp://h' is no address"),
        ("[a]\ndialect = 'raw'\nurl = 'ws://h:1'\nready = 'http://h'", "are for a relay that command starts"),
        ("[a]\ndialect = 'raw'\ncommand = ['x', '{port}']\npid = 3", "pid is for a relay that runs"),
        ("[a]\ndialect = 'raw'\ncommand = ['x', '{port}']\nready = 'localhost'", "ready must be http://"),
        ("[a]\ndialect = 'raw'\nurl = 'ws://h:1'\nmetrics = 'http://h/ä b'", "metrics must be http://"),
        ("[a]\ndialect = 'raw'\ncommand = ['x', '{port}']\npath = 'chat'", "path must begin with /"),
        ("[a]\ndialect = 'raw'\nurl = 'ws://h:0'", "has no valid port"),
        ("[a]\ndialect = 'none.py:No'\nurl = 'ws://h:1'", "there is no file"),
        ("[a]\ndialect = 'raw'\nurl = 'ws://h:1'\n[a.promises]\nordered = 'mostly'", "promises.ordered: Invalid enum"),
        ("[a]\ndialect = 'raw'\nurl = 'ws://h:1'\n[a.promises]\nfast = true", "unknown key promises.fast: there are"),
        ("[nats]\ndialect = 'raw'\nurl = 'ws://h:1'", "nats is a target that is known already"),
        ("a = 3", "[a]: is no section"),
        ("[a", "is no TOML"),
    ],
)
def test_a_file_with_faults(text: str, says: str, folder: Path) -> None:
    (folder / "targets.toml").write_text(text)
    with pytest.raises(SpecError) as error:
        sections_of(None)
    assert says in str(error.value)


def test_all_faults_of_a_file_are_told_at_once(folder: Path) -> None:
    (folder / "targets.toml").write_text("[a]\ndialect = 'smtp'\ncolour = 1\nurl = 'ftp://h'\n[b]\npid = 'x'\n")
    with pytest.raises(SpecError) as error:
        read("a")
    assert len(error.value.problems) == 6
    for part in ("'colour'", "'smtp'", "ftp", "[b]: dialect", "[b]: pid", "[b]: give either"):
        assert part in str(error.value)


def test_a_file_that_is_not_there(folder: Path) -> None:
    assert sections_of(None) == {}
    with pytest.raises(SpecError, match="cannot be read"):
        sections_of(Path("none.toml"))


def test_the_example_of_the_documentation_is_read(folder: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
    (folder / "targets.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    targets = sections_of(None)
    assert targets["mine"].promises.survives == "kill"
    assert targets["staging"].pid == 4711
    assert isinstance(targets["mine"].program, Command)
    assert targets["mine"].program.arguments[0] == f"{folder.resolve()}/mine"
