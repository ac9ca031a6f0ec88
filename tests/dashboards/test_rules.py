"""Rules, configuration and both exposition pages, as promtool sees them; every alert has words and both kinds of test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from exposed import loadtest_page, relay_page
from promql import FOLDER, rules

PROMETHEUS = FOLDER / "prometheus"
TESTS = ("delivery_test.yml", "relay_test.yml")
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)


def promtool(*arguments: str | Path, text: str | None = None) -> None:
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


@needs_promtool
@pytest.mark.process
def test_the_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "recording.yml", PROMETHEUS / "alerts.yml")


@needs_promtool
@pytest.mark.process
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", *(PROMETHEUS / name for name in TESTS))


@needs_promtool
@pytest.mark.process
@pytest.mark.parametrize("page", [relay_page, loadtest_page])
def test_the_exposition_pages_follow_the_conventions(page: object) -> None:
    assert callable(page)
    promtool("check", "metrics", text=page())


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for name, rule in rules("alert"):
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}, name
        assert len(rule["annotations"]["runbook"]) > 100, name
        assert len(rule["annotations"]["description"]) > 60, name
        assert rule["labels"]["severity"] in ("page", "ticket"), name


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    fires, quiet = set(), set()
    for path in TESTS:
        for case in yaml.safe_load((PROMETHEUS / path).read_text(encoding="utf-8"))["tests"]:
            for check in case["alert_rule_test"]:
                (fires if check["exp_alerts"] else quiet).add(check["alertname"])
    assert fires == quiet == {name for name, _ in rules("alert")}
