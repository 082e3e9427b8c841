"""A spool as a replayable input of the dataflow: each partition read by position, in any process of the host."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from flows.content import wire_of
from flows.files import Wire
from flows.frames import Frame, Segment, Slice, decode_slice
from flows.metrics import Pipeline
from flows.sources import Message
from flows.spool import SpoolError, marks_of, read_meta, segment_path, segments_of, set_aside

__all__ = ["SpoolReader", "SpoolSource", "messages"]

BATCH_BYTES = 1 << 20
"""What is handed over at once when the flow is behind: about a thousand messages of 1 kB."""

WAKE_S = 0.1
"""How often an idle partition looks for more: a tenth of the second in which a reading shall reach its metric."""


class SpoolReader:
    """Reads one partition of a spool, in the process of its writer or in another.

    Only what is committed is seen. Where the folder does not exist yet there is nothing to read.

    Parameters
    ----------
    folder
        The spool.
    partition
        Number of the partition.
    position
        Where to go on; None for what no earlier run has handed out for good.
    spool
        Identity of the spool in which that position lies: another one is read from its beginning.

    Attributes
    ----------
    position
        Up to where all has been read.
    notes
        What was found on the way, a sentence each; whoever tells them empties the list.
    damaged_bytes
        Size of the damage that was skipped.
    """

    def __init__(self, folder: Path, partition: int, position: int | None = None, spool: str | None = None) -> None:
        self.folder, self.partition = folder, partition
        self.position = position
        self.spool = spool
        self.notes: list[str] = []
        self.damaged_bytes = 0
        self._marks: Any = None
        self._segment: Segment | None = None
        self._salt = 0
        self._follows = -1

    def read(self, max_bytes: int = BATCH_BYTES) -> list[Slice]:
        """Return what comes next, about as many bytes of it, in whole group commits."""
        if self._marks is None and not self._open():
            return []
        assert self.position is not None
        committed = int(self._marks[0])
        found: list[Slice] = []
        size = 0
        while size < max_bytes and self.position < committed:
            segment = self._seek()
            if segment is None:
                break
            base = segment.base
            end = min(os.fstat(segment.fd).st_size, committed - base)
            if self._follows >= 0:
                end = min(end, self._follows - base)
            for one in segment.frames(self.position - base, end):
                if isinstance(one, Frame):
                    size += self._slice(segment, one, found)
                    self.position = base + one.end
                else:
                    self._damage(segment, *one)
                    self.position = base + one[1]
                if size >= max_bytes:
                    return found
            if self.position < committed and not self._next(base):
                break
        return found

    @property
    def drained(self) -> bool:
        """Whether everything that is committed has been read."""
        return self._marks is not None and self.position is not None and self.position >= int(self._marks[0])

    def release(self, position: int) -> None:
        """Note for later runs and for the writer that nobody comes back to what lies before a position."""
        if self._marks is not None:
            self._marks[1 + self.partition] = position

    def close(self) -> None:
        """Let go of the files."""
        if self._segment is not None:
            os.close(self._segment.fd)
            self._segment = None

    def _open(self) -> bool:
        try:
            meta = read_meta(self.folder)
        except SpoolError:  # the writer says so and does not start
            return False
        if meta is None or self.partition >= meta.partitions:
            return False
        marks = marks_of(self.folder, meta.partitions)
        if self.position is None or self.spool != meta.id:
            if self.position is not None:
                self.notes.append(f"{self.folder}: this is another spool than before: it is read from its beginning")
            self.position = int(marks[1 + self.partition])
        self.spool, self._salt = meta.id, meta.salt
        self._marks = marks
        return True

    def _seek(self) -> Segment | None:
        """Return the segment of the position; where that is gone, go to the first that is left."""
        assert self.position is not None
        if self._segment is not None:
            return self._segment
        bases = segments_of(self.folder)
        if not bases:
            return None
        base = max((one for one in bases if one <= self.position), default=bases[0])
        if base > self.position:
            self.notes.append(
                f"{self.folder}: partition {self.partition} goes on at {base}, what lay before it was deleted"
            )
            self.position = base
        try:
            fd = os.open(segment_path(self.folder, base), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # deleted just now
            return None
        self._segment = Segment(fd, base, self._salt)
        self._follows = min((one for one in bases if one > base), default=-1)
        return self._segment

    def _next(self, base: int) -> bool:
        """At the end of a segment, go to the one that follows; there may be none yet."""
        if self._follows < 0:
            self._follows = min((one for one in segments_of(self.folder) if one > base), default=-1)
            # The writer may have finished this one in between: its end is looked at once more.
            return self._follows >= 0
        assert self.position is not None
        self.position = max(self.position, self._follows)
        self.close()
        return True

    def _slice(self, segment: Segment, frame: Frame, found: list[Slice]) -> int:
        place = frame.slices.get(self.partition)
        if place is None:
            return 0
        body = segment.body(*place)
        if body is None:
            self._damage(segment, place[0], place[1])
            return 0
        found.append(decode_slice(body))
        return len(body)

    def _damage(self, segment: Segment, start: int, end: int) -> None:
        path = segment_path(self.folder, segment.base)
        if set_aside(path, segment.fd, start, end):
            self.damaged_bytes += end - start
            self.notes.append(f"{path}: {end - start} bytes at {start} are damaged and set aside in a .corrupt file")


def messages(source: str, slices: Iterable[Slice], default: Wire) -> list[Message]:
    """Return records as few messages, one a form of payload; each topic keeps the order of its own.

    Parameters
    ----------
    source
        Name of the input partition.
    slices
        What was read of it.
    default
        Form of a payload whose content type says none.

    Examples
    --------
    >>> import numpy as np
    >>> one = Slice([("a", ""), ("b", "application/cbor")], np.array([0, 1, 0], np.uint32),
    ...     np.array([1, 2, 3]), np.zeros(3, np.uint16), [b"1", b"2", b"3"])
    >>> [(message.wire, message.payload, message.times_us) for message in messages("mqtt/gateways/0", [one], "json")]
    [('json', [b'1', b'3'], [1, 3]), ('cbor', [b'2'], [2])]
    """
    made: list[Message] = []
    open_: dict[Wire, tuple[list[bytes], list[int]]] = {}
    wire_by_topic: dict[str, Wire] = {}

    def close() -> None:
        made.extend(Message(source, wire, payloads, times) for wire, (payloads, times) in open_.items())
        open_.clear()
        wire_by_topic.clear()

    for one in slices:
        wires = [wire_of(content, default) for _, content in one.channels]
        topics = {topic: wire for (topic, _), wire in zip(one.channels, wires, strict=True)}
        mixed = any(topics[topic] != wire for (topic, _), wire in zip(one.channels, wires, strict=True))
        if mixed or any(wire_by_topic.get(topic, wire) != wire for topic, wire in topics.items()):
            close()
        wire_by_topic |= topics
        for wire, rows in _runs(one, wires, mixed):
            payloads, times = open_.setdefault(wire, ([], []))
            if rows is None:
                payloads += one.payloads
                times += one.times_us.tolist()
            else:
                payloads += [one.payloads[row] for row in rows]
                times += one.times_us[rows].tolist()
            if mixed:
                close()
    close()
    return made


def _runs(one: Slice, wires: list[Wire], mixed: bool) -> Iterator[tuple[Wire, list[int] | None]]:
    """Yield form and rows (None for all): in the order of arrival where one topic has two forms."""
    if len(set(wires)) == 1:
        yield wires[0], None
        return
    of_row = [wires[number] for number in one.channel.tolist()]
    if mixed:
        for wire, rows in groupby(range(len(of_row)), key=of_row.__getitem__):
            yield wire, list(rows)
    else:
        for wire in dict.fromkeys(of_row):
            yield wire, [row for row, its in enumerate(of_row) if its == wire]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SpoolSource(FixedPartitionedSource[Message, dict[str, Any]]):
    """Hands a spool to the dataflow, an input partition for each of its own. It never ends unless it is stopped.

    Parameters
    ----------
    name
        Name of the input.
    folder, partitions
        The spool.
    wire
        Form of payloads without a content type.
    mine
        Which partitions this process reads, by number; by default all.
    recovered
        Whether a recovery store keeps the position. Without one, what was handed out two snapshots ago counts as done:
        it is deleted, and a later run does not read it again.
    stop
        Ends the input when it is set.
    pipeline
        Where metrics go.
    told
        Called with each sentence on what was found.
    now
        The wall clock.

    Examples
    --------
    >>> SpoolSource("gateways", Path("spool"), partitions=4, wire="json", mine=lambda n: n % 2 == 0).list_parts()
    ['mqtt/gateways/0', 'mqtt/gateways/2']
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        partitions: int,
        wire: Wire,
        mine: Callable[[int], bool] | None = None,
        recovered: bool = False,
        stop: threading.Event | None = None,
        pipeline: Pipeline | None = None,
        told: Callable[[str], None] = lambda sentence: None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.name, self.folder, self.wire, self.recovered = name, folder, wire, recovered
        self.numbers = {f"mqtt/{name}/{n}": n for n in range(partitions) if mine is None or mine(n)}
        self.stop, self.pipeline, self.told, self.now = stop, pipeline, told, now
        self._read_us: dict[str, int] = {}

    def list_parts(self) -> list[str]:
        """Return the partitions that this process reads."""
        return list(self.numbers)

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, Any] | None
    ) -> StatefulSourcePartition[Message, dict[str, Any]]:
        """Return a partition where a snapshot left it."""
        state = resume_state or {"offset": None, "spool": None}
        reader = SpoolReader(self.folder, self.numbers[for_part], state["offset"], state["spool"])
        return _Partition(self, for_part, reader)

    def seen(self, part: str, reader: SpoolReader, time_us: int | None) -> None:
        """Note by which time of arrival a partition has been handed out, and tell what was found."""
        for note in reader.notes:
            self.told(note)
        reader.notes.clear()
        if self.pipeline is None:
            return
        if reader.damaged_bytes:
            self.pipeline.spool_damaged.labels(self.name).inc(reader.damaged_bytes)
            reader.damaged_bytes = 0
        self._read_us[part] = int(self.now().timestamp() * 1e6) if time_us is None else time_us
        self.pipeline.spool_read_time.labels(self.name).set(min(self._read_us.values()) / 1e6)


class _Partition(StatefulSourcePartition[Message, dict[str, Any]]):
    def __init__(self, source: SpoolSource, part: str, reader: SpoolReader) -> None:
        self._source, self._part, self._reader = source, part, reader
        self._awake: datetime | None = None
        self._before: list[int] = []

    def next_batch(self) -> list[Message]:
        source, reader = self._source, self._reader
        if source.stop is not None and source.stop.is_set():
            raise StopIteration
        slices = reader.read()
        drained = reader.drained
        # Waiting after each small batch lets the next one grow.
        self._awake = None if slices and not drained else source.now() + timedelta(seconds=WAKE_S)
        source.seen(self._part, reader, int(slices[-1].times_us[-1]) if slices and not drained else None)
        return messages(self._part, slices, source.wire)

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> dict[str, Any]:
        reader = self._reader
        if not self._source.recovered and reader.position is not None:
            self._before.append(reader.position)
            if len(self._before) > 2:
                reader.release(self._before.pop(0))
        return {"offset": reader.position, "spool": reader.spool}

    def close(self) -> None:
        self._reader.close()
