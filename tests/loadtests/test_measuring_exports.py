"""The names that the measuring modules export are what others build on: a change here is a change for them."""

from __future__ import annotations

from importlib import import_module

import pytest

EXPORTS = {
    "loadtests.clock": """
        DRIFT_PPM EXCHANGES_MIN OffsetEstimator WINDOW_MAX WINDOW_NS clock_id one_way_error_ns
    """,
    "loadtests.environment": """
        Machine commit machine python_version versions
    """,
    "loadtests.exporter": """
        DELIVERY_BOUNDS_NS EVENTS_MAX LoadtestCollector OTHER_BOUNDS_NS SERIES_MAX Snapshot parse_address serve
    """,
    "loadtests.recorder": """
        BUCKETS COUNTERS_MAX Histogram HistoryRow Interval LABELS METRICS OPEN_SECONDS PERCENTILES Recorder
        SIGNIFICANT_DIGITS SUB_BUCKETS VALUE_NS_MAX Values interval_width_s parse_series_name series_name
        size_decade
    """,
    "loadtests.recorder_hdr": """
        hgrm hlog to_hdr
    """,
    "loadtests.report.terminal": """
        Live PLAIN_EVERY_NS Progress duration render_final
    """,
    "loadtests.results": """
        Attempts EXIT_CONFIGURATION EXIT_INCONCLUSIVE EXIT_INTERRUPTED EXIT_INVALID EXIT_OK EXIT_TARGET
        EXIT_THRESHOLD Event Kind LOG_INTERVALS_MAX LOG_METRICS Ledger Outcome Rates Relay Result ResultsError
        SCHEMA_VERSION Summary Target Track Usage Worker create_run_directory differences load summaries tracks
        write write_files
    """,
    "loadtests.schedule": """
        BRANCHING_MAX Bursts COUNT_MAX Constant Diurnal FlashCrowd Poisson Process RATE_MAX RATE_MIN Ramp TIME_S_MAX
        arrivals generator zipf_sizes
    """,
    "loadtests.thresholds": """
        Threshold ThresholdError evaluate parse
    """,
    "loadtests.validity": """
        CEILING_SHARE CEILING_SPREAD CPU_MAX Facts Finding LAG_P99_NS_MAX LOOP_LAG_P99_NS_MAX RELAY_BUSY Verdict
        WorkerFacts check verdict
    """,
}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_module_exports_just_what_it_did(name: str) -> None:
    module = import_module(name)
    assert sorted(module.__all__) == EXPORTS[name].split()
    assert all(hasattr(module, exported) for exported in module.__all__)
