"""The scoring step of a shard: picks what the detectors see, scores, and only then lets them learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from features.signals import ClassFileError, Detection, EquipmentClass
from features.windows import ClosedWindows
from models.cusum import Cusum
from models.detector import Detector, StateError
from models.half_space_trees import HalfSpaceTrees
from models.hotelling import Hotelling

__all__ = ["DETECTORS", "Scored", "Scorer"]

VERSION = 1

Factory = Callable[[Detection, int], Detector]


def _share(detection: Detection) -> float:
    """Return the share of healthy windows that each detector may call: together they may call what the class allows."""
    return detection.healthy_above_alarm / len(detection.detectors)


DETECTORS: dict[str, Factory] = {
    "hotelling": lambda d, seed: Hotelling(len(d.features), d.warm_up, d.memory, _share(d)),
    "half_space_trees": lambda d, seed: HalfSpaceTrees(len(d.features), d.warm_up, d.memory, _share(d), seed=seed),
    "cusum": lambda d, seed: Cusum(len(d.features), d.warm_up, d.memory, _share(d)),
}
"""The detectors that a class file may name; each is made from the class's detection table and a seed.

Another one is a line here: any `models.detector.Detector` that passes `models.checks`, river's by
`models.river_adapter.RiverDetector`.
"""


@dataclass(frozen=True, slots=True)
class Scored:
    """Windows with their anomaly score.

    Attributes
    ----------
    windows
        The windows, n of them.
    x
        What the detectors saw, shape ``(n, D)``: the detection features after condition and smoothing.
    score
        Combined anomaly score, shape ``(n,)``: 1 = the alarm level, 0 while warming.
    warming
        Whether the asset has not been seen long enough, shape ``(n,)``.
    share
        Share of each feature in the score, shape ``(n, D)``.
    lower, upper
        Usual range of each feature, shape ``(n, D)``, NaN = unknown.
    """

    windows: ClosedWindows
    x: NDArray[np.float64]
    score: NDArray[np.float64]
    warming: NDArray[np.bool_]
    share: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


class Scorer:
    """Scores the windows of a shard's assets, each against its own past; then learns from those that were normal.

    The score of a window is the highest of its detectors, since each sees what the others cannot: a pattern, a rare
    combination, a small shift that lasts. Each may call an equal part of the share of healthy windows that the class
    allows, so that all together call at most that (Bonferroni). That this share comes out in service is theory so far:
    calibration on healthy windows follows.

    A window above 1 is never learnt. While an asset warms up all its windows are, but none may pull further than
    `models.reference.CLIP` deviations. Out of service an asset says nothing about itself: its features count as
    missing. The result depends neither on how the windows are split into calls nor on other assets.

    Parameters
    ----------
    equipment
        The class.
    seed
        Seed of detectors that draw.

    Raises
    ------
    ClassFileError
        If the class names a detector that does not exist.
    """

    def __init__(self, equipment: EquipmentClass, seed: int = 0) -> None:
        detection = equipment.detection
        unknown = set(detection.detectors) - set(DETECTORS)
        if unknown:
            raise ClassFileError(
                f"class {equipment.name!r}: $.detection.detectors: no detector is called {min(unknown)!r}, "
                f"there are {sorted(DETECTORS)}"
            )
        self.equipment = equipment
        self.detectors: dict[str, Detector] = {n: DETECTORS[n](detection, seed) for n in detection.detectors}
        self._columns, self._conditions = _picks(equipment)
        states = equipment.states
        self._out_of_service = () if states is None else states.stopped + states.maintenance
        self._alpha = 2.0 / (detection.smoothing + 1.0)
        self._smooth = np.zeros((0, 2, len(detection.features)))

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self._smooth.nbytes + sum(d.nbytes for d in self.detectors.values())

    def step(self, windows: ClosedWindows) -> Scored:
        """Score the windows in the order of time, then learn from them."""
        self._grow(len(windows.names))
        x = self._features(windows)
        n, d = x.shape
        scored = Scored(
            windows,
            x,
            np.zeros(n),
            np.ones(n, np.bool_),
            np.zeros((n, d)),
            np.full((n, d), np.nan),
            np.full((n, d), np.nan),
        )
        for group in _groups(windows.rows):
            self._score_and_learn(windows.rows[group], group, scored)
        return scored

    def rebaseline(self, rows: NDArray[np.int32]) -> None:
        """Forget assets that were repaired: they warm up again, and what they then show is their new reference."""
        self._smooth[rows] = 0.0
        for detector in self.detectors.values():
            detector.rebaseline(rows)

    def forget(self, rows: NDArray[np.int32]) -> None:
        """Make rows new: their assets have left, and others may take them; rows that were never scored are passed."""
        self.rebaseline(rows[rows < len(self._smooth)])

    def state(self) -> dict[str, Any]:
        """Return the state as plain dicts of arrays with a ``version``."""
        detectors = {name: detector.state() for name, detector in self.detectors.items()}
        return {"version": VERSION, "smooth": self._smooth.copy(), "detectors": detectors}

    def load(self, state: dict[str, Any]) -> None:
        """Take a state that `state` returned.

        Raises
        ------
        StateError
            If it is of another version, or of a class with other detectors or features.
        """
        if state.get("version") != VERSION:
            raise StateError(
                f"the scorer reads state version {VERSION}, got {state.get('version')}: "
                "reset the recovery store of this site"
            )
        if set(state["detectors"]) != set(self.detectors):
            raise StateError(
                f"the stored state has the detectors {sorted(state['detectors'])}, the class {sorted(self.detectors)}: "
                "the class file has changed, reset the recovery store of this site"
            )
        self._smooth = np.array(state["smooth"], np.float64)
        for name, detector in self.detectors.items():
            detector.load(state["detectors"][name])

    def _grow(self, assets: int) -> None:
        room = len(self._smooth)
        if assets > room:
            more = np.zeros((max(assets - room, room // 8), *self._smooth.shape[1:]))
            self._smooth = np.concatenate((self._smooth, more))
            for detector in self.detectors.values():
                detector.grow(assets)

    def _features(self, windows: ClosedWindows) -> NDArray[np.float64]:
        """Pick the detection features, unknown out of service and where their condition does not hold; smooth them."""
        x = windows.features[:, self._columns]
        x[np.isin(windows.state_code, self._out_of_service)] = np.nan
        for column, feature, low, high in self._conditions:
            value = windows.features[:, feature]
            x[~((value >= low) & (value <= high)), column] = np.nan
        if self._alpha < 1.0:
            _smooth(windows.rows, x, self._alpha, self._smooth)
        return x

    def _score_and_learn(self, rows: NDArray[np.int32], group: NDArray[np.int64], scored: Scored) -> None:
        x = scored.x[group]
        scores = np.stack([detector.score(rows, x) for detector in self.detectors.values()])
        scored.score[group], scored.warming[group] = _combine(scores)
        loudest = np.argmax(np.where(np.isnan(scores), -1.0, scores), axis=0)
        for index, detector in enumerate(self.detectors.values()):
            speaks = loudest == index
            if speaks.any():
                scored.share[group[speaks]] = detector.explain(rows[speaks], x[speaks])
        for detector in self.detectors.values():
            if isinstance(detector, Hotelling):
                scored.lower[group], scored.upper[group] = detector.expected(rows)
        normal = scored.score[group] <= 1.0
        if not normal.all():
            rows, x = rows[normal], x[normal]
        for detector in self.detectors.values():
            detector.learn(rows, x)


def _combine(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the highest score that is known, 0 where none is, and where that is so."""
    highest = np.fmax.reduce(scores, axis=0)
    warming = np.isnan(highest)
    highest[warming] = 0.0
    return highest, warming


