"""The thread that puts what a broker delivered on disk, group by group, and deletes what is done with.

While a group is being written the next one gathers, so groups grow with the load. Where the spool is full or its disk
refuses, nothing is acknowledged: the broker stops after a number of unacknowledged messages and queues the others.

Nothing is lost by a crash at any moment. A message that was in the spool but not acknowledged yet comes once more; it
is left out where packet identifier, topic and payload are those of one of the newest records. What is overlooked there,
because the record was deleted meanwhile, is rejected downstream as a duplicate reading.
"""

from __future__ import annotations

import queue
import threading
import time
import zlib
from collections.abc import Callable, Sequence

from flows.metrics import Pipeline
from flows.mqtt.session import Arrival, content_type
from flows.mqtt.topics import Topics
from flows.spool.frames import Record
from flows.spool.writer import Spool

__all__ = ["Committer"]

GROUP_S = 0.005
"""Least time between two group commits: at most 200 writes a second, and a twentieth of an idle partition's sleep."""

FORGET_S = 10.0
"""How often what the dataflow holds for good is deleted: a sixth of the interval of snapshots."""

TICK_S = 1.0
"""How often a full spool is tried again, and an idle one looked after."""

CHANNELS = 1_000_000
"""Topics whose partition is remembered."""

NEWEST = (1 << 14, 1 << 15)
"""Among how many of the newest records a repeated message is looked for: four times what is unacknowledged by default,
because a broker may exceed that (mosquitto 2.0.11 had 709 under way where 100 were allowed), and at most half of all
packet identifiers, so that none occurs twice."""

_Work = tuple[object, list[Arrival] | bool]


