"""Relays with planted behaviour are told by a probe for what they are, to the exact count; honest ones are not accused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from planted_relay import serving

from loadtests import probe_cli
from loadtests.probe_cli import ProbeOptions
from loadtests.probing import acknowledging, largest, ordering, returning, session, stalling
from loadtests.probing.findings import ProbeAnswer, Probed
from loadtests.results.exit_codes import (
    EXIT_CONFIGURATION,
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    EXIT_TARGET,
    EXIT_THRESHOLD,
)
from loadtests.settings import Settings
from loadtests.target.target import Promises
from relay.cli import app
from relay.limits import SEALED_BYTES_MAX

DIALECT = f"{Path(__file__).with_name('planted_relay.py')}:Planted"
HUMBLE = DIALECT.replace(":Planted", ":Humble")
EVERYTHING = Promises(ordered="stream", resumes=True, survives="kill", tells_gaps=True)
NOTHING = Promises()
PUBLISHES = 40


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask with fewer records and shorter waits than of a real relay."""
    monkeypatch.setattr(acknowledging, "PUBLISHES", PUBLISHES)
    monkeypatch.setattr(acknowledging, "_MISSED_S_MAX", 0.01)
    monkeypatch.setattr(acknowledging, "ANSWER_S_MAX", 0.5)
    monkeypatch.setattr(stalling, "_SILENCE_S", 1.0)
    monkeypatch.setattr(returning, "LOAD_S", 0.2)
    monkeypatch.setattr(largest, "_TRY_S_MAX", 0.2)


def asked(
    question: Callable[[Settings, Promises], ProbeAnswer],
    promises: Promises = EVERYTHING,
    dialect: str = DIALECT,
    **plants: Any,
) -> ProbeAnswer:
    with serving(**plants) as (_, address):
        return question(settings_of(address.url, dialect), promises)


def settings_of(url: str, dialect: str = DIALECT) -> Settings:
    return Settings(scenario="room", participants=2, url=url, dialect=dialect)


# -- the acknowledgement ---------------------------------------------------------------------------------


def test_an_acknowledgement_before_the_copies_is_told_from_one_behind_them() -> None:
    first, last = asked(acknowledging.acknowledgement), asked(acknowledging.acknowledgement, acks_last=True)
    copies = acknowledging.OTHERS * PUBLISHES
    assert first.counts["others_after"] + first.counts["others_undecided"] == copies
    assert last.counts["others_before"] + last.counts["others_undecided"] == copies
    # Between connections the kernel's stamps decide, but for what came in one read with something else.
    assert first.counts["others_undecided"] < copies / 10
    assert last.counts["others_undecided"] < copies / 10
    assert (first.counts["own_before"], first.counts["own_after"]) == (0, PUBLISHES)
    assert (last.counts["own_before"], last.counts["own_after"]) == (PUBLISHES, 0)
    assert not first.broken
    assert not last.broken


def test_who_promises_to_acknowledge_last_is_held_to_it() -> None:
    promises = Promises(acknowledges_last=True)
    assert not asked(acknowledging.acknowledgement, promises, acks_last=True).broken
    (sentence,) = asked(acknowledging.acknowledgement, promises).broken
    assert "after the acknowledgement" in sentence


def test_acknowledged_copies_that_never_come_are_counted_whatever_is_promised() -> None:
    found = asked(acknowledging.acknowledgement, NOTHING, drops_every=10)
    assert found.counts["others_missing"] == PUBLISHES // 10
    assert found.broken


@pytest.mark.parametrize("repeats", [False, True])
def test_retries(repeats: bool) -> None:
    found = asked(acknowledging.retry, repeats_retries=repeats)
    again = acknowledging.RETRIES if repeats else 0
    assert found.counts["delivered"] == acknowledging.RETRIES
    assert found.counts["same_connection_delivered"] == found.counts["new_connection_delivered"] == again
    assert found.counts["new_connection_acknowledged"] == acknowledging.RETRIES
    assert bool(found.broken) is repeats


# -- order -----------------------------------------------------------------------------------------------


def test_an_honest_relays_order() -> None:
    found = asked(ordering.order)
    assert not found.broken
    for what in ("behind_later", "other_order", "missing", "repeated", "changed", "number_gaps"):
        assert found.counts[what] == 0, what


