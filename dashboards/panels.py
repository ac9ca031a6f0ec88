"""Panels and boards with the house's defaults: every panel has a unit, and says what it shows and what is bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries, xychart
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import xychart as xychart_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
RUN: Final = 'scenario=~"$scenario",target=~"$target",run=~"$run"'
"""Selects by the board's variables. "All" matches the empty label too, so a relay that no run started is shown."""
COLUMNS: Final = 24
PALETTE: Final = "palette-classic-by-name"
"""A series keeps its colour from panel to panel."""

SECONDS: Final = "s"
BYTES: Final = "bytes"
COUNT: Final = "short"
PER_SECOND: Final = "cps"
BYTES_PER_SECOND: Final = "Bps"
SHARE: Final = "percentunit"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and what its series are called; {{label}} stands for a label's value."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a panel is called, what it shows, and which value is bad and why."""

    title: str
    shows: str
    bad: str

    @property
    def description(self) -> str:
        return f"{self.shows}\n\nBad: {self.bad}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines(Builder[models.Panel]):
    """A panel of curves over time. `log`: the axis is logarithmic, for latencies; `limit` draws a line there."""

    about: About
    unit: str
    queries: Sequence[Query]
    width: int = 8
    log: bool = False
    stacked: bool = False
    limit: float | None = None

    def build(self) -> models.Panel:
        panel = (
            timeseries.Panel()
            .title(self.about.title)
            .description(self.about.description)
            .datasource(DATASOURCE)
            .unit(self.unit)
            .span(self.width)
            .height(8)
            .line_width(1)
            .fill_opacity(25 if self.stacked else 6)
            .show_points(common_models.VisibilityMode.NEVER)
            .color_scheme(board.FieldColor().mode(models.FieldColorModeId(PALETTE)))
            .legend(_legend())
            .tooltip(
                common.VizTooltipOptions()
                .mode(common_models.TooltipDisplayMode.MULTI)
                .sort(common_models.SortOrder.DESCENDING)
            )
        )
        if self.log:
            scale = common.ScaleDistributionConfig().type(common_models.ScaleDistribution.LOG).log(10)
            panel.scale_distribution(scale)
        else:
            panel.min(0)
        if self.stacked:
            panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
        if self.limit is not None:
            panel.thresholds(_steps((None, "green"), (self.limit, "red")))
            panel.thresholds_style(
                common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
            )
        for target in _targets(self.queries):
            panel.with_target(target)
        return panel.build()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure(Builder[models.Panel]):
    """One number, the last value. `steps`: from which value on which colour, from the lowest up.

    `now`: only what holds at the end of the time shown. The last value would say for minutes of one that died that it is well.
    """

    about: About
    unit: str
    query: Query
    width: int = 4
    steps: Sequence[tuple[float | None, str]] = ((None, "text"),)
    now: bool = False

    def build(self) -> models.Panel:
        panel = (
            stat.Panel()
            .title(self.about.title)
            .description(self.about.description)
            .datasource(DATASOURCE)
            .unit(self.unit)
            .span(self.width)
            .height(4)
            .thresholds(_steps(*self.steps))
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
            .graph_mode(common_models.BigValueGraphMode.NONE if self.now else common_models.BigValueGraphMode.AREA)
            .color_mode(common_models.BigValueColorMode.VALUE)
            .no_value("no data")
        )
        for target in _targets([self.query]):
            panel.with_target(target.instant() if self.now else target)
        return panel.build()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat(Builder[models.Panel]):
    """A histogram over time: `expr` gives the rate of every bucket, by `le`."""

    about: About
    expr: str
    unit: str = SECONDS
    width: int = 12

    def build(self) -> models.Panel:
        color = (
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Viridis")  # told apart by the colour-blind, and in grey
            .exponent(0.5)
            .steps(64)
        )
        panel = (
            heatmap.Panel()
            .title(self.about.title)
            .description(self.about.description)
            .datasource(DATASOURCE)
            .unit(self.unit)
            .span(self.width)
            .height(8)
            .calculate(False)
            .color(color)
            .y_axis(heatmap.YAxisConfig().unit(self.unit).axis_placement(common_models.AxisPlacement.LEFT))
            .cell_values(heatmap.CellValues().unit(PER_SECOND))
            .show_y_histogram()
            .mode(common_models.TooltipDisplayMode.SINGLE)
        )
        query = prometheus.Dataquery().expr(self.expr).legend_format("{{le}}").ref_id("A").range()
        panel.with_target(query.format(PromQueryFormat.HEATMAP).datasource(DATASOURCE))
        return panel.build()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter(Builder[models.Panel]):
    """One quantity against another, a point for each moment, a colour for each run."""

    about: About
    x: Query
    x_unit: str
    y: Query
    y_unit: str
    width: int = 12

    def build(self) -> models.Panel:
        panel = (
            xychart.Panel()
            .title(self.about.title)
            .description(self.about.description)
            .datasource(DATASOURCE)
            .unit(self.y_unit)
            .span(self.width)
            .height(10)
            .show(xychart_models.XYShowMode.POINTS)
            .legend(_legend())
            .mapping(xychart_models.SeriesMapping.MANUAL)
            .series(
                [
                    xychart.XYSeriesConfig()
                    .x(xychart.XychartXYSeriesConfigX().matcher(_by_name(self.x.legend)))
                    .y(xychart.XychartXYSeriesConfigY().matcher(_by_name(self.y.legend)))
                ]
            )
            .override_by_name(self.x.legend, [models.DynamicConfigValue(id_val="unit", value=self.x_unit)])
        )
        for target in _targets([self.x, self.y]):
            panel.with_target(target.format(PromQueryFormat.TABLE))
        # Two tables become one whose rows hold both values of a moment and a run; then one frame a run.
        names = {"Value #A": self.x.legend, "Value #B": self.y.legend}
        for name, options in (
            ("merge", {}),
            ("organize", {"renameByName": names}),
            ("partitionByValues", {"fields": ["run"], "keepFields": False}),
        ):
            panel.with_transformation(models.DataTransformerConfig(id_val=name, options=options))
        return panel.build()


Panel = Lines | Figure | Heat | Scatter


@dataclass(frozen=True, slots=True)
class Row:
    """A headline and the panels under it."""

    title: str
    panels: Sequence[Panel]


def percentiles(buckets: str, *, by: str = "", name: str = "") -> list[Query]:
    """Return p50 to p99.9 of `buckets`, rates by `le`, merged before a percentile is read from them.

    `by` names further labels to keep, with a trailing comma; `name` goes before the percentile in the legend.
    """
    return [
        Query(f"histogram_quantile({share}, sum by ({by}le) ({buckets}))", f"{name} {percentile}".strip())
        for share, percentile in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))
    ]


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(chr(ord("A") + index))
        .range()
        .datasource(DATASOURCE)
        for index, query in enumerate(queries)
    ]


def _steps(*steps: tuple[float | None, str]) -> board.ThresholdsConfig:
    return (
        board.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)


def _by_name(name: str) -> xychart.MatcherConfig:
    return xychart.MatcherConfig().id("byName").options(name)
