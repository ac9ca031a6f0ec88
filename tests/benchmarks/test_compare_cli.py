"""Options that cannot work are all told at once; what is not installed is left out; Ctrl-C leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from benchmarks.compare import cli, report, session
from benchmarks.peers.catalogue import Peer, all_peers, version_of
from benchmarks.rig.processes import Cores
from benchmarks.rig.say import Say
from benchmarks.rig.tables import markdown, plain
from loadtests.report.comparison import group, verdicts
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK, EXIT_TARGET
from loadtests.results.files import load
from tests.benchmarks.test_compare_ranking import turn


def probe(target: str) -> session.Probe:
    saturation = turn(target, 0, 1000.0).saturation
    return session.Probe(target=target, saturation=saturation, held=100, idle_bytes=10**7, held_bytes=11 * 10**6)


def pretend(
    measured: session.Measurements,
    targets: list[Peer],
    plan: session.ComparePlan,
    _cores: Cores,
    _logs: Path,
    _say: Say,
) -> None:
    """Fill in figures instead of measuring."""
    for place, target in enumerate(targets):
        measured.probes[target.name] = probe(target.name)
        for number in range(plan.rounds):
            latency_ns = (place + 1) * 1_000_000 + number
            measured.turns.append(turn(target.name, number, 1000.0 / (place + 1) + number, latency_ns=latency_ns))
    measured.publishes_per_s = 50.0


def test_every_problem_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere" / "x.json"
    assert cli.compare("refrence", "nats", "nats", "kafka", rounds=2, json=nowhere) == EXIT_CONFIGURATION
    told = capsys.readouterr().err
    for part in ("refrence is no target", "kafka is no target", "nats is named twice", "--rounds must be 3", "--json"):
        assert part in told
    assert list(tmp_path.iterdir()) == []


def test_nothing_installed_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _without(monkeypatch, "nats", "bun")
    assert cli.compare("nats", "bun") == EXIT_TARGET
    told = capsys.readouterr().err
    assert "make peers" in told
    assert "pip install" in told


def test_what_is_not_installed_is_left_out_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _without(monkeypatch, "nats")
    monkeypatch.setattr(cli, "measure", pretend)
    written = tmp_path / "tables.md"
    code = cli.compare("reference", "nats", "reference@uvloop", rounds=3, out=tmp_path, markdown=written)
    assert code == EXIT_OK
    shown = capsys.readouterr().out
    assert "nats is left out: it is not installed" in shown
    assert "reference > reference@uvloop" in shown
    assert "numbered without gaps" in shown
    assert "| reference@uvloop |" in written.read_text()
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    found = msgspec.json.decode((folder / "compare.json").read_bytes())
    assert [place["target"] for place in found["order"]] == ["reference", "reference@uvloop"]
    assert found["ratios"][0]["interval"]["value"] == pytest.approx(0.5, rel=0.01)
    results = [load(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    assert len(results) == 6
    compared = {(one.label, one.metric.name): one for one in verdicts(group(results))}
    assert compared["reference@uvloop", "p50"].better == "reference"
    assert (folder / "report.html").read_text().count("reference@uvloop")


def test_an_interruption_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        pretend(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "measure", interrupted)
    assert cli.compare("reference", rounds=3, out=tmp_path) == EXIT_INTERRUPTED
    shown = capsys.readouterr().out
    assert "Interrupted" in shown
    assert "deliveries/s" in shown


def test_a_target_that_fails_is_named_with_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = replace(
        all_peers()["redis"],
        binary=sys.executable,
        command=lambda binary, _directory, _port: [binary, "-c", "raise SystemExit(3)"],
    )
    monkeypatch.setattr(cli, "all_peers", lambda: {"redis": target})
    assert cli.compare("redis", rounds=3, out=tmp_path) == EXIT_TARGET
    shown = capsys.readouterr().out
    assert "FAILED redis" in shown
    assert "redis.log" in shown


def test_every_target_promises_in_the_same_columns_and_can_be_had() -> None:
    targets = all_peers()
    assert len({tuple(target.promises) for target in targets.values()}) == 1
    for name, target in targets.items():
        assert target.binary is not None or target.how_to_get, name
    assert version_of(targets["reference"])


def comparison_of(*names: str) -> report.Comparison:
    measured = session.Measurements(probes={}, turns=[], failures={})
    chosen = {name: all_peers()[name] for name in names}
    plan = session.plan(quick=True, rounds=3, seed=1)
    pretend(measured, list(chosen.values()), plan, Cores(server=0, load=0), Path(), print)
    return report.Comparison(
        targets=chosen,
        versions={},
        left_out={},
        plan=plan,
        cores=Cores(server=0, load=0),
        measured=measured,
        started_unix_ns=0,
        command=("relaymark",),
        interrupted=False,
    )


def test_plain_and_markdown_say_the_same() -> None:
    comparison = comparison_of("reference", "reference@uvloop")
    assert "ONE CORE ONLY" in report.text(comparison, plain)
    cells = [cell for line in report.saturation_lines(comparison) for cell in line]
    assert all(cell in report.text(comparison, markdown) for cell in cells)


def test_latencies_of_a_load_that_had_no_time_are_marked() -> None:
    comparison = comparison_of("reference")
    assert report.pace_lines(comparison)[1][-1] == ""
    first, *others = comparison.measured.turns
    busy = msgspec.structs.replace(first, pace=msgspec.structs.replace(first.pace, load_cpu=0.95, acknowledged=0))
    comparison.measured.turns[:] = [busy, *others]
    note = report.pace_lines(comparison)[1][-1]
    assert note == "INVALID in 1 of 3 turns: generator-cpu; 1 publishes got no answer"
    assert report.invalid(comparison) == []


def _busy(turn: session.Turn) -> session.Turn:
    return msgspec.structs.replace(turn, pace=msgspec.structs.replace(turn.pace, load_cpu=0.95))


def test_latencies_that_are_mostly_the_load_s_own_have_a_code_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def overloaded(measured: session.Measurements, *arguments: object) -> None:
        pretend(measured, *arguments)  # type: ignore[arg-type]
        measured.turns[:] = [_busy(turn) if turn.round else turn for turn in measured.turns]

    monkeypatch.setattr(cli, "measure", overloaded)
    assert cli.compare("reference", rounds=3, out=tmp_path) == EXIT_INVALID
    told = capsys.readouterr().out
    assert "INVALID in 2 of 3 turns: generator-cpu" in told
    assert "INVALID: do not use the latencies of reference;" in told


@pytest.mark.process
def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    start = "from relay.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", start, "compare", "reference", "--quick", "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 30
        servers: list[psutil.Process] = []
        while not servers and time.monotonic() < deadline:
            servers = psutil.Process(process.pid).children()
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED
    assert b"Interrupted" in out
    assert servers
    assert not any(server.is_running() for server in servers)


def _without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    targets = all_peers()
    targets |= {name: replace(targets[name], binary=None) for name in names}
    monkeypatch.setattr(cli, "all_peers", lambda: targets)
