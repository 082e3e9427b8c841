"""House style of every dashboard: colours, units, thresholds, the variables, and what panels have in common.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart; even so nothing is said by
colour alone: states are words, curves have their own dashes, and every number is written out.

References
----------
M. Okabe, K. Ito, Color Universal Design, https://jfly.uni-koeln.de/color/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue as Property

__all__ = [
    "RUNBOOKS",
    "SEVERITY_WORDS",
    "STATE_CURVES",
    "STATE_WORDS",
    "Property",
    "Query",
    "alarm_line",
    "bars",
    "board",
    "by_column",
    "curve",
    "curves",
    "instant",
    "likelihood",
    "number",
    "ranged",
    "rows",
    "selection",
    "steps",
    "wide",
    "words",
]

RUNBOOKS = "https://vigie.example/runbooks/"
"""Where the pages of docs/runbooks are served; an alert's `runbook_url` is this and its name."""

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
NEUTRAL = "text"

Query = prometheus.Dataquery


def curve(colour: str, dash: str = "solid") -> list[Property]:
    """Return the look of one curve: a colour, and dashes for those who do not see it."""
    dashes = {"dashed": [10, 6], "dotted": [2, 6]}
    look = [Property("color", {"mode": "fixed", "fixedColor": colour})]
    if dash != "solid":
        look.append(Property("custom.lineStyle", {"fill": "dash", "dash": dashes[dash]}))
    return look


_STATES = {
    "warming": ("◔", SKY, "dotted"),
    "ok": ("✓", GREEN, "solid"),
    "degraded": ("△", YELLOW, "dashed"),
    "failing": ("▲", ORANGE, "solid"),
    "silent": ("?", PURPLE, "dotted"),
    "stopped": ("■", VERMILLION, "solid"),
    "maintenance": ("⚙", BLUE, "dashed"),
}

STATE_CURVES = {state: curve(colour, dash) for state, (_, colour, dash) in _STATES.items()}
"""Look of the curve of each state."""

STATE_WORDS = {state: (f"{sign} {state}", colour) for state, (sign, colour, _) in _STATES.items()}
"""How each state is written in a table: a sign and the word, in the state's colour."""

SEVERITY_WORDS = {"page": ("■ page", VERMILLION), "ticket": ("△ ticket", ORANGE)}


def instant(expression: str, legend: str = "") -> prometheus.Dataquery:
    """Return a query for the value of now."""
    return prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").instant().datasource(DATASOURCE)


def ranged(expression: str, legend: str) -> prometheus.Dataquery:
    """Return a query for a curve."""
    return prometheus.Dataquery().expr(expression).legend_format(legend).range().datasource(DATASOURCE)


def steps(*values: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Return thresholds: colours from a value upwards, the first from minus infinity (None)."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in values])
    )


def number(title: str, unit: str, description: str, colour: str = NEUTRAL) -> stat.Panel:
    """Return a panel with one number; its colour, if it has one, says again what a number above zero says."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .no_value("unknown")
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .color_mode(kinds.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(steps((None, NEUTRAL), (1e-9, colour)))
    )


def curves(title: str, unit: str, description: str) -> timeseries.Panel:
    """Return a panel of curves with a legend that writes their last values."""
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .line_width(2)
        .fill_opacity(0)
        .show_points(kinds.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs(["lastNotNull"])
        )
    )


def rows(title: str, description: str) -> table.Panel:
    """Return a table."""
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit("none")
        .cell_height(kinds.TableCellHeight.SM)
        .align(kinds.FieldTextAlignment.AUTO)
        .inspect(False)
        .show_header(True)
        .thresholds(steps((None, NEUTRAL)))
    )


def bars(title: str, unit: str, description: str) -> bargauge.Panel:
    """Return horizontal bars of one colour; their names and numbers stand beside them."""
    return (
        bargauge.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .value_mode(kinds.BarGaugeValueMode.TEXT)
        .text(common.VizTextDisplayOptions().title_size(13).value_size(16))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(steps((None, SKY)))
    )


def words(texts: Mapping[str, tuple[str, str]]) -> list[Property]:
    """Return the look of a column of words: how each is written, and in which colour."""
    options = {
        word: {"text": text, "color": colour, "index": place}
        for place, (word, (text, colour)) in enumerate(texts.items())
    }
    return [
        Property("mappings", [{"type": "value", "options": options}]),
        Property("custom.cellOptions", {"type": "color-text"}),
    ]


def wide(pixels: int) -> list[Property]:
    """Return the width of a table's column."""
    return [Property("custom.width", pixels)]


def likelihood() -> list[Property]:
    """Return the look of a column of probabilities: the number, and a bar behind it."""
    return [
        *wide(130),
        Property("unit", "percentunit"),
        Property("decimals", 1),
        Property("min", 0),
        Property("max", 1),
        Property("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}),
        Property("color", {"mode": "fixed", "fixedColor": ORANGE}),
    ]


def alarm_line(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw the alarm level of an anomaly score, which is 1 by definition."""
    return panel.thresholds(steps((None, NEUTRAL), (1, VERMILLION))).thresholds_style(
        common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
    )


def by_column(
    panel: table.Panel,
    titles: Mapping[str, str],
    hidden: Sequence[str] = (),
    sort: str = "",
    descending: bool = True,
) -> table.Panel:
    """Make one row of all series that share their labels, one column of each label and of each value.

    Parameters
    ----------
    panel
        A table. The label `column` of its series names the column of the value (see `queries.column`).
    titles
        Columns in order, and how they are titled; what is not named comes after them under its own name.
    hidden
        Columns that are left out, beside the time and values without a column.
    sort, descending
        Title of the column by which rows are sorted, and how.
    """
    return (
        panel.with_transformation(_transformation("labelsToFields", mode="columns", valueLabel="column"))
        .with_transformation(_transformation("merge"))
        .with_transformation(
            _transformation(
                "organize",
                excludeByName=dict.fromkeys(("Time", "Value", *hidden), True),
                indexByName={name: place for place, name in enumerate(titles)},
                renameByName=dict(titles),
            )
        )
        .with_transformation(_transformation("sortBy", fields={}, sort=[{"field": sort, "desc": descending}]))
    )


def _transformation(name: str, **options: object) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(id_val=name, options=options)


def selection(label: str, title: str, info: str) -> dashboard.QueryVariable:
    """Return a variable with the values of a label of `info`; All also takes assets that lack the label."""
    return (
        dashboard.QueryVariable(label)
        .label(title)
        .datasource(DATASOURCE)
        .query(f"label_values({info}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def board(uid: str, title: str, description: str) -> dashboard.Dashboard:
    """Return an empty dashboard in house style."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["vigie"])
        .timezone("browser")
        .time("now-24h", "now")
        .refresh("30s")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
