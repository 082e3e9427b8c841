"""The steps of the dataflow as plain objects: each takes an item and returns items, and none of them knows Bytewax."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.assets import shard_of
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason, Rejected, count_readings
from features.windows import NO_LIMIT, ShardBatch, ShardWindows, Silence, Step
from features.wire import decode, decode_arrow, decode_jsonlines, decode_wide_csv, decode_wide_table
from flows.dispatch import Decision, Dispatcher
from flows.metrics import Pipeline
from flows.sources import Message
from models.assessment import Assessed, Assessor, Candidate
from models.scoring import Scored, Scorer

__all__ = ["Assess", "Decoder", "Dispatch", "Input", "Reject", "Score", "Shard", "Telemetry", "Tick", "Window"]


_NEVER = -(2**62)
_LEAP_US = 86_400_000_000
"""How far ahead of the middle of a message, or of all that came before, a reading may move an input's clock."""


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
    """Decoded blocks of one message, and what of it was rejected."""

    source: str
    blocks: pa.RecordBatch
    rejected: list[Rejected]


@dataclass(frozen=True, slots=True)
class Tick:
    """The event time that an input partition has reached, for shards that got no data from it."""

    source: str
    clock_us: int


class Decoder:
    """Turns a message into telemetry.

    Parameters
    ----------
    inputs
        By source; a source that is not named has the defaults of `Input`.
    pipeline
        Counts what came in.
    clock
        Seconds since 1970, for the age of endless inputs.
    """

    def __init__(self, inputs: Mapping[str, Input], pipeline: Pipeline, clock: Callable[[], float] = time.time) -> None:
        self._inputs = inputs
        self._pipeline = pipeline
        self._clock = clock
        # An input that never delivers is as old as the run.
        for name, described in inputs.items():
            if described.endless:
                pipeline.input_seen.labels(name).set(clock())

    def __call__(self, message: Message) -> Telemetry:
        """Decode one message."""
        decoded = self._decode(message)
        if self._inputs.get(message.source, _PLAIN).endless:
            self._pipeline.input_seen.labels(message.source).set(self._clock())
        rejected = sum(one.readings for one in decoded.rejected)
        self._pipeline.readings.inc(count_readings(decoded.blocks) + rejected)
        return Telemetry(message.source, decoded.blocks, decoded.rejected)

    def _decode(self, message: Message) -> Decoded:
        described = self._inputs.get(message.source, _PLAIN)
        match message.wire:
            case "blocks":
                return Decoded(message.payload)
            case "arrow" if not isinstance(message.payload, list):
                return decode_arrow(message.payload, source=message.source)
            case "arrow" | "json" | "senml" | "senml-cbor" | "cbor" as wire:
                times_us = getattr(message, "times_us", None)
                equipment = described.equipment
                return decode(wire, message.payload, source=message.source, equipment=equipment, times_us=times_us)
            case "jsonl":
                return decode_jsonlines(message.payload, source=message.source, equipment=described.equipment)
        assert described.equipment is not None, "a wide table is opened with its class"
        decode_wide = decode_wide_csv if message.wire == "csv" else decode_wide_table
        return decode_wide(message.payload, described.equipment, asset=described.asset, source=message.source)


class Reject:
    """Takes the blocks of assets that nobody knows out of the telemetry.

    Parameters
    ----------
    class_of
        The class of an asset, or None for an unknown one.
    pipeline
        Counts what is rejected.
    """

    def __init__(self, class_of: Callable[[str], str | None], pipeline: Pipeline) -> None:
        self._class_of = class_of
        self._pipeline = pipeline
        for reason in Reason:
            pipeline.rejected.labels(reason)

    def __call__(self, telemetry: Telemetry) -> Telemetry:
        """Return the same telemetry with only known assets, the others among the rejected."""
        column = telemetry.blocks.column("asset")
        unknown = np.array([self._class_of(name) is None for name in column.dictionary.to_pylist()], np.bool_)
        if unknown.any():
            bad = unknown[column.indices.to_numpy()]
            rejected = telemetry.rejected + _unknown_assets(telemetry, np.flatnonzero(bad))
            telemetry = replace(telemetry, blocks=telemetry.blocks.filter(pa.array(~bad)), rejected=rejected)
        for one in telemetry.rejected:
            self._pipeline.rejected.labels(one.reason).inc(one.readings)
        return telemetry


