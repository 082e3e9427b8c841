"""Where messages become telemetry: decoded, counted, freed of unknown assets, and timed by their input's clock.

This happens inside the input's partition, so that what has been counted and the clock are kept with the position in the
input: a restart resumes all three at the same message.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from numpy.typing import NDArray

from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason, Rejected, count_readings
from features.windows import NO_LIMIT
from features.wire import decode, decode_arrow, decode_jsonlines, decode_wide_csv, decode_wide_table
from flows.clock import NEVER, arrival_clock
from flows.credits import Credits
from flows.metrics import Counts, Pipeline, Tally
from flows.sealed import seal, unsealed
from flows.sources import Message

__all__ = ["Input", "Intake", "IntakeSource", "Telemetry"]

VERSION = 1
_KEPT = 4
"""Dictionaries of names that are remembered."""
_APART = 16
"""Unknown assets of a message that are rejected one by one."""
WAIT = timedelta(milliseconds=20)
"""How long a partition without credit waits before it asks again."""


@dataclass(frozen=True, slots=True)
class Input:
    """What the flow must know of an input to decode it.

    Attributes
    ----------
    equipment
        Class of a wide table; the other forms name signals themselves.
    asset
        Asset of a wide table without an asset column.
    live
        Whether its readings must not lie in the future of the clock.
    endless
        Whether it should never fall silent, so that its age is worth an alert.
    """

    equipment: EquipmentClass | None = None
    asset: str = ""
    live: bool = False
    endless: bool = False


_PLAIN = Input()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Decoded blocks of one message.

    Attributes
    ----------
    source
        Name of the input partition.
    blocks
        Blocks of known assets, n of them.
    rejected
        What of the message was rejected.
    clock
        Newest event time that the partition had delivered when each block came, shape ``(n,)``.
    before_us, now_us
        The same before and after the message.
    limit_us
        Latest time that is not in the future.
    """

    source: str
    blocks: pa.RecordBatch
    rejected: list[Rejected]
    clock: NDArray[np.int64]
    before_us: int
    now_us: int
    limit_us: int = NO_LIMIT


class Intake:
    """Turns the messages of one input partition into telemetry.

    Parameters
    ----------
    class_of
        The class of an asset, or None for an unknown one.
    inputs
        By source; a source that is not named has the defaults of `Input`.
    pipeline
        Counts what came in and what was rejected.
    now_us
        The clock of a live run in microseconds since 1970; None in a replay.
    future_us
        How far ahead of that clock a reading of a live input may lie.
    state
        What `state` returned, to count on from there.
    clock
        Seconds since 1970, for the age of endless inputs.
    changed
        How often the register has changed.
    """

    def __init__(
        self,
        class_of: Callable[[str], str | None],
        inputs: Mapping[str, Input],
        pipeline: Pipeline,
        now_us: Callable[[], int] | None = None,
        future_us: int = 0,
        state: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
        changed: Callable[[], int] = lambda: 0,
    ) -> None:
        self._changed = changed
        self._asked: list[tuple[int, pa.Array, NDArray[np.bool_]]] = []
        self._class_of, self._inputs, self._pipeline = class_of, inputs, pipeline
        self._now_us, self._future_us, self._clock = now_us, future_us, clock
        self._event_us: dict[str, int] = {} if state is None else dict(state["clock"])
        self._tally = Tally(pipeline, None if state is None else state["counts"])

    def __call__(self, message: Message) -> Telemetry:
        """Decode one message."""
        source = message.source
        described = self._inputs.get(source, _PLAIN)
        decoded = self._decode(message, described)
        if described.endless:
            self._pipeline.input_seen.labels(source).set(self._clock())
        received = count_readings(decoded.blocks) + sum(one.readings for one in decoded.rejected)
        blocks, unknown = self._known(source, decoded.blocks)
        rejected = [*decoded.rejected, *unknown]
        self._count(received, rejected)
        limit_us = self._limit_us(message, described)
        before = self._event_us.get(source, NEVER)
        clock = arrival_clock(blocks, before, limit_us)
        now = int(clock[-1]) if len(clock) else before
        self._event_us[source] = now
        if now > 0:
            self._pipeline.input_time.labels(source).set(now / 1e6)
        return Telemetry(source, blocks, rejected, clock, before, now, limit_us)

    def state(self) -> dict[str, Any]:
        """Return the clocks and the counts."""
        return {"version": VERSION, "clock": dict(self._event_us), "counts": self._tally.state()}

    def _count(self, received: int, rejected: list[Rejected]) -> None:
        counts: Counts = {("received", ""): received} if received else {}
        by_reason: Counter[str] = Counter()
        for one in rejected:
            by_reason[str(one.reason)] += one.readings
        self._tally.add(counts | {("rejected", reason): number for reason, number in by_reason.items()})

    def _limit_us(self, message: Message, described: Input) -> int:
        """Return the latest time that is not in the future: by when the message arrived, where that is known."""
        if not described.live:
            return NO_LIMIT
        now_us = NO_LIMIT if self._now_us is None else self._now_us()
        if message.times_us is not None and len(message.times_us):
            # A producer's clock may be wrong too: nothing has arrived after now.
            now_us = min(now_us, int(max(message.times_us)))
        return min(now_us + self._future_us, NO_LIMIT)

    def _decode(self, message: Message, described: Input) -> Decoded:
        match message.wire:
            case "blocks":
                return Decoded(message.payload)
            case "arrow" if not isinstance(message.payload, list):
                return decode_arrow(message.payload, source=message.source)
            case "arrow" | "json" | "senml" | "senml-cbor" | "cbor" as wire:
                equipment, times_us = described.equipment, message.times_us
                return decode(wire, message.payload, source=message.source, equipment=equipment, times_us=times_us)
            case "jsonl":
                return decode_jsonlines(message.payload, source=message.source, equipment=described.equipment)
        assert described.equipment is not None, "a wide table is opened with its class"
        decode_wide = decode_wide_csv if message.wire == "csv" else decode_wide_table
        return decode_wide(message.payload, described.equipment, asset=described.asset, source=message.source)

    def _known(self, source: str, blocks: pa.RecordBatch) -> tuple[pa.RecordBatch, list[Rejected]]:
        """Take the blocks of assets that nobody knows out of the telemetry."""
        column = blocks.column("asset")
        unknown = self._unknown(column.dictionary)
        if not unknown.any():
            return blocks, []
        bad = unknown[column.indices.to_numpy()]
        if not bad.any():
            return blocks, []
        return blocks.filter(pa.array(~bad)), _unknown_assets(source, blocks, np.flatnonzero(bad))

    def _unknown(self, names: pa.Array) -> NDArray[np.bool_]:
        """Tell which assets nobody knows; asked once for a dictionary that comes again with each message."""
        version = self._changed()
        for known in self._asked:
            if known[0] == version and known[1].equals(names):
                return known[2]
        unknown = np.array([self._class_of(name) is None for name in names.to_pylist()], np.bool_)
        self._asked = [(version, names, unknown), *self._asked[: _KEPT - 1]]
        return unknown


