"""Every metric of Vigie, declared once: name, type, help, labels.

Names follow Prometheus: prefix `vigie_`, base units, ratios from 0 to 1, `_total` only on counters. An asset's own
series are written by `flows.exporter` from its table, so that an asset that leaves is gone at the next scrape; the
pipeline's own counters and histograms live in a `prometheus_client` registry (`Pipeline`).

This file knows nothing of the pipeline, so that dashboards and rules can import the names.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["ASSET_FAMILIES", "STATES", "SUPERVISOR_FAMILIES", "Counts", "Family", "Pipeline", "Tally", "series_types"]

Counts = dict[tuple[str, str], int]
"""How much of what: by the name of a count in `Pipeline.count`, and its label where it has one, else an empty text."""

STATES = ("warming", "ok", "degraded", "failing", "silent", "stopped", "maintenance")
"""Values of the label `state`."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family whose samples the exporter writes by itself."""

    name: str
    type: Literal["gauge", "summary", "counter"]
    help: str
    labels: tuple[str, ...]


FAILURE_PROBABILITY = Family(
    "vigie_failure_probability_ratio",
    "gauge",
    "Probability that any failure mode of the asset ends in a breakdown within the horizon; no series where unknown.",
    ("asset", "class", "horizon"),
)
LEADING_FAILURE_MODE = Family(
    "vigie_leading_failure_mode_info",
    "gauge",
    "1 for the failure mode most likely to come first.",
    ("asset", "failure_mode"),
)
# The label quantile belongs to summaries; this one has no count and no sum.
REMAINING_LIFE = Family(
    "vigie_remaining_life_seconds",
    "summary",
    "Remaining useful life of the leading failure mode, by quantile 0.1, 0.5, 0.9.",
    ("asset", "quantile"),
)
HEALTH = Family("vigie_health_ratio", "gauge", "Health by failure mode, 1 as new, 0 failed.", ("asset", "failure_mode"))
ANOMALY_SCORE = Family(
    "vigie_anomaly_score", "gauge", "Anomaly score; 1 is the alarm level of the class.", ("asset", "class")
)
ASSET_STATE = Family("vigie_asset_state", "gauge", "1 for the state that the asset is in.", ("asset", "state"))
ASSET_INFO = Family(
    "vigie_asset_info",
    "gauge",
    "1, with what the register says of the asset; simulated is true for an asset that does not exist.",
    ("asset", "class", "site", "building", "provider", "make", "simulated"),
)
ASSET_HOUSEHOLDS = Family("vigie_asset_households", "gauge", "Households that the asset serves.", ("asset",))
LAST_READING = Family(
    "vigie_asset_last_reading_timestamp_seconds",
    "gauge",
    "Event time of the end of the asset's last scored window.",
    ("asset",),
)
SIGNAL_SHARE = Family(
    "vigie_signal_share_ratio",
    "gauge",
    "Share of the signal in the score of an asset that is not ok.",
    ("asset", "signal"),
)
SIGNAL_VALUE = Family(
    "vigie_signal_value",
    "gauge",
    "Value of the feature by which the signal speaks, in its own unit.",
    ("asset", "signal"),
)
SIGNAL_EXPECTED = Family(
    "vigie_signal_expected",
    "gauge",
    "Usual range of that feature, bound lower or upper, in its own unit.",
    ("asset", "signal", "bound"),
)
EPISODE_PAGE = Family(
    "vigie_episode_page",
    "gauge",
    "1 while an episode that pages is open.",
    ("asset", "class", "failure_mode", "episode"),
)
EPISODE_TICKET = Family(
    "vigie_episode_ticket",
    "gauge",
    "1 while an episode that is a ticket is open.",
    ("asset", "class", "failure_mode", "episode"),
)
PAGE_THRESHOLD = Family(
    "vigie_page_threshold_ratio",
    "gauge",
    "Probability at which the class pages, for display.",
    ("class", "horizon"),
)

FAILURE_MODE = Family(
    "vigie_failure_mode_info",
    "gauge",
    "1, with what the class file says of the failure mode, so that an alert can tell what to do.",
    ("class", "failure_mode", "description", "advice"),
)

PROCESS_UP = Family("vigie_process_up", "gauge", "1 while the process of the run lives.", ("process",))
PROCESS_RESTARTS = Family(
    "vigie_process_restarts_total",
    "counter",
    "How often all processes were started again because one of them had died.",
    (),
)
SUPERVISOR_FAMILIES: tuple[Family, ...] = (PROCESS_UP, PROCESS_RESTARTS)
"""Families that the supervisor of several processes writes by itself."""