def _groups(rows: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Split windows that come in the order of time into groups in which an asset occurs once, its first first."""
    n = len(rows)
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    turn = np.empty(n, np.int64)
    turn[order] = np.arange(n) - np.repeat(first, np.diff(first, append=n))
    by_turn = np.argsort(turn, kind="stable")
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]) if n else []


def _picks(equipment: EquipmentClass) -> tuple[NDArray[np.int64], list[tuple[int, int, float, float]]]:
    """Return the column of each detection feature, and for those with a condition its column and bounds."""
    columns, conditions = [], []
    for place, name in enumerate(equipment.detection.features):
        feature, _, condition = name.partition("@")
        columns.append(equipment.feature_index[feature])
        if condition:
            c = equipment.conditions[condition]
            conditions.append((place, equipment.feature_index[c.feature], c.at_least, c.at_most))
    return np.array(columns, np.int64), conditions


@kernel
def _smooth(rows: NDArray[np.int32], x: NDArray[np.float64], alpha: float, state: NDArray[np.float64]) -> None:
    """Replace each value by the exponentially weighted mean of its asset's values so far."""
    for i in range(len(rows)):
        sums, weights = state[rows[i], 0], state[rows[i], 1]
        for j in range(x.shape[1]):
            if not np.isnan(x[i, j]):
                sums[j] = (1.0 - alpha) * sums[j] + x[i, j]
                weights[j] = (1.0 - alpha) * weights[j] + 1.0
                x[i, j] = sums[j] / weights[j]