def _unknown_assets(telemetry: Telemetry, places: NDArray[np.intp]) -> list[Rejected]:
    found = []
    for place in places.tolist():
        row = telemetry.blocks.slice(place, 1)
        values = row.column("values").flatten().to_numpy(zero_copy_only=False)
        asset = row.column("asset")[0].as_py()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, row.schema) as writer:
            writer.write_batch(row)
        found.append(
            Rejected(
                Reason.UNKNOWN_ASSET,
                int(np.count_nonzero(values == values)),
                telemetry.source,
                sink.getvalue().to_pybytes(),
                asset,
                row.column("signal")[0].as_py(),
                row.column("start").cast(pa.int64())[0].as_py(),
                f"the register has no asset {asset!r}",
            )
        )
    return found


class Shard:
    """Deals the blocks of a message out to the shards of their assets, and tells the other shards the time.

    Parameters
    ----------
    classes
        Classes by name.
    class_of
        The class of an asset; every asset that comes here has one.
    inputs
        By source.
    shards
        Number of shards a class; fixed for the life of a recovery store.
    now_us
        The clock of a live run, None in a replay.
    pipeline
        Shows the event time that each input has reached.
    """

    def __init__(
        self,
        classes: Mapping[str, EquipmentClass],
        class_of: Callable[[str], str | None],
        inputs: Mapping[str, Input],
        shards: int,
        now_us: Callable[[], int] | None,
        pipeline: Pipeline,
    ) -> None:
        self._classes = classes
        self._newest = pipeline.input_time
        self._class_of = class_of
        self._inputs = inputs
        self._shards = shards
        self._now_us = now_us
        self._key_of: dict[str, int] = {}
        self._keys: list[str] = []
        self._clock: dict[str, int] = {}
        self._told: dict[tuple[str, int], int] = {}

    def __call__(self, telemetry: Telemetry) -> Iterator[tuple[str, tuple[str, ShardBatch | Tick]]]:
        """Yield the batches by key and class, then the ticks."""
        source, blocks = telemetry.source, telemetry.blocks
        if blocks.num_rows:
            for key, batch in self._batches(source, blocks):
                yield key, (_class_of_key(key), batch)
        clock = self._clock.get(source, _NEVER)
        for number, key in enumerate(self._keys):
            name = _class_of_key(key)
            if clock - self._told.get((source, number), _NEVER) >= self._classes[name].window_s * 1e6:
                self._told[source, number] = clock
                yield key, (name, Tick(source, clock))

    def _batches(self, source: str, blocks: pa.RecordBatch) -> Iterator[tuple[str, ShardBatch]]:
        column, signals = blocks.column("asset"), blocks.column("signal")
        names = column.dictionary.to_pylist()
        asset = column.indices.to_numpy()
        present = np.zeros(len(names), np.bool_)
        present[asset] = True
        number_of = np.array(
            [self._number(n) if p else -1 for n, p in zip(names, present.tolist(), strict=True)], np.int32
        )
        lists = blocks.column("values")
        offsets = lists.offsets.to_numpy().astype(np.int64)
        values = lists.values.to_numpy(zero_copy_only=False)
        start = blocks.column("start").cast(pa.int64()).to_numpy()
        period = blocks.column("period_us").to_numpy()
        count = np.diff(offsets)
        limit_us = NO_LIMIT
        if self._now_us is not None and self._inputs.get(source, _PLAIN).live:
            limit_us = self._now_us() + round(1e6 * min(c.future_s for c in self._classes.values()))
        end = start + np.maximum(count - 1, 0) * period
        end = np.where((end > limit_us) | (end < start), _NEVER, end)
        before = self._clock.get(source, _NEVER)
        # A reading or two far ahead of the rest are a wrong clock: they must not close everybody's windows.
        valid = end > _NEVER
        if valid.any():
            middle = int(np.median(end[valid][:: max(1, len(end) // 1024)]))
            end[end > max(before, middle) + _LEAP_US] = _NEVER
        clock = np.maximum(np.maximum.accumulate(end), before)
        self._clock[source] = int(clock[-1])
        if clock[-1] > 0:
            self._newest.labels(source).set(clock[-1] / 1e6)
        # One sort deals the blocks out and puts an asset's blocks together; a shard's part is then a slice.
        rank = np.empty(len(names), np.int64)
        rank[np.argsort(number_of, kind="stable")] = np.arange(len(names))
        ranked = rank[asset]
        order = np.argsort(ranked.astype(np.uint16) if len(names) <= 2**16 else ranked, kind="stable")
        # Reordering is bound by memory: what is constant or follows from the order is not read again.
        single = int(count.max()) == 1 == int(count.min())
        first = offsets[0] + order if single else offsets[:-1][order]
        in_time = single and bool((clock == start).all())
        asset = np.repeat(np.argsort(rank), np.bincount(ranked, minlength=len(names))).astype(np.int32)
        signal = signals.indices.to_numpy()[order]
        start = start[order]
        clock = start if in_time else clock[order]
        period, count = _reordered(period, order), _reordered(count, order)
        number = number_of[asset]
        bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(number)]
        signal_names = signals.dictionary.to_pylist()
        for i, j in itertools.pairwise(bounds):
            yield (
                self._keys[number[i]],
                ShardBatch(
                    names,
                    signal_names,
                    asset[i:j],
                    signal[i:j],
                    start[i:j],
                    period[i:j],
                    first[i:j],
                    count[i:j],
                    clock[i:j],
                    values,
                    source,
                    limit_us,
                ),
            )

    def _number(self, asset: str) -> int:
        """Return the number of the key of an asset."""
        number = self._key_of.get(asset)
        if number is None:
            key = f"{self._class_of(asset)}-{shard_of(asset, self._shards):02d}"
            if key not in self._keys:
                self._keys.append(key)
            number = self._key_of[asset] = self._keys.index(key)
        return number


def _class_of_key(key: str) -> str:
    return key.rpartition("-")[0]


def _reordered(column: NDArray[np.int64], order: NDArray[np.intp]) -> NDArray[np.int64]:
    """Reorder a column; one that is the same everywhere stays as it is."""
    return column if bool((column == column[0]).all()) else column[order]


class Window:
    """Windows of one shard: batches and ticks in, closed windows out."""

    def __init__(self, equipment: EquipmentClass, pipeline: Pipeline) -> None:
        self._windows = ShardWindows(equipment)
        self._pipeline = pipeline

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._windows.nbytes

    def __call__(self, item: ShardBatch | Tick) -> Iterator[Step]:
        """Take one item."""
        if isinstance(item, Tick):
            yield self._counted(self._windows.tick(item.source, item.clock_us))
            return
        with self._pipeline.batch_seconds.time():
            step = self._windows.push(item)
        yield self._counted(step)

    def end(self) -> Iterator[Step]:
        """Close everything: the input has ended."""
        yield self._counted(self._windows.flush())

    def _counted(self, step: Step) -> Step:
        for rejected in step.rejected:
            self._pipeline.rejected.labels(rejected.reason).inc(rejected.readings)
        scored = sum(int(closed.samples.sum()) for closed in step.closed)
        if scored:
            self._pipeline.scored.inc(scored)
        if step.accepted != scored:
            self._pipeline.pending.inc(step.accepted - scored)
        return step


class Score:
    """Scores of one shard: closed windows in, scored windows out; silence passes through."""

    def __init__(self, equipment: EquipmentClass, pipeline: Pipeline) -> None:
        self._scorer = Scorer(equipment)
        self._windows = pipeline.windows.labels(equipment.name)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._scorer.nbytes

    def __call__(self, step: Step) -> Iterator[Scored | Silence]:
        """Score what a step has closed."""
        for closed in step.closed:
            self._windows.inc(len(closed.rows))
            yield self._scorer.step(closed)
        if step.silence is not None:
            yield step.silence


class Assess:
    """Health and prognosis of one shard: scored windows in, assessed windows out; silence passes through."""

    def __init__(self, equipment: EquipmentClass, pipeline: Pipeline) -> None:
        self._assessor = Assessor(equipment)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._assessor.nbytes

    def __call__(self, item: Scored | Silence) -> Iterator[Assessed | Silence]:
        """Assess one item."""
        if isinstance(item, Silence):
            self._assessor.silent(item)
            yield item
        else:
            yield self._assessor.step(item)


class Dispatch:
    """Pages and tickets of one class: candidates in, decisions out."""

    def __init__(self, equipment: EquipmentClass, pipeline: Pipeline) -> None:
        self._dispatcher = Dispatcher(equipment)
        self._pages = pipeline.pages.labels(equipment.name)
        self._tickets = pipeline.tickets.labels(equipment.name)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return 0

    def __call__(self, candidate: Candidate) -> Iterator[Decision]:
        """Decide on one candidate."""
        for decision in self._dispatcher.step([candidate]):
            if decision.rung == "page":
                self._pages.inc()
            elif decision.rung == "ticket":
                self._tickets.inc()
            yield decision
