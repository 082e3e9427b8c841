"""Delivery: one producer that loses nothing. What it cannot deliver in time ends the run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from flows.metrics import Pipeline

__all__ = ["Delivery", "Undelivered"]

QUEUE_KB = 65_536
QUEUE_MESSAGES = 100_000
"""What waits in memory at most; when it is full the flow waits, and with it its inputs."""
STALLED_S = 10.0
"""A broker that works confirms within a second; after ten the output counts as stalled."""
STOPPING_S = 5.0
"""How long a stop waits for what is under way: half of what a service manager is promised."""

_PRODUCER: dict[str, Any] = {
    # Order a key, and nothing twice by the client's own repetitions.
    "enable.idempotence": True,
    "acks": "all",
    # The hash by which assets are dealt to shards, so that a topic of as many partitions is partitioned like them.
    "partitioner": "consistent",
    "compression.type": "lz4",
    "linger.ms": 20,
    "queue.buffering.max.kbytes": QUEUE_KB,
    "queue.buffering.max.messages": QUEUE_MESSAGES,
}


class Undelivered(OSError):
    """Results that could not be delivered; the message is one sentence that says where and why."""


class Delivery:
    """Sends records to one topic, repeated by the client until the deadline, and tells what it was confirmed.

    Parameters
    ----------
    sink
        Name of the output, for metrics and sentences.
    topic
        Where to.
    config
        How the client reaches the cluster.
    pipeline
        Counts deliveries and failures, and shows how old the oldest unconfirmed record is.
    timeout_s
        Seconds without a confirmation after which the run ends.
    stop
        When it is set, little patience is left.
    clock
        Monotonic clock in seconds.
    """

    def __init__(
        self,
        sink: str,
        topic: str,
        config: Mapping[str, Any],
        pipeline: Pipeline,
        timeout_s: float,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sink, self.topic, self.timeout_s = sink, topic, timeout_s
        self.ends: dict[int, int] = {}
        self._stop, self._clock = stop, clock
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._why = "no broker has answered"
        self._sent = self._failed = 0
        self._since: deque[tuple[int, float]] = deque()
        self._waiting: float | None = None
        self._delivered = pipeline.sink_delivered.labels(sink)
        self._failures = pipeline.sink_failures.labels(sink)
        self._producer = Producer(
            {**_PRODUCER, **config, "message.timeout.ms": round(timeout_s * 1000), "error_cb": self._on_error}
        )
        pipeline.sink_waiting.labels(sink).set_function(self.age_s)
        pipeline.sink_stalled.labels(sink).set_function(lambda: float(self.age_s() > STALLED_S))

    def send(self, key: bytes, identity: bytes, value: bytes) -> None:
        """Put a record on its way; wait while the queue is full."""
        if not self._produce(key, identity, value):
            with self.patience() as waited:
                while not self._produce(key, identity, value):
                    self._producer.poll(0.05)
                    waited("its queue is full")
        self._sent += 1

    def serve(self) -> None:
        """Take confirmations, and note when the newest records were sent; raise where one has failed."""
        self._producer.poll(0)
        with self._lock:
            if not self._since or self._since[-1][0] != self._sent:
                self._since.append((self._sent, self._clock()))
            self._forget()
        self._check()

    def flush(self) -> None:
        """Wait until everything is confirmed."""
        if len(self._producer):
            with self.patience() as waited:
                while self._producer.flush(0.05):
                    waited("its records are not confirmed")
        self._check()

    def age_s(self) -> float:
        """Return how long the oldest unconfirmed record, or the flow itself, has been waiting."""
        self._producer.poll(0)
        with self._lock:
            self._forget()
            times = [at for _, at in self._since] + [at for at in (self._waiting,) if at is not None]
        return self._clock() - min(times) if times else 0.0

    @contextmanager
    def patience(self) -> Iterator[Callable[[str], None]]:
        """Give a function to call at each turn of a wait; it raises `Undelivered` when that has been long enough."""
        began = self._clock()

        def waited(what: str) -> None:
            self._check()
            spent_s = self._clock() - began
            # The client itself gives a record up at the deadline; this is for what is none.
            if spent_s > self.timeout_s + 5.0:
                raise self._undelivered(f"{what} ({self._why})")
            if self._stop is not None and self._stop.is_set() and spent_s > STOPPING_S:
                raise self._undelivered(f"the run was stopped while {what} ({self._why})")

        self._waiting = began
        try:
            yield waited
        finally:
            self._waiting = None

    def _produce(self, key: bytes, identity: bytes, value: bytes) -> bool:
        headers: list[tuple[str, str | bytes | None]] = [("id", identity), ("content-type", b"application/json")]
        try:
            self._producer.produce(self.topic, value, key, on_delivery=self._on_delivery, headers=headers)
        except BufferError:
            return False
        except KafkaException as error:
            raise self._undelivered(str(error.args[0].str())) from None
        return True

    def _forget(self) -> None:
        done = self._sent - len(self._producer)
        while self._since and self._since[0][0] <= done:
            self._since.popleft()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._undelivered(self._failure)

    def _undelivered(self, why: str) -> Undelivered:
        missing = len(self._producer) + self._failed
        self._producer.purge(blocking=False)
        return Undelivered(
            f"the results for the topic {self.topic} cannot be delivered: {why}; {missing} are not confirmed, "
            "and with a recovery store they are sent after the next start"
        )

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.inc()
            self._failed += 1
            if self._failure is None:
                self._failure = str(error.str())
            return
        self._delivered.inc()
        number, offset = message.partition(), message.offset()
        # A record that the broker already had comes back without its offset.
        if number is not None and offset is not None and offset >= 0:
            with self._lock:
                if offset >= self.ends.get(number, 0):
                    self.ends[number] = offset + 1

    def _on_error(self, error: KafkaError) -> None:
        self._failures.inc()
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._why = str(error.str())
        if error.fatal() and self._failure is None:
            self._failure = str(error.str())
