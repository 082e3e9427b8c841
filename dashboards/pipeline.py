"""Panels that say whether Vigie itself works."""

from __future__ import annotations

from grafana_foundation_sdk.builders import bargauge, table, timeseries

from dashboards import defaults as d
from dashboards import queries as q

__all__ = ["batch_time", "inputs", "readings", "rejected_by_reason"]


def readings() -> timeseries.Panel:
    """Draw how many readings come in, are scored and are rejected."""
    return (
        d.curves(
            "Readings per second",
            "short",
            "Received and scored must run together. Scored falls behind: the process is overloaded, give it another "
            "core. Received falls to zero: see Inputs. Rejected rises: see the reasons beside.",
        )
        .with_target(d.ranged("sum(rate(vigie_readings_total[$__rate_interval]))", "received"))
        .with_target(d.ranged("sum(rate(vigie_readings_scored_total[$__rate_interval]))", "scored"))
        .with_target(d.ranged("sum(rate(vigie_readings_rejected_total[$__rate_interval]))", "rejected"))
        .override_by_name("received", d.curve(d.SKY))
        .override_by_name("scored", d.curve(d.GREEN, "dashed"))
        .override_by_name("rejected", d.curve(d.VERMILLION, "dotted"))
    )


def rejected_by_reason() -> bargauge.Panel:
    """Show the share of the readings that is rejected, by reason."""
    share = f"{q.REJECTED} / on () group_left () (sum(rate(vigie_readings_total[10m])) > 0)"
    return (
        d.bars(
            "Rejected readings by reason, last 10 min",
            "percentunit",
            "Share of all readings. late or future: a gateway's clock is wrong. unknown_asset: the register lacks it. "
            "duplicate: a gateway sends twice. out_of_range or bad_value: a sensor is broken. The dead letters hold "
            "the raw bytes.",
        )
        .decimals(2)
        .no_value("none rejected")
        .with_target(d.instant(f"sort_desc({share} > 0)", "{{reason}}"))
    )


def inputs() -> table.Panel:
    """List the live inputs and how long ago they delivered."""
    behind = "time() - max by (input) (vigie_input_event_timestamp_seconds)"
    panel = d.by_column(
        d.rows(
            "Inputs",
            "How long ago each live input delivered its last message, and how old its newest reading is. A last "
            "message older than 5 min: the input is stalled, check the broker and the network. A newest reading much "
            "older than the last message: the input works through a backlog; wait.",
        ),
        {"input": "Input", "last message": "Last message", "newest reading": "Newest reading"},
        sort="Last message",
    )
    return (
        panel.with_target(d.instant(q.column(q.INPUT_AGE, "last message", "input")))
        .with_target(d.instant(q.column(behind, "newest reading", "input")))
        .override_by_regexp("/Last message|Newest reading/", [d.Property("unit", "s"), d.Property("decimals", 0)])
    )


def batch_time() -> timeseries.Panel:
    """Draw how long a shard takes for a batch."""
    buckets = "sum by (le) (rate(vigie_window_batch_seconds_bucket[$__rate_interval]))"
    return (
        d.curves(
            "Time of a shard for one batch",
            "s",
            "Windows, features, scores and prognosis of one batch of one shard. The slowest hundredth above 1 s for "
            "long: the process falls behind; give it another core, or more shards at the next reset of its store.",
        )
        .with_target(d.ranged(f"histogram_quantile(0.99, {buckets})", "slowest hundredth"))
        .with_target(d.ranged(f"histogram_quantile(0.5, {buckets})", "median"))
        .override_by_name("slowest hundredth", d.curve(d.VERMILLION))
        .override_by_name("median", d.curve(d.SKY, "dashed"))
    )
