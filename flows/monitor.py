"""The dataflow, top to bottom: what comes in, what becomes of it, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink

from features.signals import EquipmentClass
from features.telemetry import Rejected
from features.windows import ClosedWindows, Silence, Step
from flows.metrics import Pipeline
from flows.sources import Message
from flows.steps import Assess, Decoder, Dispatch, Input, Reject, Score, Shard, Window
from models.assessment import Assessed, Candidate

__all__ = ["Monitor", "Sinks", "build"]


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where the flow's results go; None leaves an output out.

    Attributes
    ----------
    metrics
        Takes ``(class, Assessed | Silence | Decision)`` and `Rejected`, and shows them.
    scores
        Takes ``(class, Assessed | Silence | Decision)`` and writes score rows.
    dead_letters
        Takes `Rejected`.
    archive
        Takes ``(class, Assessed | Silence | Decision | (seconds, ClosedWindows))``.
    """

    metrics: Sink[Any] | None = None
    scores: Sink[Any] | None = None
    dead_letters: Sink[Rejected] | None = None
    archive: Sink[Any] | None = None


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
        Number of shards a class.
    now_us
        The clock of a live run in microseconds since 1970; None in a replay.
    flush
        Asked when the input ends, whether windows close: yes for files, no for a stream that will go on.
    """

    classes: Mapping[str, EquipmentClass]
    class_of: Callable[[str], str | None]
    pipeline: Pipeline
    inputs: Mapping[str, Input] = field(default_factory=dict)
    shards: int = 16
    now_us: Callable[[], int] | None = None
    flush: Callable[[], bool] = lambda: True


def build(monitor: Monitor, sources: Mapping[str, Source[Message]], sinks: Sinks) -> Dataflow:
    """Build the dataflow. The names of its steps, inputs among them, are recovery keys: they do not change."""
    m = monitor
    decoder = Decoder(m.inputs, m.pipeline)
    known = Reject(m.class_of, m.pipeline)
    deal = Shard(m.classes, m.class_of, m.inputs, m.shards, m.now_us, m.pipeline)

    flow = Dataflow("monitor")
    inputs = [op.input(f"input_{name}", flow, source) for name, source in sources.items()]
    messages = op.merge("input", *inputs)  # Message
    decoded = op.map("decode", messages, decoder)  # Telemetry
    telemetry = op.map("reject", decoded, known)  # Telemetry of known assets
    batches = op.flat_map("shard", telemetry, deal)  # ("lift-07", ("lift", ShardBatch | Tick))
    windows = op.stateful_batch("window", batches, _each(m, Window))  # ("lift-07", ("lift", Step))
    scored = op.stateful_batch("score", windows, _each(m, Score))  # ("lift-07", ("lift", Scored | Silence))
    assessed = op.stateful_batch("assess", scored, _each(m, Assess))  # ("lift-07", ("lift", Assessed | Silence))
    candidates = op.flat_map("candidates", assessed, _candidates)  # ("lift", ("lift", Candidate))
    decided = op.stateful_batch("dispatch", candidates, _each(m, Dispatch))  # ("lift", ("lift", Decision))

    refused = op.flat_map("refused", telemetry, lambda item: item.rejected)  # Rejected
    late = op.flat_map("late", windows, lambda item: item[1][1].rejected)  # Rejected
    rejected = op.merge("rejected", refused, late)  # Rejected
    results = op.map("results", op.merge("all_results", assessed, decided), lambda item: item[1])  # (class, result)

    if sinks.metrics is not None:
        op.output("metrics", op.merge("shown", results, rejected), sinks.metrics)
    if sinks.scores is not None:
        op.output("scores", results, sinks.scores)
    if sinks.dead_letters is not None:
        op.output("dead_letters", rejected, sinks.dead_letters)
    if sinks.archive is not None:
        horizons = op.flat_map("horizons", windows, _horizons)  # ("lift", (seconds, ClosedWindows))
        op.output("archive", op.merge("archived", results, horizons), sinks.archive)
    return flow


def _candidates(item: tuple[str, tuple[str, Assessed | Silence]]) -> Iterator[tuple[str, tuple[str, Candidate]]]:
    name, result = item[1]
    if isinstance(result, Assessed):
        yield from ((name, (name, candidate)) for candidate in result.candidates)


def _horizons(item: tuple[str, tuple[str, Step]]) -> Iterator[tuple[str, tuple[float, ClosedWindows]]]:
    name, step = item[1]
    for length_s, closed in step.horizons.items():
        yield from ((name, (length_s, windows)) for windows in closed)


class _Keyed(StatefulBatchLogic[tuple[str, Any], tuple[str, Any], None]):
    """Runs one of the flow's steps for one key; the step is made when the first item tells the class."""

    def __init__(self, monitor: Monitor, step: Callable[[EquipmentClass, Pipeline], Any]) -> None:
        self._monitor = monitor
        self._make = step
        self._name = ""
        self._step: Any = None
        self._batches = 0
        self._nbytes = 0

    def on_batch(self, values: list[tuple[str, Any]]) -> tuple[Iterable[tuple[str, Any]], bool]:
        results = []
        for name, item in values:
            if self._step is None:
                self._name = name
                self._step = self._make(self._monitor.classes[name], self._monitor.pipeline)
            results += [(name, result) for result in self._step(item)]
        self._batches += 1
        if self._batches % 64 == 1:
            self._weigh()
        return results, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[tuple[str, Any]], bool]:
        self._weigh()
        end = getattr(self._step, "end", None)
        if end is None or not self._monitor.flush():
            return (), StatefulBatchLogic.RETAIN
        return [(self._name, result) for result in end()], StatefulBatchLogic.RETAIN

    def _weigh(self) -> None:
        """Keep the account of memory."""
        nbytes = self._step.nbytes
        self._monitor.pipeline.state_bytes.labels(type(self._step).__name__.lower()).inc(nbytes - self._nbytes)
        self._nbytes = nbytes

    def snapshot(self) -> None:
        # Bytewax asks at every epoch; without a recovery store nobody reads the answer.
        return None


def _each(monitor: Monitor, step: Callable[[EquipmentClass, Pipeline], Any]) -> Callable[[None], _Keyed]:
    return lambda resumed: _Keyed(monitor, step)
