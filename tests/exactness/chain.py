"""The steps of the dataflow in a row, without the engine: messages in, what is known of every asset and window out."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from features.signals import EquipmentClass
from features.telemetry import BLOCKS
from features.windows import ShardBatch, Silence
from flows.dispatch import Decision
from flows.intake import Input, Intake
from flows.metrics import Pipeline
from flows.sources import Message
from flows.steps import Assess, Dispatch, Score, Shard, Window
from models.assessment import Assessed, Candidate

Key = tuple[str, int]


def record_batch(blocks: Iterable[Any]) -> pa.RecordBatch:
    """Return blocks in the one form of telemetry."""
    rows = [dict(zip(BLOCKS.names, block, strict=True)) for block in blocks]
    return pa.RecordBatch.from_pylist(rows, schema=BLOCKS)


@dataclass
class Known:
    """What a run said: by asset and window, the states and figures; then what happened to episodes."""

    samples: dict[Key, int] = field(default_factory=dict)
    states: dict[Key, tuple[int, int, tuple[int, ...]]] = field(default_factory=dict)
    figures: dict[Key, NDArray[np.float64]] = field(default_factory=dict)
    candidates: list[tuple[Any, ...]] = field(default_factory=list)
    decisions: list[tuple[Any, ...]] = field(default_factory=list)
    silences: list[tuple[str, int]] = field(default_factory=list)
    account: dict[str, int] = field(default_factory=dict)


class Chain:
    """One process that runs every step.

    Parameters
    ----------
    classes
        Equipment classes by name.
    class_of
        The class of an asset.
    shards
        How many.
    inputs
        By source.
    """

    def __init__(
        self,
        classes: dict[str, EquipmentClass],
        class_of: Callable[[str], str | None],
        shards: int,
        inputs: dict[str, Input] | None = None,
    ) -> None:
        self.classes, self.class_of, self.shards, self.inputs = classes, class_of, shards, inputs or {}
        self.known = Known()
        self._begin({})

    def _begin(self, states: dict[Any, Any]) -> None:
        self.pipeline = Pipeline(CollectorRegistry())
        self.deal = Shard(self.classes, self.class_of, self.shards)
        self.intakes: dict[str, Intake] = {}
        self.steps: dict[tuple[str, str], tuple[Window, Score, Assess]] = {}
        self.dispatch: dict[str, Dispatch] = {}
        for key, state in states.items():
            kind, *which = key
            if kind == "intake":
                self.intakes[which[0]] = self._intake(state)
            elif kind == "dispatch":
                self._dispatch(which[0]).load(state)
            else:
                steps: tuple[Any, ...] = self._steps(which[0], which[1])
                for step, remembered in zip(steps, state, strict=True):
                    step.load(remembered)

    def restart(self) -> None:
        """Die, and come back from snapshots that went to a disk."""
        states: dict[Any, Any] = {("intake", source): intake.state() for source, intake in self.intakes.items()}
        states |= {("shard", *key): tuple(step.state() for step in steps) for key, steps in self.steps.items()}
        states |= {("dispatch", name): dispatch.state() for name, dispatch in self.dispatch.items()}
        self._begin(pickle.loads(pickle.dumps(states)))

    def push(self, message: Message, pickled: bool = False) -> None:
        """Take one message; the account agrees afterwards."""
        source = message.source
        if source not in self.intakes:
            self.intakes[source] = self._intake(None)
        telemetry = self.intakes[source](message)
        for key, (name, item) in self.deal(telemetry):
            if isinstance(item, ShardBatch) or (key, name) in self.steps:
                self._run(key, name, self._steps(key, name)[0](pickle.loads(pickle.dumps(item)) if pickled else item))
        self.check()

    def check(self) -> None:
        """Compare what came in with what became of it."""
        account = self.pipeline.account()
        assert account["received"] == sum(account.values()) - account["received"], account
        assert min(account.values()) >= 0, account

    def end(self) -> Known:
        """Close everything."""
        for (key, name), steps in list(self.steps.items()):
            self._run(key, name, steps[0].end())
        self.check()
        self.known.account = self.pipeline.account()
        assert self.known.account["pending"] == 0
        assert self.known.account["scored"] == sum(self.known.samples.values())
        self.known.candidates.sort()
        self.known.decisions.sort()
        self.known.silences.sort()
        return self.known

    def _intake(self, state: Any) -> Intake:
        return Intake(self.class_of, self.inputs, self.pipeline, state=state)

    def _steps(self, key: str, name: str) -> tuple[Window, Score, Assess]:
        if (key, name) not in self.steps:
            equipment = self.classes[name]
            self.steps[key, name] = (
                Window(equipment, self.pipeline),
                Score(equipment, self.pipeline),
                Assess(equipment, self.pipeline),
            )
        return self.steps[key, name]

    def _dispatch(self, name: str) -> Dispatch:
        if name not in self.dispatch:
            self.dispatch[name] = Dispatch(self.classes[name], self.pipeline)
        return self.dispatch[name]

    def _run(self, key: str, name: str, closed: Iterable[Any]) -> None:
        _, score, assess = self._steps(key, name)
        for step in closed:
            for scored in score(step):
                for result in assess(scored):
                    if isinstance(result, Silence):
                        names, since = result.names, result.since_us.tolist()
                        self.known.silences += [
                            (names[r], at) for r, at in zip(result.rows.tolist(), since, strict=True)
                        ]
                    elif isinstance(result, Assessed):
                        self._take(name, result)

    def _take(self, name: str, assessed: Assessed) -> None:
        windows, scored = assessed.windows, assessed.scored
        for i, row in enumerate(windows.rows.tolist()):
            key = windows.names[row], int(windows.start_us[i])
            assert key not in self.known.samples, f"{key} twice"
            self.known.samples[key] = int(windows.samples[i])
            top = tuple(assessed.top[i].tolist())
            self.known.states[key] = int(assessed.state[i]), int(assessed.leading[i]), top
            self.known.figures[key] = np.concatenate(
                ([scored.score[i]], assessed.health[i], assessed.p_fail[i], assessed.rul_s[i], scored.x[i])
            )
        for candidate in assessed.candidates:
            self.known.candidates.append(_told(candidate))
            for decision in self._dispatch(name)(candidate):
                self.known.decisions.append(_told(decision))


def _told(what: Candidate | Decision) -> tuple[Any, ...]:
    """Return what happened to an episode, without the figures in its text."""
    return (what.episode, what.window_start_us, what.rung, what.outcome, what.asset, what.failure_mode, what.opened_us)
