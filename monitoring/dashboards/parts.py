"""What the dashboards are put together from: queries, panels, rows and variables, in Grafana's own types.

The builders of grafana-foundation-sdk leave panel ids, refIds, the place of panels in collapsed rows and the legend to
whoever uses them; here they are filled in, once for all dashboards.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import barchart, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.table import Options as Table

SOURCE = kinds.DataSourceRef("prometheus", "${datasource}")
"""The data source that the reader has chosen at the top."""

WIDTH = 24
"""Columns of Grafana's grid."""

TAG = "podtally"


class Query(NamedTuple):
    """What a panel asks Prometheus."""

    expression: str
    legend: str = "__auto"
    instant: bool = False
    """One value, at the end of the time shown: for tables and single numbers."""


class Column(NamedTuple):
    """A column of a table, made of one query's values; one without a title is not shown, and its labels alone are."""

    title: str
    expression: str
    unit: str = "none"
    decimals: int | None = None
    width: int = 110


class Row(NamedTuple):
    """Panels under a title. A collapsed one is asked for nothing until it is opened."""

    title: str
    panels: Sequence[models.Panel]
    collapsed: bool = False


# --- panels ---------------------------------------------------------------------------------------------------------


def _targets(queries: Iterable[Query], *, as_table: bool = False) -> list[prometheus.Dataquery]:
    found = []
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query.expression).datasource(SOURCE)
        target.legend_format(query.legend)
        if as_table:
            target.format(PromQueryFormat.TABLE)
        found.append(target.instant() if query.instant else target.range())
    return found


def _fixed(color: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


_COLORS = dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC)


def line(name: str, color: str, *, dashed: bool = False) -> tuple[str, list[models.DynamicConfigValue]]:
    """The looks of one series among stacked ones: a line over them, not one of them."""
    looks = [
        _fixed(color),
        models.DynamicConfigValue("custom.stacking", {"mode": "none", "group": "A"}),
        models.DynamicConfigValue("custom.fillOpacity", 0),
        models.DynamicConfigValue("custom.lineWidth", 2),
    ]
    if dashed:
        looks.append(models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}))
    return name, looks


def colored(name: str, color: str) -> tuple[str, list[models.DynamicConfigValue]]:
    """One series in a colour that says what it is."""
    return name, [_fixed(color)]


def on_the_right(name: str, color: str, unit: str, label: str) -> tuple[str, list[models.DynamicConfigValue]]:
    """A dashed line over the others, with an axis of its own."""
    _, looks = line(name, color, dashed=True)
    looks += [
        models.DynamicConfigValue("unit", unit),
        models.DynamicConfigValue("custom.axisPlacement", "right"),
        models.DynamicConfigValue("custom.axisLabel", label),
    ]
    return name, looks


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    bars: bool = False,
    steps: bool = False,
    label: str = "",
    most: float | None = None,
    count: bool = False,
    least: float | None = None,
    looks: Sequence[tuple[str, list[models.DynamicConfigValue]]] = (),
    absent: str | None = None,
) -> models.Panel:
    """Values over time. ``count``: whole numbers, mostly small.

    ``most``: where the axis ends; ``least``: how far it goes at least, so that zeros are not drawn on an axis to 100.
    ``absent``: what is said in place of the graph where no query has a series.
    """
    wide = width == WIDTH
    if least is None:
        least = 1 if count else 0.1 if unit == "percentunit" else None
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .unit(unit)
        .min(0)
        .color_scheme(_COLORS)
        .line_width(0 if bars else 1)
        .fill_opacity(70 if bars else 25 if stacked else 0)
        .show_points(kinds.VisibilityMode.NEVER)
        .draw_style(kinds.GraphDrawStyle.BARS if bars else kinds.GraphDrawStyle.LINE)
        .line_interpolation(kinds.LineInterpolation.STEP_AFTER if steps else kinds.LineInterpolation.LINEAR)
        .stacking(
            common.StackingConfig().mode(kinds.StackingMode.NORMAL if stacked else kinds.StackingMode.NONE).group("A")
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(kinds.LegendDisplayMode.TABLE if wide else kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.RIGHT if wide else kinds.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"] if wide else [])
        )
        .targets(list(_targets(queries)))
    )
    if label:
        panel.axis_label(label)
    if most is not None:
        panel.max(most)
    if count:
        panel.decimals(0)
    if least is not None and most is None:
        panel.axis_soft_max(least)
    if absent:
        panel.no_value(absent)
    for name, properties in looks:
        panel.override_by_name(name, properties)
    return panel.build()


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 4,
    height: int = 4,
    decimals: int | None = None,
    warn_above: float | None = None,
    fail_above: float | None = None,
    named: bool = False,
    absent: str | None = None,
) -> models.Panel:
    """One number as it is now, or one for each series. ``absent``: what stands there where there is none."""
    steps = [models.Threshold(None, "text")]
    if warn_above is not None:
        steps.append(models.Threshold(warn_above, "orange"))
    if fail_above is not None:
        steps.append(models.Threshold(fail_above, "red"))
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .unit(unit)
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(kinds.BigValueTextMode.VALUE_AND_NAME if named else kinds.BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
        .targets(list(_targets([query._replace(instant=True)])))
    )
    if decimals is not None:
        panel.decimals(decimals)
    if absent:
        panel.no_value(absent)
    return panel.build()


