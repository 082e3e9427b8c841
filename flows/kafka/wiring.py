"""Kafka's sources and sinks of a site, made from what its file says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.kafka.settings import KafkaInput, KafkaOutput, client_config
from flows.kafka.sink import KafkaSink
from flows.kafka.source import KafkaSource
from flows.metrics import Pipeline

__all__ = ["kafka_sinks", "kafka_source"]


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
    described: KafkaOutput,
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
    config = client_config(described, folder)
    return {
        name: KafkaSink(name, topic, config, pipeline, partitions, described.delivery_timeout_s, stop, mine, since_us)
        for name, topic in described.topics.items()
    }
