"""The simulated fleet as an input of the dataflow: in real time, at a multiple of it, or as fast as it goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from flows.simulator.fleet import Fleet, FleetPlan
from flows.sources import Message

__all__ = ["SimulatorSource"]

PARTITION = "simulator"
"""The only partition: one worker simulates the fleet, in order."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SimulatorSource(FixedPartitionedSource[Message, dict[str, Any]]):
    """Emits a fleet's telemetry as messages of blocks. Resumes exactly where a snapshot was taken.

    Parameters
    ----------
    plan
        What is simulated.
    speed
        Simulated seconds a second, 1 = real time; None = as fast as it goes.
    stop
        Ends the input when it is set.
    readings
        Size of a message when the simulator is behind, about.
    wake_s
        Time between messages when it is not.
    clock
        Monotonic clock in seconds.
    now
        The wall clock in which the engine wants to be told when to come back.
    """

    def __init__(
        self,
        plan: FleetPlan,
        speed: float | None = None,
        stop: threading.Event | None = None,
        readings: int = 400_000,
        wake_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        if speed is not None and not speed > 0:
            raise ValueError(f"a speed is above 0, or None for as fast as it goes; got {speed}")
        self.plan = plan
        self.speed = speed
        self.stop = stop
        self.readings = readings
        self.wake_s = wake_s
        self.clock = clock
        self.now = now

    def list_parts(self) -> list[str]:
        """Return the one partition."""
        return [PARTITION]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, Any] | None
    ) -> StatefulSourcePartition[Message, dict[str, Any]]:
        """Return the fleet at its beginning, or where a snapshot left it."""
        if resume_state is None:
            return _Partition(self, Fleet(self.plan))
        # The fleet goes on with the days that it began with, whenever it is resumed.
        fleet = Fleet(replace(self.plan, start_us=resume_state["start_us"]))
        fleet.load(resume_state["fleet"])
        return _Partition(self, fleet)


class _Partition(StatefulSourcePartition[Message, dict[str, Any]]):
    def __init__(self, source: SimulatorSource, fleet: Fleet) -> None:
        self._source, self._fleet = source, fleet
        self._began = source.clock()
        self._from_us = fleet.time_us
        self._awake: datetime | None = None

    def next_batch(self) -> list[Message]:
        source, fleet = self._source, self._fleet
        self._awake = None
        if fleet.time_us >= fleet.plan.end_us or (source.stop is not None and source.stop.is_set()):
            raise StopIteration
        due_us = fleet.plan.end_us
        if source.speed is not None:
            due_us = min(due_us, self._from_us + int((source.clock() - self._began) * source.speed * 1e6))
        batch = fleet.advance(due_us, source.readings)
        if source.speed is not None and fleet.time_us >= due_us and due_us < fleet.plan.end_us:
            self._awake = source.now() + timedelta(seconds=source.wake_s)
        if not batch.num_rows:
            return []
        return [Message(source=PARTITION, wire="blocks", payload=batch)]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> dict[str, Any]:
        return {"start_us": self._fleet.plan.start_us, "fleet": self._fleet.state()}
