"""The HTML report as text: complete, escaped, self-contained and small. What a browser makes of it: test_report_page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from sample_results import KINDS, MACHINE, SECOND_NS, STARTED_NS, result

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.recorder import Recorder
from loadtests.measuring.series import METRICS, series_name
from loadtests.report.html import BYTES_MAX, render
from loadtests.report.ranges import Range, draw
from loadtests.report.tables import TITLES
from loadtests.results.environment import Machine
from loadtests.results.schema import (
    Attempts,
    Event,
    KindFigures,
    LedgerColumns,
    MeasuredTarget,
    RateColumns,
    RelayFigures,
    Result,
    SeriesColumns,
    ThresholdOutcome,
    Usage,
    summaries,
    tracks,
)
from loadtests.results.validity import Finding

VOID = frozenset({"meta", "link", "input", "br"})
HOSTILE = "</script><img src=x onerror=alert(1)>'\"&"


class Elements(HTMLParser):
    """Collects start tags with their attributes, and checks that elements are nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def charts(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL)
    assert found
    return list(json.loads(found.group(1)))


def long_run(seconds: int, samples: int) -> Result:
    """A run with everything that a result can have; its latencies change from second to second."""
    random = np.random.default_rng(7)
    recorder = Recorder(started_ns=STARTED_NS)
    names = [series_name("deliver", kind=kind, basis=basis) for kind in KINDS for basis in ("intended", "sent")]
    names += [series_name("ack", kind=kind) for kind in KINDS] + ["join", "resume", "lag", "loop_lag", "seal", "open"]
    names += [
        series_name(f"fanout_{which}", size=size)
        for which in ("first", "median", "last")
        for size in ("1-9", "10-99", "100-999", "1000-9999")
    ]
    each = max(1, samples // (len(KINDS) * seconds))
    some = []
    for _ in range(60):
        histogram = Histogram()
        histogram.record_many(random.lognormal(14 + random.normal() / 4, 1, each).astype(np.int64))
        some.append(histogram.to_wire())
    for second in range(seconds):
        # Only deliveries are drawn over time.
        drawn = names if second % 20 == 0 else names[: 2 * len(KINDS)]
        recorder.merge_interval(second, {name: some[random.integers(60)] for name in drawn})
    column = list(range(seconds))
    busy = [round(float(value), 4) for value in random.random(seconds)]
    return result(
        duration_ns=seconds * SECOND_NS,
        series=summaries(recorder.totals),
        history=tracks(recorder.history()),
        rates=RateColumns(
            second=column,
            due=random.integers(900, 1100, seconds).tolist(),
            sent=random.integers(900, 1100, seconds).tolist(),
            delivered=random.integers(8_000, 9_000, seconds).tolist(),
        ),
        usage=[
            Usage(
                name=name,
                role="relay" if name == "relay" else "worker",
                second=column,
                cpu=busy,
                memory_bytes=random.integers(10**7, 10**8, seconds).tolist(),
                connections=[10_000] * seconds,
            )
            for name in ("relay", "worker-1", "worker-2", "worker-3", "worker-4")
        ],
    )


def test_a_report_has_all_its_parts() -> None:
    page = render(
        [result(thresholds=[ThresholdOutcome(threshold="lost==0", ok=True, observed=0, text="lost==0: met, 0")])]
    )
    sections = re.findall(r'<section id="([\w-]+)"', page)
    assert sections == ["latency", "time", "ledger", "fanout", "connections", "sealing", "machine", "run", "terms"]
    assert [chart["id"] for chart in charts(page)] == [
        f"chart-{name}"
        for name in ("percentiles", "kinds", "bands", "offered", "delivered", "connections", "cpu", "memory", "lag")
    ]
    for text in ("Valid", "lost==0", "relaymark run evening-peak --seed 1", "all connections cut", "A processor"):
        assert text in page


def test_every_metric_has_a_title() -> None:
    assert set(TITLES) == set(METRICS)


def test_elements_are_nested_and_described() -> None:
    elements = Elements(render([result()]))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    # Landmarks and headings to jump to, a caption for each table, a text for each chart.
    assert [len(elements.all(tag)) for tag in ("header", "nav", "main", "footer", "h1")] == [1, 1, 1, 1, 1]
    assert elements.all("html")[0]["lang"] == "en"
    assert len(elements.all("caption")) == len(elements.all("table")) > 10
    plots = [each for each in elements.all("div") if each.get("class") == "plot"]
    assert len(plots) == 9
    assert all(each["role"] == "img" and len(each["aria-label"] or "") > 60 for each in plots)
    assert all(attributes.get("scope") in ("col", "row") for attributes in elements.all("th"))
    for section in elements.all("section"):
        assert section["aria-labelledby"] in ids


def test_nothing_is_fetched() -> None:
    elements = Elements(render([result(), result(target=MeasuredTarget(name="other"))]))
    addresses = [attributes[name] for _, attributes in elements.found for name in ("src", "href") if name in attributes]
    assert addresses
    assert all(address is not None and address.startswith(("#", "data:")) for address in addresses)
    policy = next(each for each in elements.all("meta") if "http-equiv" in each)["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


@pytest.mark.parametrize("count", [1, 3])
def test_what_comes_from_a_run_is_escaped(count: int) -> None:
    hostile = [
        result(
            target=MeasuredTarget(name=f"{HOSTILE}{index}", url=HOSTILE, version=HOSTILE, promises={HOSTILE: HOSTILE}),
            scenario=HOSTILE,
            command=["relaymark", HOSTILE],
            run=HOSTILE,
            commit=HOSTILE,
            python=HOSTILE,
            versions={HOSTILE: HOSTILE},
            options={HOSTILE: HOSTILE},
            notes=[HOSTILE],
            events=[Event(at_ns=0, text=HOSTILE)],
            findings=[Finding(HOSTILE, HOSTILE)],
            thresholds=[ThresholdOutcome(threshold=HOSTILE, ok=False, observed=None, text=HOSTILE)],
            machine=Machine(system=HOSTILE, architecture=HOSTILE, cpu=HOSTILE, cpus=1, memory_bytes=1, fingerprint="1"),
            usage=[Usage(name=HOSTILE, role="worker", second=[0], cpu=[1.0], memory_bytes=[1])],
            relay=RelayFigures(
                cpu_ns=1,
                memory_bytes_idle=1,
                memory_bytes_max=1,
                connections=1,
                deliveries=1,
                statistics={HOSTILE: 1.0},
            ),
        )
        for index in range(count)
    ]
    page = render(hostile)
    assert "<img" not in page
    assert not Elements(page).all("img")
    assert page.count("</script>") == 3
    assert any(HOSTILE[:30] in json.dumps(chart) for chart in charts(page))


def test_a_run_without_anything_has_a_report() -> None:
    empty = Result(
        relaymark="0",
        commit=None,
        python="",
        machine=MACHINE,
        command=[],
        scenario="room",
        seed=1,
        run="",
        target=MeasuredTarget(name="none"),
        started_unix_ns=STARTED_NS,
        duration_ns=0,
    )
    page = render([empty])
    assert "No delivery was measured." in page
    assert charts(page) == []
    Elements(page)
    Elements(render([empty, result()]))


def test_no_run_has_no_report() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        render([])


def test_five_million_samples_in_ten_minutes_stay_small() -> None:
    run = long_run(600, 5_000_000)
    assert run.histogram("deliver", basis="intended").count >= 4_990_000
    assert len(render([run]).encode()) < BYTES_MAX
    assert len(render([run] * 8).encode()) < BYTES_MAX


def test_a_week_has_no_more_points_than_a_screen() -> None:
    week = 7 * 86_400
    seconds = list(range(0, week, 100))
    recorder = Recorder()
    for second in seconds:
        histogram = Histogram()
        histogram.record(1_000_000 + second)
        recorder.merge_interval(second, {series_name("deliver", kind="message", basis="intended"): histogram.to_wire()})
    run = result(
        duration_ns=week * SECOND_NS,
        history=tracks(recorder.history()),
        rates=RateColumns(second=list(range(week)), due=[1] * week, sent=[1] * week, delivered=[1] * week),
        usage=[],
    )
    page = render([run])
    assert len(page.encode()) < BYTES_MAX
    bands = next(chart for chart in charts(page) if chart["id"] == "chart-bands")
    x, *columns = bands["views"][0]["data"]
    assert 300 < len(x) <= 600
    # Every point is the worst of the seconds that it stands for, and none is lost.
    assert columns[0][-1] == pytest.approx((1_000_000 + seconds[-1]) / 1e3, rel=1e-3)
    assert all(value is not None for value in columns[0])


def test_percentile_curves_begin_at_the_least_and_end_at_the_slowest() -> None:
    run = result()
    curve = next(chart for chart in charts(render([run])) if chart["id"] == "chart-percentiles")
    x, intended, sent = curve["views"][0]["data"]
    histogram = run.histogram("deliver", kind="message", basis="intended")
    assert (x[0], x[-1]) == (1, histogram.count)
    assert intended[0] == pytest.approx(histogram.min_ns / 1e3, rel=1e-3)
    assert intended[-1] == pytest.approx(histogram.max_ns / 1e3, rel=1e-2)
    assert intended == sorted(intended)
    assert len(sent) == len(x)
    assert [view["name"] for view in curve["views"]] == list(KINDS)


def test_a_second_in_which_nothing_arrived_is_a_gap() -> None:
    recorder = Recorder()
    for second in (0, 1, 5, 6):
        histogram = Histogram()
        histogram.record(1_000)
        recorder.merge_interval(second, {series_name("deliver", kind="message", basis="intended"): histogram.to_wire()})
    page = render([result(history=tracks(recorder.history()))])
    bands = next(chart for chart in charts(page) if chart["id"] == "chart-bands")
    x, slowest, *_ = bands["views"][0]["data"]
    assert (x, slowest) == (list(range(7)), [1.0, 1.0, None, None, None, 1.0, 1.0])


def test_chosen_metrics_of_the_targets_have_charts_on_the_time_of_the_load() -> None:
    series = {"mine_sent_total": SeriesColumns(second=[1, 2, 4], value=[5.0, 7.5, 2.0])}
    page = render([result(target_series=series)])
    chart = next(chart for chart in charts(page) if chart["id"] == "chart-theirs-0")
    assert chart["views"][0]["data"] == [[0, 1, 2, 3, 4], [None, 5.0, 7.5, None, 2.0]]
    assert "The rise a second of a metric of the target&#x27;s own" in page


def test_several_runs_are_laid_over_each_other_and_judged() -> None:
    page = render([result(), result(target=MeasuredTarget(name="other")), result(target=MeasuredTarget(name="third"))])
    assert re.findall(r'<section id="([\w-]+)"', page) == [
        *("comparison", "latency", "time", "ledger", "run-1", "run-2", "run-3", "run", "terms"),
    ]
    lines = next(chart for chart in charts(page) if chart["id"] == "chart-percentiles")["lines"]
    assert [(line["label"], line["colour"]) for line in lines] == [("reference", 0), ("other", 1), ("third", 2)]
    assert "No difference shown" in page


def test_rounds_of_a_configuration_share_a_colour() -> None:
    page = render([result(), result(), result(target=MeasuredTarget(name="other"))])
    bands = next(chart for chart in charts(page) if chart["id"] == "chart-bands")
    assert [line["colour"] for line in bands["lines"]] == [0, 0, 1]
    assert len(bands["views"][0]["data"]) == 4
    same = next(chart for chart in charts(render([result(), result()])) if chart["id"] == "chart-bands")
    assert [line["label"] for line in same["lines"]] == ["reference, round 1", "reference, round 2"]


def test_joins_that_never_all_succeeded_have_no_time() -> None:
    assert "<td>\u2013</td>" in render([result(joins=Attempts(tried=9, failed=9))])


def headline(*runs: Result) -> str:
    found = re.search(r'class="verdict (\w+)">.*?<h2>(.*?)</h2>', render(runs))
    assert found
    return f"{found[1]}: {found[2]}"


def timed(name: str, scale: float, **changes: Any) -> list[Result]:
    """Two rounds of a target that take `scale` times as long."""
    runs = []
    for round_ in range(2):
        histogram = Histogram()
        histogram.record_many(np.full(100, int(1e6 * scale * (1 + round_ / 1_000))))
        series = {series_name("deliver", kind="message", basis="intended"): histogram}
        runs.append(result(target=MeasuredTarget(name=name), series=summaries(series), relay=None, **changes))
    return runs


def test_the_headline_of_several_says_no_more_than_was_shown() -> None:
    lossy = {"message": KindFigures(due=9, sent=9, ledger=LedgerColumns(sent=9, expected=9, delivered=6, lost=3))}
    a, b, slow = timed("a", 1), timed("b", 0.5), timed("slow", 3)
    assert headline(*a, *b) == "good: b is better"
    assert headline(*b, *a) == "good: b is better"
    assert headline(*a, *timed("a2", 1)) == "warn: No difference shown"
    assert headline(*a, *b, *slow) == "warn: Differences from a are shown"
    assert headline(*a, *timed("b", 0.5, findings=[Finding("ledger", "Open.")])) == "bad: No verdict"
    assert headline(*a) == "good: One configuration"
    assert headline(*a, *timed("a", 1, interrupted=True)) == "warn: One configuration"
    assert headline(*timed("a", 1, kinds=lossy), *timed("b", 0.5, kinds=lossy)) == "bad: b is better, but at fault"


@pytest.mark.parametrize(("low_ns", "high_ns"), [(2.5e6, 2.6e7), (1e3, 9e3), (1e3, 1e10)])
def test_an_axis_has_ticks_enough_to_be_read(low_ns: float, high_ns: float) -> None:
    rows = [Range(label="x", points=(("p50", low_ns), ("max", high_ns)))]
    labels = re.findall(r'left:([\d.]+)%">[^<]', draw("x", rows, ""))
    assert 3 <= len(labels) <= 8
    assert all(0 <= float(label) <= 100 for label in labels)


# Of linear RGB to what people with a colour vision deficiency see. Source: Machado, Oliveira and Fernandes, A physiologically
# based model for simulation of color vision deficiency (2009), severity 1.0.
SEEN = {
    "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
TO_XYZ = np.array(((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)))
WHITE = np.array((0.9505, 1, 1.089))


def linear(colour: str) -> Any:
    share = np.array([int(colour[index : index + 2], 16) for index in (0, 2, 4)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb: Any) -> Any:
    """CIE L*a*b*, in which distances are about as large as they look."""
    relative = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.array((116 * y - 16, 500 * (x - y), 200 * (y - z)))


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
@pytest.mark.parametrize("seen", SEEN)
def test_lines_of_one_style_can_be_told_apart_by_everybody(scheme: str, seen: str) -> None:
    style = files("loadtests.report").joinpath("page.css").read_text()
    palettes = re.findall(r"(?:--s\d: #\w{6};\s*){8}", style)
    palette = dict(zip(("light", "dark", "print"), palettes, strict=True))[scheme]
    colours = re.findall(r"#(\w{6})", palette)
    for group in (colours[:4], colours[4:]):
        for one, other in combinations(group, 2):
            first, second = (lab(np.array(SEEN[seen]) @ linear(colour)) for colour in (one, other))
            assert np.linalg.norm(first - second) > 10, (one, other)


def test_sixteen_lines_look_different() -> None:
    runs = [result(target=MeasuredTarget(name=f"t{index}")) for index in range(16)]
    lines = next(chart for chart in charts(render(runs)) if chart["id"] == "chart-percentiles")["lines"]
    assert len({(line["colour"], line["dash"]) for line in lines}) == 16
