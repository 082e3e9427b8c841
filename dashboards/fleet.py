"""The fleet: which asset fails next, why, how sure, whom it costs what, and whether Vigie itself works.

For the maintenance planner, who looks once in the morning and whenever a page went out. It reads top to bottom: the
numbers of now, the list to work through, the trend, the pipeline.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import bargauge, stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

from dashboards import defaults as d
from dashboards import pipeline
from dashboards import queries as q
from dashboards.layout import arrange
from features.signals import load_class
from flows import metrics as m

__all__ = ["fleet"]

HORIZON = load_class("lift").paging_horizon
"""Horizon of the fleet's sums; the shipped classes share it."""

LISTED = 25
"""Assets in the list: a planner's day. Who wants more selects a site or a provider."""


def fleet() -> models.Dashboard:
    """Return the dashboard."""
    info = m.ASSET_INFO.name
    return arrange(
        d.board("vigie-fleet", "Vigie: fleet", "Which lift or boiler fails next, why, how sure, whom it costs what.")
        .with_variable(d.selection("class", "Class", info))
        .with_variable(d.selection("site", "Site", f'{info}{{class=~"$class"}}'))
        .with_variable(d.selection("building", "Building", f'{info}{{class=~"$class",site=~"$site"}}'))
        .with_variable(d.selection("provider", "Provider", f'{info}{{class=~"$class",site=~"$site"}}')),
        [
            ("Now", [(4, (open_pages(), open_tickets(), stopped(), silent(), expected(), simulated()))]),
            ("What fails next", [(12, (what_fails_next(),)), (9, (open_episodes(), buildings_at_risk()))]),
            ("Trend", [(8, (states_trend(), expected_trend())), (8, (health_trend(), score_trend()))]),
            (
                "Pipeline",
                [
                    (8, (pipeline.readings(), pipeline.rejected_by_reason())),
                    (8, (pipeline.inputs(), pipeline.batch_time())),
                ],
            ),
        ],
    )


def open_pages() -> stat.Panel:
    """Count the episodes for which a provider was paged."""
    return d.number(
        "Open pages",
        "short",
        "Predicted failures for which a provider was paged. Above zero: check that each has a visit before its "
        "remaining life ends; they stand under Open episodes.",
        d.VERMILLION,
    ).with_target(_total(q.selected(q.EPISODES, 'severity="page"')))


def open_tickets() -> stat.Panel:
    """Count the episodes that are work for the next visit."""
    return d.number(
        "Open tickets",
        "short",
        "Predicted failures that wake nobody. Above zero: add them to the next planned visit of the same building.",
        d.ORANGE,
    ).with_target(_total(q.selected(q.EPISODES, 'severity="ticket"')))


def stopped() -> stat.Panel:
    """Count assets that are out of service."""
    return d.number(
        "Stopped assets",
        "short",
        "Assets that report themselves out of service. Above zero: the provider was paged; ask when service returns.",
        d.VERMILLION,
    ).with_target(_total(q.selected(q.STATES, 'state="stopped"')))


def silent() -> stat.Panel:
    """Count assets of which nothing is known."""
    return d.number(
        "Silent assets",
        "short",
        "Assets that send nothing while others do: nothing can be predicted for them. Above zero: have the gateway and "
        "its power checked at the next visit; several in one building point at its network.",
        d.PURPLE,
    ).with_target(_total(q.selected(q.STATES, 'state="silent"')))


def expected() -> stat.Panel:
    """Sum the probabilities of failure."""
    return (
        d.number(
            f"Expected breakdowns in {HORIZON}",
            "short",
            f"Sum of the probabilities that an asset breaks down within {HORIZON}. More than the providers can visit: "
            "bring visits forward, in the order of the list below.",
        )
        .decimals(1)
        .with_target(_total(q.selected(q.EXPECTED, f'horizon="{HORIZON}"')))
    )


