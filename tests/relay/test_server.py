"""The command line: every problem of the options at once, exit codes, what is printed, and what mint makes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from processes import CERTIFICATE, ROOT, Member, relay_process

from relay import capability, cli
from relay.errors import Code, ConfigurationError, Refused
from relay.server import Options, open_store, parse_address, serve
from relay.session import Rates


def problems_of(options: Options) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        serve(options, announce=lambda line: pytest.fail(f"announced {line}"), log=lambda line: None)
    return refused.value.problems


def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay.cli", *words], capture_output=True, text=True, cwd=ROOT, input=text, timeout=30
    )


# -- options -----------------------------------------------------------------------------------------


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    options = Options(
        listen="nowhere",
        store="postgres:x",
        transport="pigeons",
        tls_cert=tmp_path / "none.pem",
        metrics="127.0.0.1:99999",
        retain_s=0,
        drain_s=-1,
        rates=Rates(durable_per_s=0, ephemeral_per_s=-5, control_per_s=0),
    )
    problems = problems_of(options)
    named = ("--listen", "--metrics", "--tls-cert", "--transport", "--retain", "--drain", "--durable-per-s")
    for option in (*named, "--ephemeral-per-s", "--control-per-s", "--store"):
        assert sum(option in problem for problem in problems) == 1, option
    assert len(problems) == 10


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (Options(listen="256.256.256.256:1"), "--listen"),
        (Options(listen=f"{'a' * 70}.example:1"), "--listen"),
        (Options(listen="127.0.0.1:0", retain_s=float("nan")), "--retain"),
        (Options(listen="127.0.0.1:0", retain_s=float("inf")), "--retain"),
        (Options(listen="127.0.0.1:0", drain_s=float("nan")), "--drain"),
        (Options(listen="127.0.0.1:0", drain_s=float("inf")), "--drain"),
        (Options(listen="127.0.0.1:0", tls_key=CERTIFICATE / "key.pem"), "--tls-cert"),
        (Options(listen="127.0.0.1:0", tls_cert=CERTIFICATE / "a.pem", tls_key=CERTIFICATE / "b.pem"), "a.pem"),
        (
            Options(listen="127.0.0.1:0", tls_cert=CERTIFICATE / "key.pem", tls_key=CERTIFICATE / "key.pem"),
            "--tls-cert",
        ),
        (Options(listen="127.0.0.1:0", store="sqlite:"), "--store"),
        (Options(listen="127.0.0.1:0", store="sqlite:/nowhere/at/all.db"), "/nowhere/at/all.db"),
        (Options(listen="127.0.0.1:0", store="memory:x"), "--store"),
        (Options(listen="127.0.0.1:0", metrics=""), "--metrics"),
        (Options(listen="127.0.0.1:0", store_bytes_max=1_048_575), "--store-bytes-max"),
        (Options(listen="127.0.0.1:0", stream_bytes_max=0), "--stream-bytes-max"),
        (Options(listen="127.0.0.1:0", rates=Rates(durable_per_s=2**64)), "--durable-per-s"),
        (Options(listen="127.0.0.1:0", rates=Rates(control_per_s=0)), "--control-per-s"),
    ],
)
def test_an_option_that_cannot_work(options: Options, named: str) -> None:
    (problem,) = problems_of(options)
    assert named in problem


def test_an_address_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (problem,) = problems_of(Options(listen=address))
        assert problem.startswith(f"--listen {address}: ")


def test_a_store_in_use(tmp_path: Path) -> None:
    path = f"sqlite:{tmp_path / 'relay.db'}"
    store = open_store(path)
    try:
        (problem,) = problems_of(Options(listen="127.0.0.1:0", store=path))
        assert "another relay" in problem
    finally:
        store.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("::1:80", ("::1", 80)),
        (":8765", ("", 8765)),
        ("relay.example:65535", ("relay.example", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, "--listen") == address


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", "localhost:http", "localhost:-1", "localhost:65536", "1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_address(text, "--listen")


# -- the command -------------------------------------------------------------------------------------


@pytest.mark.process
def test_bad_options_exit_with_104_and_say_what_to_do() -> None:
    done = run("serve", "--listen", "x", "--store", "y", "--transport", "z")
    assert done.returncode == 104
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("relaymark serve: --") for line in lines[:3])
    assert "--help" in lines[3]


@pytest.mark.process
@pytest.mark.parametrize("words", [("serve", "--no-such-option"), ("no-such-command",), ("serve", "--retain", "soon")])
def test_options_that_do_not_exist_exit_with_104(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 104
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_serving_prints_one_line_and_logs_no_address() -> None:
    options = ("--retain", "60", "--drain", "5", "--durable-per-s", "7")
    with relay_process(*options) as relay:
        assert relay.line == f"relaymark: serving {relay.url} metrics {relay.metrics_url}\n"
        assert relay.page("/healthz") == "alive\n"
        assert relay.page("/readyz") == "ready\n"
        with Member(relay.port) as client:
            assert client.welcome is not None
            assert client.welcome.limits.durable_per_s_max == 7
        relay.terminate()
        assert relay.end() == 0
        assert relay.log() == f"relaymark: store memory, transport pump, process {relay.pid}\nrelaymark: drained\n"


def test_a_fault_of_the_program_exits_with_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: 1 // 0)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


# -- mint --------------------------------------------------------------------------------------------


def minted(capsys: pytest.CaptureFixture[str], **options: object) -> list[dict[str, str]]:
    assert cli.mint(**options) == 0  # type: ignore[arg-type]
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_mint_makes_a_stream_and_its_capabilities(capsys: pytest.CaptureFixture[str]) -> None:
    stream, *made = minted(capsys, rights=["subscribe", "erase"], quorum=3, valid=100.0, count=2)
    key = SigningKey(bytes.fromhex(stream["secret_key"]))
    assert bytes(key.verify_key).hex() == stream["stream"]
    found = [capability.parse(bytes.fromhex(line["capability"])) for line in made]
    assert len({each.serial for each in found}) == 2
    for each in found:
        assert (each.stream.hex(), each.rights, each.quorum, each.holder) == (stream["stream"], 5, 3, None)
        assert 90 < each.expires_s - time.time() <= 100


def test_mint_uses_a_key_and_does_not_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stream.key"
    path.write_text("11" * 32 + "\n")
    holder = SigningKey(b"h" * 32).verify_key
    stream, made = minted(capsys, key=str(path), holder=bytes(holder).hex())
    assert stream == {"stream": bytes(SigningKey(b"\x11" * 32).verify_key).hex()}
    found = capability.parse(bytes.fromhex(made["capability"]))
    assert found.holder == bytes(holder)
    assert found.rights == 3
    with pytest.raises(Refused) as refused:
        capability.Verifier().check(
            bytes.fromhex(made["capability"]), use=1, proof=None, challenge=bytes(32), now_s=int(time.time())
        )
    assert refused.value.code == Code.HOLDER


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"key": "/nowhere/key"}, "--key"),
        ({"holder": "zz"}, "--holder"),
        ({"holder": "11" * 31}, "--holder"),
        ({"holder": "00" * 32}, "--holder"),
        ({"quorum": -1}, "--quorum"),
        ({"quorum": 65_536}, "--quorum"),
        ({"valid": 0.0}, "--valid"),
        ({"valid": float("nan")}, "--valid"),
        ({"valid": float("inf")}, "--valid"),
        ({"valid": 1e30}, "--valid"),
        ({"count": 0}, "--count"),
    ],
)
def test_mint_refuses(options: dict[str, object], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.mint(**options) == 104  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"relaymark mint: {named}")
    assert len(err.splitlines()) == 2


@pytest.mark.process
@pytest.mark.parametrize("count", ["1", "2000"], ids=["at the end", "in the middle"])
def test_a_reader_of_the_output_that_leaves_is_no_fault(count: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "relay.cli", "mint", "--count", count]
    with open(writing, "wb") as left:
        done = subprocess.run(command, stdout=left, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    why = b"relaymark: stdout takes nothing more: its reader has gone; the rest of the output is not shown.\n"
    assert (done.returncode, done.stderr) == (105, why)


@pytest.mark.process
def test_mint_tells_all_problems_at_once_and_reads_stdin() -> None:
    done = run("mint", "--key", "-", "--quorum", "-1", "--count", "0", text="not a key")
    assert done.returncode == 104
    told = [line.split()[2] for line in done.stderr.splitlines() if line.startswith("relaymark mint: ")]
    assert told == ["--key:", "--quorum", "--count"]
    assert run("mint", "--rights", "everything").returncode == 104
    assert run("mint", "--key", "-", text="22" * 32).returncode == 0
