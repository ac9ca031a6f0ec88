"""Thresholds in k6's grammar, and whether a result meets them.

    threshold  = metric [ "{" label "=" value { "," label "=" value } "}" ] ":" aggregation operator value
    aggregation = "p(" number ")" | "med" | "avg" | "min" | "max" | "count" | "rate" | a column of the ledger
    operator   = "<" | "<=" | ">" | ">=" | "==" | "==="  | "!="
    value      = number [ "ns" | "us" | "ms" | "s" | "m" ]

    deliver{kind=message}: p(99)<50ms        deliver: lost==0        ack: rate>1000

Times without a unit are milliseconds, as in k6. Deliveries are those from the intended send unless `basis=sent` is
given. Several series are merged before anything is read from them. `rate` is per second of the load. A threshold on
something of which there is no data fails.

Source: k6 documentation, "Thresholds", section "Threshold expression syntax".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from decimal import Decimal
from difflib import get_close_matches
from operator import eq, ge, gt, le, lt, ne
from typing import Final

from msgspec import Struct

from loadtests.measuring.histogram import Histogram
from loadtests.measuring.series import LABELS, METRICS
from loadtests.results.schema import LedgerColumns, Result, ThresholdOutcome

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": le,
    ">=": ge,
    "===": eq,
    "==": eq,
    "!=": ne,
    "<": lt,
    ">": gt,
}
_UNITS_NS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000}
_TIMES: Final = ("med", "avg", "min", "max")
_COUNTS: Final = ("count", "rate")
_COLUMNS: Final = tuple(field for field in LedgerColumns.__struct_fields__ if field != "sent")

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9_.-]+")
_NUMBER: Final = re.compile(r"\d+(\.\d+)?|\.\d+")
_UNIT: Final = re.compile(r"[A-Za-zµ]+")
_OPERATOR: Final = re.compile(r"===|==|!=|<=|>=|<|>")
_SPACE: Final = re.compile(r"\s*")


class ThresholdError(ValueError):
    """A threshold that cannot be read. `position` counts characters from 0."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        super().__init__(f"threshold {text!r}, at character {position + 1}: {reason}")
        self.text = text
        self.position = position
        self.reason = reason


class Threshold(Struct, frozen=True, kw_only=True):
    """What was parsed; `str` gives its canonical text, which parses to an equal one.

    `value` is in ns for times, a number otherwise; `percent` only where `aggregation` is "p".
    """

    metric: str
    labels: tuple[tuple[str, str], ...]
    aggregation: str
    percent: Decimal | None
    operator: str
    value: Decimal

    @property
    def is_time(self) -> bool:
        return self.aggregation == "p" or self.aggregation in _TIMES

    def __str__(self) -> str:
        labels = f"{{{','.join(f'{label}={value}' for label, value in self.labels)}}}" if self.labels else ""
        aggregation = f"p({_plain(self.percent)})" if self.percent is not None else self.aggregation
        value = _time(self.value) if self.is_time else _plain(self.value)
        return f"{self.metric}{labels}: {aggregation}{self.operator}{value}"


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(value_ns: Decimal) -> str:
    for unit in ("s", "ms", "us"):
        if value_ns and value_ns % _UNITS_NS[unit] == 0:
            return f"{_plain(value_ns / _UNITS_NS[unit])}{unit}"
    return f"{_plain(value_ns)}ns"


