"""The input of the flow in turns: it warms up, reports, and goes on at each line that comes (`benchmarks.turns`)."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from prometheus_client import CollectorRegistry

from benchmarks.profiles import Profile
from benchmarks.turns import Result, peak_mb, say, told
from benchmarks.wires import message_of
from flows.metrics import Pipeline
from flows.sources import Message

POLL_S = 0.002
"""How often a flow whose input has paused looks whether its work is done."""

QUIET_S = 0.1
"""It is done when no shard has taken anything for so long."""


@dataclass
class Turns:
    """Deals an input out in turns: warms up, reports, and then goes on at each line that comes.

    Attributes
    ----------
    warm
        Messages of each partition before the first turn.
    messages
        Messages of each partition in a turn; 0 ends a turn by `seconds`.
    seconds
        How long a turn lasts.
    clustered
        Other processes may send work while this one waits.
    """

    warm: int
    messages: int
    seconds: float = 0.0
    clustered: bool = False
    pipeline: Pipeline = field(default_factory=lambda: Pipeline(CollectorRegistry()))
    before_report: Callable[[Result], None] = lambda result: None

    def __post_init__(self) -> None:
        self._bound = self.warm
        self._waiting: set[str] = set()
        self._parts = 0
        self._readings = 0
        self._making_s = self._making_cpu_s = 0.0
        self._begun_cpu_s = time.process_time()
        self._begun_s = self._handed_s = time.perf_counter()
        self._gaps: list[tuple[float, float]] = []
        self._made_s = time.perf_counter()
        self._opened_s: float | None = None
        self._seen: tuple[float, float, float] = (-1.0, 0.0, 0.0)
        self._reported = False
        self._first = True
        self.over = False

    def join(self) -> None:
        """Count one more partition."""
        self._parts += 1

    def open(self, part: str, position: int) -> bool:
        """Tell whether a partition may hand out its next message; at the end of a turn wait for the next."""
        if self.over:
            raise StopIteration
        if self._opened_s is None:
            self._opened_s = time.perf_counter() - self._made_s
        timed = not self._first and self.seconds > 0.0
        if (time.perf_counter() - self._begun_s < self.seconds) if timed else (position < self._bound):
            return True
        self._waiting.add(part)
        if len(self._waiting) < self._parts:
            return False
        if not self._reported and self._drained():
            self._report()
        if self._reported:
            go = told(wait=not self.clustered)
            if go is False:
                self.over = True
                raise StopIteration
            if go:
                self._begin(position)
                return True
        return False

    def made(self, readings: int, seconds: float, processor_s: float) -> None:
        """Count a message that is handed out, and the time that it took to make it, which is not the flow's."""
        now = time.perf_counter()
        self._gaps.append((now - self._begun_s, now - seconds - self._handed_s))
        self._handed_s = now
        self._readings += readings
        self._making_s += seconds
        self._making_cpu_s += processor_s

    def _begin(self, position: int) -> None:
        gc.collect()
        self._bound = position + self.messages
        self._waiting.clear()
        self._readings, self._making_s, self._making_cpu_s, self._gaps = 0, 0.0, 0.0, []
        self._reported = self._first = False
        self._seen = (-1.0, 0.0, 0.0)
        self._begun_cpu_s = time.process_time()
        self._begun_s = self._handed_s = time.perf_counter()

    def _drained(self) -> bool:
        """Tell whether all that came in has been dealt with, and keep when that was."""
        done, now = taken(self.pipeline), time.perf_counter()
        if done != self._seen[0]:
            self._seen = done, now, time.process_time()
        return now - self._seen[1] > QUIET_S

    def _report(self) -> None:
        self._reported = True
        ended_s = self._seen[1]
        result = {
            "readings": float(self._readings),
            "seconds": ended_s - self._begun_s - self._making_s,
            "processor_s": self._seen[2] - self._begun_cpu_s - self._making_cpu_s,
            "begun_s": self._begun_s,
            "ended_s": ended_s,
            "making_s": self._making_s,
            "peak_mb": peak_mb(),
            "opened_s": self._opened_s or 0.0,
            "first_s": self._gaps[1][1] if len(self._gaps) > 1 else 0.0,
            "stall_s": self._stall_s(),
        }
        self.before_report(result)
        say(result)

    def _stall_s(self) -> float:
        """Return the longest wait between two messages in the worst of each hundred seconds, a scrape a second."""
        worst: dict[int, float] = {}
        for at_s, gap_s in self._gaps[1:]:
            worst[int(at_s)] = max(worst.get(int(at_s), 0.0), gap_s)
        return float(np.quantile(list(worst.values()), 0.99)) if worst else 0.0


class TurnSource(FixedPartitionedSource[Message, dict[str, int]]):
    """Makes the messages of a profile, a partition each; a snapshot holds the number of the next message.

    Parameters
    ----------
    profiles
        By the name of the partition.
    wire
        Form in which the messages come, see `benchmarks.wires`.
    turns
        When they come.
    """

    def __init__(self, profiles: Mapping[str, Profile], wire: str, turns: Turns) -> None:
        self.profiles = profiles
        self.wire = wire
        self.turns = turns

    def list_parts(self) -> list[str]:
        """Return the partitions that this process reads."""
        return list(self.profiles)

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> StatefulSourcePartition[Message, dict[str, int]]:
        """Return a partition at its beginning, or where a snapshot left it."""
        self.turns.join()
        return _Partition(self, for_part, 0 if resume_state is None else resume_state["position"])


class _Partition(StatefulSourcePartition[Message, dict[str, int]]):
    def __init__(self, source: TurnSource, part: str, position: int) -> None:
        self._source, self._part, self._position = source, part, position
        self._awake: datetime | None = None

    def next_batch(self) -> list[Message]:
        turns, profile = self._source.turns, self._source.profiles[self._part]
        if not turns.open(self._part, self._position):
            self._awake = datetime.now(UTC) + timedelta(seconds=POLL_S)
            return []
        self._awake = None
        begun, processor_s = time.perf_counter(), time.process_time()
        message = message_of(profile.message(self._position), self._source.wire, self._part)
        self._position += 1
        spent = time.perf_counter() - begun, time.process_time() - processor_s
        turns.made(profile.readings(self._position - 1), *spent)
        return [message]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> dict[str, int]:
        return {"position": self._position}


def taken(pipeline: Pipeline) -> float:
    """Return how many batches the shards have taken."""
    return pipeline.registry.get_sample_value("vigie_window_batch_seconds_count") or 0.0