def simulated() -> stat.Panel:
    """Count assets that do not exist."""
    return d.number(
        "Simulated assets",
        "short",
        "Assets of the simulator, which do not exist. Above zero on a real site: take the simulator out of the site "
        "file, or its pages go to real providers.",
        d.SKY,
    ).with_target(_total(q.selected(q.INFO, 'simulated="true"')))


def what_fails_next() -> table.Panel:
    """List the assets by their probability of failure, with all that a planner needs to send somebody."""
    paging = f"max by (class, horizon) ({m.PAGE_THRESHOLD.name})"
    likeliest = f"max by (asset, class, horizon) ({m.FAILURE_PROBABILITY.name}) and on (class, horizon) {paging}"
    listed = f"topk({LISTED}, {q.owned(likeliest)})"
    panel = d.by_column(
        d.rows(
            "What fails next",
            f"The {LISTED} assets most likely to break down within the horizon at which their class pages. Work from "
            "the top: plan the visit within the life p10 (one in ten fails sooner; nine in ten before p90), and of two "
            "alike take the one that serves more households. An empty cell is not known yet; it is not zero.",
        ),
        {
            "asset": "Asset",
            "class": "Class",
            "building": "Building",
            "state": "State",
            "failure_mode": "Leading failure mode",
            "within 2h": "Fails within 2h",
            "within 24h": "Fails within 24h",
            "within 7d": "Fails within 7d",
            "life 0.1": "Life p10",
            "life 0.9": "Life p90",
            "households": "Households",
            "provider": "Provider",
        },
        sort="Fails within 7d",
    )
    for expression in (
        q.owned(f"max by (asset) ({q.INFO})", "class", "building", "provider"),
        f"max by (asset, state) ({m.ASSET_STATE.name})",
        f"max by (asset, failure_mode) ({m.LEADING_FAILURE_MODE.name})",
        q.column(m.FAILURE_PROBABILITY.name, "within $1", "asset", of="horizon"),
        q.column(f'{m.REMAINING_LIFE.name}{{quantile=~"0.1|0.9"}}', "life $1", "asset", of="quantile"),
        q.column(m.ASSET_HOUSEHOLDS.name, "households", "asset"),
    ):
        panel.with_target(d.instant(f"{expression} and on (asset) {listed}"))
    return (
        panel.override_by_regexp("/within/", d.likelihood())
        .override_by_regexp("/^Life/", [*d.wide(95), d.Property("unit", "s"), d.Property("decimals", 1)])
        .override_by_name("Households", [*d.wide(110), d.Property("unit", "short")])
        .override_by_name("State", [*d.wide(130), *d.words(d.STATE_WORDS)])
        .override_by_name("Class", d.wide(80))
    )


def open_episodes() -> table.Panel:
    """List the open episodes, pages first."""
    both = " or ".join(
        f'label_replace(max without (instance, job) ({family.name}) == 1, "severity", "{severity}", "", "")'
        for family, severity in ((m.EPISODE_PAGE, "page"), (m.EPISODE_TICKET, "ticket"))
    )
    panel = d.by_column(
        d.rows(
            "Open episodes",
            "Predicted failures that are open, pages first. A page: check that the provider confirmed a visit. A "
            "ticket: add it to the next visit. An episode ends by itself when it is repaired or withdrawn.",
        ),
        {
            "severity": "Severity",
            "asset": "Asset",
            "building": "Building",
            "failure_mode": "Failure mode",
            "provider": "Provider",
            "episode": "Episode",
        },
        hidden=("class",),
        sort="Severity",
        descending=False,
    )
    return panel.with_target(d.instant(q.owned(both, "building", "provider"))).override_by_name(
        "Severity", [*d.wide(90), *d.words(d.SEVERITY_WORDS)]
    )


