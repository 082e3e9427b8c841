"""The dataflow, top to bottom: what comes in, what becomes of it, and where it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource, Source
from bytewax.operators import StatefulBatchLogic

from features.signals import EquipmentClass
from features.telemetry import Rejected
from features.windows import ShardBatch, Step
from flows.credits import Credits
from flows.dispatch import Decision
from flows.fleet import Fleet
from flows.intake import Input, Intake, IntakeSource, Telemetry
from flows.metrics import Pipeline
from flows.recovery import FLOW
from flows.results import Results
from flows.sealed import seal, unsealed
from flows.show import Discarded, RejectedSink, Show
from flows.sources import Message
from flows.steps import Assess, Dispatch, Retired, Score, Shard, Tick, Window
from models.assessment import Assessed
from models.detector import StateError

__all__ = ["Monitor", "build"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Monitor:
    """What the flow is built from.

    Attributes
    ----------
    classes
        Equipment classes by name.
    class_of
        The class of an asset, None for an unknown one.
    pipeline
        Counts what this process handles.
    inputs
        By source name.
    shards
        Number of shards.
    now_us
        The clock of a live run in microseconds since 1970; None in a replay.
    flush
        Asked when the input ends, whether windows close: yes for files, no for a stream that will go on.
    changed
        How often the register has changed: `class_of` may answer differently since.
    fleet
        The table that the exporter and the page read; None shows nothing.
    told
        Called with each decision.
    recovering
        Whether there is a recovery store, so that snapshots are taken.
    credits
        What the inputs may have under way; None where nothing crosses processes.
    """

    classes: Mapping[str, EquipmentClass]
    class_of: Callable[[str], str | None]
    pipeline: Pipeline
    inputs: Mapping[str, Input] = field(default_factory=dict)
    shards: int = 16
    now_us: Callable[[], int] | None = None
    flush: Callable[[], bool] = lambda: True
    changed: Callable[[], int] = lambda: 0
    fleet: Fleet | None = None
    told: Callable[[Decision], None] = lambda decision: None
    recovering: bool = False
    credits: Credits | None = None

    def intake(self, state: dict[str, Any] | None = None) -> Intake:
        """Make the intake of an input partition."""
        future_us = round(1e6 * min(c.future_s for c in self.classes.values()))
        return Intake(self.class_of, self.inputs, self.pipeline, self.now_us, future_us, state, changed=self.changed)

    def decided(self, decision: Decision) -> None:
        """Show a decision."""
        if self.fleet is not None:
            self.fleet.decide(decision)


def build(m: Monitor, sources: Mapping[str, Source[Message]], results: Results | None = None) -> Dataflow:
    """Build the dataflow. The names of its steps, inputs among them, are recovery keys: they do not change.

    Parameters
    ----------
    m
        What it is built from.
    sources
        Inputs by name.
    results
        Where results go.
    """
    deal = Shard(m.classes, m.class_of, m.shards, m.changed)
    sent, taken = _accounted(m.credits)

    flow = Dataflow(FLOW)
    telemetry = op.merge("input", *(_input(m, flow, name, source) for name, source in sources.items()))  # Telemetry
    batches = op.flat_map("shard", telemetry, lambda item: map(sent, deal(item)))  # ("0007-152", ("lift", ShardBatch))
    windows = op.stateful_batch("window", batches, _each(m, lambda c: _window(m, c), taken))  # ("lift", Step)
    scored = op.stateful_batch("score", windows, _each(m, lambda c: Score(c, m.pipeline)))  # ("lift", Scored)
    assessed = op.stateful_batch("assess", scored, _each(m, lambda c: Assess(c, m.pipeline)))  # ("lift", Assessed)
    candidates = op.flat_map("candidates", assessed, _candidates)  # ("lift", ("lift", Candidate))
    decided = op.stateful_batch("dispatch", candidates, _each(m, lambda c: _dispatch(m, c)))  # ("lift", Decision)
    ends: list[Stream[Any]] = [op.map("told", decided, lambda item: m.told(item[1][1]))]

    if m.fleet is not None:
        fleet = m.fleet
        ends.append(op.stateful_batch("show", assessed, _each(m, lambda c: Show(c, fleet))))
    op.output("end", op.merge("ends", *ends), Discarded())

    refused = op.flat_map("refused", telemetry, lambda item: item.rejected)  # Rejected
    late = op.flat_map("late", windows, _late)  # Rejected
    rejected = op.merge("rejected", refused, late)  # Rejected
    if m.fleet is not None:
        op.output("noted", rejected, RejectedSink(m.fleet))
    if results is not None:
        results.connect(windows, op.merge("results", assessed, decided), rejected)
    return flow


def _input(m: Monitor, flow: Dataflow, name: str, source: Source[Message]) -> Stream[Telemetry]:
    """Read an input; one whose partitions keep a position keeps its counts and its clock beside it."""
    if isinstance(source, FixedPartitionedSource):
        return op.input(f"input_{name}", flow, IntakeSource(source, m.intake, m.credits))
    return op.map(f"intake_{name}", op.input(f"input_{name}", flow, source), m.intake())


def _window(m: Monitor, equipment: EquipmentClass) -> Window:
    return Window(equipment, m.pipeline, m.class_of, m.changed)


def _dispatch(m: Monitor, equipment: EquipmentClass) -> Dispatch:
    return Dispatch(equipment, m.pipeline, m.decided)


def _candidates(item: tuple[str, tuple[str, Any]]) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yield the candidates of assessed windows, and who has left, by class."""
    name, result = item[1]
    if isinstance(result, Assessed):
        yield from ((name, (name, candidate)) for candidate in result.candidates)
    elif isinstance(result, Retired):
        yield name, (name, result)


