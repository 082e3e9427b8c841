"""A dataflow from a topic to a topic in a process of its own: ``flow.py BROKER STORE``. It runs until it is killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main
from prometheus_client import CollectorRegistry

from flows.kafka.records import Records, dealt
from flows.kafka.settings import KafkaInput, KafkaOutput, client_config
from flows.kafka.sink import KafkaSink
from flows.kafka.source import KafkaSource
from flows.metrics import Pipeline
from flows.sources import Message


def results(message: Message) -> Iterator[tuple[str, Records]]:
    names = [payload.decode() for payload in message.payload]
    yield from dealt([(name.partition("|")[0], name, name.encode()) for name in names], 4)


def main(broker: str, folder: Path) -> None:
    pipeline = Pipeline(CollectorRegistry())
    described = KafkaInput(name="in", brokers=(broker,), topic="telemetry", partitions=2, wire="json")
    output = KafkaOutput(brokers=(broker,), scores="scores")
    store = folder / "store"
    if not store.exists():
        store.mkdir()
        (folder / "made").write_text(str(time.time_ns() // 1000))
        init_db_dir(store, 1)
    since_us = int((folder / "made").read_text())
    flow = Dataflow("flow")
    messages = op.input("in", flow, KafkaSource(described, client_config(described, Path()), pipeline))
    records = op.flat_map("results", messages, results)
    sink = KafkaSink("scores", "scores", client_config(output, Path()), pipeline, 4, since_us=since_us)
    op.output("out", records, sink)
    recovery = RecoveryConfig(store, timedelta(0))
    cluster_main(flow, [], 0, epoch_interval=timedelta(seconds=0.25), recovery_config=recovery)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
