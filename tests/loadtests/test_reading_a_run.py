"""docs/reading-a-run.md explains every reason for which a run is invalid, every column and every verdict."""

from __future__ import annotations

from pathlib import Path

from loadtests.results.exit_codes import EXIT_INTERRUPTED, EXIT_INVALID, EXIT_OK, EXIT_THRESHOLD
from loadtests.results.schema import LedgerColumns
from loadtests.results.validity import Facts, WorkerFacts, check

TEXT = (Path(__file__).parents[2] / "docs" / "reading-a-run.md").read_text(encoding="utf-8")


def test_all_eight_ways_are_explained() -> None:
    worst = Facts(
        workers=(WorkerFacts(name="a", cpu=1, due=100, sent=50), WorkerFacts(name="b", cpu=1, due=100, sent=50)),
        lag_p99_ns=10**12,
        loop_lag_p99_ns=10**12,
        clock_error_ns=None,
        one_way_p50_ns=1,
        unreconciled=1,
        samples=0,
        ports_exhausted=1,
    )
    codes = {finding.code for finding in check(worst)}
    assert len(codes) == 8
    for code in codes:
        assert f"| `{code}` |" in TEXT


def test_every_column_and_exit_code_is_explained() -> None:
    for column in LedgerColumns.__struct_fields__:
        assert f"| {column.replace('_', ' ')} |" in TEXT
    for code in (EXIT_OK, EXIT_THRESHOLD, EXIT_INTERRUPTED, EXIT_INVALID):
        assert f"** | {code} |" in TEXT