def _late(item: tuple[str, tuple[str, Any]]) -> Iterable[Rejected]:
    result = item[1][1]
    return result.rejected if isinstance(result, Step) else ()


Dealt = tuple[str, tuple[Any, ...]]


def _accounted(credits: Credits | None) -> tuple[Callable[[Dealt], Dealt], Callable[[Any], None]]:
    """Return what writes the sender of a batch on it, and what gives the sender its credit back."""
    if credits is None:
        return lambda dealt: dealt, lambda item: None

    def sent(dealt: Dealt) -> Dealt:
        key, (name, item) = dealt
        if not isinstance(item, ShardBatch):
            return dealt
        nbytes = _nbytes(item)
        credits.spend(nbytes)
        return key, (name, item, credits.process, nbytes)

    def taken(item: Any) -> None:
        if len(item) == 4:
            credits.give_back(item[2], item[3])

    return sent, taken


def _nbytes(batch: ShardBatch) -> int:
    """Return about how many bytes a batch has on its way: 48 a block beside its samples."""
    if batch.single:
        return 56 * len(batch)
    count = batch.count if batch.places is None else batch.count[batch.places]
    return 48 * len(count) + 8 * int(count.sum())


class _Keyed(StatefulBatchLogic[tuple[Any, ...], tuple[str, Any], bytes | None]):
    """Runs one of the flow's steps for one key, once for each class that comes."""

    def __init__(
        self,
        monitor: Monitor,
        make: Callable[[EquipmentClass], Any],
        taken: Callable[[Any], None],
        snapshot: Any,
    ) -> None:
        self._monitor, self._make, self._taken = monitor, make, taken
        self._steps: dict[str, Any] = {}
        self._batches = 0
        self._nbytes = 0
        state = unsealed(snapshot)
        for name, remembered in ({} if state is None else state["classes"]).items():
            if name in monitor.classes:
                self._steps[name] = make(monitor.classes[name])
                _load(self._steps[name], remembered)
        self._weigh()

    def on_batch(self, values: list[tuple[Any, ...]]) -> tuple[Iterable[tuple[str, Any]], bool]:
        results = []
        for value in values:
            name, item = value[0], value[1]
            step = self._steps.get(name)
            if step is None:
                if isinstance(item, Tick):
                    continue  # nobody of this class has been here yet
                step = self._steps[name] = self._make(self._monitor.classes[name])
            results += [(name, result) for result in step(item)]
            self._taken(value)
        self._batches += 1
        if self._batches % 64 == 1:
            self._weigh()
        return results, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[tuple[str, Any]], bool]:
        self._weigh()
        if not self._monitor.flush():
            return (), StatefulBatchLogic.RETAIN
        ending = [(name, step) for name, step in self._steps.items() if hasattr(step, "end")]
        return [(name, result) for name, step in ending for result in step.end()], StatefulBatchLogic.RETAIN

    def _weigh(self) -> None:
        """Keep the account of memory."""
        nbytes = sum(step.nbytes for step in self._steps.values())
        if nbytes != self._nbytes:
            kind = type(next(iter(self._steps.values()))).__name__.lower()
            self._monitor.pipeline.state_bytes.labels(kind).inc(nbytes - self._nbytes)
            self._nbytes = nbytes

    def snapshot(self) -> bytes | None:
        # Bytewax asks at every epoch; without a recovery store nobody reads the answer.
        if not self._monitor.recovering:
            return None
        with self._monitor.pipeline.snapshot_seconds.time():
            state = seal({"version": VERSION, "classes": {name: step.state() for name, step in self._steps.items()}})
        self._monitor.pipeline.snapshot_time.set(time.time())
        return state


def _load(step: Any, remembered: dict[str, Any]) -> None:
    """Load what a step has written."""
    try:
        step.load(remembered)
    except StateError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise StateError(
            f"the recovery store holds a state that this release cannot read ({error}); run the release that wrote it,"
            " or start anew with --fresh, which keeps the old store beside it"
        ) from None


def _each(
    monitor: Monitor, make: Callable[[EquipmentClass], Any], taken: Callable[[Any], None] = lambda item: None
) -> Callable[[Any], _Keyed]:
    return lambda snapshot: _Keyed(monitor, make, taken, snapshot)
