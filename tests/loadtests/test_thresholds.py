"""Thresholds: the grammar round-trips, faults name their place, and no data never passes."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_results import KINDS, SECONDS, result

from loadtests.measuring.series import METRICS
from loadtests.results.schema import KindFigures, LedgerColumns
from loadtests.results.thresholds import Threshold, ThresholdError, evaluate, parse

COLUMNS = ("expected", "delivered", "lost", "duplicated", "reordered", "late", "boundary", "superseded", "dropped")
OPERATORS = ("<", "<=", ">", ">=", "==", "!=")
numbers = st.decimals(0, 10**6, places=3, allow_nan=False)


@st.composite
def thresholds(draw: st.DrawFn) -> Threshold:
    operator = draw(st.sampled_from(OPERATORS))
    kind = draw(st.one_of(st.just(()), st.sampled_from(KINDS).map(lambda kind: (("kind", kind),))))
    aggregation = draw(st.sampled_from(("p", "med", "avg", "min", "max", "count", "rate", *COLUMNS)))
    percent = draw(st.decimals(0, 100, places=2)) if aggregation == "p" else None
    if aggregation in COLUMNS:
        metric, labels = "deliver", kind
    else:
        metric = draw(st.sampled_from(sorted(METRICS)))
        basis = draw(st.one_of(st.just(()), st.sampled_from(["intended", "sent"]).map(lambda at: (("basis", at),))))
        labels = (*basis, *kind)
    return Threshold(
        metric=metric, labels=labels, aggregation=aggregation, percent=percent, operator=operator, value=draw(numbers)
    )


@settings(max_examples=200)
@given(thresholds())
def test_the_canonical_text_parses_to_the_same(threshold: Threshold) -> None:
    assert parse(str(threshold)) == threshold
    assert str(parse(str(threshold))) == str(threshold)


@settings(max_examples=100)
@given(thresholds(), st.sampled_from(["", " ", "\t", "\n  "]))
def test_spaces_change_nothing(threshold: Threshold, space: str) -> None:
    words = re.findall(r"[<>=!]+|[A-Za-z0-9_.-]+|.", str(threshold).replace(" ", ""))
    assert parse(space + space.join(words) + space) == threshold


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("deliver{kind=message}: p(99)<50ms", "deliver{kind=message}: p(99)<50ms"),
        ("deliver{kind:message}:p(99.90)<0.5s", "deliver{kind=message}: p(99.9)<500ms"),
        ("ack: avg<=200", "ack: avg<=200ms"),
        ("ack:med<1500us", "ack: med<1500us"),
        ("ack:med<1µs", "ack: med<1us"),
        ("join: max<2m", "join: max<120s"),
        ("deliver{basis=sent,kind=tip}: min>0", "deliver{basis=sent,kind=tip}: min>0ns"),
        ("deliver: lost===0", "deliver: lost==0"),
        ("deliver: rate>=1000.50", "deliver: rate>=1000.5"),
    ],
)
def test_what_is_written_and_what_it_means(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "a metric expected"),
        ("delivr: p(99)<50ms", 0, "did you mean deliver"),
        ("deliver p(99)<50ms", 8, "':' expected"),
        ("deliver: p99<50ms", 9, "no aggregation"),
        ("deliver: p(101)<50ms", 11, "between 0 and 100"),
        ("deliver: p(99<50ms", 13, "')' expected"),
        ("deliver: p<50ms", 10, "'(' expected"),
        ("deliver: p()<50ms", 11, "a percentile expected"),
        ("deliver: p(99)=<50ms", 14, "a comparison"),
        ("deliver: p(99)<", 15, "a number expected"),
        ("deliver: p(99)<-1ms", 15, "a number expected"),
        ("deliver: p(99)<50ks", 17, "no unit 'ks'"),
        ("deliver: p(99)<50ms or so", 20, "left over"),
        ("deliver: lost<1ms", 15, "has no unit"),
        ("deliver{kind=message: p(99)<1ms", 20, "',' or '}' expected"),
        ("deliver{kinds=message}: p(99)<1ms", 8, "did you mean kind"),
        ("deliver{kind}: p(99)<1ms", 12, "'=' expected"),
        ("deliver{}: p(99)<1ms", 8, "a label expected"),
        ("deliver{kind=tip,kind=tip}: p(99)<1ms", 17, "given twice"),
        ("deliver{kind=mesage}: p(99)<1ms", 13, "did you mean message"),
        ("deliver{basis=actual}: p(99)<1ms", 14, "intended or sent"),
        ("deliver{basis=sent}: lost==0", 21, "by kind only"),
        ("join: lost==0", 6, "column of the ledger"),
    ],
)
def test_a_fault_names_its_place(text: str, position: int, reason: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        parse(text, kinds=KINDS)
    assert reason in caught.value.reason
    assert caught.value.position == position
    assert f"at character {position + 1}" in str(caught.value)


@settings(max_examples=200)
@given(st.text(alphabet="deliver{}kind=msag:p(9)<>=!.0 ms\n\t", max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        threshold = parse(text)
    except ThresholdError as error:
        position = error.position
    else:
        assert parse(str(threshold)) == threshold
        position = 0
    assert 0 <= position <= len(text)


# -- evaluation --------------------------------------------------------------------------------------


def observed(text: str) -> float | None:
    return evaluate(parse(text), result()).observed


def test_aggregations_read_the_merged_histogram() -> None:
    sample = result()
    merged = sample.histogram("deliver", basis="intended")
    assert observed("deliver: p(99)<1s") == merged.percentile(99)
    assert observed("deliver: med<1s") == merged.percentile(50)
    assert observed("deliver: avg<1s") == merged.mean_ns
    assert observed("deliver: min<1s") == merged.min_ns
    assert observed("deliver: max<1s") == merged.max_ns
    assert observed("deliver: count>0") == merged.count
    assert observed("deliver: rate>0") == merged.count / SECONDS
    assert observed("deliver{basis=sent}: max<1s") == sample.histogram("deliver", basis="sent").max_ns
    assert observed("deliver{kind=tip}: count>0") == 120
    assert observed("fanout_last{size=10-99}: count>0") == 120


def test_columns_of_the_ledger_are_summed_over_the_kinds() -> None:
    assert observed("deliver: boundary<1") == 5 * len(KINDS)
    assert observed("deliver{kind=tip}: boundary<1") == 5
    assert observed("deliver: lost==0") == 0


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("deliver{kind=tip}: boundary<5", False),
        ("deliver{kind=tip}: boundary<=5", True),
        ("deliver{kind=tip}: boundary>5", False),
        ("deliver{kind=tip}: boundary>=5", True),
        ("deliver{kind=tip}: boundary==5", True),
        ("deliver{kind=tip}: boundary!=5", False),
        ("deliver{kind=tip}: p(99)<60m", True),
        ("deliver{kind=tip}: p(99)<1ns", False),
    ],
)
def test_comparisons(text: str, ok: bool) -> None:
    outcome = evaluate(parse(text), result())
    assert outcome.ok is ok
    assert outcome.threshold == str(parse(text))
    assert ("not met" in outcome.text) is not ok


@pytest.mark.parametrize(
    "text",
    [
        "fanout_last{kind=message}: max<1m",
        "deliver{kind=presence}: lost==0",
        "deliver{kind=presence}: count<1",
        "echo: p(99)<1m",
    ],
)
def test_no_data_fails_whatever_the_comparison(text: str) -> None:
    for operator in OPERATORS:
        threshold = msgspec.structs.replace(parse(text), operator=operator)
        outcome = evaluate(threshold, result())
        assert not outcome.ok
        assert outcome.observed is None
        assert "no data" in outcome.text


def test_a_ledger_without_records_is_no_data() -> None:
    empty = result(kinds={"message": KindFigures(due=5, ledger=LedgerColumns())})
    assert not evaluate(parse("deliver: lost==0"), empty).ok


def test_a_rate_over_no_time_is_no_data() -> None:
    assert not evaluate(parse("join: rate>0"), result(duration_ns=0)).ok


def test_times_compare_in_whole_nanoseconds() -> None:
    assert parse("join: max<0.001ms").value == Decimal(1000)
