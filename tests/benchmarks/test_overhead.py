"""What encryption costs: the schemes, what is reckoned from them, the runs end to end and the tables."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from benchmarks import cli
from benchmarks.overhead import end_to_end, ratchets
from benchmarks.overhead.end_to_end import EndToEndLoad, Point, added
from benchmarks.overhead.operations import MEMBERS_MADE_MAX, PAYLOADS, group, operation, setup
from benchmarks.overhead.schemes import SUITES, Scheme, padded
from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.results.environment import machine
from loadtests.results.schema import MeasuredTarget, RelayFigures, Result, Summary
from loadtests.sealing.envelope import STAMP_BYTES
from relay.limits import SEALED_BYTES_MAX, padme_bytes

KNOWN, MISSING = ratchets.installed()
SCHEMES = [*SUITES, *KNOWN]
by_name = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)


@by_name
@pytest.mark.parametrize("size", [0, 32, 255, 4096])
def test_what_is_sealed_opens(scheme: Scheme, size: int) -> None:
    ends = scheme.make()
    body = bytes(at % 251 for at in range(size))
    for _ in range(3):
        sealed = ends.seal(body)
        assert ends.open(sealed)[:size] == body
        assert len(sealed) >= 256


@pytest.mark.parametrize("scheme", SUITES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("size", PAYLOADS)
def test_the_overhead_is_what_it_says(scheme: Scheme, size: int) -> None:
    assert scheme.overhead_bytes is not None
    sealed = scheme.make().seal(bytes(size))
    assert len(sealed) == padme_bytes(STAMP_BYTES + size + scheme.overhead_bytes) <= SEALED_BYTES_MAX


@pytest.mark.parametrize("size", PAYLOADS)
def test_libraries_get_a_plaintext_of_the_same_sizes(size: int) -> None:
    assert len(padded(bytes(size), 0)) == padme_bytes(STAMP_BYTES + size)


@by_name
def test_who_joins_can_take_what_a_member_gives(scheme: Scheme) -> None:
    if scheme.joining is None:
        assert scheme.name == "none"
        return
    one = scheme.joining()
    assert one.take(one.give())


@by_name
def test_an_operation_has_its_sizes(scheme: Scheme) -> None:
    made = operation(scheme, 32, rounds=1)
    assert made.seal_ns > 0
    assert made.open_ns > 0
    assert made.sealed_bytes == len(scheme.make().seal(bytes(32)))
    assert 0.3 < made.padding_share < 0.8


@by_name
def test_a_group_costs_its_sender_once_or_each_time(scheme: Scheme) -> None:
    small, large = group(scheme, 2, rounds=1), group(scheme, 1001, rounds=1)
    assert large.sent_bytes == small.sent_bytes * (1000 if scheme.each else 1)
    assert large.made == (MEMBERS_MADE_MAX if scheme.each else 1)
    if scheme.each:
        assert large.sender_ns > 20 * small.sender_ns


@by_name
def test_joining_takes_something_of_everyone_or_of_one(scheme: Scheme) -> None:
    small, large = setup(scheme, 2), setup(scheme, 1001)
    assert large.received_bytes == small.received_bytes * (1 if scheme.once else 1000)
    assert (small.received_bytes > 0) == (scheme.name != "none")


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratchets, "vodozemac", None)
    monkeypatch.setattr(ratchets, "doubleratchet", None)
    schemes, lines = ratchets.installed()
    assert schemes == []
    assert [line.split(" are ")[0].split(" is ")[0] for line in lines] == ["Olm and Megolm", "the Double Ratchet"]
    assert all("pip install 'relaymark[ratchets]'" in line for line in lines)


def point(number: int, suite: end_to_end.Suite, tls: bool, p50_us: float) -> Point:
    return Point(
        round=number, suite=suite, tls=tls, valid=True, samples=9, p50_us=p50_us, p99_us=p50_us * 3, relay_cpu_us=20.0
    )


def test_what_is_added_is_taken_within_rounds() -> None:
    points = []
    for number, speed in enumerate((100.0, 400.0, 200.0, 300.0)):
        points += [point(number, "none", False, speed), point(number, "sender-key", False, speed + 10 + number)]
    found = {(one.what, one.figure): one for one in added(points)}
    assert found.keys() == {("encryption", figure) for figure in end_to_end.FIGURES}
    cost = found["encryption", "p50_us"].cost
    assert cost is not None
    assert 10 <= cost.value <= 13
    assert cost.low > 5
    assert found["encryption", "relay_cpu_us"].cost == msgspec.structs.replace(cost, value=0.0, low=0.0, high=0.0)
    assert added(points[:4])[0].cost is None


def result(p50_ns: int, *, invalid: bool = False) -> Result:
    histogram = Histogram()
    for _ in range(100):
        histogram.record(p50_ns)
    return Result(
        relaymark="0.1.0",
        commit=None,
        python="CPython",
        machine=machine(),
        command=[],
        scenario="private-chat",
        seed=1,
        run="1",
        target=MeasuredTarget(name="reference"),
        started_unix_ns=1,
        duration_ns=10**9,
        series={series_name("deliver", kind="message", basis="intended"): Summary.of(histogram)},
        relay=RelayFigures(
            cpu_ns=4_000_000, memory_bytes_idle=1, memory_bytes_max=1, connections=2, deliveries=0 if invalid else 100
        ),
    )


def test_rounds_alternate_and_share_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0, stdout=msgspec.json.encode(result(500_000)).decode(), stderr="")

    monkeypatch.setattr(end_to_end, "finish", run)
    load = EndToEndLoad(scenario="private-chat", participants=10, duration_s=2.0, rounds=2, seed=7)
    points: list[Point] = []
    end_to_end.measure(load, points, lambda _: None)
    order = [(one.round, one.suite, one.tls) for one in points]
    assert order[:4] == [(0, suite, tls) for suite, tls in end_to_end.CONFIGURATIONS]
    assert order[4:] == [(1, suite, tls) for suite, tls in end_to_end.CONFIGURATIONS[::-1]]
    assert [command[command.index("--seed") + 1] for command in commands] == ["7"] * 4 + ["8"] * 4
    assert sum("--tls" in command for command in commands) == 4
    assert points[0].p50_us == pytest.approx(500, rel=0.01)
    assert points[0].relay_cpu_us == 40.0


@pytest.mark.parametrize(
    ("code", "stdout", "said"),
    [
        (122, "", "ended with 122: it did not start"),
        (0, "{", "printed no result"),
        (0, msgspec.json.encode(result(1, invalid=True)).decode(), "delivered no message"),
    ],
)
def test_a_run_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, code: int, stdout: str, said: str) -> None:
    done = SimpleNamespace(returncode=code, stdout=stdout, stderr="it did not start")
    monkeypatch.setattr(end_to_end, "finish", lambda *_, **__: done)
    load = EndToEndLoad(scenario="private-chat", participants=10, duration_s=2.0, rounds=1, seed=1)
    with pytest.raises(end_to_end.EndToEndError, match=said):
        end_to_end.measure(load, [], lambda _: None)


def test_tables_and_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measure(load: EndToEndLoad, points: list[Point], say: object) -> None:
        points += [
            point(number, suite, tls, 100.0 + 50 * tls + 5 * (suite != "none"))
            for number in range(load.rounds)
            for suite, tls in end_to_end.CONFIGURATIONS
        ]

    monkeypatch.setattr(end_to_end, "measure", measure)
    files = tmp_path / "overhead.json", tmp_path / "overhead.md"
    assert cli.overhead(parts=["end-to-end"], quick=True, json=files[0], markdown=files[1]) == 0
    text = capsys.readouterr().out
    assert "encryption, under TLS" in text
    assert "+50.0 us" in text
    assert files[1].read_text().count("| encryption |") == 3
    stored = json.loads(files[0].read_text())
    assert (stored["kind"], stored["schema_version"], len(stored["points"])) == ("relaymark-overhead", 1, 12)


def test_an_interrupted_call_reports_what_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(load: EndToEndLoad, points: list[Point], say: object) -> None:
        points += [point(0, "none", False, 100.0), point(0, "sender-key", False, 104.0)]
        raise KeyboardInterrupt

    monkeypatch.setattr(end_to_end, "measure", measure)
    assert cli.overhead(parts=["end-to-end"], quick=True, json=tmp_path / "overhead.json") == 105
    text = capsys.readouterr().out
    assert "+4.0 us" in text
    assert "Interrupted: this is what was measured until then." in text
    assert json.loads((tmp_path / "overhead.json").read_text())["interrupted"] is True


def test_options_that_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.overhead(rounds=0, participants=1, seconds=0, json=tmp_path / "nowhere" / "a.json") == 104
    said = capsys.readouterr().err
    for part in ("--rounds 0", "--participants 1", "--seconds 0", "--json"):
        assert part in said
