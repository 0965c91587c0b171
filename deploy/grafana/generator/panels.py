"""What the dashboards are made of: panels of four kinds, with title, description, unit and templated data source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import bargauge, stat, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus as prometheus_builders
from grafana_foundation_sdk.models import common, dashboard, prometheus

METRICS: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
TRACES: Final = "${traces}"
"""The data source, chosen by a variable, that trace links lead to."""

DOLLARS: Final = "currencyUSD"
TOKENS: Final = "short"
COUNT: Final = "none"
SECONDS: Final = "s"
SHARE: Final = "percentunit"
PER_SECOND: Final = "cps"
BYTES: Final = "bytes"

STAT_HEIGHT: Final = 4
HEIGHT: Final = 8
WIDTH: Final = 24

Panel = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel and what its results are called."""

    expression: str
    legend: str = ""


def number(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 3,
    since: str = "",
    decimals: int | None = None,
) -> stat.Panel:
    """Figures of the range; ``since`` replaces the dashboard's begin (``now/d``: today so far)."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(METRICS)
        .span(width)
        .height(STAT_HEIGHT)
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.NONE)
    )
    if since:
        panel = panel.time_from(since)
    if decimals is not None:
        panel = panel.decimals(decimals)
    for target in _targets(queries, instant=True):
        panel = panel.with_target(target)
    return panel


def alarm(title: str, description: str, unit: str, query: Query, width: int = 3) -> stat.Panel:
    """A figure that should be 0, and is red where it is not."""
    return (
        number(title, description, unit, query, width=width)
        .color_mode(common.BigValueColorMode.VALUE)
        .thresholds(_steps((None, "green"), (1e-9, "red")))
    )


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = WIDTH // 2,
    stacked: bool = False,
    exemplars: bool = False,
) -> timeseries.Panel:
    """How something went over the range; ``exemplars`` are points that lead to a trace."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(METRICS)
        .span(width)
        .height(HEIGHT)
        .min(0)
        .fill_opacity(20 if stacked else 0)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    for target in _targets(queries, exemplars=exemplars):
        panel = panel.with_target(target)
    return panel


def bars(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = WIDTH // 4,
    steps: Sequence[tuple[float | None, str]] = ((None, "blue"),),
) -> bargauge.Panel:
    """What a total is made of, or how far limits are used up."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(METRICS)
        .span(width)
        .height(HEIGHT)
        .min(0)
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .thresholds(_steps(*steps))
    )
    for target in _targets(queries, instant=True):
        panel = panel.with_target(target)
    return panel


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: an expression, or (none) a label that other columns' series have."""

    title: str
    expression: str = ""
    unit: str = COUNT
    label: str = ""
    link: str = ""
    """Where a click leads; ``${__value.raw}`` is the cell."""


def rows(title: str, description: str, columns: Sequence[Column], sort: str, height: int) -> table.Panel:
    """One row for each set of labels that the columns' series share."""
    queried = [column for column in columns if column.expression]
    # Grafana names the values of the query A "Value #A".
    fields = {column.title: column.label or f"Value #{_reference(queried.index(column))}" for column in columns}
    hidden = ["Time", *(f"Value #{_reference(at)}" for at, column in enumerate(queried) if column.label)]
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .unit(COUNT)
        .datasource(METRICS)
        .span(WIDTH)
        .height(height)
        .sort_by([common_builders.TableSortByFieldState().display_name(sort).desc(True)])
        .with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": {field: at for at, field in enumerate(fields.values())},
                    "renameByName": {field: title for title, field in fields.items() if field != title},
                },
            )
        )
    )
    for column in columns:
        properties = [dashboard.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.link:
            link = {"title": column.title, "url": column.link, "targetBlank": True}
            properties.append(dashboard.DynamicConfigValue(id_val="links", value=[link]))
        panel = panel.override_by_name(column.title, properties)
    for target in _targets([Query(column.expression) for column in queried], instant=True, as_table=True):
        panel = panel.with_target(target)
    return panel


def _steps(*steps: tuple[float | None, str]) -> builders.ThresholdsConfig:
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def _reference(at: int) -> str:
    return chr(ord("A") + at)


def _targets(
    queries: Sequence[Query], instant: bool = False, exemplars: bool = False, as_table: bool = False
) -> list[prometheus_builders.Dataquery]:
    targets: list[prometheus_builders.Dataquery] = []
    for at, query in enumerate(queries):
        target = (
            prometheus_builders.Dataquery()
            .expr(query.expression)
            .legend_format(query.legend or "__auto")
            .ref_id(_reference(at))
            .datasource(METRICS)
            .format(prometheus.PromQueryFormat.TABLE if as_table else prometheus.PromQueryFormat.TIME_SERIES)
        )
        target = target.instant() if instant else target.range().exemplar(exemplars)
        targets.append(target)
    return targets
