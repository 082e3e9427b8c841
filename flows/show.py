"""What the exporter and the page show: results go into the table of the fleet, and are there again after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bytewax.outputs import DynamicSink, StatelessSinkPartition

from features.signals import EquipmentClass
from features.telemetry import Rejected
from features.windows import Silence
from flows.fleet import Fleet
from flows.steps import Retired
from models.assessment import Assessed

__all__ = ["Discarded", "RejectedSink", "Show"]

VERSION = 1


class Show:
    """Shows the assets of one shard and class.

    What it remembers is what the fleet holds of them, so that right after a restart every asset has its series, an open
    page among them, whether it has sent anything since or not.

    Parameters
    ----------
    equipment
        The class.
    fleet
        The table.
    """

    def __init__(self, equipment: EquipmentClass, fleet: Fleet) -> None:
        self._name, self._fleet = equipment.name, fleet
        self._names: list[str] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the state: the fleet keeps the account."""
        return 0

    def __call__(self, item: Assessed | Silence | Retired) -> Iterator[None]:
        """Show one item."""
        if isinstance(item, Retired):
            for name in item.names:
                self._fleet.retire(name, self._name)
        elif isinstance(item, Silence):
            self._names = item.names
            self._fleet.silent(item, self._name)
        else:
            self._names = item.windows.names
            self._fleet.update(item, self._name)
        yield from ()

    def state(self) -> dict[str, Any]:
        """Return what the fleet holds of the shard's assets."""
        names, now = self._fleet.export(self._name, self._names)
        return {"version": VERSION, "names": names, "columns": {field: now[field] for field in now.dtype.names or ()}}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._names = list(state["names"])
        self._fleet.restore(self._name, self._names, state["columns"])


class RejectedSink(DynamicSink[Rejected]):
    """Takes rejected input into the fleet, for the page.

    Parameters
    ----------
    fleet
        The table.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Rejected]:
        """Build the sink of a worker."""
        return _Rejected(self._fleet)


class _Rejected(StatelessSinkPartition[Rejected]):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def write_batch(self, items: list[Rejected]) -> None:
        self._fleet.reject(items)


class Discarded(DynamicSink[Any]):
    """Takes what nobody wants: a dataflow ends in sinks."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[Any]:
        """Build the sink of a worker."""
        return _Discarded()


class _Discarded(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        pass
