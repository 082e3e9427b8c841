"""What a topic holds since a moment: read back after a restart, so that no result is sent a second time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

__all__ = ["Sent", "Tail", "read_tail"]

ANSWER_S = 1.0
"""How long one question to the broker may take before it is asked again."""
TURN_S = 0.02
"""How long messages are gathered: the end of the topic is one, and comes soon."""

_CONSUMER: dict[str, Any] = {
    "group.id": "vigie-read-back",  # never joined, nothing is committed
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",  # retention may have passed the offset of a snapshot
    "fetch.wait.max.ms": 10,
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that was found: its place, key and id."""

    partition: int
    offset: int
    key: bytes
    id: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a topic.

    Attributes
    ----------
    ends
        Next offset of each partition; a partition that is not there yet begins at 0.
    sent
        The records before them, as far as they were asked for.
    """

    ends: dict[int, int] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)


def read_tail(
    config: Mapping[str, Any],
    topic: str,
    since: Mapping[int, int] | int | None,
    patience: Callable[[str], None],
    wanted: Callable[[int, int], bool] = lambda number, count: True,
) -> Tail:
    """Read a topic from some offsets to its present end.

    The end is where the broker says "end of partition" to a reader: its watermarks may be wrong.

    Parameters
    ----------
    config
        How the client reaches the cluster.
    topic
        The topic.
    since
        Offset to begin with by partition, 0 for one that is not named; or the time to begin with in microseconds since
        1970; or None for the end alone.
    patience
        Called while the broker is waited for, with what it is waited for; raises when that is enough.
    wanted
        Tells of a partition, by its number and how many there are, whether it is read.
    """
    consumer = Consumer({**_CONSUMER, **config})
    there = _partitions(consumer, topic, patience)
    partitions = [n for n in there if wanted(n, len(there))]
    ends: dict[int, int] = {}
    sent: list[Sent] = []
    if partitions:
        consumer.assign(_starts(consumer, topic, partitions, since, patience))
    while len(ends) < len(partitions):
        for message in consumer.consume(1000, TURN_S):
            error = message.error()
            number, offset = message.partition(), message.offset()
            if number is None or offset is None:
                continue
            if error is None:
                identity = dict(message.headers() or ()).get("id")
                if isinstance(identity, bytes):
                    key = message.key()
                    sent.append(Sent(number, offset, key if isinstance(key, bytes) else b"", identity))
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[number] = offset
        if len(ends) < len(partitions):
            patience(f"the topic {topic} is being read back")
    consumer.close()
    return Tail(ends, sent)


def _partitions(consumer: Consumer, topic: str, patience: Callable[[str], None]) -> list[int]:
    """Return the numbers of the partitions of a topic; none where it is not there yet."""
    while True:
        try:
            found = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        except KafkaException as error:
            patience(f"the brokers do not answer ({error.args[0].str()})")
            continue
        if found.error is None:
            return list(found.partitions)
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return []
        patience(f"the topic {topic} cannot be read back ({found.error.str()})")


def _starts(
    consumer: Consumer,
    topic: str,
    partitions: list[int],
    since: Mapping[int, int] | int | None,
    patience: Callable[[str], None],
) -> list[TopicPartition]:
    if since is None:
        return [TopicPartition(topic, n, OFFSET_END) for n in partitions]
    if not isinstance(since, int):
        return [TopicPartition(topic, n, since.get(n, OFFSET_BEGINNING)) for n in partitions]
    asked = [TopicPartition(topic, n, since // 1000) for n in partitions]
    while True:
        try:
            found = consumer.offsets_for_times(asked, timeout=ANSWER_S)
        except KafkaException as error:
            patience(f"the brokers do not answer ({error.args[0].str()})")
            continue
        if all(one.error is None for one in found):
            return [
                TopicPartition(topic, one.partition, one.offset if one.offset >= 0 else OFFSET_END) for one in found
            ]
        patience(f"the topic {topic} cannot be read back ({next(one.error for one in found if one.error is not None)})")