class Committer:
    """Commits what arrives, and says when it is on disk. It alone touches the spool.

    Parameters
    ----------
    name
        Name of the input.
    spool
        Where messages go.
    topics
        Partition of each topic.
    pipeline
        Where metrics go.
    acknowledged
        Called with the connection and the packet identifiers that are on disk.
    unacknowledged
        How many messages a broker may repeat.
    committed
        Position up to which the recovery store holds a partition (``mqtt/<input>/<n>``), None where it holds nothing
        yet. Without a store, None: the dataflow marks in the spool what it is done with.
    told
        Called with a sentence when the state changes.
    clock
        Monotonic clock in seconds.
    """

    def __init__(
        self,
        name: str,
        spool: Spool,
        topics: Topics,
        pipeline: Pipeline,
        acknowledged: Callable[[object, list[int]], None],
        unacknowledged: int,
        committed: Callable[[str], int | None] | None,
        told: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self.name, self.spool, self.topics = name, spool, topics
        self.ended = threading.Event()
        self._acknowledged = acknowledged
        self._newest = min(max(unacknowledged, NEWEST[0]), NEWEST[1])
        self._in_store, self._told, self._clock = committed, told, clock
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._leaving = threading.Event()
        # One number a thread, so that neither needs a lock.
        self._taken_bytes = self._done_bytes = 0
        self._channels: dict[bytes, tuple[str, int]] = {}
        self._repeats: dict[int, int] = {}
        self._repeats_left = 0
        self._refuses = False
        self._forgot_s = clock()
        self._errors = pipeline.input_errors.labels(name)
        self._messages = pipeline.input_messages.labels(name)
        self._left_out = pipeline.input_repeats.labels(name)
        self._seconds = pipeline.spool_commit_seconds.labels(name)
        self._full = pipeline.spool_full.labels(name)
        self._bytes = pipeline.spool_bytes.labels(name)
        self._oldest = pipeline.spool_oldest_time.labels(name)
        # An input that never delivers is as old as the run.
        self._seen = pipeline.input_seen.labels(name)
        self._seen.set(time.time())
        pipeline.spool_limit.labels(name).set(spool.limit_bytes)
        pipeline.spool_damaged.labels(name).inc(spool.damaged_bytes)
        self._full.set(0)
        self._bytes.set(spool.bytes)
        self._oldest.set(spool.oldest_us() / 1e6)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        for note in self.spool.notes:
            self._told(f"input {self.name}: {note}")
        threading.Thread(target=self._run, name=f"commit-{self.name}", daemon=True).start()

    def put(self, connection: object, arrived: list[Arrival]) -> None:
        """Hand over what arrived on a connection."""
        self._taken_bytes += sum(len(one.payload) for one in arrived)
        self._work.put((connection, arrived))

    def connected(self, connection: object, session_present: bool) -> None:
        """Say that a connection begins, and whether the broker has kept the session."""
        self._work.put((connection, session_present))

    def end(self, timeout_s: float) -> None:
        """Commit what has been handed over, and end."""
        self._leaving.set()
        self._work.put(None)
        self.ended.wait(timeout_s)

    @property
    def waiting_bytes(self) -> int:
        """Payloads that were handed over and are not on disk yet."""
        return self._taken_bytes - self._done_bytes

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self.ended.set()

    def _step(self) -> bool:
        work: list[_Work | None] = []
        try:
            work.append(self._work.get(timeout=TICK_S))
            while True:
                work.append(self._work.get_nowait())
        except queue.Empty:
            pass
        began_s = time.monotonic()
        gathered: list[tuple[object, list[Arrival]]] = []
        for one in work:
            if one is not None and isinstance(one[1], list):
                gathered.append((one[0], one[1]))
                continue
            self._commit(gathered)
            gathered = []
            if one is None:
                return False
            self._expect_repeats(bool(one[1]))
        self._commit(gathered)
        if self._clock() - self._forgot_s >= FORGET_S:
            self._forget()
        if work:
            self._leaving.wait(max(0.0, GROUP_S - (time.monotonic() - began_s)))
        return True

    def _commit(self, gathered: Sequence[tuple[object, list[Arrival]]]) -> None:
        """Put all that was gathered on disk as one group; it is not acknowledged where that fails to the end."""
        arrived = [one for _, many in gathered for one in many]
        if not arrived:
            return
        groups = self._groups(arrived)
        while groups and not self._committed(groups):
            if self._leaving.wait(TICK_S):
                return
            self._forget()
        self._messages.inc(len(arrived))
        self._seen.set(arrived[-1].time_us / 1e6)
        self._done_bytes += sum(len(one.payload) for one in arrived)
        for connection, many in gathered:
            self._acknowledged(connection, [one.mid for one in many if one.mid])

    def _committed(self, groups: dict[int, list[Record]]) -> bool:
        began_s = time.perf_counter()
        refused = None
        try:
            if not self.spool.commit(groups):
                refused = f"it has reached its limit of {self.spool.limit_bytes:,} bytes"
            else:
                self._seconds.observe(time.perf_counter() - began_s)
        except OSError as error:
            refused = f"the disk refuses it ({error.strerror})"
            self._errors.inc()
        self._bytes.set(self.spool.bytes)
        if (refused is not None) != self._refuses:
            self._refuses = refused is not None
            self._full.set(int(self._refuses))
            state = f"takes no more messages, {refused}; the broker keeps them" if refused else "takes messages again"
            self._told(f"input {self.name}: the spool {self.spool.folder} {state}")
        return refused is None

    def _groups(self, arrived: Sequence[Arrival]) -> dict[int, list[Record]]:
        groups: dict[int, list[Record]] = {}
        channels = self._channels
        contents: dict[bytes, str] = {}
        for topic, properties, time_us, mid, payload, again in arrived:
            if self._repeats_left and self._is_repeat(mid, topic, payload, again):
                self._left_out.inc()
                continue
            channel = channels.get(topic)
            if channel is None:
                if len(channels) >= CHANNELS:  # a sender makes topics up
                    channels.clear()
                name = topic.decode("utf-8", "replace")
                channel = channels[topic] = name, self.topics.partition(name)
            content = contents.get(properties)
            if content is None:
                content = contents[properties] = content_type(properties)
            group = groups.get(channel[1])
            if group is None:
                group = groups[channel[1]] = []
            group.append(Record(channel[0], content, time_us, mid, payload))
        return groups

    def _expect_repeats(self, session_present: bool) -> None:
        """Once connected, a broker repeats what was not acknowledged before it sends anything else."""
        newest = self.spool.recent(self._newest) if session_present else []
        self._repeats = {one.mid: _digest(one.topic.encode(), one.payload) for one in newest if one.mid}
        self._repeats_left = self._newest if self._repeats else 0

    def _is_repeat(self, mid: int, topic: bytes, payload: bytes, again: bool) -> bool:
        self._repeats_left -= 1
        known = self._repeats.pop(mid, None)
        if self._repeats_left == 0:
            self._repeats = {}
        return again and known is not None and known == _digest(topic, payload)

    def _forget(self) -> None:
        """Delete what the dataflow holds for good."""
        self._forgot_s = self._clock()
        if self._in_store is None:
            before = int(self.spool.marks[1:].min())
        else:
            before = min(self._in_store(f"mqtt/{self.name}/{n}") or 0 for n in range(self.topics.partitions))
        try:
            self.spool.forget(before)
            self._oldest.set(self.spool.oldest_us() / 1e6)
        except OSError:  # the disk refuses a new segment: the next commit says so
            self._errors.inc()
        self._bytes.set(self.spool.bytes)


def _digest(topic: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(topic))
