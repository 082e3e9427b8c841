"""One partition of a topic: what comes of it, where it stands, and whether its broker can be reached."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bytewax.inputs import StatefulSourcePartition
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
from flows.kafka.statistics import standing
from flows.sources import Message

if TYPE_CHECKING:
    from flows.kafka.source import KafkaSource

__all__ = ["Partition"]

MOST = 2_000
"""Messages that are taken at once: a batch of them costs the flow as much as one, and 2 MB at 1 kB each are little."""
IDLE_S = 0.1
BUSY_S = 0.005
"""How soon a partition is asked again: twice as late each time that it had nothing, up to `IDLE_S`."""
_LINK_LOST = frozenset((KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._ALL_BROKERS_DOWN))
_OUT_OF_RANGE = frozenset(
    (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, getattr(KafkaError, "_LOG_TRUNCATION", -139))
)
_ALREADY_KNOWN = frozenset((KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT))


class Partition(StatefulSourcePartition[Message, dict[str, Any]]):
    """A partition that is read by offset.

    Parameters
    ----------
    source
        The input that it belongs to.
    part, number
        Its name and number.
    resumed
        What its last snapshot held.
    """

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
        """Return what has come, a message for each form."""
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
            times.append(stamp_ms * 1000 if kind else round(self._source.now().timestamp() * 1e6))
            count += 1
        if count:
            self._source.seen.set(self._source.now().timestamp())
            self._delivers()
        self._sleep(count)
        return [Message(self._part, form, payloads, times) for form, (payloads, times) in taken.items()]

    def next_awake(self) -> datetime | None:
        """Return when there may be more."""
        return self._awake

    def snapshot(self) -> dict[str, Any]:
        """Return the offset of the next message, and commit that of the snapshot before."""
        # What is committed is one snapshot old: by then it is in the recovery store.
        self._commit(self._held)
        self._held = self._next
        return {"offset": self._next}

    def close(self) -> None:
        """Commit, and say goodbye."""
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
