"""The queries' common parts: the selector, whose asset it is, and the names of what the rules record."""

from __future__ import annotations

from flows import metrics

__all__ = [
    "AT_RISK",
    "EPISODES",
    "EXPECTED",
    "INFO",
    "INPUT_AGE",
    "REJECTED",
    "SELECTOR",
    "STATES",
    "column",
    "owned",
    "selected",
]

SELECTOR = 'class=~"$class",site=~"$site",building=~"$building",provider=~"$provider"'
"""What the dashboard's variables select."""

INFO = f"asset:{metrics.ASSET_INFO.name}:last15m"
"""Exactly one series an asset, with class, site, building, provider and whether it is simulated."""

STATES = f"site_building_provider_class_state:{metrics.ASSET_STATE.name}:count"
EXPECTED = "site_building_provider_class_horizon:vigie_failure_probability:sum"
AT_RISK = "site_building_provider_class_horizon:vigie_households_at_risk:sum"
EPISODES = "site_building_provider_class_severity:vigie_episode:count"
REJECTED = "reason:vigie_readings_rejected:rate10m"
INPUT_AGE = "input:vigie_input_last_message:age_seconds"


def selected(name: str, *matchers: str) -> str:
    """Return the series of a name that the variables select, which must carry the labels of the register.

    Examples
    --------
    >>> selected(EPISODES, 'severity="page"').removeprefix(EPISODES)
    '{class=~"$class",site=~"$site",building=~"$building",provider=~"$provider",severity="page"}'
    """
    return f"{name}{{{','.join((SELECTOR, *matchers))}}}"


def owned(expression: str, *labels: str) -> str:
    """Return the series of selected assets, with labels from the register.

    Parameters
    ----------
    expression
        Any with the label `asset`.
    labels
        What to add of site, building, provider, class and simulated.

    Examples
    --------
    >>> owned("max by (asset) (vigie_anomaly_score)", "building").partition("{")[0]
    '(max by (asset) (vigie_anomaly_score)) * on (asset) group_left (building) asset:vigie_asset_info:last15m'
    """
    return f"({expression}) * on (asset) group_left ({', '.join(labels)}) {selected(INFO)}"


def column(expression: str, title: str, *keys: str, of: str = "") -> str:
    """Return a table's column: the greatest value by `keys`, under the title that the label `column` holds.

    Parameters
    ----------
    expression
        Any with the labels `keys`.
    title
        Title of the column; ``$1`` stands for the value of the label `of`.
    of
        Label that makes several columns of one expression.

    Examples
    --------
    >>> column("vigie_asset_households", "households", "asset")
    'max by (asset, column) (label_replace(vigie_asset_households, "column", "households", "", "(.*)"))'
    """
    return f'max by ({", ".join((*keys, "column"))}) (label_replace({expression}, "column", "{title}", "{of}", "(.*)"))'
