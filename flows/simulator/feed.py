"""A simulated fleet sent on: its telemetry as messages of a broker, partitioned like the shards, at its own pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from features.assets import shard_of
from features.encode import encode
from features.telemetry import BLOCKS
from features.wire import MessageWire
from flows.simulator.fleet import Fleet, FleetPlan

__all__ = ["Encode", "dealt_blocks", "encoder", "feed"]

Encode = Callable[[pa.RecordBatch], Iterable[bytes]]
"""Makes messages of a batch of blocks, in their order."""
MESSAGE_READINGS = 25_000
"""Readings of an Arrow message at most: 200 kB of samples, a fifth of what a broker takes."""
STEP_S = 0.25
"""How often a paced fleet sends."""


def encoder(wire: MessageWire) -> Encode:
    """Return what makes messages of a form: for Arrow many assets in one, for the others one an asset and second."""
    return arrow_messages if wire == "arrow" else lambda batch: encode(wire, batch)


def arrow_messages(batch: pa.RecordBatch) -> Iterator[bytes]:
    """Yield blocks as Arrow streams of a bounded size, each with the names that stand in it.

    Examples
    --------
    >>> fleet = Fleet(FleetPlan(lifts=2, boilers=0, start_us=0, days=1.0))
    >>> [message] = arrow_messages(fleet.step(61_000_000))
    >>> pa.ipc.open_stream(message).read_all().schema.names
    ['asset', 'signal', 'start', 'period_us', 'values']
    """
    ends = batch.column("values").offsets.to_numpy().astype(np.int64)
    ends = ends - ends[0]
    first = 0
    while first < batch.num_rows:
        reach = int(np.searchsorted(ends, ends[first] + MESSAGE_READINGS, side="right")) - 1
        last = max(first + 1, reach)
        yield _stream(batch.slice(first, last - first))
        first = last


def _stream(batch: pa.RecordBatch) -> bytes:
    columns = [
        c.dictionary_decode().dictionary_encode() if pa.types.is_dictionary(c.type) else c for c in batch.columns
    ]
    compact = pa.RecordBatch.from_arrays(columns, schema=BLOCKS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, BLOCKS) as writer:
        writer.write_batch(compact)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def dealt_blocks(batch: pa.RecordBatch, partitions: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the blocks of each partition, by the hash that deals assets to shards."""
    column = batch.column("asset")
    number = np.array([shard_of(name, partitions) for name in column.dictionary.to_pylist()])[column.indices.to_numpy()]
    for partition in np.unique(number).tolist():
        yield partition, batch.filter(pa.array(number == partition))


def feed(
    plan: FleetPlan,
    partitions: int,
    encode: Encode,
    send: Callable[[int, bytes], Any],
    speed: float | None = None,
    progress: Callable[[int, float], None] = lambda readings, share: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Send the telemetry of a fleet; return how many readings it has.

    Parameters
    ----------
    plan
        What is simulated.
    partitions
        Into how many partitions its assets are dealt.
    encode
        Makes the messages.
    send
        Takes the partition and a message; it waits where the broker does.
    speed
        Simulated seconds a second; None = as fast as it goes.
    progress
        Called with the readings so far and the share of the time that is done, 0 .. 1.
    stop
        Ends it early when it is set.
    clock
        Monotonic clock in seconds.
    """
    stop = stop or threading.Event()
    fleet = Fleet(plan)
    began = clock()
    readings = 0
    while fleet.time_us < plan.end_us and not stop.is_set():
        due_us = plan.end_us
        if speed is not None:
            due_us = min(due_us, plan.start_us + int((clock() - began) * speed * 1e6))
            if due_us <= fleet.time_us:
                stop.wait(STEP_S)
                continue
        batch = fleet.advance(due_us)
        for partition, blocks in dealt_blocks(batch, partitions):
            for message in encode(blocks):
                send(partition, message)
        readings += len(batch.column("values").values)
        progress(readings, (fleet.time_us - plan.start_us) / (plan.end_us - plan.start_us))
    return readings