def buildings_at_risk() -> bargauge.Panel:
    """Rank buildings by the households that must expect to be without service."""
    at_risk = q.selected(q.AT_RISK, f'horizon="{HORIZON}"')
    return (
        d.bars(
            f"Households at risk by building, {HORIZON}",
            "short",
            "Probability of a breakdown times households served, summed over a building's assets: the households that "
            "must expect to be without a lift or heating. The ten highest; send the first visit to the longest bar.",
        )
        .decimals(1)
        .with_target(d.instant(f"sort_desc(topk(10, sum by (building) ({at_risk})))", "{{building}}"))
    )


def states_trend() -> timeseries.Panel:
    """Draw how many assets are in each state, but for those that are ok."""
    not_ok = q.selected(q.STATES, 'state!="ok"')
    panel = d.curves(
        "Assets that are not ok, by state",
        "short",
        "Degraded or failing rising over days: more visits are needed. Silent rising in a step: look for a gateway or "
        "a network that failed. Warming is normal for hours after a new asset or a repair; wait.",
    ).with_target(d.ranged(f"sum by (state) ({not_ok})", "{{state}}"))
    for state, look in d.STATE_CURVES.items():
        panel.override_by_name(state, look)
    return panel


def expected_trend() -> timeseries.Panel:
    """Draw the expected breakdowns of each class."""
    within = q.selected(q.EXPECTED, f'horizon="{HORIZON}"')
    return (
        d.curves(
            f"Expected breakdowns in {HORIZON}, by class",
            "short",
            "Sum of the probabilities of failure. Rising for a class over days: bring its visits forward, or ask for "
            "more technicians before a cold spell.",
        )
        .decimals(1)
        .with_target(d.ranged(f"sum by (class) ({within})", "{{class}}"))
        .override_by_name("lift", d.curve(d.SKY))
        .override_by_name("boiler", d.curve(d.ORANGE, "dashed"))
    )


def health_trend() -> timeseries.Panel:
    """Draw how the health of the fleet is spread."""
    health = q.owned(f"min by (asset) ({m.HEALTH.name})")
    return (
        d.curves(
            "Health of the selected assets",
            "percentunit",
            "Each asset's worst failure mode: 100 % as new, 0 % failed. The lowest falls alone: one asset wears, see "
            "the list above. The median falls: a season, a common cause or a wrong model; do not send anybody yet.",
        )
        .max(1)
        .with_target(d.ranged(f"min({health})", "lowest"))
        .with_target(d.ranged(f"quantile(0.1, {health})", "lowest tenth"))
        .with_target(d.ranged(f"quantile(0.5, {health})", "median"))
        .override_by_name("lowest", d.curve(d.VERMILLION))
        .override_by_name("lowest tenth", d.curve(d.ORANGE, "dashed"))
        .override_by_name("median", d.curve(d.SKY, "dotted"))
    )


def score_trend() -> timeseries.Panel:
    """Draw how the anomaly scores of the fleet are spread; 1 is the alarm level by definition."""
    score = q.owned(f"max by (asset) ({m.ANOMALY_SCORE.name})")
    return (
        d.alarm_line(
            d.curves(
                "Anomaly score of the selected assets",
                "none",
                "1 is the alarm level. The highest above 1 for long: see the asset in the list above. The median rises "
                "towards 1: the fleet has changed (season, works, a gateway's firmware); tell the data scientist.",
            ).decimals(2)
        )
        .with_target(d.ranged(f"max({score})", "highest"))
        .with_target(d.ranged(f"quantile(0.9, {score})", "highest tenth"))
        .with_target(d.ranged(f"quantile(0.5, {score})", "median"))
        .override_by_name("highest", d.curve(d.VERMILLION))
        .override_by_name("highest tenth", d.curve(d.ORANGE, "dashed"))
        .override_by_name("median", d.curve(d.SKY, "dotted"))
    )


def _total(expression: str) -> d.Query:
    """Return the sum over the selection: zero if there are assets but none of these, unknown if nothing is known."""
    return d.instant(f"sum({expression}) or 0 * count({q.selected(q.INFO)})")
