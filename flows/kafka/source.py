"""Telemetry from a Kafka topic: a partition of the dataflow for each of the topic's, read by offset.

Partitions are assigned by hand, never rebalanced, and each has its own client: librdkafka holds at most `QUEUE_KB` in
advance, and reads no further while the flow is behind. The offset in the recovery store decides where reading goes on;
what is committed to the group, a snapshot later, is for tools that show the lag, and the start where there is no store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from features.wire import MessageWire, content_wire
from flows.kafka.settings import KafkaInput
from flows.kafka.statistics import standing
from flows.metrics import Pipeline
from flows.reach import Reach, say
from flows.sources import Message

__all__ = ["KafkaSource"]

MOST = 2_000
"""Messages that are taken at once: a batch of them costs the flow as much as one, and 2 MB at 1 kB each are little."""
QUEUE_KB = 8_192
"""Read in advance, a partition: a fifth of a second at 40,000 messages of 1 kB a second."""
IDLE_S = 0.1
BUSY_S = 0.005
"""How soon a partition is asked again: twice as late each time that it had nothing, up to `IDLE_S`."""
STATISTICS_MS = 1_000
CLOSING_S = 2.0
"""How long all partitions together may take to say goodbye to a broker."""

_LINK_LOST = frozenset((KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._ALL_BROKERS_DOWN))
_OUT_OF_RANGE = frozenset(
    (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, getattr(KafkaError, "_LOG_TRUNCATION", -139))
)
_ALREADY_KNOWN = frozenset((KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT))

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
        self.seen.set(time.time())
        self._closing = CLOSING_S

    def list_parts(self) -> list[str]:
        """Return the names of the partitions that this process reads."""
        return [part_name(self.described.topic, n) for n in range(self.described.partitions) if self.mine(n)]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, Any] | None
    ) -> StatefulSourcePartition[Message, dict[str, Any]]:
        """Return a partition where a snapshot left it, else where the group left it, else where the site file says."""
        return _Partition(self, for_part, int(for_part.rpartition("/")[2]), resume_state)

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


class _Partition(StatefulSourcePartition[Message, dict[str, Any]]):
    def __init__(self, source: KafkaSource, part: str, number: int, resumed: dict[str, Any] | None) -> None:
        self._source, self._part, self._number = source, part, number
        self._topic = source.described.topic
        self._next: int | None = None if resumed is None else resumed["offset"]
        self._held: int | None = None
        self._committed: int | None = None
        self._expected: int | None = None
        self._asked = OFFSET_STORED if self._next is None else self._next
        self._up = False
        self._topic_failed = False
        self._leaderless = 0
        self._why = "no broker has answered yet"
        self._pause_s = BUSY_S
        self._awake: datetime | None = None
        source.reach.begin(part)
        self._lag = source.pipeline.input_lag.labels(part)
        self._lost = source.pipeline.input_lost.labels(part)
        callbacks = {"error_cb": self._on_error, "stats_cb": self._on_statistics, "on_commit": self._on_commit}
        self._consumer = Consumer(source.config | callbacks)
        self._assign(self._asked)

    def next_batch(self) -> list[Message]:
        if self._source.stop is not None and self._source.stop.is_set():
            raise StopIteration
        wire: MessageWire = self._source.described.wire
        taken: dict[MessageWire, tuple[list[bytes], list[int]]] = {}
        count = 0
        for message in self._consumer.consume(MOST, 0):
            error = message.error()
            if error is not None:
                self._event(error, message.offset())
                continue
            offset = message.offset()
            if offset is None or (self._next is not None and offset < self._next):
                continue
            if self._expected is not None:
                self._count_lost(offset)
            self._next = offset + 1
            headers = message.headers()
            named = None if headers is None else dict(headers).get("content-type")
            form = wire if named is None else content_wire(_text(named)) or wire
            kind, stamp_ms = message.timestamp()
            payloads, times = taken.setdefault(form, ([], []))
            payloads.append(message.value() or b"")
            # Without a timestamp the present is the nearest to the truth.
            times.append(stamp_ms * 1000 if kind else time.time_ns() // 1000)
            count += 1
        if count:
            self._source.seen.set(time.time())
            self._delivers()
        self._sleep(count)
        return [Message(self._part, form, payloads, times) for form, (payloads, times) in taken.items()]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> dict[str, Any]:
        # What is committed is one snapshot old: by then it is in the recovery store.
        self._commit(self._held)
        self._held = self._next
        return {"offset": self._next}

    def close(self) -> None:
        self._commit(self._next)
        self._source.part(self._consumer)

    def _sleep(self, count: int) -> None:
        """Say when there is something to do again."""
        if count >= MOST:
            self._pause_s, self._awake = BUSY_S, None
            return
        self._pause_s = BUSY_S if count else min(2 * self._pause_s, IDLE_S)
        self._awake = self._source.now() + timedelta(seconds=self._pause_s)

    def _assign(self, offset: int) -> None:
        self._asked = offset
        self._consumer.assign([TopicPartition(self._topic, self._number, offset)])

    def _commit(self, offset: int | None) -> None:
        # A commit to a broker that is away would keep the client from closing.
        if offset is None or offset == self._committed or not self._up:
            return
        self._committed = offset
        try:
            self._consumer.commit(offsets=[TopicPartition(self._topic, self._number, offset)], asynchronous=True)
        except KafkaException:
            self._source.reach.error(self._part)

    def _event(self, error: KafkaError, offset: int | None) -> None:
        """Take what stands among the messages but is none."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            if offset is not None and offset >= 0:
                if self._expected is not None:
                    self._count_lost(offset)
                self._next = offset if self._next is None else max(self._next, offset)
            self._delivers()
        elif code in _OUT_OF_RANGE:
            if self._asked == OFFSET_STORED:
                # Neither a snapshot nor the group knows where it stood.
                self._assign(OFFSET_BEGINNING if self._source.described.start == "earliest" else OFFSET_END)
                return
            self._source.reach.error(self._part)
            if self._next is not None:
                self._expected, self._next = self._next, None
            self._assign(OFFSET_BEGINNING)
        else:
            self._source.reach.error(self._part)
            if code not in _ALREADY_KNOWN:
                self._topic_failed = True
                self._fails(f"{self._part}: {error.str()}")

    def _count_lost(self, first: int) -> None:
        """Tell how many messages are gone, once it is known where the partition begins."""
        assert self._expected is not None
        lost = first - self._expected
        self._expected = None
        if lost > 0:
            self._lost.inc(lost)
            text = f"{lost} messages were deleted by the broker before they were read"
        else:
            text = "the topic was made anew, and is read from its beginning"
        self._source.reach.say(f"{self._part}: {text}")

    def _delivers(self) -> None:
        self._topic_failed = False
        self._connected()

    def _connected(self) -> None:
        unread = None if self._source.partitions is None else self._source.found(self._source.partitions)
        if unread is not None:
            self._fails(unread)
        elif not self._up and not self._topic_failed:
            self._up = True
            self._source.reach.up(self._part)

    def _fails(self, why: str) -> None:
        self._up = False
        self._source.reach.down(self._part, why)

    def _on_error(self, error: KafkaError) -> None:
        self._source.reach.error(self._part)
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._why = str(error.str())
        if error.code() in _LINK_LOST:
            self._fails(self._why)
        elif error.code() not in _ALREADY_KNOWN:
            self._topic_failed = True
            self._fails(self._why)

    def _on_commit(self, error: KafkaError | None, partitions: object) -> None:
        if error is not None:
            self._source.reach.error(self._part)

    def _on_statistics(self, text: str) -> None:
        """Take once a second who leads the partition, whether he can be reached, and how far he is ahead."""
        now = standing(text, self._topic, self._number)
        if now is None or not now.led:
            # The first statistics may come before the first answer.
            self._leaderless += 1
            if self._up or self._leaderless > 1:
                self._fails(f"{self._part} has no leader: the topic is not there, or its broker is away")
            return
        self._leaderless = 0
        self._source.partitions = now.partitions
        if now.reachable:
            self._connected()
        elif self._up:
            self._fails(self._why)
        if now.end is not None and self._next is not None:
            self._lag.set(max(0, now.end - self._next))


def _text(header: bytes | str) -> str:
    return header.decode("latin-1") if isinstance(header, bytes) else header
