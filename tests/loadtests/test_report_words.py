"""What a report says in words, and how it writes figures."""

from __future__ import annotations

import pytest
from sample_results import result

from loadtests.report.words import clock_sentence, duration, headlines, main_kind, number, percent, size, verdict_of
from loadtests.results.schema import Attempts, KindFigures, LedgerColumns, ThresholdOutcome
from loadtests.results.validity import Finding

SLOW = ThresholdOutcome(
    threshold="deliver: p(99)<1ms", ok=False, observed=2e6, text="deliver: p(99)<1ms: not met, 2 ms"
)
HELD = ThresholdOutcome(threshold="deliver: p(50)<9ms", ok=True, observed=2e6, text="deliver: p(50)<9ms: met, 2 ms")


def test_a_run_in_which_nothing_is_amiss_is_valid() -> None:
    verdict = verdict_of(result(thresholds=[HELD]))
    assert (verdict.word, verdict.tone, verdict.reasons) == ("Valid", "good", ())
    assert verdict.meaning.endswith("Its threshold holds.")
    assert verdict_of(result(thresholds=[HELD, HELD])).meaning.endswith("Both thresholds hold.")
    assert verdict_of(result(thresholds=[HELD] * 3)).meaning.endswith("All 3 thresholds hold.")


def test_validity_comes_before_everything_else() -> None:
    verdict = verdict_of(result(findings=[Finding("no-samples", "Nothing.")], interrupted=True, thresholds=[SLOW]))
    assert (verdict.word, verdict.tone) == ("Invalid", "bad")
    assert verdict.reasons == ("no-samples: Nothing.",)


def test_an_interrupted_run_says_so_before_its_thresholds() -> None:
    assert verdict_of(result(interrupted=True, thresholds=[SLOW])).word == "Interrupted"


def test_a_failed_threshold_leaves_the_run_valid_and_is_named() -> None:
    verdict = verdict_of(result(thresholds=[SLOW, HELD]))
    assert (verdict.word, verdict.tone) == ("Failed", "warn")
    assert "valid" in verdict.meaning
    assert "1 of 2 thresholds failed" in verdict.meaning
    assert verdict.reasons == (SLOW.text,)


def test_headlines_name_latency_losses_load_and_connections() -> None:
    latency, losses, load, connections = headlines(result())
    assert latency.startswith("Half of all messages arrived within ")
    assert losses == "750 deliveries were owed: none lost, duplicated, reordered or late."
    assert "the relay used 67% of a core" in load
    assert connections.startswith("120 joins, none failed: 99% took no longer than ")
    assert "20 resumes, 1 failed: 99% took" in connections
    assert connections.endswith(", and 95% were back 1.00\xa0s after the first began.")


def test_losses_are_said_by_their_names() -> None:
    kinds = {
        "message": KindFigures(due=9, sent=9, ledger=LedgerColumns(sent=9, expected=9, delivered=6, lost=2, late=1))
    }
    assert "9 deliveries were owed: 2 lost, 1 late." in headlines(result(kinds=kinds))


def test_what_was_not_measured_is_not_made_up() -> None:
    empty = result(series={}, kinds={}, joins=Attempts(), resumes=Attempts(), relay=None)
    assert headlines(empty) == ["No delivery was measured."]
    assert main_kind(empty) is None


def test_without_messages_the_kind_delivered_most_stands_for_the_run() -> None:
    series = {name: summary for name, summary in result().series.items() if "kind=message" not in name}
    kinds = {name: kind for name, kind in result().kinds.items() if name != "message"}
    assert main_kind(result(series=series, kinds=kinds)) == "receipt-delivered"


@pytest.mark.parametrize(
    ("error_ns", "said"), [(None, "not known"), (0, "no clock error"), (20_000, "up to 20.0\xa0µs")]
)
def test_the_clock_error_is_stated(error_ns: int | None, said: str) -> None:
    assert said in clock_sentence(result(clock_error_ns=error_ns))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (duration(12_345), "12.3\xa0µs"),
        (duration(0), "0\xa0ns"),
        (number(1_234_567), "1\u202f234\u202f567"),
        (number(2.5), "2.5"),
        (number(3.0), "3"),
        (percent(0.043), "4.3%"),
        (percent(0.5), "50%"),
        (percent(0.0), "0%"),
        (size(512), "512\xa0B"),
        (size(1536), "1.5\xa0KiB"),
        (size(3 * 2**40), "3\xa0TiB"),
        (size(2**53), "8192\xa0TiB"),
    ],
)
def test_figures_are_written_short(shown: str, text: str) -> None:
    assert shown == text
