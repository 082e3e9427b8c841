"""Results into a Kafka topic: each one once, whatever happens to this process.

At a snapshot everything is confirmed before the epoch ends, and the ends of the topic are kept. After a resume the
topic is read from there: a result that an interrupted run has sent already is not sent again when it is computed again.
A result is known by its key and the header `id`; of two equal ones two are sent.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from features.assets import shard_of
from flows.kafka.delivery import Delivery
from flows.kafka.records import Records
from flows.kafka.tail import Sent, read_tail
from flows.metrics import Pipeline
from flows.sealed import seal, unsealed

__all__ = ["KafkaSink"]

VERSION = 1
KEPT_SNAPSHOTS = 1_440
"""How long what was read back waits to be computed again: a day at a snapshot a minute. After that it never will be."""


class KafkaSink(FixedPartitionedSink[Records, Any]):
    """Writes records to a topic; its partitions are those of the assets, not of the topic.

    Takes ``(key, Records)`` in which all records belong to the sink partition of the key, as
    `flows.kafka.records.dealt` makes them. With as many partitions as shards a result is written by the process that
    computes it.

    Parameters
    ----------
    name
        Name of the output.
    topic
        Where to.
    config
        How the client reaches the cluster: `flows.kafka.settings.client_config`.
    pipeline
        Counts deliveries.
    partitions
        Number of sink partitions; fixed for the life of a recovery store.
    timeout_s
        Seconds without a confirmation after which the run ends.
    stop
        When it is set, little patience is left.
    mine
        Which sink partitions this process writes; by default all.
    since_us
        When the recovery store was made, in microseconds since 1970: a run without a snapshot of its own compares with
        what was sent since then. None, as without a store: with nothing.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry
    >>> sink = KafkaSink("scores", "scores", {}, Pipeline(CollectorRegistry()), partitions=2)
    >>> sink.list_parts(), sink.part_fn("lift-0001")
    (['0000', '0001'], 1)
    """

    def __init__(
        self,
        name: str,
        topic: str,
        config: Mapping[str, Any],
        pipeline: Pipeline,
        partitions: int = 16,
        timeout_s: float = 300.0,
        stop: threading.Event | None = None,
        mine: Callable[[int], bool] = lambda number: True,
        since_us: int | None = None,
    ) -> None:
        self.name, self.topic, self.config, self.pipeline = name, topic, config, pipeline
        self.partitions, self.timeout_s, self.stop, self.mine = partitions, timeout_s, stop, mine
        self.since_us = since_us
        self.repeated = pipeline.sink_repeated.labels(name)
        for counter in (pipeline.sink_delivered, pipeline.sink_failures):
            counter.labels(name)
        self._delivery: Delivery | None = None
        self._unread: list[_Partition] = []

    @property
    def delivery(self) -> Delivery:
        """The one producer of this process, made when the first partition is."""
        if self._delivery is None:
            self._delivery = Delivery(self.name, self.topic, self.config, self.pipeline, self.timeout_s, self.stop)
        return self._delivery

    def list_parts(self) -> list[str]:
        """Return the sink partitions of this process; their order is that of their numbers."""
        return [f"{n:04d}" for n in range(self.partitions) if self.mine(n)]

    def part_fn(self, item_key: str) -> int:
        """Return the partition of a key: the shard of the asset, where there are as many."""
        return zlib.crc32(item_key.encode()) % self.partitions

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> StatefulSinkPartition[Records, Any]:
        """Return a partition that knows what its snapshot knew; the broker is asked when the first record comes."""
        partition = _Partition(self, int(for_part), unsealed(resume_state))
        self._unread.append(partition)
        return partition

    def read_back(self) -> None:
        """Read what the topic holds since the snapshots of all partitions that have not been told yet."""
        waiting, self._unread = self._unread, []
        states = [one.since for one in waiting if one.since is not None]
        fresh = [one for one in waiting if one.since is None]
        known = [one for one in waiting if one.since is not None]
        with self.delivery.patience() as waited:
            if known:
                numbers = set().union(*states)
                since = {n: min(state.get(n, 0) for state in states) for n in numbers}
                tail = read_tail(self.config, self.topic, since, waited, self._written_by(known))
                self._tell(known, tail.ends, tail.sent)
            if fresh:
                tail = read_tail(self.config, self.topic, self.since_us, waited, self._written_by(fresh))
                self._tell(fresh, tail.ends, tail.sent)

    def _written_by(self, partitions: list[_Partition]) -> Callable[[int, int], bool]:
        """Tell which partitions of a topic hold what these write: both numbers are remainders of one hash."""

        def holds(number: int, count: int) -> bool:
            common = math.gcd(count, self.partitions)
            return any(number % common == one.number % common for one in partitions)

        return holds

    def _tell(self, partitions: list[_Partition], ends: Mapping[int, int], sent: list[Sent]) -> None:
        by_number = {one.number: one for one in partitions}
        for number, end in ends.items():
            self.delivery.ends[number] = max(end, self.delivery.ends.get(number, 0))
        for one in sent:
            partition = by_number.get(shard_of(one.key.decode(errors="replace"), self.partitions))
            if partition is not None and one.offset >= (partition.since or {}).get(one.partition, 0):
                partition.sent[one.key, one.id] += 1
        for partition in partitions:
            partition.told = True


class _Partition(StatefulSinkPartition[Records, Any]):
    def __init__(self, sink: KafkaSink, number: int, resumed: dict[str, Any] | None) -> None:
        self.number = number
        self.since: dict[int, int] | None = None
        self.sent: Counter[tuple[bytes, bytes]] = Counter()
        self.told = False
        self._sink, self._delivery = sink, sink.delivery
        self._kept = KEPT_SNAPSHOTS
        if resumed is not None and resumed["ends"] is not None:
            self.since, self._kept = resumed["ends"], resumed["kept"]
            self.sent.update(resumed["sent"])

    def write_batch(self, values: list[Records]) -> None:
        if not self.told:
            self._sink.read_back()
        for records in values:
            for key, identity, value in zip(*records, strict=True):
                if self.sent and self._was_sent(key, identity):
                    continue
                self._delivery.send(key, identity, value)
        self._delivery.serve()

    def snapshot(self) -> bytes:
        if not self.told:
            # Nothing was written; what the last snapshot knew is still true.
            return seal({"version": VERSION, "ends": self.since, "sent": dict(self.sent), "kept": self._kept})
        self._delivery.flush()
        if self.sent:
            self._kept -= 1
            if self._kept <= 0:
                self.sent.clear()
        ends = dict(self._delivery.ends)
        return seal({"version": VERSION, "ends": ends, "sent": dict(self.sent), "kept": self._kept})

    def close(self) -> None:
        self._delivery.flush()

    def _was_sent(self, key: bytes, identity: bytes) -> bool:
        """Tell whether an interrupted run has sent this record, and strike it off."""
        count = self.sent.get((key, identity), 0)
        if not count:
            return False
        if count == 1:
            del self.sent[key, identity]
        else:
            self.sent[key, identity] = count - 1
        self._sink.repeated.inc()
        return True
