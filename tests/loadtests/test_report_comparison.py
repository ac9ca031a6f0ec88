"""Which configuration is better, by how much, and when nothing may be said."""

from __future__ import annotations

from math import sqrt
from typing import Any

import msgspec
import numpy as np
import pytest
from sample_results import result

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.report import comparison
from loadtests.report.ratios import SECONDS_MIN, EstimatedRatio, of_runs, of_seconds
from loadtests.results.schema import KindFigures, LedgerColumns, MeasuredTarget, Result, Summary, Track
from loadtests.results.validity import Finding

MESSAGES = series_name("deliver", kind="message", basis="intended")


def run(name: str = "a", *, scale: float = 1, seconds: int = 60, seed: int = 1, **changes: Any) -> Result:
    """A run whose messages take `scale` ms, more or less."""
    random = np.random.default_rng(seed)
    histogram = Histogram()
    histogram.record_many((random.lognormal(0, 0.2, 2_000) * scale * 1e6).astype(np.int64))
    base = (random.lognormal(0, 0.1, seconds) * scale * 1e6).astype(int).tolist()
    track = Track(
        second=list(range(seconds)),
        width_s=[1] * seconds,
        count=[30] * seconds,
        p50_ns=base,
        p90_ns=[2 * value for value in base],
        p99_ns=[3 * value for value in base],
        max_ns=[4 * value for value in base],
    )
    plain = result()
    return result(
        **{
            "target": MeasuredTarget(name=name),
            "series": {**plain.series, MESSAGES: Summary.of(histogram)},
            "history": {MESSAGES: track},
            **changes,
        }
    )


def rounds(name: str, *, scale: float = 1, count: int = 4, **changes: Any) -> list[Result]:
    return [run(name, scale=scale * (1 + 0.01 * index), seed=index, **changes) for index in range(count)]


def outcome(results: list[Result]) -> dict[str, comparison.Compared]:
    return {each.metric.name: each for each in comparison.verdicts(comparison.group(results))}


# -- ratios ------------------------------------------------------------------------------------------


def test_runs_are_compared_by_geometric_means_with_a_t_interval() -> None:
    ratio = of_runs([1.0, 4.0], [8.0, 8.0])
    assert ratio is not None
    assert ratio.value == pytest.approx(4)
    # The logarithms of 1 and 4 have variance 2 ln(2)^2; one degree of freedom.
    reach = 12.71 * sqrt(2 * np.log(2) ** 2 / 2)
    assert (ratio.low, ratio.high) == (pytest.approx(4 / np.exp(reach)), pytest.approx(4 * np.exp(reach)))
    assert ratio.unit == "runs"
    assert ratio.decided == 0


def test_one_run_of_each_has_a_ratio_and_no_interval() -> None:
    assert of_runs([2.0], [3.0]) == EstimatedRatio(value=pytest.approx(1.5))
    assert of_runs([2.0], [3.0, 3.1]) == EstimatedRatio(value=pytest.approx(1.5248, rel=1e-3))


@pytest.mark.parametrize(("base", "other"), [([], [1.0]), ([1.0], []), ([0.0, 1.0], [1.0, 1.0]), ([-1.0], [1.0])])
def test_what_has_no_ratio_gives_none(base: list[float], other: list[float]) -> None:
    assert of_runs(base, other) is None


def test_the_t_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        ratio = of_runs(random.lognormal(0, 0.1, 3).tolist(), random.lognormal(0.2, 0.1, 3).tolist())
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= np.exp(0.2) <= ratio.high
    assert covered >= 0.93 * 400


def test_seconds_are_paired() -> None:
    base = {second: 10.0 ** (second % 7) for second in range(60)}
    other = {second: 1.5 * value for second, value in base.items()}
    ratio = of_seconds(base, other)
    assert ratio is not None
    # What varies from second to second alike in both does not blur their ratio.
    assert (ratio.value, ratio.low, ratio.high) == (pytest.approx(1.5), pytest.approx(1.5), pytest.approx(1.5))
    assert (ratio.unit, ratio.decided) == ("seconds", 1)


def test_too_few_seconds_have_no_interval_and_none_no_ratio() -> None:
    few = dict.fromkeys(range(SECONDS_MIN - 1), 1.0)
    assert of_seconds(few, few) == EstimatedRatio(value=1.0)
    assert of_seconds(few, {1_000: 1.0}) is None
    assert of_seconds({}, {}) is None


# -- groups ------------------------------------------------------------------------------------------


def test_rounds_of_a_target_are_one_configuration() -> None:
    groups = comparison.group([*rounds("a"), *rounds("b")])
    assert [(each.label, len(each.runs)) for each in groups] == [("a", 4), ("b", 4)]


def test_a_label_names_what_differs_and_nothing_else() -> None:
    groups = comparison.group(
        [
            run(options={"suite": "none", "participants": 4, "out": "x"}),
            run(options={"suite": "sender-key", "participants": 4, "out": "y"}),
        ]
    )
    assert [each.label for each in groups] == ["a, suite none", "a, suite sender-key"]


def test_what_the_target_determines_is_not_repeated() -> None:
    versions = [
        run("a", target=MeasuredTarget(name="a", version="1")),
        run("b", target=MeasuredTarget(name="b", version="2")),
    ]
    assert [each.label for each in comparison.group(versions)] == ["a", "b"]


def test_commits_of_one_target_are_told_apart() -> None:
    assert [each.label for each in comparison.group([run(commit="abc"), run(commit="def")])] == [
        "a, commit abc",
        "a, commit def",
    ]


