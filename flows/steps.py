"""The steps of the dataflow as plain objects: each takes an item and returns items, and none of them knows Bytewax.

A step that remembers something says so by `state` and `load`: a plain dict of arrays with a version, and what it has
counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.assets import shard_of
from features.signals import EquipmentClass
from features.telemetry import Reason
from features.windows import ShardBatch, ShardWindows, Silence, Step
from flows.dealing import Dealer
from flows.dispatch import Decision, Dispatcher
from flows.intake import Telemetry
from flows.keys import shard_key
from flows.metrics import Counts, Pipeline, Tally
from models.assessment import Assessed, Assessor, Candidate
from models.scoring import Scored, Scorer

__all__ = ["Assess", "Dispatch", "Retired", "Score", "Shard", "Tick", "Window"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Tick:
    """The event time that an input partition has reached."""

    source: str
    clock_us: int


@dataclass(frozen=True, slots=True)
class Retired:
    """Assets of a shard that the register no longer has in this class; others will take their rows.

    Attributes
    ----------
    names
        Their ids.
    rows
        The rows that they had, int32 of shape ``(n,)``.
    """

    names: list[str]
    rows: NDArray[np.int32]


class Shard:
    """Deals the blocks of a message out to the shards of their assets, and tells every shard the time.

    Parameters
    ----------
    classes
        Classes by name.
    class_of
        The class of an asset; every asset that comes here has one.
    shards
        Number of shards; fixed for the life of a recovery store.
    changed
        How often the register has changed.
    """

    def __init__(
        self,
        classes: Mapping[str, EquipmentClass],
        class_of: Callable[[str], str | None],
        shards: int,
        changed: Callable[[], int] = lambda: 0,
    ) -> None:
        self._class_of = class_of
        self._shards = shards
        self._keys = [shard_key(number) for number in range(shards)]
        self._names = list(classes)
        self._window_us = {name: round(c.window_s * 1e6) for name, c in classes.items()}
        self._changed, self._seen = changed, changed()
        self._deal = Dealer(self._number)

    def __call__(self, telemetry: Telemetry) -> Iterator[tuple[str, tuple[str, ShardBatch | Tick]]]:
        """Yield the batches by key and class, then a tick for each class of which a window may have ended."""
        if telemetry.blocks.num_rows:
            yield from self._batches(telemetry)
        for name, window_us in self._window_us.items():
            if telemetry.now_us // window_us > telemetry.before_us // window_us:
                tick = name, Tick(telemetry.source, telemetry.now_us)
                yield from ((key, tick) for key in self._keys)

    def _batches(self, telemetry: Telemetry) -> Iterator[tuple[str, tuple[str, ShardBatch]]]:
        if self._changed() != self._seen:
            self._seen = self._changed()
            self._deal.forget()
        dealt = self._deal(telemetry.source, telemetry.blocks, telemetry.clock, telemetry.limit_us)
        for number, batch in dealt:
            shard, name = divmod(number, len(self._names))
            yield self._keys[shard], (self._names[name], batch)

    def _number(self, asset: str) -> int:
        """Return the number of an asset's shard times the number of classes, plus that of its class."""
        equipment = self._class_of(asset)
        assert equipment is not None, "unknown assets are rejected before"
        return shard_of(asset, self._shards) * len(self._names) + self._names.index(equipment)