def _sorted_by(title: str, desc: bool) -> models.DataTransformerConfig:
    return models.DataTransformerConfig("sortBy", options={"fields": {}, "sort": [{"field": title, "desc": desc}]})


def rows(
    title: str,
    description: str,
    labels: dict[str, str],
    *columns: Column,
    width: int = 12,
    height: int = 8,
    sort: Sequence[tuple[str, bool]] = (),
    links: dict[str, tuple[str, str]] | None = None,
    widths: dict[str, int] | None = None,
    absent: str | None = None,
) -> models.Panel:
    """A table as things are now: a row for each set of ``labels`` (label: title of its column), a column a query.

    ``sort``: titles of columns, and whether the greatest comes first. ``links``: what a cell of a column leads to, as
    title and URL. ``widths``: of columns of labels; those without one share what is left.
    """
    refs = [chr(ord("A") + at) for at in range(len(columns))]
    values = [f"Value #{ref}" if len(columns) > 1 else "Value" for ref in refs]
    titles = labels | {value: column.title for value, column in zip(values, columns, strict=True) if column.title}
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .show_header(True)
        .cell_height(kinds.TableCellHeight.SM)
        .targets(list(_targets([Query(column.expression, instant=True) for column in columns], as_table=True)))
        .with_transformation(models.DataTransformerConfig("merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": {name: True for name in ("Time", *values) if name not in titles},
                    "indexByName": {name: at for at, name in enumerate(titles)},
                    "renameByName": titles,
                },
            )
        )
    )
    # One after the other, the last key first: a table sorts by one column alone.
    for name, desc in reversed(sort):
        panel.with_transformation(_sorted_by(name, desc))
    for column in filter(lambda one: one.title, columns):
        looks = [
            models.DynamicConfigValue("unit", column.unit),
            models.DynamicConfigValue("custom.width", column.width),
        ]
        if column.decimals is not None:
            looks.append(models.DynamicConfigValue("decimals", column.decimals))
        panel.override_by_name(column.title, looks)
    for name, pixels in (widths or {}).items():
        panel.override_by_name(name, [models.DynamicConfigValue("custom.width", pixels)])
    for name, (text, url) in (links or {}).items():
        panel.override_by_name(name, [models.DynamicConfigValue("links", [{"title": text, "url": url}])])
    if absent:
        panel.no_value(absent)
    made = panel.build()
    # The builder's default; Grafana has no such option since 12.
    assert isinstance(made.options, Table)
    made.options.footer = None
    return made