# -- verdicts ----------------------------------------------------------------------------------------


def test_a_slower_target_is_found_with_an_interval_over_runs() -> None:
    found = outcome([*rounds("a"), *rounds("b", scale=2)])
    for name in ("p50", "p99"):
        assert found[name].better == "a"
        assert found[name].ratio.unit == "runs"
        assert found[name].ratio.value == pytest.approx(2, rel=0.1)
    # Equal in all rounds, so not decided.
    assert found["CPU a delivery"].better is None
    said = comparison.sentences(comparison.group([*rounds("a"), *rounds("b", scale=2)]))
    assert said[0].startswith("b against a: p50 is 2 times as large (1.92 to 2.08), so a is faster; p99 is ")
    assert "no difference is shown in CPU a delivery" in said[0]


def test_a_faster_target_is_found_too_and_more_deliveries_are_better() -> None:
    more = {"message": KindFigures(due=9, sent=9, ledger=LedgerColumns(sent=9, expected=9_000, delivered=9_000))}
    found = outcome([*rounds("a"), *rounds("b", scale=0.5, kinds=more)])
    assert found["p99"].better == "b"
    assert found["deliveries a second"].better == "b"


def test_equal_targets_show_no_difference() -> None:
    found = outcome([*rounds("a"), *(run("b", scale=1 + 0.01 * index, seed=index + 9) for index in range(4))])
    assert found["p50"].better is None


def test_one_run_of_each_is_compared_by_seconds_and_says_so() -> None:
    pair = [run("a"), run("b", scale=3, seed=2)]
    found = outcome(pair)
    assert found["p99"].better == "a"
    assert found["p99"].ratio.unit == "seconds"
    assert found["p99.9"].better is None  # one figure a run decides nothing
    assert "second by second" in comparison.meaning(comparison.group(pair))


def test_invalid_runs_are_left_out_and_named() -> None:
    groups = comparison.group([*rounds("a"), *rounds("b"), run("b", scale=50, findings=[Finding("ledger", "Open.")])])
    assert "b: 1 of 5 runs were invalid or interrupted and are left out." in comparison.sentences(groups)
    assert {each.metric.name: each.better for each in comparison.verdicts(groups)}["p50"] is None
    assert comparison.merged(groups[1]).count == 4 * 2_000


def test_a_run_that_was_ended_early_is_left_out_too() -> None:
    groups = comparison.group([*rounds("a"), *rounds("b"), run("b", scale=0.01, interrupted=True)])
    assert {each.metric.name: each.better for each in comparison.verdicts(groups)}["p50"] is None
    assert "b: 1 of 5 runs were invalid or interrupted and are left out." in comparison.sentences(groups)


def test_what_three_digits_do_not_show_decides_nothing() -> None:
    assert EstimatedRatio(value=1.0002, low=1.0001, high=1.0003, unit="runs").decided == 0
    assert EstimatedRatio(value=0.9998, low=0.9996, high=0.9999, unit="runs").decided == 0
    assert EstimatedRatio(value=0.95, low=0.94, high=0.96, unit="runs").decided == -1
    assert EstimatedRatio(value=1.02, low=1.01, high=1.03, unit="runs").decided == 1


def test_runs_under_different_loads_are_not_compared() -> None:
    groups = comparison.group([run("a", options={"participants": 400}), run("a", options={"participants": 800})])
    assert comparison.verdicts(groups) == []
    assert any(
        "under different loads (participants 400; participants 800)" in said for said in comparison.sentences(groups)
    )


def test_without_valid_runs_there_is_no_verdict() -> None:
    groups = comparison.group([run("a"), run("b", findings=[Finding("ledger", "Open.")])])
    assert comparison.verdicts(groups) == []
    assert any(sentence.startswith("No verdict. Fewer than two") for sentence in comparison.sentences(groups))


def test_runs_of_different_machines_or_seeds_are_not_compared() -> None:
    other = msgspec.structs.replace(result().machine, fingerprint="f" * 16)
    groups = comparison.group([run("a"), run("b", machine=other)])
    assert comparison.verdicts(groups) == []
    assert any("different machines" in sentence for sentence in comparison.sentences(groups))
    assert comparison.verdicts(comparison.group([run("a"), run("b", seed=1, commit="x")])) != []


def test_losses_are_said_beside_speed() -> None:
    lossy = {"message": KindFigures(due=9, sent=9, ledger=LedgerColumns(sent=9, expected=9, delivered=6, lost=3))}
    said = comparison.sentences(comparison.group([run("a"), run("b", scale=0.2, kinds=lossy)]))
    assert "b: 3 records lost, duplicated, reordered or late. Speed is no excuse." in said


def test_runs_of_one_configuration_show_the_noise() -> None:
    (said,) = comparison.sentences(comparison.group(rounds("a")))
    assert "spread is this rig's noise: p50 " in said
    assert "nothing to compare" in comparison.sentences(comparison.group([run("a")]))[0]


def test_tables_have_every_run() -> None:
    groups = comparison.group([*rounds("a", count=2), *rounds("b", scale=2, count=2)])
    assert [row[0] for row in comparison.figures(groups).rows] == ["a", "a", "b", "b"]
    assert len(comparison.ledgers(groups).rows) == 4
    assert comparison.ratio_table(groups).rows[0][:2] == ["b", "p50"]
    assert comparison.promises(groups).rows == []
    promising = [run("a", target=MeasuredTarget(name="a", promises={"order": "yes"})), run("b")]
    assert comparison.promises(comparison.group(promising)).rows == [["a", "yes"], ["b", "\u2013"]]
