"""Kafka's sources and sinks of a site, made from what its file says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream

from features.signals import EquipmentClass
from features.telemetry import Rejected
from flows.kafka.rows import decision_records, rejected_records, score_records
from flows.kafka.settings import KafkaInput, KafkaOutput, client_config
from flows.kafka.sink import KafkaSink
from flows.kafka.source import KafkaSource
from flows.metrics import Pipeline

__all__ = ["connect_kafka", "kafka_sinks", "kafka_source"]


def kafka_source(
    described: KafkaInput,
    folder: Path,
    pipeline: Pipeline,
    stop: threading.Event | None = None,
    mine: Callable[[int], bool] = lambda number: True,
) -> KafkaSource:
    """Make the source of an input.

    Parameters
    ----------
    described, folder
        What the site file says, and where it lies.
    pipeline, stop, mine
        As of `flows.kafka.source.KafkaSource`.
    """
    return KafkaSource(described, client_config(described, folder), pipeline, stop, mine)


def kafka_sinks(
    described: KafkaOutput | None,
    folder: Path,
    pipeline: Pipeline,
    partitions: int,
    stop: threading.Event | None = None,
    mine: Callable[[int], bool] = lambda number: True,
    since_us: int | None = None,
) -> Mapping[str, KafkaSink]:
    """Make the sinks of the topics that are named: `scores`, `decisions`, `rejected`.

    Parameters
    ----------
    described, folder
        What the site file says, and where it lies.
    partitions
        Number of shards of the site.
    pipeline, stop, mine, since_us
        As of `flows.kafka.sink.KafkaSink`.
    """
    if described is None:
        return {}
    config = client_config(described, folder)
    return {
        name: KafkaSink(name, topic, config, pipeline, partitions, described.delivery_timeout_s, stop, mine, since_us)
        for name, topic in described.topics.items()
    }


def connect_kafka(
    sinks: Mapping[str, KafkaSink],
    classes: Mapping[str, EquipmentClass],
    results: KeyedStream[tuple[str, Any]],
    rejected: Stream[Rejected],
) -> None:
    """Connect topics to the flow: its results ``(key, (class, result))``, and what it rejected.

    Parameters
    ----------
    sinks
        By output, as `kafka_sinks` makes them.
    classes
        Equipment classes by name.
    results, rejected
        Streams of the flow.
    """
    if "scores" in sinks:
        scores, n = sinks["scores"], sinks["scores"].partitions
        rows = op.flat_map_batch("kafka_rows", results, lambda items: score_records((i[1] for i in items), classes, n))
        op.output("kafka_scores", rows, scores)
    if "decisions" in sinks:
        decisions, n = sinks["decisions"], sinks["decisions"].partitions
        told = op.flat_map_batch("kafka_told", results, lambda items: decision_records((i[1] for i in items), n))
        op.output("kafka_decisions", told, decisions)
    if "rejected" in sinks:
        letters, n = sinks["rejected"], sinks["rejected"].partitions
        refused = op.flat_map_batch("kafka_refused", rejected, lambda items: rejected_records(items, n))
        op.output("kafka_rejected", refused, letters)
