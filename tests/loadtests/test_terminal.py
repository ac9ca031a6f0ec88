"""What the terminal shows: every figure of the result, uncut, and plain lines where there is no terminal."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sample_results import KINDS, SECOND_NS, result

from loadtests.measuring.histogram import Histogram
from loadtests.report.terminal import PLAIN_EVERY_NS, Live, Progress, duration, render_final
from loadtests.results.schema import KindFigures, LedgerColumns, MeasuredTarget, Result, ThresholdOutcome, Usage
from loadtests.results.validity import Finding


def final(shown: Result, width: int = 80) -> str:
    out = StringIO()
    render_final(shown, Console(file=out, width=width), Path("runs/one"))
    return out.getvalue()


def live(elapsed_s: int, phase: str = "load", **changes: Any) -> Live:
    return Live(
        **{
            "elapsed_ns": elapsed_s * SECOND_NS,
            "phase": phase,
            "connections": 1400,
            "due_per_s": 1000.0,
            "sent_per_s": 990.4,
            "delivered_per_s": 40_000.0,
            "latency": {"message": result().histogram("deliver", basis="intended"), "tip": Histogram()},
            **changes,
        }
    )


@pytest.mark.parametrize("width", [20, 80, 300])
def test_no_figure_is_cut_however_narrow_the_terminal(width: int) -> None:
    shown = final(result(), width)
    assert "…" not in shown
    assert shown == final(result(), 80)


def test_every_part_of_the_result_is_shown() -> None:
    sample = result()
    shown = final(sample)
    lines = [line.split() for line in shown.splitlines()]
    for kind in KINDS:
        for basis in ("intended", "actual"):
            (row,) = [line for line in lines if line[:2] == [kind, basis]]
            assert row[2] == "120"
    summary = sample.series["deliver{basis=intended,kind=message}"]
    (row,) = [line for line in lines if line[:2] == ["message", "intended"]]
    times = (summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns, summary.max_ns)
    assert " ".join(row[3:]) == " ".join(duration(value_ns) for value_ns in times)
    for words in (
        "evening-peak against reference",
        "VALID",
        "acknowledgement, message",
        "room, last recipient, 100-999",
        "sealing, sender-key",
        "generator, schedule lag",
        "echo, the floor of this rig",
        "worker-0",
        "CPU a delivery",
        "clock error: at most 20.0 us",
        "negative samples: 3",
        "results: runs/one",
    ):
        assert words in shown
    assert ["joins", "120", "0", "1.00", "s", "2.00", "s"] in lines
    assert ["resumes", "20", "1", "1.00", "s", "-"] in lines


def test_an_invalid_run_says_so_first_and_why() -> None:
    shown = final(result(findings=[Finding("ledger", "The ledger cannot place 3 records: give it time.")]))
    first, second, *_ = shown.splitlines()
    assert "INVALID. Do not use these figures" in first
    assert second.strip() == "ledger: The ledger cannot place 3 records: give it time."


def test_an_interrupted_run_says_so() -> None:
    assert "INTERRUPTED, VALID" in final(result(interrupted=True)).splitlines()[0]


def test_thresholds_and_notes_are_shown() -> None:
    outcomes = [
        ThresholdOutcome(threshold="a", ok=True, observed=1, text="ack: max<1s: met, 3 ms"),
        ThresholdOutcome(threshold="b", ok=False, observed=None, text="echo: max<1s: no data"),
    ]
    lines = final(result(thresholds=outcomes, notes=["no timerfd"])).splitlines()
    assert "ok    ack: max<1s: met, 3 ms" in lines
    assert "FAIL  echo: max<1s: no data" in lines
    assert "note: no timerfd" in lines


def test_what_the_target_promises_is_told_beside_the_figures() -> None:
    target = MeasuredTarget(name="nats", version="2.15", promises={"durability": "none", "order": "per publisher"})
    assert "nats 2.15 promises durability: none; order: per publisher" in final(result(target=target))


@pytest.mark.parametrize(("error_ns", "says"), [(None, "clock error: unknown"), (0, "one clock stamps both ends")])
def test_the_clock_error_is_always_told(error_ns: int | None, says: str) -> None:
    assert says in final(result(clock_error_ns=error_ns))


def test_losses_have_columns_even_when_zero_and_others_only_when_used() -> None:
    (header,) = [line for line in final(result()).splitlines() if line.startswith("ledger")]
    columns = header.split()
    assert columns == ["ledger", "sent", "expected", "delivered", "lost", "duplicated", "reordered", "late", "boundary"]
    typing = {"typing": KindFigures(ledger=LedgerColumns(sent=9, expected=9, delivered=5, superseded=3, dropped=1))}
    (header,) = [line for line in final(result(kinds=typing)).splitlines() if line.startswith("ledger")]
    assert header.split()[-2:] == ["superseded", "dropped"]


def test_a_run_that_measured_nothing_is_shown_too() -> None:
    empty = result(
        series={}, kinds={}, history={}, usage=[Usage(name="[red]relay", role="relay")], relay=None, calibration=None
    )
    shown = final(empty)
    assert "[red]relay" in shown, "names are not markup"
    assert "VALID" in shown


# -- progress ----------------------------------------------------------------------------------------


def test_without_a_terminal_a_line_every_few_seconds() -> None:
    out = StringIO()
    with Progress(Console(file=out, width=20), scenario="room", duration_ns=30 * SECOND_NS) as progress:
        for second in range(35):
            progress.update(live(second, "load" if second < 30 else "drain"))
    lines = out.getvalue().splitlines()
    assert len(lines) == 35 * SECOND_NS // PLAIN_EVERY_NS
    assert "\x1b" not in out.getvalue()
    assert lines[1].startswith("5 s (25 s left), 1 400 connections, due 1 000/s, sent 990/s, delivered 40 000/s")
    assert "message p50 " in lines[1]
    assert "tip p50 - p99 -" in lines[1]
    assert "(drain)" in lines[-1]


def test_a_terminal_shows_a_table_and_leaves_nothing_behind() -> None:
    out = StringIO()
    console = Console(file=out, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    with Progress(console, scenario="room", duration_ns=30 * SECOND_NS) as progress:
        progress.update(live(10))
        during = out.getvalue()
    for words in ("room", "20 s left", "1 400 connections", "delivered 40 000/s", "p99", "message", "tip"):
        assert words in during
    assert out.getvalue().endswith("\x1b[2K"), "the last thing is to erase it"


def test_the_display_ends_when_the_run_fails() -> None:
    out = StringIO()
    console = Console(file=out, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    progress = Progress(console, scenario="room", duration_ns=SECOND_NS)

    def fail() -> None:
        with progress:
            progress.update(live(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert "\x1b[?25h" in out.getvalue(), "the cursor is back"


# -- times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [
        (0, "0 ns"),
        (7, "7.00 ns"),
        (950, "950 ns"),
        (999.6, "1.00 us"),
        (12_345, "12.3 us"),
        (99_960, "100 us"),
        (999_600, "1.00 ms"),
        (4_560_000, "4.56 ms"),
        (1_200_000_000, "1.20 s"),
        (83_000_000_000, "83.0 s"),
        (3_600_000_000_000, "3600 s"),
        (-1_500, "-1.50 us"),
    ],
)
def test_durations_have_three_digits_and_a_fitting_unit(value_ns: float, text: str) -> None:
    assert duration(value_ns) == text


@given(st.integers(1, 999_000_000_000))
def test_a_duration_reads_back_to_three_digits(value_ns: int) -> None:
    number, unit = duration(value_ns).split()
    scale = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}[unit]
    assert float(number) * scale == pytest.approx(value_ns, rel=0.0051)
