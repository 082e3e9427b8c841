"""Where results leave the dataflow: score rows, the archive, rejected input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream
from bytewax.outputs import Sink

from features.signals import EquipmentClass
from features.telemetry import Rejected
from features.windows import Step
from flows.dispatch import Decision
from flows.kafka.sink import KafkaSink
from flows.kafka.wiring import connect_kafka
from flows.rows import ArchiveRows, archive_rows
from flows.steps import Retired
from models.assessment import Assessed

__all__ = ["Results"]


@dataclass(frozen=True, slots=True)
class Results:
    """Where the flow's results go; None leaves an output out.

    Attributes
    ----------
    classes
        Equipment classes by name.
    scores
        Takes ``(class, Assessed | Silence | Decision)``.
    archive
        Takes ``(key, ArchiveRows)``.
    dead_letters
        Takes ``(key, Rejected)``.
    kafka
        Topics of scores, decisions and rejected input, by these names.
    """

    classes: Mapping[str, EquipmentClass]
    scores: Sink[Any] | None = None
    archive: Sink[Any] | None = None
    dead_letters: Sink[Any] | None = None
    kafka: Mapping[str, KafkaSink] = field(default_factory=dict)

    def connect(
        self, windows: KeyedStream[tuple[str, Any]], results: KeyedStream[tuple[str, Any]], rejected: Stream[Rejected]
    ) -> None:
        """Connect the outputs to the flow: its closed windows, its results, and what it rejected."""
        if self.scores is not None:
            op.output("scores", op.flat_map("unkeyed", results, _results), self.scores)
        if self.archive is not None:
            rows = op.flat_map("rows", results, self._archived)  # ("0007-152", ArchiveRows)
            horizons = op.flat_map("horizons", windows, self._horizons)  # ("0007-152", ArchiveRows)
            op.output("archive", op.merge("archived", rows, horizons), self.archive)
        if self.dead_letters is not None:
            letters = op.map("letters", rejected, lambda item: (item.asset or item.source, item))
            op.output("dead_letters", letters, self.dead_letters)
        connect_kafka(self.kafka, self.classes, results, rejected)

    def _archived(self, item: tuple[str, tuple[str, Any]]) -> Iterator[tuple[str, ArchiveRows]]:
        key, (name, result) = item
        if isinstance(result, Assessed | Decision):
            yield from ((key, rows) for rows in archive_rows(result, self.classes[name]))

    def _horizons(self, item: tuple[str, tuple[str, Any]]) -> Iterator[tuple[str, ArchiveRows]]:
        key, (name, step) = item
        if isinstance(step, Step):
            for length_s, closed in step.horizons.items():
                for windows in closed:
                    yield from ((key, rows) for rows in archive_rows((length_s, windows), self.classes[name]))


def _results(item: tuple[str, tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    if not isinstance(item[1][1], Retired):
        yield item[1]
