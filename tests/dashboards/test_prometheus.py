"""A real Prometheus watches a real relay under a real load: every expression must parse and return samples."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from promql import FOLDER, annotation_expressions, filled_in, metric_names, panel_expressions, rules

Answer = TypeVar("Answer")

PATIENCE_S = 60.0
SCRAPE = "500ms"
"""Also the time that a scrape may take: short enough for a quick test, long enough for a busy machine."""
RATE_INTERVAL = "4s"
LABELS = {"scenario", "target", "run"}

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not installed: apt-get install prometheus"
    ),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(what: str, ask: Callable[[], Answer | None], patience_s: float = PATIENCE_S) -> Answer:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            found = ask()
            if found:
                return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {patience_s:.0f} s")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


@dataclass
class Watch:
    """A Prometheus, and the run that it watches."""

    prometheus: str
    loadtest: str
    run: subprocess.Popen[str]

    def api(self, path: str, **query: str) -> Any:
        url = f"{self.prometheus}/api/v1/{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        try:
            answer = json.loads(get(url))
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
            raise ValueError(f"{query}: {answer['error']}") from None
        assert answer["status"] == "success"
        return answer["data"]

    def evaluate(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of `expression` now. ValueError with Prometheus' words if it does not parse."""
        samples: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return samples


def configure(folder: Path, loadtest_port: int) -> Path:
    """Write the repository's configuration with this test's ports, and faster."""
    shutil.copytree(FOLDER / "prometheus", folder)
    path = folder / "prometheus.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": SCRAPE, "evaluation_interval": "500ms"}
    relay, loadtest = config["scrape_configs"]
    assert (relay["job_name"], loadtest["job_name"]) == ("relay", "loadtest")
    (discovery,) = relay["http_sd_configs"]
    discovery["url"] = discovery["url"].replace(":9465/", f":{loadtest_port}/")
    discovery["refresh_interval"] = "500ms"
    loadtest["static_configs"] = [{"targets": [f"127.0.0.1:{loadtest_port}"]}]
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, text=True) as started:
        try:
            yield started
        finally:
            if started.poll() is None:
                started.send_signal(signal.SIGINT)
                try:
                    started.wait(15)
                except subprocess.TimeoutExpired:
                    started.kill()


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """Start a run and a Prometheus on its metrics; wait until both are seen and the rules have been evaluated."""
    folder = tmp_path_factory.mktemp("watch")
    log = folder / "run.log"
    command = [sys.executable, "-m", "relay.cli", "run", "evening-peak", "--participants", "40", "--duration", "60s"]
    command += ["--workers", "1", "--drain", "1s", "--metrics", "127.0.0.1:0", "--linger", "60s"]
    command += ["--out", str(folder / "runs")]
    with process(command, log) as run:

        def served() -> str | None:
            assert run.poll() is None, log.read_text()
            found = re.search(r"metrics: (http://\S+)/metrics", log.read_text())
            return found and found[1]

        loadtest = wait_for("the metrics of the run", served)
        config = configure(folder / "prometheus", int(loadtest.rpartition(":")[2]))
        prometheus = f"127.0.0.1:{free_port()}"
        server = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        with process([*server, f"--web.listen-address={prometheus}", "--log.level=warn"], folder / "prometheus.log"):
            found = Watch(prometheus=f"http://{prometheus}", loadtest=loadtest, run=run)
            wait_for("Prometheus", lambda: get(f"{found.prometheus}/-/ready"))
            # Two jobs, with enough scrapes for a rate, and rules that have been evaluated from them.
            ready = (
                'count(sum by (job) (up) == 1) == 2 and count(count_over_time(up{job="relay"}[1m]) > 5)'
                " and sum(run:relay_deliveries:rate15s) > 0 and sum(run:loadtest_sent:rate15s) > 0"
                " and sum(rate(relay_deliveries_total[4s])) > 0"
            )
            wait_for("samples and rules", lambda: found.evaluate(ready))
            yield found


def test_every_panel_returns_samples(watch: Watch) -> None:
    empty = dict(panel_expressions())

    def none_is_left() -> bool:
        for where, expression in list(empty.items()):
            if watch.evaluate(filled_in(expression, interval=RATE_INTERVAL)):
                del empty[where]
        return not empty

    with contextlib.suppress(AssertionError):
        wait_for("every panel", none_is_left, patience_s=10)  # a scrape may fail on a busy machine
    assert not empty


def test_every_rule_returns_samples_and_no_rule_fails(watch: Watch) -> None:
    for name, rule in rules("record"):
        for expression in (rule["expr"], name):
            wait_for(name, lambda asked=expression: watch.evaluate(asked), patience_s=10)
    for name, rule in rules("alert"):
        watch.evaluate(rule["expr"])  # no sample is its normal state, but it must parse
        for metric in metric_names(rule["expr"]):
            wait_for(f"{name}: {metric}", lambda asked=metric: watch.evaluate(f"count({asked})"), patience_s=10)
    for group in watch.api("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", (rule["name"], rule.get("lastError"))


def test_the_relay_of_a_run_carries_the_labels_of_the_run(watch: Watch) -> None:
    (relay,) = wait_for("the relay", lambda: watch.evaluate("relay_ready"))
    (load,) = wait_for("the load", lambda: watch.evaluate("loadtest_running"))
    assert {name: relay["metric"][name] for name in LABELS} == {name: load["metric"][name] for name in LABELS}
    for name in LABELS:
        assert watch.api(f"label/{name}/values") == [load["metric"][name]]


def test_promtool_finds_nothing_wrong_with_what_is_served(watch: Watch) -> None:
    (discovered,) = json.loads(get(f"{watch.loadtest}/targets"))
    pages = (get(f"{watch.loadtest}/metrics"), get(f"http://{discovered['targets'][0]}/metrics"))
    for page, series_max in zip(pages, (500, 200), strict=True):
        checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        assert sum(not line.startswith("#") for line in page.splitlines()) < series_max


def test_start_end_and_events_become_marks_with_their_own_time(watch: Watch) -> None:
    """Runs last: it ends the load, which lingers on."""
    began_ms = time.time() * 1000 - 120_000
    watch.run.send_signal(signal.SIGINT)
    for where, expression in annotation_expressions():
        expression = filled_in(expression, interval=RATE_INTERVAL)
        (sample, *_) = wait_for(where, lambda asked=expression: watch.evaluate(asked))
        assert began_ms < float(sample["value"][1]) <= time.time() * 1000, where
