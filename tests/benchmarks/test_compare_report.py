"""What a comparison says: the same in every form, what is doubtful as doubtful, and one code for all of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from benchmarks.compare import report
from benchmarks.compare.measurements import Measurements, Probe, plan
from benchmarks.compare.ranking import Turn
from benchmarks.rig.processes import Cores
from benchmarks.rig.tables import markdown, plain
from loadtests.report.comparison import group, verdicts
from loadtests.results.schema import KindFigures, LedgerColumns
from loadtests.results.thresholds import parse
from loadtests.target.catalogue import CATALOGUE
from tests.benchmarks.compare_turns import FINDING, run_of, saturation, turn


def comparison_of(turns: Sequence[Turn], **changes: object) -> report.Comparison:
    names = list(dict.fromkeys(one.target for one in turns))
    measured = Measurements(
        probes={
            name: Probe(target=name, saturation=saturation(1), held=100, idle_bytes=10**7, held_bytes=11 * 10**6)
            for name in names
        },
        turns=list(turns),
        failures={},
        versions={names[0]: "1.2"},
        rate=50.0,
    )
    made = report.Comparison(
        targets={name: CATALOGUE[name] for name in names},
        left_out={},
        plan=plan(quick=True, rounds=3, seed=1, scenario="mix", participants=40, rate=None, run_s=None),
        cores=Cores(server=0, load=0),
        measured=measured,
        thresholds=[],
        started_unix_ns=0,
        command=("relaymark",),
        interrupted=False,
    )
    return msgspec.structs.replace(made, **changes)


def rounds(name: str, rate: float, latency_ns: int, **changes: object) -> list[Turn]:
    return [turn(name, number, rate + number, latency_ns=latency_ns + number, **changes) for number in range(3)]  # type: ignore[arg-type]


TWO = [*rounds("reference", 1000, 1_000_000), *rounds("nats", 500, 2_000_000)]


def test_plain_and_markdown_say_the_same() -> None:
    comparison = comparison_of(TWO)
    shown = report.text(comparison, plain)
    for part in ("ONE CORE ONLY", "reference > nats", "Counting only", "numbered without gaps", "1.2"):
        assert part in shown
    cells = [cell for line in (*report.window_lines(comparison), *report.run_lines(comparison)) for cell in line]
    assert all(cell in report.text(comparison, markdown) for cell in cells)


def test_the_runs_are_ordinary_results_that_a_report_compares() -> None:
    compared = {(one.label, one.metric.name): one for one in verdicts(group([one.result for one in TWO]))}
    assert compared["nats", "p50"].better == "reference"


def test_the_file_has_order_ratios_and_every_turn() -> None:
    found = msgspec.json.decode(report.content(comparison_of(TWO)))
    assert [standing["target"] for standing in found["order"]] == ["reference", "nats"]
    ratios = {ratio["metric"]: ratio["interval"] for ratio in found["ratios"]}
    assert ratios["throughput"]["value"] == pytest.approx(0.5, rel=0.01)
    assert ratios["p50"]["value"] == pytest.approx(2, rel=0.01)
    assert len(found["turns"]) == 6


def test_the_file_holds_no_secret() -> None:
    comparison = comparison_of(TWO)
    reached = msgspec.structs.replace(comparison.plan.settings(""), headers=(("X-Key", "secret"),))
    secret = msgspec.structs.replace(comparison.plan, reached=reached)
    assert b"X-Key" not in report.content(msgspec.structs.replace(comparison, plan=secret))


def test_a_relay_that_ran_already_has_no_closed_window() -> None:
    comparison = comparison_of([turn("nats", number, None) for number in range(3)])
    shown = report.text(comparison, plain)
    assert "Closed window" not in shown
    assert "p99.9" in shown


def test_latencies_of_a_load_that_had_no_time_are_marked() -> None:
    first, *others = rounds("reference", 1000, 1_000_000)
    busy = [turn("reference", 0, 1000.0, findings=[FINDING]), *others]
    assert report.run_lines(comparison_of([first, *others]))[1][-1] == ""
    assert report.run_lines(comparison_of(busy))[1][-1] == "INVALID in 1 of 3 runs: generator-cpu"
    assert report.invalid(comparison_of(busy)) == []


def test_latencies_that_are_mostly_the_load_s_own_are_invalid() -> None:
    comparison = comparison_of(rounds("reference", 1000, 1_000_000, findings=[FINDING]))
    assert report.invalid(comparison) == ["reference"]
    assert "INVALID: do not use the latencies of reference;" in report.text(comparison, plain)


def test_thresholds_are_asked_of_each_target_over_all_its_rounds() -> None:
    thresholds = [parse("deliver: p(99)<1.5ms"), parse("deliver: lost==0"), parse("deliver: count==30")]
    comparison = comparison_of(TWO, thresholds=thresholds)
    outcomes = report.threshold_outcomes(comparison)
    assert [one.ok for one in outcomes["reference"]] == [True, True, True]
    assert [one.ok for one in outcomes["nats"]] == [False, True, True]
    assert "nats: deliver: p(99)<1500us: not met" in report.text(comparison, plain)


def test_results_are_put_together_by_their_histograms() -> None:
    both = report.together([run_of("a", [1_000_000] * 99, lost=1), run_of("a", [9_000_000])])
    histogram = both.histogram("deliver", kind="message", basis="intended")
    assert (histogram.count, histogram.max_ns) == (100, 9_000_000)
    assert histogram.percentile(99) < 1_100_000
    assert (both.kinds["message"].ledger.expected, both.kinds["message"].ledger.lost) == (101, 1)


def test_what_no_relay_owed_has_a_column_only_where_there_is_some() -> None:
    assert "missed away" not in report.run_lines(comparison_of(TWO))[0]
    missed = KindFigures(ledger=LedgerColumns(sent=1, expected=10, delivered=10, missed_away=7))
    first, *others = TWO
    away = msgspec.structs.replace(
        first, result=msgspec.structs.replace(first.result, kinds={**first.result.kinds, "message": missed})
    )
    head, reference, nats = report.run_lines(comparison_of([away, *others]))
    assert (reference[head.index("missed away")], nats[head.index("missed away")]) == ("7", "0")
    assert reference[head.index("lost")] == "0"
