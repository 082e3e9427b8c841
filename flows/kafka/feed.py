"""The sending side of a topic of telemetry: for the simulator, which is a gateway like any other."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

__all__ = ["FeedError", "Feeder"]

ANSWER_S = 5.0
_SILENT = frozenset((KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN))


class FeedError(Exception):
    """A topic that cannot be fed; the message is one sentence that says why."""


class Feeder:
    """Sends messages to the partitions of a topic, and makes the topic where it is not there.

    Parameters
    ----------
    broker
        ``host:port``.
    topic
        The topic.
    partitions
        How many partitions a new topic gets.
    content_type
        Media type of the messages, sent as a header.
    stop
        Ends waiting for the broker when it is set.

    Raises
    ------
    FeedError
        If the broker does not answer within 5 s.
    """

    def __init__(
        self, broker: str, topic: str, partitions: int, content_type: str, stop: threading.Event | None = None
    ) -> None:
        config: dict[str, Any] = {"bootstrap.servers": broker, "client.id": "vigie-simulate", "log_level": 2}
        self.topic, self.broker = topic, broker
        self.partitions = self._found(AdminClient(config), partitions)
        self._stop = stop or threading.Event()
        self._headers: list[tuple[str, str | bytes | None]] = [("content-type", content_type.encode())]
        self._failure = ""
        self._producer = Producer(
            config | {"enable.idempotence": True, "linger.ms": 20, "queue.buffering.max.kbytes": 65_536}
        )

    def send(self, partition: int, message: bytes) -> None:
        """Send a message; wait while the queue is full."""
        while not self._failure:
            try:
                self._producer.produce(
                    self.topic, message, partition=partition, headers=self._headers, on_delivery=self._confirmed
                )
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                self._failure = str(error.args[0].str())
        raise FeedError(f"the topic {self.topic} at {self.broker} cannot be fed: {self._failure}")

    def __enter__(self) -> Feeder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._producer.flush(0.1) and kind is None and not self._failure:
            if self._stop.is_set() and self._producer.flush(ANSWER_S):
                raise FeedError(f"stopped before the broker at {self.broker} had confirmed all messages")
        if kind is None and self._failure:
            raise FeedError(f"the topic {self.topic} at {self.broker} cannot be fed: {self._failure}")

    def _found(self, admin: AdminClient, partitions: int) -> int:
        try:
            there = admin.list_topics(timeout=ANSWER_S).topics.get(self.topic)
            if there is None:
                admin.create_topics([NewTopic(self.topic, partitions, 1)])[self.topic].result(ANSWER_S)
                return partitions
        except KafkaException as error:
            text = "does not answer" if error.args[0].code() in _SILENT else f"refuses: {error.args[0].str()}"
            raise FeedError(f"the broker at {self.broker} {text}") from None
        return len(there.partitions)

    def _confirmed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and not self._failure:
            self._failure = str(error.str())
