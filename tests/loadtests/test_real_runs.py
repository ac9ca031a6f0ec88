"""Whole runs against real relay processes: the ledger, faults, clocks, workers, bad input. Each takes a few seconds."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_proxy import DROP, HOLD, PASS, REPEAT, SWAP, FaultProxy, Sight
from real_runs import finish, finished, locust, relaymark, result_in, serious, started_relay, sums

from loadtests.measuring.histogram import Histogram
from loadtests.results.environment import machine
from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INTERRUPTED, EXIT_INVALID, EXIT_TARGET, EXIT_THRESHOLD
from loadtests.target.reference_relay import ReferenceRelay
from loadtests.workload.catalogue import SCENARIOS

pytestmark = pytest.mark.process

WRONG = ("lost", "duplicated", "reordered", "late")


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[tuple[ReferenceRelay, str]]:
    relay, url = started_relay(tmp_path)
    yield relay, url
    relay.stop()


def test_every_scenario_reconciles_on_a_healthy_relay_under_plain_locust(
    relay: tuple[ReferenceRelay, str], tmp_path: Path
) -> None:
    for some in (list(SCENARIOS)[:5], list(SCENARIOS)[5:]):
        running = {name: locust(name, relay[1], tmp_path / name, "--seed", "3", users=24, seconds=3) for name in some}
        for name, process in running.items():
            result = finished(process, tmp_path / name)
            assert serious(result) == [], name
            assert sums(result, WRONG) == dict.fromkeys(WRONG, 0), name
            assert sums(result, ["delivered"])["delivered"] > 0, name
            assert result.scenario == name
            assert result.joins.tried == 24
            assert result.joins.failed == 0
            if name == "reconnect-storm":
                assert result.resumes.tried == 24
                assert result.resumes.failed == 0
                assert [event.text for event in result.events] == ["100% of the connections cut"]
            if name == "slow-readers":
                slow = result.histogram("deliver_slow")
                assert slow.percentile(50) > result.histogram("deliver", basis="intended").percentile(50)
                assert slow.max_ns > 500_000_000, "at half of the room's rate they fall behind by seconds"


def test_several_workers_are_merged_and_thresholds_are_judged(tmp_path: Path) -> None:
    process = relaymark(
        *("evening-peak", "--participants", "40", "--duration", "3s", "--workers", "2", "--tls", "--json"),
        *("--threshold", "deliver: count>10", "--threshold", "ack: p(50)<1ns"),
        out=tmp_path,
    )
    code, stdout, stderr = finish(process)
    result = result_in(tmp_path)
    assert code in (EXIT_THRESHOLD, EXIT_INVALID), stderr
    assert json.loads(stdout)["run"] == result.run
    assert serious(result) == []
    assert sums(result, WRONG) == dict.fromkeys(WRONG, 0)
    assert [outcome.ok for outcome in result.thresholds] == [True, False]
    assert [worker.connections for worker in result.workers] == [20, 20]
    assert result.calibration is not None
    assert result.calibration.count == 800
    assert result.machine == machine(), "it is told as if it had only the cores that the load was bound to"
    assert result.relay is not None
    assert result.relay.cpu_ns > 0


def test_the_same_seed_sends_the_same_with_one_worker_and_with_four(tmp_path: Path) -> None:
    planned = ("message", "typing", "tip", "media")

    def sent(workers: int) -> dict[str, int]:
        out = tmp_path / str(workers)
        process = relaymark(
            *("tips", "--participants", "16", "--duration", "3s", "--rate", "20", "--seed", "10"),
            *("--workers", str(workers)),
            out=out,
        )
        result = finished(process, out)
        assert serious(result) == []
        # With this seed two vouchers are spent twice, and the performer's till finds both.
        assert "2 x tip: double-spent" in result.notes
        return {name: kind.ledger.sent for name, kind in result.kinds.items() if name in planned}

    with_one = sent(1)
    assert with_one["message"] > 20
    assert sent(4) == with_one


def test_a_shifted_clock_is_estimated_within_its_stated_error(tmp_path: Path) -> None:
    process = relaymark(
        *("private-chat", "--participants", "16", "--duration", "2s", "--rate", "20", "--workers", "2"),
        *("--clock-shift-ms", "0", "--clock-shift-ms", "250"),
        out=tmp_path,
    )
    result = finished(process, tmp_path)
    assert serious(result) == []
    one, other = result.workers
    assert one.clock_offset_ns is not None
    assert other.clock_offset_ns is not None
    assert result.clock_error_ns is not None
    assert abs(one.clock_offset_ns - other.clock_offset_ns - 250_000_000) <= result.clock_error_ns
    # Half of all deliveries are between the two clocks; uncorrected, they would be off by the whole shift.
    assert result.histogram("deliver", basis="sent").percentile(75) < 125_000_000
    assert sum(summary.negative for summary in result.series.values()) == 0


def test_a_relay_that_stands_still_shows_from_the_intended_send(
    relay: tuple[ReferenceRelay, str], tmp_path: Path
) -> None:
    process = locust("room", relay[1], tmp_path / "out", "--rate", "50", users=12, seconds=6)
    wait_for_load(relay[0])
    os.kill(relay[0].pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(relay[0].pid, signal.SIGCONT)
    result = finished(process, tmp_path / "out")
    assert sums(result, ["lost", "duplicated"]) == {"lost": 0, "duplicated": 0}
    intended = result.histogram("deliver", basis="intended", kind="message")
    assert intended.max_ns > 1_900_000_000
    assert intended.percentile(99.9) > 1_800_000_000
    # Open loop: a third of the load was due meanwhile, and was sent and waited, not put off.
    assert share_above(intended, 100_000_000) > 0.2


def wait_for_load(relay: ReferenceRelay) -> None:
    for _ in range(400):
        if relay.statistics().get("relay_deliveries_total", 0) > 100:
            return
        time.sleep(0.05)
    raise AssertionError("no load came")


def share_above(histogram: Histogram, bound_ns: int) -> float:
    return 1 - histogram.cumulative([bound_ns])[0] / histogram.count


def test_a_relay_that_is_killed_leaves_a_whole_result_and_a_verdict(tmp_path: Path) -> None:
    process = relaymark(
        "room", "--participants", "16", "--duration", "20s", "--rate", "40", "--drain", "1s", out=tmp_path
    )
    os.kill(relay_of(tmp_path), signal.SIGKILL)
    code, stdout, stderr = finish(process)
    result = result_in(tmp_path)
    assert code == EXIT_INVALID, stderr
    assert "relay-ended" in {finding.code for finding in result.findings}
    assert result.duration_ns < 15_000_000_000
    ledger = result.kinds["message"].ledger
    assert ledger.delivered + ledger.lost == ledger.expected
    assert ledger.delivered > 0
    assert "relay-ended" in stdout


def relay_of(out: Path) -> int:
    """Return the process of the relay under load, once that is under way."""
    for _ in range(600):
        for log in out.glob("*/relay.log"):
            text = log.read_text()
            pid = re.search(r"process (\d+)", text)
            page = re.search(r"metrics http://(\S+)/metrics", text)
            if pid and page:
                watched = ReferenceRelay(log.parent / "..")
                watched.metrics = page[1]
                wait_for_load(watched)
                return int(pid[1])
        time.sleep(0.05)
    raise AssertionError("the relay did not start")


def test_ctrl_c_ends_the_run_in_order_and_reports(tmp_path: Path) -> None:
    process = relaymark("room", "--participants", "16", "--duration", "30s", "--rate", "40", out=tmp_path)
    relay_of(tmp_path)
    process.send_signal(signal.SIGINT)
    code, stdout, stderr = finish(process)
    result = result_in(tmp_path)
    assert code == EXIT_INTERRUPTED, stderr
    assert result.interrupted
    assert serious(result) == []
    assert sums(result, WRONG) == dict.fromkeys(WRONG, 0)
    assert "INTERRUPTED" in stdout


# -- faults that are injected between relay and harness ----------------------------------------------


def faulty(
    relay: tuple[ReferenceRelay, str],
    tmp_path: Path,
    decide: Callable[[Sight], str],
    *options: str,
    hold_s: float = 0.0,
) -> tuple[FaultProxy, dict[str, int], Histogram]:
    host, port = relay[1].removeprefix("ws://").split(":")
    proxy = FaultProxy((host, int(port)), decide, hold_s=hold_s)
    try:
        out = tmp_path / "out"
        url = f"ws://127.0.0.1:{proxy.port}"
        process = locust("typing-storm", url, out, "--rate", "10", "--seed", "5", *options, users=8, seconds=3)
        result = finished(process, out)
    finally:
        proxy.close()
    assert serious(result) == []
    counted = sums(result, (*WRONG, "superseded", "dropped", "expected", "delivered"))
    counted["states"] = result.kinds["typing"].ledger.delivered
    return proxy, counted, result.histogram("deliver", basis="intended", kind="message")


def test_dropped_repeated_and_swapped_records_are_counted_exactly(
    relay: tuple[ReferenceRelay, str], tmp_path: Path
) -> None:
    # The first connection asks whether the target speaks the protocol, the second compares clocks.
    plan = {
        (3, 3, True): DROP,
        (4, 4, True): DROP,
        (5, 5, True): DROP,
        (6, 2, True): REPEAT,
        (7, 6, True): REPEAT,
        (8, 4, True): SWAP,
        (5, 3, False): DROP,
        (6, 5, False): DROP,
    }
    proxy, counted, _ = faulty(relay, tmp_path, lambda sight: plan.get(sight, PASS))
    assert proxy.done == {DROP: 3, REPEAT: 2, SWAP: 1, "drop-state": 2}
    assert counted["lost"] == 3
    assert counted["duplicated"] == 2
    assert counted["reordered"] == 1
    assert counted["late"] == 0
    # The relay replaces states too, where several of a sender wait; what passed here is what came, and what was dropped
    # here is among what did not.
    assert counted["states"] == proxy.passed_states
    assert counted["superseded"] + counted["dropped"] >= 2
    assert counted["expected"] - counted["delivered"] == 3 + counted["superseded"] + counted["dropped"]


def test_a_delay_shows_in_the_latency_and_nowhere_else(relay: tuple[ReferenceRelay, str], tmp_path: Path) -> None:
    proxy, counted, latency = faulty(relay, tmp_path, lambda sight: HOLD if sight == (3, 4, True) else PASS)
    assert proxy.done == {HOLD: 1}
    assert {column: counted[column] for column in WRONG} == dict.fromkeys(WRONG, 0)
    assert latency.max_ns >= 250_000_000


def test_what_comes_after_the_drain_is_late(relay: tuple[ReferenceRelay, str], tmp_path: Path) -> None:
    def hold_one_connection(sight: Sight) -> str:
        return HOLD if sight.connection == 4 and sight.index >= 6 else PASS

    proxy, counted, _ = faulty(relay, tmp_path, hold_one_connection, "--drain", "1", hold_s=1.4)
    assert proxy.done[HOLD] > 0
    assert counted["late"] == proxy.done[HOLD]
    assert {column: counted[column] for column in WRONG if column != "late"} == {
        "lost": 0,
        "duplicated": 0,
        "reordered": 0,
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_before_the_load_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    process = relaymark("room", "--participants", "8", out=tmp_path)
    for _ in range(1000):
        if list(tmp_path.glob("*/relay.log")):
            break
        time.sleep(0.01)
    process.send_signal(number)
    code, stdout, stderr = finish(process)
    assert (code, stdout) == (EXIT_INTERRUPTED, "")
    assert stderr == "relaymark run: interrupted before the load began.\n"
    assert not list(tmp_path.iterdir())


def test_plain_locust_with_its_page_starts_and_quits_by_itself(
    relay: tuple[ReferenceRelay, str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = ("--rate", "20", "--autostart", "--autoquit", "0", "--web-host", "127.0.0.1", "--web-port", str(port))
    process = locust("room", relay[1], tmp_path / "out", *options, users=4, seconds=1, headless=False)
    assert serious(finished(process, tmp_path / "out")) == []


# -- bad input ---------------------------------------------------------------------------------------


def refused(*arguments: str, out: Path) -> tuple[int, str]:
    code, stdout, stderr = finish(relaymark(*arguments, out=out))
    assert stdout == ""
    assert not out.exists(), "something was left behind"
    return code, stderr


def test_all_problems_of_the_options_are_told_at_once(tmp_path: Path) -> None:
    code, stderr = refused(
        *("nonsense", "--participants", "0", "--suite", "rot13", "--rate", "-1", "--duration", "soon"),
        *("--threshold", "deliver p(99)<50ms", "--store", "paper", "--transport", "pigeon", "--workers", "0"),
        *("--metrics", "nowhere", "--tls-ca", "/no/such/file"),
        out=tmp_path / "out",
    )
    assert code == EXIT_CONFIGURATION
    for part in (
        "nonsense",
        "--participants",
        "rot13",
        "--rate",
        "soon",
        "threshold",
        "paper",
        "pigeon",
        "--workers",
        "nowhere",
        "such",
    ):
        assert part in stderr


def test_plain_locust_refuses_the_same_before_any_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = locust(
        *("slow-readers", "http://127.0.0.1:1", tmp_path / "file", "--suite", "rot13", "--rate", "-3"),
        *("--threshold", "x<1", "--threshold", "deliver: p(99)<", "--clock-shift-ms", "much", "--seed", "-1"),
        users=2,
        seconds=2,
    )
    deaf = locust("room", "ws://127.0.0.1:1", tmp_path / "out", users=4, seconds=2)
    code, _, stderr = finish(wrong)
    assert code == EXIT_CONFIGURATION, stderr
    for part in ("--host", "rot13", "--rate", "x<1", "a number", "--clock-shift-ms", "--seed", "at least 3", "--out"):
        assert part in stderr
    code, _, stderr = finish(deaf)
    assert code == EXIT_TARGET, stderr
    assert "cannot be reached" in stderr
    assert not (tmp_path / "out").exists()


def test_an_out_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, stderr = finish(relaymark("room", out=tmp_path / "file"))
    assert code == EXIT_CONFIGURATION
    assert "--out" in stderr


def test_targets_that_cannot_be_measured_are_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        deaf = threading.Thread(target=answer_in_another_protocol, args=(listener,))
        deaf.start()
        port = listener.getsockname()[1]
        secured = ReferenceRelay(tmp_path, tls=True)
        url = secured.start().url
        try:
            running = {
                "speaks another protocol": ("--target", f"ws://127.0.0.1:{port}"),
                "cannot be reached": ("--target", "ws://127.0.0.1:1"),
                "does not verify": ("--target", url),
                "is not known": ("--target", "ws://relay.invalid:80"),
                "The relay ended with code": ("--store", f"sqlite:{tmp_path}/no/such/folder/x"),
            }
            processes = {
                expected: relaymark("room", *arguments, out=tmp_path / expected[:6].strip())
                for expected, arguments in running.items()
            }
            for expected, process in processes.items():
                code, stdout, stderr = finish(process)
                assert (code, stdout) == (EXIT_TARGET, ""), stderr
                assert expected in stderr
                assert not (tmp_path / expected[:6].strip()).exists()
        finally:
            secured.stop()
            deaf.join()


def answer_in_another_protocol(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.recv(65_536)
        peer.sendall(b"220 mail.example.invalid ESMTP\r\n\r\n")
