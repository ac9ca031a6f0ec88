"""A page of Prometheus metrics, read once: a relay's own counters and gauges."""

from __future__ import annotations

import urllib.request
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

from loadtests.address import PROBE_S_MAX


def read(url: str) -> dict[str, float]:
    """Return counters and gauges by the names of their samples, labels summed; empty if the page is gone or is none."""
    found: dict[str, float] = {}
    try:
        with urllib.request.urlopen(url, timeout=PROBE_S_MAX) as answer:  # noqa: S310  # its scheme is checked where it is given
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            if family.type in ("counter", "gauge", "unknown"):
                for sample in family.samples:
                    if not sample.name.endswith("_created"):
                        found[sample.name] = found.get(sample.name, 0.0) + sample.value
    except (OSError, ValueError, HTTPException):
        return {}
    return found
