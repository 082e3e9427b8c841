"""The sink that shows: results go into the table of the fleet, from which the exporter and the page read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bytewax.outputs import DynamicSink, StatelessSinkPartition

from features.telemetry import Rejected
from features.windows import Silence
from flows.dispatch import Decision
from flows.fleet import Fleet

__all__ = ["FleetSink"]


class FleetSink(DynamicSink[Any]):
    """Takes ``(class, Assessed | Silence | Decision)`` and `Rejected` into a fleet.

    The fleet holds only the newest of everything, so items that come twice change nothing but the count of rejections.

    Parameters
    ----------
    fleet
        The table.
    told
        Called with each decision, for a line on a terminal.
    """

    def __init__(self, fleet: Fleet, told: Callable[[Decision], None] = lambda decision: None) -> None:
        self._fleet = fleet
        self._told = told

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _FleetPartition:
        """Build the sink of a worker."""
        return _FleetPartition(self._fleet, self._told)


class _FleetPartition(StatelessSinkPartition[Any]):
    def __init__(self, fleet: Fleet, told: Callable[[Decision], None]) -> None:
        self._fleet = fleet
        self._told = told

    def write_batch(self, items: list[Any]) -> None:
        rejected = [item for item in items if isinstance(item, Rejected)]
        if rejected:
            self._fleet.reject(rejected)
        for item in items:
            if isinstance(item, Rejected):
                continue
            equipment, result = item
            if isinstance(result, Decision):
                self._fleet.decide(result)
                self._told(result)
            elif isinstance(result, Silence):
                self._fleet.silent(result, equipment)
            else:
                self._fleet.update(result, equipment)