def _unknown_assets(source: str, blocks: pa.RecordBatch, places: NDArray[np.intp]) -> list[Rejected]:
    """Reject the blocks at these places, one `Rejected` an asset as long as those are few, and one for all others."""
    column = blocks.column("asset")
    asset = column.indices.to_numpy()[places]
    order = np.argsort(asset, kind="stable")
    groups = np.split(places[order], np.flatnonzero(np.diff(asset[order])) + 1)
    if len(groups) > _APART:
        groups[_APART - 1 :] = [np.sort(np.concatenate(groups[_APART - 1 :]))]
    return [_unknown(source, blocks.take(pa.array(some))) for some in groups]


def _unknown(source: str, rows: pa.RecordBatch) -> Rejected:
    """Reject rows of assets that nobody knows; what is kept is their Arrow stream, without the names of others."""
    columns = [_used_names(c) if pa.types.is_dictionary(c.type) else c for c in rows.columns]
    rows = pa.RecordBatch.from_arrays(columns, rows.schema.names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    assets, signals = (rows.column(name).dictionary for name in ("asset", "signal"))
    one = assets[0].as_py() if len(assets) == 1 else None
    return Rejected(
        Reason.UNKNOWN_ASSET,
        count_readings(rows),
        source,
        sink.getvalue().to_pybytes(),
        one,
        signals[0].as_py() if len(signals) == 1 else None,
        rows.column("start").cast(pa.int64())[0].as_py(),
        f"the register has no asset {one!r}"
        if one is not None
        else f"the register has none of {len(assets):,} assets, {assets[0].as_py()!r} among them",
    )


def _used_names(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return a column whose dictionary holds the names that occur, and no other."""
    used, where = np.unique(column.indices.to_numpy(), return_inverse=True)
    return pa.DictionaryArray.from_arrays(pa.array(where.astype(np.int32)), column.dictionary.take(pa.array(used)))


class IntakeSource(FixedPartitionedSource[Telemetry, Any]):
    """An input whose messages leave it as telemetry.

    Parameters
    ----------
    source
        Yields the messages.
    intake
        Makes the intake of a partition from its state.
    credits
        What a partition may have under way; it waits where that is used up.
    """

    def __init__(
        self,
        source: FixedPartitionedSource[Message, Any],
        intake: Callable[[dict[str, Any] | None], Intake],
        credits: Credits | None = None,
    ) -> None:
        self._source, self._intake, self._credits = source, intake, credits

    def list_parts(self) -> list[str]:
        """Return the partitions of the input."""
        return self._source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> StatefulSourcePartition[Telemetry, Any]:
        """Return a partition at its beginning, or where a snapshot left it."""
        resume_state = unsealed(resume_state)
        position = None if resume_state is None else resume_state["position"]
        intake = self._intake(None if resume_state is None else resume_state["intake"])
        return _Partition(self._source.build_part(step_id, for_part, position), intake, self._credits)


class _Partition(StatefulSourcePartition[Telemetry, Any]):
    def __init__(self, inner: StatefulSourcePartition[Message, Any], intake: Intake, credits: Credits | None) -> None:
        self._inner, self._intake, self._credits = inner, intake, credits
        self._waits = False

    def next_batch(self) -> list[Telemetry]:
        self._waits = self._credits is not None and not self._credits.free()
        if self._waits:
            return []
        return [self._intake(message) for message in self._inner.next_batch()]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + WAIT if self._waits else self._inner.next_awake()

    def snapshot(self) -> bytes:
        return seal({"version": VERSION, "position": self._inner.snapshot(), "intake": self._intake.state()})

    def close(self) -> None:
        self._inner.close()