class _Reader:
    """The text and how far it was read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.start = 0

    def take(self, pattern: re.Pattern[str]) -> str | None:
        _, self.position = _SPACE.match(self.text, self.position).span()  # type: ignore[union-attr]  # \s* always matches
        self.start = self.position
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def need(self, pattern: re.Pattern[str], what: str) -> str:
        found = self.take(pattern)
        if found is None:
            raise self.error(f"{what} expected")
        return found

    def literal(self, character: str) -> bool:
        return self.take(re.compile(re.escape(character))) is not None

    def error(self, reason: str) -> ThresholdError:
        return ThresholdError(self.text, self.start, reason)


def parse(text: str, *, kinds: Collection[str] | None = None) -> Threshold:
    """Return the threshold that `text` states. Raises ThresholdError; with `kinds`, also for a kind not among them."""
    reader = _Reader(text)
    metric = reader.need(_NAME, "a metric")
    if metric not in METRICS:
        raise reader.error(f"there is no metric {metric!r}{_meant(metric, METRICS)}")
    labels = _labels(reader, kinds)
    if not reader.literal(":"):
        raise reader.error("':' expected")
    aggregation = reader.need(_NAME, "an aggregation, such as p(99) or max,")
    percent: Decimal | None = None
    if aggregation == "p":
        percent = _percent(reader)
    elif aggregation in _COLUMNS:
        if metric != "deliver":
            raise reader.error(f"{aggregation} is a column of the ledger: deliver has it, {metric} does not")
        if {label for label, _ in labels} - {"kind"}:
            raise reader.error(f"{aggregation} is kept by kind only")
    elif aggregation not in (*_TIMES, *_COUNTS):
        known = ("p(N)", *_TIMES, *_COUNTS, *_COLUMNS)
        raise reader.error(f"there is no aggregation {aggregation!r}; there are {', '.join(known)}")
    operator = reader.need(_OPERATOR, "a comparison (<, <=, >, >=, ==, !=)")
    value = Decimal(reader.need(_NUMBER, "a number"))
    unit = reader.take(_UNIT)
    if aggregation == "p" or aggregation in _TIMES:
        unit = (unit or "ms").replace("µ", "u")
        if unit not in _UNITS_NS:
            raise reader.error(f"there is no unit {unit!r}; there are {', '.join(_UNITS_NS)}")
        value *= _UNITS_NS[unit]
    elif unit is not None:
        raise reader.error(f"{aggregation} is a plain number and has no unit")
    if reader.take(re.compile(r".+", re.DOTALL)):
        raise reader.error("something is left over; give --threshold once for each threshold")
    return Threshold(
        metric=metric,
        labels=labels,
        aggregation=aggregation,
        percent=percent,
        operator="==" if operator == "===" else operator,
        value=value,
    )


def _labels(reader: _Reader, kinds: Collection[str] | None) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    if not reader.literal("{"):
        return ()
    while True:
        label = reader.need(_NAME, "a label")
        if label not in LABELS:
            raise reader.error(f"there is no label {label!r}{_meant(label, LABELS)}")
        if label in labels:
            raise reader.error(f"{label} is given twice")
        # k6 separates by a colon, Prometheus by an equals sign: both are understood.
        if not reader.literal("=") and not reader.literal(":"):
            raise reader.error("'=' expected")
        value = reader.need(_LABEL_VALUE, "a value")
        if label == "kind" and kinds is not None and value not in kinds:
            raise reader.error(f"there is no kind {value!r}{_meant(value, kinds)}")
        if label == "basis" and value not in ("intended", "sent"):
            raise reader.error(f"the basis is intended or sent, not {value!r}")
        labels[label] = value
        if reader.literal("}"):
            return tuple(sorted(labels.items()))
        if not reader.literal(","):
            raise reader.error("',' or '}' expected")


def _percent(reader: _Reader) -> Decimal:
    if not reader.literal("("):
        raise reader.error("'(' expected")
    percent = Decimal(reader.need(_NUMBER, "a percentile"))
    if percent > 100:
        raise reader.error("a percentile lies between 0 and 100")
    if not reader.literal(")"):
        raise reader.error("')' expected")
    return percent


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"


def evaluate(threshold: Threshold, result: Result) -> ThresholdOutcome:
    """Compare `result` with `threshold`. Without data the outcome is not ok, whatever the comparison."""
    observed = _observe(threshold, result)
    if observed is None:
        return ThresholdOutcome(threshold=str(threshold), ok=False, observed=None, text=f"{threshold}: no data")
    ok = _OPERATORS[threshold.operator](observed, float(threshold.value))
    # Histograms have three significant digits: a fourth tells on which side of a limit a time lies, more would be made up.
    shown = f"{observed / 1e6:.4g} ms" if threshold.is_time else f"{observed:.10g}"
    return ThresholdOutcome(
        threshold=str(threshold), ok=ok, observed=observed, text=f"{threshold}: {'met' if ok else 'not met'}, {shown}"
    )


def _observe(threshold: Threshold, result: Result) -> float | None:
    labels = dict(threshold.labels)
    if threshold.aggregation in _COLUMNS:
        ledgers = [kind.ledger for name, kind in result.kinds.items() if labels.get("kind", name) == name]
        # A ledger without a record says nothing: "0 lost of 0" is no data.
        if not any(ledger.sent or ledger.expected for ledger in ledgers):
            return None
        return float(sum(getattr(ledger, threshold.aggregation) for ledger in ledgers))
    if threshold.metric == "deliver":
        labels.setdefault("basis", "intended")
    histogram = result.histogram(threshold.metric, **labels)
    if not histogram.count:
        return None
    return _read(threshold, histogram, result.duration_ns)


def _read(threshold: Threshold, histogram: Histogram, duration_ns: int) -> float | None:
    if threshold.percent is not None:
        return float(histogram.percentile(float(threshold.percent)))
    match threshold.aggregation:
        case "med":
            return float(histogram.percentile(50))
        case "avg":
            return float(histogram.mean_ns)
        case "min":
            return float(histogram.min_ns)
        case "max":
            return float(histogram.max_ns)
        case "count":
            return float(histogram.count)
        case _:
            return histogram.count / (duration_ns / 1e9) if duration_ns > 0 else None