ASSET_FAMILIES: tuple[Family, ...] = (
    FAILURE_PROBABILITY,
    LEADING_FAILURE_MODE,
    REMAINING_LIFE,
    HEALTH,
    ANOMALY_SCORE,
    ASSET_STATE,
    ASSET_INFO,
    ASSET_HOUSEHOLDS,
    LAST_READING,
    SIGNAL_SHARE,
    SIGNAL_VALUE,
    SIGNAL_EXPECTED,
    EPISODE_PAGE,
    EPISODE_TICKET,
    FAILURE_MODE,
    PAGE_THRESHOLD,
)
"""Families written from the fleet's table, in the order of the exposition."""


class Pipeline:
    """The pipeline's own metrics, in a registry of their own.

    Parameters
    ----------
    registry
        Where they are registered; a fresh one for each pipeline.

    Examples
    --------
    >>> pipeline = Pipeline(CollectorRegistry())
    >>> pipeline.count({("received", ""): 100, ("rejected", "late"): 2})
    >>> pipeline.registry.get_sample_value("vigie_readings_pending")
    98.0
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.lock = threading.Lock()
        """Held while counts change together, and by whoever reads several that must agree."""
        self.readings = Counter(
            "vigie_readings", "Readings that came in, each of them scored or rejected later.", registry=registry
        )
        self.scored = Counter("vigie_readings_scored", "Readings that are part of a scored window.", registry=registry)
        self.rejected = Counter(
            "vigie_readings_rejected",
            "Readings that were rejected, by reason.",
            ("reason",),
            registry=registry,
        )
        self.pending = Gauge(
            "vigie_readings_pending",
            "Readings that came in and are not scored or rejected yet, most of them in open windows.",
            registry=registry,
        )
        self.state_bytes = Gauge(
            "vigie_state_bytes", "Memory of the state of all assets, by step.", ("step",), registry=registry
        )
        self.windows = Counter("vigie_windows", "Windows scored.", ("class",), registry=registry)
        self.pages = Counter("vigie_pages", "Episodes that paged.", ("class",), registry=registry)
        self.tickets = Counter("vigie_tickets", "Episodes that became a ticket.", ("class",), registry=registry)
        self.input_time = Gauge(
            "vigie_input_event_timestamp_seconds",
            "Newest event time that an input has delivered.",
            ("input",),
            registry=registry,
        )
        self.input_seen = Gauge(
            "vigie_input_last_message_timestamp_seconds",
            "When an input delivered its last message.",
            ("input",),
            registry=registry,
        )
        self.input_up = Gauge(
            "vigie_input_up",
            "1 while the broker of an input delivers it, 0 while it does not.",
            ("input",),
            registry=registry,
        )
        self.input_errors = Counter(
            "vigie_input_errors",
            "Errors that the broker of an input, or the way to it, has given.",
            ("input",),
            registry=registry,
        )
        self.input_lag = Gauge(
            "vigie_input_lag_messages",
            "Messages that the broker holds and that are not read yet.",
            ("input",),
            registry=registry,
        )
        self.input_lost = Counter(
            "vigie_input_lost_messages",
            "Messages that the broker had deleted before they were read.",
            ("input",),
            registry=registry,
        )
        self.sink_delivered = Counter(
            "vigie_sink_delivered", "Results that the broker has confirmed.", ("sink",), registry=registry
        )
        self.sink_failures = Counter(
            "vigie_sink_failures",
            "Failed attempts to deliver results; they are repeated until the deadline.",
            ("sink",),
            registry=registry,
        )
        self.sink_repeated = Counter(
            "vigie_sink_repeated",
            "Results that were there already after a restart, and were not sent again.",
            ("sink",),
            registry=registry,
        )
        self.sink_stalled = Gauge(
            "vigie_sink_stalled",
            "1 while an output refuses what it is given, so that results wait in memory, and then the inputs.",
            ("sink",),
            registry=registry,
        )
        self.sink_waiting = Gauge(
            "vigie_sink_unconfirmed_seconds",
            "Age of the oldest result that the broker has not confirmed.",
            ("sink",),
            registry=registry,
        )
        self.snapshot_seconds = Histogram(
            "vigie_snapshot_seconds",
            "Time that one step of one shard took for its part of a snapshot.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=registry,
        )
        self.snapshot_time = Gauge(
            "vigie_snapshot_timestamp_seconds",
            "When this process last took a snapshot; 0 where there is no recovery store.",
            registry=registry,
        )
        self.input_messages = Counter(
            "vigie_input_messages", "Messages that an input took from its broker.", ("input",), registry=registry
        )
        self.input_repeats = Counter(
            "vigie_input_repeats",
            "Messages that a broker delivered once more although they were in the spool, and that were left out.",
            ("input",),
            registry=registry,
        )
        self.spool_bytes = Gauge("vigie_spool_bytes", "Size of the spool of an input.", ("input",), registry=registry)
        self.spool_limit = Gauge(
            "vigie_spool_limit_bytes",
            "Size of the spool at which the input acknowledges nothing more, so that its broker queues.",
            ("input",),
            registry=registry,
        )
        self.spool_full = Gauge(
            "vigie_spool_full",
            "1 while the spool takes nothing more, because of its limit or its disk.",
            ("input",),
            registry=registry,
        )
        self.spool_read_time = Gauge(
            "vigie_spool_read_timestamp_seconds",
            "Time of arrival up to which the dataflow has taken everything out of the spool.",
            ("input",),
            registry=registry,
        )
        self.spool_oldest_time = Gauge(
            "vigie_spool_oldest_timestamp_seconds",
            "Time of arrival of the oldest message that the spool still keeps; 0 where it keeps none.",
            ("input",),
            registry=registry,
        )
        self.spool_damaged = Counter(
            "vigie_spool_damaged_bytes",
            "Bytes of the spool whose checksum was wrong and that were set aside.",
            ("input",),
            registry=registry,
        )
        self.spool_commit_seconds = Histogram(
            "vigie_spool_commit_seconds",
            "Time that a group commit took until it was on disk.",
            ("input",),
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "vigie_window_batch_seconds",
            "Time that a shard took for one batch of blocks.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=registry,
        )

    def count(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add to ``received``, ``scored``, ``rejected`` (by reason), ``windows``, ``pages``, ``tickets`` (by class).

        All change at once, and what is pending with them: what came in and was neither scored nor rejected yet, be it
        in an open window or on its way there. Where windows run in another process than the input, the sum over the
        processes is what is pending, as for every other count.
        """
        families = {
            "rejected": self.rejected,
            "windows": self.windows,
            "pages": self.pages,
            "tickets": self.tickets,
        }
        pending = 0
        with self.lock:
            for (name, label), number in counts.items():
                if name == "received":
                    self.readings.inc(number)
                    pending += number
                elif name == "scored":
                    self.scored.inc(number)
                    pending -= number
                else:
                    families[name].labels(label).inc(number)
                    pending -= number if name == "rejected" else 0
            if pending:
                self.pending.inc(pending)

    def account(self) -> dict[str, int]:
        """Return the account of readings: received = scored + pending + the rejected of each reason.

        Examples
        --------
        >>> pipeline = Pipeline(CollectorRegistry())
        >>> pipeline.count({("received", ""): 5, ("rejected", "late"): 2})
        >>> pipeline.account()
        {'received': 5, 'scored': 0, 'pending': 3, 'late': 2}
        """
        with self.lock:
            return self._account()

    def _account(self) -> dict[str, int]:

        def value(name: str) -> int:
            return int(self.registry.get_sample_value(name) or 0)

        counts = {
            "received": value("vigie_readings_total"),
            "scored": value("vigie_readings_scored_total"),
            "pending": value("vigie_readings_pending"),
        }
        for family in self.rejected.collect():
            for sample in family.samples:
                if sample.name == "vigie_readings_rejected_total":
                    counts[sample.labels["reason"]] = int(sample.value)
        return counts


