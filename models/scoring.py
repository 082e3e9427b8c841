"""The scoring step of a shard: picks what the detectors see, scores, and only then lets them learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        self._picked = _picks(equipment)
        self._columns = self._picked.column
        self._alpha = 2.0 / (detection.smoothing + 1.0)
        # Without smoothing there is nothing to remember.
        self._smooth = np.zeros((0, 2, len(detection.features) if self._alpha < 1.0 else 0))

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
        if n < 2 or bool((windows.rows[1:] > windows.rows[:-1]).all()):
            # One window an asset, as a shard closes them: nothing is copied.
            self._score_and_learn(windows.rows, slice(None), scored)
        else:
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
        smooth = np.array(state["smooth"], np.float64)
        self._smooth = smooth[:, :, : self._smooth.shape[2]]
        for name, detector in self.detectors.items():
            detector.load(state["detectors"][name])

    def _grow(self, assets: int) -> None:
        room = len(self._smooth)
        if assets > room:
            smooth = np.zeros((max(assets, room + room // 8), *self._smooth.shape[1:]))
            smooth[:room] = self._smooth
            self._smooth = smooth
            for detector in self.detectors.values():
                detector.grow(assets)

    def _features(self, windows: ClosedWindows) -> NDArray[np.float64]:
        """Pick the detection features, unknown out of service and where their condition does not hold; smooth them."""
        x = np.empty((len(windows.rows), len(self._columns)))
        _pick(windows.rows, windows.features, windows.state_code, self._picked, self._alpha, self._smooth, x)
        return x

    def _score_and_learn(self, rows: NDArray[np.int32], group: NDArray[np.int64] | slice, scored: Scored) -> None:
        if len(rows) == 0:
            return
        x = scored.x[group]
        scores = np.empty((len(self.detectors), len(rows)))
        for index, detector in enumerate(self.detectors.values()):
            scores[index] = detector.score(rows, x)
        scored.score[group], scored.warming[group] = _combine(scores)
        if not scored.warming[group].all():
            loudest = np.argmax(np.where(np.isnan(scores), -1.0, scores), axis=0)
            share = np.zeros(x.shape)
            for index, detector in enumerate(self.detectors.values()):
                speaks = np.flatnonzero(loudest == index)
                if len(speaks):
                    share[speaks] = detector.explain(rows[speaks], x[speaks])
            scored.share[group] = share
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


class _Picked(NamedTuple):
    """Which features the detectors see.

    The column of each, the column of its condition (-1 none) with its bounds, and the codes of the state signal that
    mean out of service.
    """

    column: NDArray[np.int64]
    condition: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    out_of_service: NDArray[np.float64]


def _picks(equipment: EquipmentClass) -> _Picked:
    found = []
    for name in equipment.detection.features:
        feature, _, condition = name.partition("@")
        column = equipment.feature_index[feature]
        if condition:
            c = equipment.conditions[condition]
            found.append((column, equipment.feature_index[c.feature], c.at_least, c.at_most))
        else:
            found.append((column, -1, 0.0, 0.0))
    states = equipment.states
    codes = () if states is None else states.stopped + states.maintenance
    columns, conditions, low, high = zip(*found, strict=True)
    return _Picked(
        np.array(columns, np.int64),
        np.array(conditions, np.int64),
        np.array(low, np.float64),
        np.array(high, np.float64),
        np.array(codes, np.float64),
    )


@kernel
def _pick(
    rows: NDArray[np.int32],
    features: NDArray[np.float64],
    state_code: NDArray[np.float64],
    picked: _Picked,
    alpha: float,
    state: NDArray[np.float64],
    x: NDArray[np.float64],
) -> None:
    """Write the detection features: NaN out of service and where their condition does not hold; else smoothed.

    Smoothing is the exponentially weighted mean of the asset's values so far.
    """
    for i in range(len(rows)):
        serves = True
        for code in picked.out_of_service:
            serves &= state_code[i] != code
        sums, weights = state[rows[i], 0], state[rows[i], 1]
        for j in range(x.shape[1]):
            value = features[i, picked.column[j]]
            condition = picked.condition[j]
            holds = condition < 0 or picked.low[j] <= features[i, condition] <= picked.high[j]
            if not serves or not holds:
                value = np.nan
            if alpha < 1.0 and not np.isnan(value):
                sums[j] = (1.0 - alpha) * sums[j] + value
                weights[j] = (1.0 - alpha) * weights[j] + 1.0
                value = sums[j] / weights[j]
            x[i, j] = value