def test_swapped_records_are_counted() -> None:
    found = asked(ordering.order, swaps_every=20)
    assert 0 < found.counts["behind_later"] <= found.counts["copies"] // 20
    assert found.counts["missing"] == 0
    assert len(found.broken) >= 1
    assert not asked(ordering.order, NOTHING, HUMBLE, swaps_every=20).broken


def test_one_who_gets_another_order_than_the_rest() -> None:
    found = asked(ordering.order, own_order=True)
    # The comparison is with the first reader, who is the odd one here.
    assert found.counts["other_order"] == found.counts["readers"] - 1
    assert found.broken


def test_missing_copies_are_broken_even_without_a_promise() -> None:
    found = asked(ordering.order, NOTHING, HUMBLE, drops_every=100)
    assert found.counts["missing"] == ordering.RECORDS // 100
    assert found.broken


def test_states() -> None:
    assert asked(ordering.states).counts["in_order"] == ordering.BURSTS
    assert not asked(ordering.states, dialect=HUMBLE).asked


# -- a reader that stops ---------------------------------------------------------------------------------


def stalled(promises: Promises = EVERYTHING, dialect: str = DIALECT, **plants: Any) -> ProbeAnswer:
    return asked(lambda settings, told: stalling.stalled_reader(settings, told, 1.0), promises, dialect, **plants)


def test_what_is_kept_for_who_stops_reading() -> None:
    found = stalled()
    assert found.counts["missing"] == found.counts["cut_off"] == 0
    assert found.counts["got"] == found.counts["published"] > 0
    assert "the kernel's buffers may have held it all" in found.seen
    assert not found.broken


def test_silence_towards_who_stops_reading_is_convicted_if_it_was_not_to_be() -> None:
    found = stalled(stalled="silent")
    assert found.counts["lost_in_silence"] == found.counts["missing"] > 0
    assert found.counts["got"] + found.counts["missing"] == found.counts["published"]
    assert found.counts["lost_from_byte"] == found.counts["prefix"] * found.counts["record_bytes"] > 0
    assert found.counts["later_ones_got"] > 0
    assert found.counts["missing_beside"] == 0
    assert found.broken
    assert not stalled(NOTHING, stalled="silent").broken


def test_who_stops_reading_may_be_told() -> None:
    found = stalled(stalled="told")
    assert found.counts["told"] == found.counts["missing"] > 0
    assert found.counts["lost_in_silence"] == 0
    assert not found.broken


def test_who_stops_reading_may_be_cut_off_and_comes_back() -> None:
    found = stalled(stalled="closed")
    assert found.counts["cut_off"] == 1
    assert found.counts["replayed"] == found.counts["missing"] > 0
    assert not found.broken
    assert stalled(stalled="closed", resumes=False).counts["untold"] > 0
    assert stalled(stalled="closed", resumes=False).broken


def test_a_line_that_gets_nothing_any_more_is_not_called_silence() -> None:
    found = stalled(stalled="stuck")
    assert found.counts["missing"] > found.counts["lost_in_silence"] == 0
    assert found.failed
    assert not found.broken


# -- coming back -----------------------------------------------------------------------------------------


def test_resume_after_a_cut() -> None:
    found = asked(returning.cut)
    assert (found.counts["replayed"], found.counts["repeated"], found.counts["missing"]) == (returning.AWAY, 0, 0)
    assert not found.broken
    assert asked(returning.cut, replays_twice=True).counts["repeated"] > 0
    lost = asked(returning.cut, resumes=False)
    assert lost.counts["missing"] == returning.AWAY
    assert lost.broken
    assert not asked(returning.cut, dialect=HUMBLE).broken


@pytest.mark.parametrize(
    ("forgets", "tells", "survives", "kill", "left", "broken"),
    [
        ("", True, "kill", True, True, False),
        ("kill", True, "kill", True, False, True),
        ("kill", True, "restart", True, False, False),
        ("kill", True, "restart", False, True, False),
        ("both", True, "restart", False, False, True),
        ("both", True, "nothing", False, False, False),
        ("both", False, "nothing", False, False, True),
    ],
)
def test_what_a_restart_leaves(forgets: str, tells: bool, survives: Any, kill: bool, left: bool, broken: bool) -> None:
    promises = msgspec.structs.replace(EVERYTHING, survives=survives)
    with serving(forgets=forgets, tells_forgetting=tells) as (relay, address):
        found = returning.restart(settings_of(address.url), promises, relay, kill=kill)
    assert found.counts["acknowledged"] > 0
    assert found.counts["left"] == (found.counts["acknowledged"] if left else 0)
    assert found.counts["lost_in_silence"] == (0 if left or tells else found.counts["acknowledged"])
    assert bool(found.counts["number_given_again"]) is (not left and not tells)
    assert bool(found.broken) is broken