class Window:
    """Windows of one shard: batches and ticks in, closed windows out, and who has left.

    Parameters
    ----------
    equipment
        The class.
    pipeline
        Counts what is scored and rejected.
    class_of
        The class of an asset, None for one that has left; without it nobody leaves.
    changed
        How often the register has changed.
    """

    def __init__(
        self,
        equipment: EquipmentClass,
        pipeline: Pipeline,
        class_of: Callable[[str], str | None] | None = None,
        changed: Callable[[], int] = lambda: 0,
    ) -> None:
        self.equipment = equipment
        self._windows = ShardWindows(equipment)
        self._pipeline = pipeline
        self._tally = Tally(pipeline)
        self._class_of, self._changed = class_of, changed
        self._seen = changed()

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._windows.nbytes

    def __call__(self, item: ShardBatch | Tick) -> Iterator[Step | Retired]:
        """Take one item."""
        if self._class_of is not None and self._changed() != self._seen:
            yield from self._retired(self._class_of)
        if isinstance(item, Tick):
            yield self._counted(self._windows.tick(item.source, item.clock_us))
            return
        with self._pipeline.batch_seconds.time():
            step = self._windows.push(item)
        yield self._counted(step)

    def end(self) -> Iterator[Step]:
        """Close everything: the input has ended."""
        yield self._counted(self._windows.flush())

    def state(self) -> dict[str, Any]:
        """Return everything remembered."""
        return {"version": VERSION, "windows": self._windows.state(), "counts": self._tally.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._windows.load(state["windows"])
        self._tally = Tally(self._pipeline, state["counts"])
        self._seen = -1  # the register may have changed meanwhile

    def _counted(self, step: Step) -> Step:
        counts: Counts = Counter()
        for rejected in step.rejected:
            counts["rejected", str(rejected.reason)] += rejected.readings
        scored = sum(int(closed.samples.sum()) for closed in step.closed)
        if scored:
            counts["scored", ""] = scored
        self._tally.add(counts)
        return step

    def _retired(self, class_of: Callable[[str], str | None]) -> Iterator[Retired]:
        """Free the rows of assets that left; what was pending of them is rejected, since nobody knows them any more."""
        self._seen = self._changed()
        names = [name for name in self._windows.names if name and class_of(name) != self.equipment.name]
        if names:
            rows, pending = self._windows.retire(names)
            if pending:
                self._tally.add({("rejected", str(Reason.UNKNOWN_ASSET)): pending})
            yield Retired(names, rows)


class Score:
    """Scores of one shard: closed windows in, scored windows out; silence and leave pass through."""

    def __init__(self, equipment: EquipmentClass, pipeline: Pipeline) -> None:
        self._scorer = Scorer(equipment)
        self._name, self._pipeline = equipment.name, pipeline
        self._tally = Tally(pipeline)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._scorer.nbytes

    def __call__(self, item: Step | Retired) -> Iterator[Scored | Silence | Retired]:
        """Score what a step has closed."""
        if isinstance(item, Retired):
            self._scorer.forget(item.rows)
            yield item
            return
        for closed in item.closed:
            self._tally.add({("windows", self._name): len(closed.rows)})
            yield self._scorer.step(closed)
        if item.silence is not None:
            yield item.silence

    def state(self) -> dict[str, Any]:
        """Return everything remembered."""
        return {"version": VERSION, "scorer": self._scorer.state(), "counts": self._tally.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._scorer.load(state["scorer"])
        self._tally = Tally(self._pipeline, state["counts"])


class Assess:
    """Health and prognosis of one shard: scored windows in, assessed windows out; silence and leave pass through."""

    def __init__(self, equipment: EquipmentClass, pipeline: Pipeline) -> None:
        self._assessor = Assessor(equipment)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._assessor.nbytes

    def __call__(self, item: Scored | Silence | Retired) -> Iterator[Assessed | Silence | Retired]:
        """Assess one item."""
        if isinstance(item, Retired):
            self._assessor.forget(item.rows)
            yield item
        elif isinstance(item, Silence):
            self._assessor.silent(item)
            yield item
        else:
            yield self._assessor.step(item)

    def state(self) -> dict[str, Any]:
        """Return everything remembered."""
        return {"version": VERSION, "assessor": self._assessor.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._assessor.load(state["assessor"])


class Dispatch:
    """Pages and tickets of one class: candidates in, decisions out.

    Parameters
    ----------
    equipment
        The class.
    pipeline
        Counts pages and tickets.
    decided
        Called with each decision, and after a restart with those of the episodes that are still open.
    """

    def __init__(
        self, equipment: EquipmentClass, pipeline: Pipeline, decided: Callable[[Decision], None] = lambda decision: None
    ) -> None:
        self._dispatcher = Dispatcher(equipment)
        self._name, self._pipeline, self._decided = equipment.name, pipeline, decided
        self._tally = Tally(pipeline)

    @property
    def nbytes(self) -> int:
        """Bytes of the state; a few dozen an asset that ever had an episode."""
        return 0

    def __call__(self, item: Candidate | Retired) -> Iterator[Decision]:
        """Decide on one candidate; forget who has left."""
        if isinstance(item, Retired):
            self._dispatcher.forget(item.names)
            return
        for decision in self._dispatcher.step([item]):
            if decision.rung != "closed":
                self._tally.add({(f"{decision.rung}s", self._name): 1})
            self._decided(decision)
            yield decision

    def state(self) -> dict[str, Any]:
        """Return everything remembered."""
        return {"version": VERSION, "dispatcher": self._dispatcher.state(), "counts": self._tally.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._dispatcher.load(state["dispatcher"])
        self._tally = Tally(self._pipeline, state["counts"])
        for decision in self._dispatcher.open:
            self._decided(decision)
