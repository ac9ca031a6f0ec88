"""The HTML report in a real browser: it renders without errors, its charts have marks, and no request leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from chromium import Page
from sample_results import result

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import series_name
from loadtests.report.html import render
from loadtests.results.schema import Event, MeasuredTarget, RateColumns, summaries

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(chromium.BINARY is None, reason=chromium.MISSING),
]

DRAWN = "document.documentElement.dataset.drawn"
MARKS = """[...document.querySelectorAll(".chart")].map((figure) => {
  const canvas = figure.querySelector("canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let marks = 0;
  const colours = new Set();
  for (let at = 0; at < pixels.length; at += 4)
    if (pixels[at + 3] > 128) { marks++; colours.add((pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2]); }
  return [figure.id, marks, colours.size];
})"""
"""For each chart: its opaque pixels, and how many colours they have. Axes alone are grey."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium.page() as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    browser.problems.clear()
    browser.requests.clear()
    browser.size(1280, 900)
    browser.scheme("light")
    yield browser
    assert browser.problems == []
    # The page itself, opened from its file, and its empty icon: nothing else was asked for.
    assert all(url.startswith(("file://", "data:,", "about:")) for url in browser.requests), browser.requests
    assert len({url for url in browser.requests if url.startswith("file:")}) <= 1


def show(page: Page, tmp_path: Path, *runs: Any) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(runs), encoding="utf-8")
    page.open(path.as_uri(), DRAWN)


@contextmanager
def texts_drawn(page: Page) -> Iterator[None]:
    """Pages opened within have `texts`: [text, left, right, width of its canvas] for all that is written on canvases."""
    script = page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="""window.texts = []; const draw = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
          const left = this.textAlign === "right" ? x - this.measureText(text).width : x;
          window.texts.push([text, left, left + this.measureText(text).width, this.canvas.width]);
          return draw.call(this, text, x, y); };""",
    )
    try:
        yield
    finally:
        page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_every_chart_has_marks(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, result())
    marks = page.evaluate(MARKS)
    assert len(marks) == 9
    for name, pixels, colours in marks:
        assert pixels > 1_000, name
        assert colours > 10, name


def test_an_overlay_has_marks_too(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, result(), result(), result(target=MeasuredTarget(name="other")))
    assert [name for name, pixels, _ in page.evaluate(MARKS) if pixels > 1_000] == [
        "chart-percentiles",
        "chart-bands",
        "chart-delivered",
    ]


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_is_never_wider_than_the_screen(page: Page, tmp_path: Path, width: int) -> None:
    page.size(width, 800, mobile=width < 600)
    show(page, tmp_path, result(), result(target=MeasuredTarget(name="a-relay-with-quite-a-long-name@transport")))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    show(page, tmp_path, result())
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode_darkens_page_and_charts(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, result())
    background = "getComputedStyle(document.body).backgroundColor"
    pixels = "document.querySelector('canvas').toDataURL()"
    light = page.evaluate(background), page.evaluate(pixels)
    page.scheme("dark")
    page.until(f"{pixels} !== {light[1]!r}")
    assert page.evaluate(background) != light[0]


def test_the_keyboard_reads_a_chart(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, result())
    page.evaluate("document.querySelector('#chart-percentiles .plot').focus()")
    for key in ("Home", "ArrowRight", "ArrowRight", "End", "ArrowLeft"):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    said = page.evaluate("document.querySelector('#chart-percentiles [aria-live]').textContent")
    assert said.startswith("9")
    assert "from intended send" in said
    assert "ms" in said


def test_a_line_can_be_switched_off_and_a_kind_chosen(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, result())
    pixels = "document.querySelector('#chart-percentiles canvas').toDataURL()"
    before = page.evaluate(pixels)
    page.evaluate("document.querySelector('#chart-percentiles .keys button').click()")
    page.until(f"{pixels} !== {before!r}")
    assert (
        page.evaluate("document.querySelector('#chart-percentiles .keys button').getAttribute('aria-pressed')")
        == "false"
    )
    without = page.evaluate(pixels)
    page.evaluate("document.querySelectorAll('#chart-percentiles .switch input')[3].click()")
    page.until(f"{pixels} !== {without!r}")


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (60, ["0 s", "10 s", "20 s"]),
        (600, ["0:00 min", "2:00 min", "4:00 min"]),
        (3 * 86_400, ["0:00 h", "24:00 h", "48:00 h"]),
    ],
)
def test_an_axis_of_time_has_round_steps_in_one_unit(
    page: Page, tmp_path: Path, seconds: int, ticks: list[str]
) -> None:
    column = list(range(0, seconds + 1, seconds // 60))
    rates = RateColumns(second=column, due=column, sent=column, delivered=column)
    with texts_drawn(page):
        page.size(640, 800)
        show(page, tmp_path, result(rates=rates, usage=[], history={}))
        texts = [text for text, *_ in page.evaluate("texts")]
    assert [text for text in texts if text in ticks][:3] == ticks


def test_percentiles_below_an_axis_do_not_touch_on_a_phone(page: Page, tmp_path: Path) -> None:
    histogram = Histogram()
    histogram.record_many(np.arange(1, 1_000_001))
    name = series_name("deliver", kind="message", basis="intended")
    with texts_drawn(page):
        page.size(390, 800, mobile=True)
        show(page, tmp_path, result(series=summaries({name: histogram}), history={}, rates=RateColumns(), usage=[]))
        places = [place for place in page.evaluate("texts") if place[0].endswith("%")][:4]
    assert [text for text, *_ in places] == ["0%", "90%", "99.9%", "99.999%"]
    assert all(left > before for (_, left, *_), (_, _, before, _) in zip(places[1:], places, strict=False)), places


def test_the_text_of_an_event_stands_beside_its_line_and_within_the_chart(page: Page, tmp_path: Path) -> None:
    with texts_drawn(page):
        page.size(390, 800, mobile=True)
        show(
            page, tmp_path, result(events=[Event(at_ns=at_ns, text="a cut") for at_ns in (100_000_000, 1_900_000_000)])
        )
        places = [(left, right, width) for text, left, right, width in page.evaluate("texts") if text == "a cut"]
    assert len(places) >= 6, "two in each chart over time"
    assert all(left > 60 and right < width for left, right, width in places), places


def test_it_prints(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, result())
    document = page.pdf()
    assert document.startswith(b"%PDF")
    assert len(document) > 20_000


def test_hostile_text_runs_nothing(page: Page, tmp_path: Path) -> None:
    hostile = "</script><script>document.documentElement.dataset.drawn='hacked'</script><img src=x onerror=alert(1)>"
    run = result(scenario=hostile, notes=[hostile], events=[Event(at_ns=1_000_000_000, text=hostile)])
    show(page, tmp_path, run)
    assert page.evaluate(DRAWN) == "9"
    assert page.evaluate("document.images.length") == 0
    assert hostile in page.evaluate("document.querySelector('h1').textContent")


def test_without_scripts_every_figure_is_in_a_table(page: Page, tmp_path: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        path = tmp_path / "report.html"
        path.write_text(render([result()]), encoding="utf-8")
        page.open(path.as_uri(), "document.title.includes('evening-peak')")
        assert page.evaluate("document.querySelectorAll('table').length") > 10
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
