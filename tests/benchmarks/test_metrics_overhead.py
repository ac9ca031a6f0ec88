"""Pairs become a ratio with its interval, and only what is certain fails; pages are counted as Prometheus would."""

from __future__ import annotations

import os

import pytest

from benchmarks.fast_load.closed_loop import Shape
from benchmarks.metrics_overhead import (
    SCRAPE_NS_MAX,
    SERIES_MAX,
    Counts,
    Round,
    Scrapes,
    account,
    cost,
    count_instructions,
    main,
    measure_round,
    measure_scrapes,
    misses,
    overhead_lines,
    scrape_lines,
    series_of,
)
from benchmarks.rig import instructions
from benchmarks.rig.processes import choose_cores


def rounds(*changes: float, others_cpu: float = 0.0) -> list[Round]:
    # The machine's speed drifts by half from round to round; within a round it is the same.
    rates = [100_000.0 * (1 + number % 2 / 2) for number in range(len(changes))]
    return [
        Round(shape="room", without=rate, scraped=rate * (1 + change), others_cpu=others_cpu)
        for rate, change in zip(rates, changes, strict=True)
    ]


def scrapes(*, series: int = 100, duration_ns: int = 2_000_000, cpu_ns: int = 1) -> Scrapes:
    durations_ns = (duration_ns,) * 3
    return Scrapes(connections=10_000, durations_ns=durations_ns, cpu_ns_each=cpu_ns, series=series, page_bytes=8_000)


def word(chosen: list[Round]) -> str:
    return overhead_lines(chosen, {"room": cost(chosen)})[1][7]


@pytest.mark.parametrize(
    ("changes", "expected", "missed"),
    [
        ((-0.004, -0.006, -0.005, -0.003, -0.005), "reached", False),
        ((-0.05, -0.051, -0.049, -0.05, -0.052), "missed", True),
        ((-0.06, 0.04, -0.03, 0.02, -0.01), "inconclusive", False),
    ],
)
def test_a_cost_is_judged_by_its_whole_interval(changes: tuple[float, ...], expected: str, missed: bool) -> None:
    chosen = rounds(*changes)
    assert word(chosen) == expected
    assert misses({"room": cost(chosen)}, [scrapes()]) is missed


def test_the_ratio_is_of_rounds_so_drift_between_rounds_cancels() -> None:
    interval = cost(rounds(-0.01, -0.01, -0.01, -0.01))
    assert interval.value == pytest.approx(0.99)
    assert interval.low == pytest.approx(0.99)
    assert interval.high == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("with_metrics", "cpu_ns", "expected"),
    [(3_001.0, 5_000_000, "reached"), (3_001.0, 30_000_000, "missed"), (3_090.0, 5_000_000, "missed")],
)
def test_the_account_adds_what_a_scrape_takes_to_what_every_delivery_takes(
    with_metrics: float, cpu_ns: int, expected: str
) -> None:
    counted = Counts(tool="callgrind", pairs=((3_000.0, with_metrics),) * 6)
    assert account([scrapes(cpu_ns=cpu_ns)], counted).endswith(expected)


def test_an_account_that_is_too_noisy_or_has_no_counts_says_so() -> None:
    noisy = Counts(tool="callgrind", pairs=((3_000.0, 3_120.0), (3_000.0, 2_900.0), (3_000.0, 3_100.0)))
    assert account([scrapes()], noisy).endswith("inconclusive")
    assert "not counted" in account([scrapes()], None)


def test_what_others_take_of_the_relays_core_is_told() -> None:
    chosen = rounds(0.0, 0.0, 0.0, others_cpu=0.2)
    assert "20%" in overhead_lines(chosen, {"room": cost(chosen)})[1][-1]
    chosen = rounds(0.0, 0.0, 0.0, others_cpu=0.01)
    assert overhead_lines(chosen, {"room": cost(chosen)})[1][-1] == ""


def test_too_many_series_and_slow_scrapes_are_misses() -> None:
    assert not misses({}, [scrapes()])
    assert misses({}, [scrapes(series=SERIES_MAX)])
    assert misses({}, [scrapes(duration_ns=SCRAPE_NS_MAX)])


def test_series_are_the_lines_that_are_no_comments() -> None:
    page = b'# HELP a Text\n# TYPE a counter\na_total{code="x"} 1.0\na_total{code="y"} 2.0\n# TYPE b gauge\nb 3.0\n'
    assert series_of(page) == 3


def test_the_tables_have_a_cell_for_every_heading() -> None:
    chosen = rounds(0.0, 0.0, 0.0)
    for table in (overhead_lines(chosen, {"room": cost(chosen)}), scrape_lines([scrapes()])):
        assert len(table) == 2
        assert {len(line) for line in table} == {len(table[0])}


@pytest.mark.parametrize("options", [["--rounds", "2"], ["--pairs", "0"], ["--connections", "0"], ["--shapes", "x"]])
def test_options_that_cannot_work_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.process
def test_a_real_relay_is_measured_without_and_with_scrapes() -> None:
    cores = choose_cores()
    allowed = os.sched_getaffinity(0)
    try:
        measured = measure_round(Shape(name="tiny", streams=2, subscribers=1, window=1), cores, 2, 0)
        scraped = measure_scrapes(cores, 20, scrapes=2)
    finally:
        os.sched_setaffinity(0, allowed)
    assert measured.without > 0
    assert measured.scraped > 0
    assert len(scraped.durations_ns) == 2
    assert scraped.cpu_ns_each > 0
    assert 0 < scraped.series < SERIES_MAX


@pytest.mark.process
@pytest.mark.skipif(instructions.find() is None, reason="neither perf nor valgrind can count here")
def test_instructions_of_a_real_relay_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.metrics_overhead.COUNTS", 1)
    allowed = os.sched_getaffinity(0)
    try:
        counts = count_instructions(choose_cores())
    finally:
        os.sched_setaffinity(0, allowed)
    assert counts is not None
    ((without, with_metrics),) = counts.pairs
    assert without > 500
    assert 0.8 < with_metrics / without < 1.25
