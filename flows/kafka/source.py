"""Telemetry from a Kafka topic: a partition of the dataflow for each of the topic's, read by offset.

Partitions are assigned by hand, never rebalanced, and each has its own client: librdkafka holds at most `QUEUE_KB` in
advance, and reads no further while the flow is behind. The offset in the recovery store decides where reading goes on;
what is committed to the group, a snapshot later, is for tools that show the lag, and the start where there is no store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import Consumer

from flows.kafka.partition import Partition
from flows.kafka.settings import KafkaInput
from flows.metrics import Pipeline
from flows.reach import Reach, say
from flows.sources import Message

__all__ = ["KafkaSource"]

QUEUE_KB = 8_192
"""Read in advance, a partition: a fifth of a second at 40,000 messages of 1 kB a second."""
STATISTICS_MS = 1_000
CLOSING_S = 2.0
"""How long all partitions together may take to say goodbye to a broker."""

_CONSUMER: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # An offset that the broker does not have is told as an error, so that what is lost is counted.
    "auto.offset.reset": "error",
    "queued.max.messages.kbytes": QUEUE_KB,
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 10,  # of the default second the flow would be idle most
    "fetch.error.backoff.ms": 250,
    "topic.metadata.refresh.interval.ms": 10_000,  # how soon a topic that appears, or grows, is noticed
    "statistics.interval.ms": STATISTICS_MS,
}


def _utc_now() -> datetime:
    return datetime.now(UTC)


class KafkaSource(FixedPartitionedSource[Message, dict[str, Any]]):
    """Reads the partitions of a topic; a broker that is not there is a state, not an end.

    Parameters
    ----------
    described
        What the site file says of the input.
    config
        How the client reaches the cluster: `flows.kafka.settings.client_config`.
    pipeline
        Shows state, errors, lag and losses.
    stop
        Ends the input when it is set.
    mine
        Which partitions this process reads; by default all.
    now
        The wall clock in which the engine wants to be told when to come back.
    say
        Told when the broker is lost or found.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> described = KafkaInput(name="gateways", brokers=("127.0.0.1:9092",), topic="telemetry", partitions=4)
    >>> KafkaSource(described, {}, Pipeline(CollectorRegistry()), mine=lambda n: n % 2 == 0).list_parts()
    ['kafka/telemetry/0', 'kafka/telemetry/2']
    """

    def __init__(
        self,
        described: KafkaInput,
        config: Mapping[str, Any],
        pipeline: Pipeline,
        stop: threading.Event | None = None,
        mine: Callable[[int], bool] = lambda number: True,
        now: Callable[[], datetime] = _utc_now,
        say: Callable[[str], None] = say,
    ) -> None:
        self.described = described
        self.config = {**_CONSUMER, **config, "group.id": described.group}
        self.pipeline = pipeline
        self.stop = stop
        self.mine = mine
        self.now = now
        self.reach = Reach(described.name, pipeline, say)
        self.partitions: int | None = None
        # Of the topic, since a partition may have no asset. An input that never delivers is as old as the run.
        self.seen = pipeline.input_seen.labels(described.name)
        self.seen.set(now().timestamp())
        self._closing = CLOSING_S

    def list_parts(self) -> list[str]:
        """Return the names of the partitions that this process reads."""
        return [part_name(self.described.topic, n) for n in range(self.described.partitions) if self.mine(n)]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, Any] | None
    ) -> StatefulSourcePartition[Message, dict[str, Any]]:
        """Return a partition where a snapshot left it, else where the group left it, else where the site file says."""
        return Partition(self, for_part, int(for_part.rpartition("/")[2]), resume_state)

    def found(self, partitions: int) -> str | None:
        """Take how many partitions the topic really has; return what is wrong with it."""
        told = self.described.partitions
        if partitions > told:
            return f"the topic {self.described.topic} has {partitions} partitions, and the site file reads {told}"
        return None

    def part(self, consumer: Consumer) -> None:
        """Close a client, and wait no longer for its broker than all of them may take."""
        # It may wait 45 s for a broker that does not answer: a thread that nobody waits for does not keep the process.
        thread = threading.Thread(target=consumer.close, daemon=True)
        began = time.monotonic()
        thread.start()
        thread.join(max(0.0, self._closing))
        self._closing -= time.monotonic() - began


def part_name(topic: str, number: int) -> str:
    """Return the name of a partition, which is the source of its messages.

    Examples
    --------
    >>> part_name("telemetry", 3)
    'kafka/telemetry/3'
    """
    return f"kafka/{topic}/{number}"