# -- the largest -----------------------------------------------------------------------------------------


def test_the_largest_is_found_and_what_becomes_of_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = asked(largest.largest, largest=40_000)
    assert (cut.counts["passes_bytes"], cut.counts["fails_bytes"]) == (36_864, 40_960)
    assert "the publisher's connection ended" in cut.seen
    lost = asked(largest.largest, largest=2_048, acks_too_large=True)
    assert lost.counts["passes_bytes"] == 2_048
    assert "it was acknowledged, and nothing came" in lost.seen
    monkeypatch.setattr(largest, "LIMIT_BYTES", 65_536)
    assert asked(largest.largest).counts == {"passes_bytes": 65_536, "fails_bytes": 0, "tries": 7}


# -- all together ----------------------------------------------------------------------------------------


def test_what_cannot_be_asked_says_so() -> None:
    with serving() as (_, address):
        findings = dict(session.ProbeSession(settings_of(address.url, HUMBLE), NOTHING, None, stall_s=1.0).findings())
        for name in (
            "acknowledgement",
            "states beside records",
            "kill -9 under load",
            "retry of what was acknowledged",
        ):
            found = findings[name]()
            assert not found.asked
            assert found.seen.startswith("not asked: ")


def test_a_question_without_an_end_is_inconclusive() -> None:
    with serving() as (relay, address):
        (name, ask), *_ = session.ProbeSession(settings_of(address.url), EVERYTHING, None, stall_s=1.0).findings()
        relay.stop()
        found = ask()
    assert found.question == name
    assert found.failed
    probed = Probed(target="t", version="", dialect="d", tls=False, findings=[found])
    assert probed.exit_code == EXIT_INCONCLUSIVE


def test_the_command_tells_what_breaks_the_users_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(swaps_every=20) as (_, address):
        file = tmp_path / "targets.toml"
        file.write_text(
            f"[mine]\ndialect = {DIALECT!r}\nurl = {address.url!r}\n[mine.promises]\nordered = 'stream'\n"
            f"[humble]\ndialect = {HUMBLE!r}\nurl = {address.url!r}\n"
        )

        def probed(target: str, *only: str) -> tuple[int, str]:
            options = ProbeOptions(targets=str(file), json=True, quiet=True, only=list(only))
            code = probe_cli.probe(target, options=options)
            return code, capsys.readouterr().out

        code, out = probed("mine", "order")
        assert code == EXIT_THRESHOLD
        assert json.loads(out)["findings"][0]["broken"]
        code, out = probed("humble", "order")
        assert code == EXIT_OK
        assert json.loads(out)["findings"][0]["counts"]["behind_later"] > 0


def test_the_command_refuses_what_cannot_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe_cli.probe("nots", options=ProbeOptions(stall="0", only=["nothing"])) == EXIT_CONFIGURATION
    told = capsys.readouterr().err
    for what in ("There is no target 'nots'", "--stall must be", "--only: there are the questions"):
        assert what in told
    assert probe_cli.probe("ws://127.0.0.1:1", options=ProbeOptions(quiet=True)) == EXIT_TARGET
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.process
def test_the_reference_relay_keeps_its_promises(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe_cli.probe("reference@sqlite", options=ProbeOptions(stall="1s", json=True, quiet=True)) == EXIT_OK
    findings = {found["question"]: found for found in json.loads(capsys.readouterr().out)["findings"]}
    assert list(findings) == list(session.QUESTIONS)
    assert all(found["asked"] for found in findings.values())
    assert findings["largest record"]["counts"]["passes_bytes"] == SEALED_BYTES_MAX
    killed = findings["kill -9 under load"]["counts"]
    assert killed["left"] == killed["acknowledged"] > 0
    assert killed["new_epoch"] == 0


@pytest.mark.process
def test_a_relay_is_probed_over_tls(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", "reference", "--tls", "--only", "acknowledgement", "--only", "order", "--quiet"]
    assert app(words, exit_on_error=False, result_action="return_value") == EXIT_OK
    shown = capsys.readouterr().out
    assert "dialect reference, TLS" in shown
    assert "2 of 2 questions could be asked; no promise is broken." in shown