def bars(
    title: str,
    description: str,
    by: str,
    *columns: Column,
    width: int = 12,
    height: int = 8,
    absent: str | None = None,
) -> models.Panel:
    """Bars side by side for each value of the label ``by``; all columns have the first one's unit."""
    values = [f"Value #{chr(ord('A') + at)}" for at in range(len(columns))]
    panel = (
        barchart.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .unit(columns[0].unit)
        .min(0)
        .color_scheme(_COLORS)
        .x_field(by)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .show_value(kinds.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
        )
        .targets(list(_targets([Query(column.expression, instant=True) for column in columns], as_table=True)))
        .with_transformation(models.DataTransformerConfig("merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": {"Time": True},
                    "renameByName": dict(zip(values, (column.title for column in columns), strict=True)),
                },
            )
        )
        .with_transformation(_sorted_by(columns[-1].title, desc=True))
    )
    if absent:
        panel.no_value(absent)
    return panel.build()


# --- variables ------------------------------------------------------------------------------------------------------


def one_of(name: str, label: str, query: str, description: str, *, first: str = "", keep: str = "") -> Any:
    """A variable of which one value is chosen. ``first``: the value to begin with; ``keep``: a filter of the values."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if keep:
        variable.regex(keep)
    if first:
        variable.current(models.VariableOption(text=first, value=first))
    return variable


def some_of(name: str, label: str, query: str, description: str, *, everything: str = ".+") -> Any:
    """A variable of which all values are chosen, or some."""
    return (
        one_of(name, label, query, description)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(models.VariableOption(text=["All"], value=["$__all"]))
    )


JOB = some_of(
    "job",
    "Scrape job",
    "label_values(podtally_build_info, job)",
    "The jobs that scrape podtally. It keeps metrics of the same name from other exporters out.",
)
NODE = some_of(
    "instance",
    "Node",
    'label_values(podtally_build_info{job=~"$job"}, instance)',
    "The nodes whose collectors are shown: their instance label is the node's name.",
)


# --- the whole ------------------------------------------------------------------------------------------------------


def marks(name: str, expression: str, title: str, text: str, color: str, *, shown: bool, at_value: bool = False) -> Any:
    """Annotations: a region while the expression has a series, or a mark at the time that its value is (in ms)."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(shown)
        .icon_color(color)
        .expr(expression)
        .title_format(title)
        .text_format(text)
        .use_value_for_time(at_value)
    )


def board(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[Any],
    contents: Sequence[Row],
    annotations: Sequence[Any] = (),
    *,
    since: str = "now-15m",
) -> models.Dashboard:
    """A dashboard. The panels of a row stand side by side as far as they fit; a row without a title is the top."""
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(since, "now")
        .refresh("10s")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("podtally")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .variables(
            [
                dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
                *variables,
            ]
        )
        .annotations(list(annotations))
        .build()
    )
    built.panels = _laid_out(contents)
    return built


def _laid_out(contents: Sequence[Row]) -> list[models.Panel | models.RowPanel]:
    """The panels with their ids and places."""
    found: list[models.Panel | models.RowPanel] = []
    top, ids = 0, 0
    for row in contents:
        head = None
        if row.title:
            ids += 1
            head = models.RowPanel(
                title=row.title, collapsed=row.collapsed, grid_pos=models.GridPos(1, WIDTH, 0, top), id_val=ids
            )
            found.append(head)
            top += 1
        filled = [top] * WIDTH
        for panel in row.panels:
            ids += 1
            panel.id_val = ids
            _put(panel, filled)
            (head.panels if head is not None and row.collapsed else found).append(panel)
        # What is folded away takes no place; its panels' own places are those that they have once it is opened.
        top = top if row.collapsed else max(filled)
    return found


def _put(panel: models.Panel, filled: list[int]) -> None:
    """Give a panel the highest place that is free, and of these the leftmost; ``filled``: how deep each column is."""
    place = panel.grid_pos
    assert place is not None
    place.y, place.x = min((max(filled[x : x + place.w]), x) for x in range(WIDTH - place.w + 1))
    filled[place.x : place.x + place.w] = [place.y + place.h] * place.w


_OF_INTERVALS = ("auto", "auto_min", "auto_count")
"""What the encoder writes on every variable, and Grafana has on those of kind interval alone."""


def as_json(built: models.Dashboard) -> str:
    """The file that Grafana reads."""
    found = json.loads(json.dumps(built, cls=JSONEncoder))
    for variable in found["templating"]["list"]:
        for key in _OF_INTERVALS:
            variable.pop(key, None)
    return json.dumps(found, indent=2, sort_keys=True) + "\n"
