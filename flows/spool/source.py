"""A spool as a replayable input of the dataflow: each partition read by position, in any process of the host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from flows.content_types import wire_of
from flows.files import Wire
from flows.metrics import Pipeline
from flows.sources import Message
from flows.spool.frames import Slice
from flows.spool.reader import SpoolReader

__all__ = ["SpoolSource", "messages"]

WAKE_S = 0.1
"""How often an idle partition looks for more: a tenth of the second in which a reading shall reach its metric."""


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
