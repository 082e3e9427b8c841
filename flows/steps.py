"""The steps of the dataflow as plain objects: each takes an item and returns items, and none of them knows Bytewax."""

from __future__ import annotations

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
from features.wire import decode_arrow, decode_jsonlines, decode_wide_csv, decode_wide_table
from flows.dealing import Dealer
from flows.dispatch import Decision, Dispatcher
from flows.metrics import Pipeline
from flows.sources import Message
from models.assessment import Assessed, Assessor, Candidate
from models.scoring import Scored, Scorer

__all__ = ["Assess", "Decoder", "Dispatch", "Input", "Reject", "Score", "Shard", "Telemetry", "Tick", "Window"]


_NEVER = -(2**62)


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
            case "arrow":
                return decode_arrow(message.payload, source=message.source)
            case "jsonl":
                return decode_jsonlines(message.payload, source=message.source, equipment=described.equipment)
        assert described.equipment is not None, "a wide table is opened with its class"
        decode = decode_wide_csv if message.wire == "csv" else decode_wide_table
        return decode(message.payload, described.equipment, asset=described.asset, source=message.source)


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
        self._deal = Dealer(self._number)
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
        limit_us = NO_LIMIT
        if self._now_us is not None and self._inputs.get(source, _PLAIN).live:
            limit_us = self._now_us() + round(1e6 * min(c.future_s for c in self._classes.values()))
        clock, batches = self._deal(source, blocks, self._clock.get(source, _NEVER), limit_us)
        self._clock[source] = clock
        if clock > 0:
            self._newest.labels(source).set(clock / 1e6)
        for number, batch in batches:
            yield self._keys[number], batch

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