class Tally:
    """What one step has counted: shown in the metrics of its process, and kept in the step's state.

    A restart loads the state and counts on, in whichever process the step then runs.

    Parameters
    ----------
    pipeline
        Where it shows.

    Examples
    --------
    >>> before, after = Pipeline(CollectorRegistry()), Pipeline(CollectorRegistry())
    >>> tally = Tally(before)
    >>> tally.add({("received", ""): 3})
    >>> Tally(after, tally.state()).counts, after.account()["pending"]
    ({('received', ''): 3}, 3)
    """

    def __init__(self, pipeline: Pipeline, state: list[tuple[str, str, int]] | None = None) -> None:
        self._pipeline = pipeline
        self.counts: Counts = {}
        if state:
            self.add({(name, label): number for name, label, number in state})

    def add(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Count."""
        for key, number in counts.items():
            self.counts[key] = self.counts.get(key, 0) + number
        if counts:
            self._pipeline.count(counts)

    def state(self) -> list[tuple[str, str, int]]:
        """Return all that was counted."""
        return [(name, label, number) for (name, label), number in self.counts.items()]


def series_types() -> dict[str, str]:
    """Return the type of every series by the name that a query uses, so that dashboards and rules can be held to it.

    Examples
    --------
    >>> types = series_types()
    >>> types["vigie_readings_total"], types["vigie_window_batch_seconds_bucket"], types["vigie_asset_state"]
    ('counter', 'histogram', 'gauge')
    """
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    types: dict[str, str] = {family.name: family.type for family in (*ASSET_FAMILIES, *SUPERVISOR_FAMILIES)}
    registry = CollectorRegistry()
    Pipeline(registry)
    for metric in registry.collect():
        types |= {metric.name + suffix: metric.type for suffix in suffixes.get(metric.type, ("",))}
    return types
