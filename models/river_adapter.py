"""Any anomaly detector of river, one an asset, behind the contract of this project."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from math import log
from typing import Any, Protocol

import numpy as np

from models.detector import Floats, Rows, StateError

__all__ = ["RiverDetector"]

VERSION = 1


class _River(Protocol):
    """What is used of a river detector, or of a pipeline that ends in one."""

    def score_one(self, x: dict[str, float]) -> float: ...

    def learn_one(self, x: dict[str, float]) -> None: ...


class RiverDetector:
    """Runs one river detector an asset: to try an algorithm before it is worth writing it for a whole shard.

    river scores one dict at a time on a scale of its own. Here the second half of the warm-up is scored before it is
    learnt; 0 is the mean of those scores, and 1 the quantile of an exponential tail with their mean and deviation,
    which go on to follow normal windows with `memory`. High = abnormal; calibration follows. It cannot explain: all
    shares are 0.

    Slow, and only as bounded as the detector: with half-space trees (10 of height 8, 16 features) measured at 80
    microseconds a window, 20 milliseconds to create, 1.2 MB of memory and 170 kB of state an asset, 70 times the time
    and the state of `models.half_space_trees`. Not for detectors that learn while they score
    (`PredictiveAnomalyDetection`), nor for those that fail on a missing feature without an imputer in front.

    Parameters
    ----------
    factory
        Returns a new detector, or a pipeline that ends in one, seeded. It should import river itself, which takes
        0.9 s and 80 MB, so that only those who use it pay for it.
    n_features
        Number of features D; river sees them as ``"0"`` to ``"D-1"``, without the missing ones.
    warm_up
        Windows before which the score is NaN.
    memory
        Windows that the level of the scores remembers.
    above
        Share of normal windows that may score above 1, were the tail exponential.

    Examples
    --------
    >>> from river import anomaly
    >>> class Gaussian(anomaly.GaussianScorer):  # which scores a plain number
    ...     def learn_one(self, x):
    ...         super().learn_one(None, x["0"])
    ...     def score_one(self, x):
    ...         return super().score_one(None, x["0"])
    >>> detector = RiverDetector(Gaussian, n_features=1, warm_up=100)
    >>> detector.grow(1)
    >>> row = np.zeros(1, np.int32)
    >>> for value in np.random.default_rng(1).normal(size=100):
    ...     detector.learn(row, np.array([[value]]))
    >>> bool(detector.score(row, np.array([[9.0]]))[0] > detector.score(row, np.array([[1.0]]))[0])
    True

    References
    ----------
    .. [1] Montiel, J. et al., 2021. River: machine learning for streaming data in Python. JMLR 22(110).
    """

    def __init__(
        self,
        factory: Callable[[], _River],
        n_features: int,
        warm_up: int = 360,
        memory: int = 5000,
        above: float = 0.001,
    ) -> None:
        self.factory = factory
        self.n_features = n_features
        self.warm_up = warm_up
        self.memory = memory
        self.above = above
        self._names = [str(j) for j in range(n_features)]
        self._models: list[_River | None] = []
        self._learnt = np.zeros(0, np.int32)
        self._scored = np.zeros(0, np.int32)
        self._mean = np.zeros(0)
        self._var = np.zeros(0)

    @property
    def nbytes(self) -> int:
        """Bytes of the state as it is stored; a river detector takes several times as much in memory."""
        return sum(len(pickle.dumps(m)) for m in self._models if m is not None) + 24 * len(self._models)

    def grow(self, assets: int) -> None:
        """Make room for `assets` assets."""
        more = assets - len(self._models)
        if more > 0:
            self._models += [None] * more
            self._learnt, self._scored = (np.append(a, np.zeros(more, np.int32)) for a in (self._learnt, self._scored))
            self._mean, self._var = (np.append(a, np.zeros(more)) for a in (self._mean, self._var))

    def score(self, rows: Rows, x: Floats) -> Floats:
        """Return how abnormal each window is, shape ``(n,)``; NaN while its asset is warming."""
        out = np.full(len(rows), np.nan)
        tail = -log(self.above) - 1.0
        for i, row in enumerate(rows):
            model, values = self._models[row], self._dict(x[i])
            if model is not None and self._learnt[row] >= self.warm_up:
                raw = float(model.score_one(values)) if values else self._mean[row]
                deviation = max(float(np.sqrt(self._var[row])), 1e-9)
                out[i] = max(0.0, (raw - self._mean[row]) / (tail * deviation))
        return out

    def learn(self, rows: Rows, x: Floats) -> None:
        """Take the windows as normal."""
        for i, row in enumerate(rows):
            values = self._dict(x[i])
            if not values:
                continue
            model = self._models[row]
            if model is None:
                model = self._models[row] = self.factory()
            self._learnt[row] += 1
            if self._learnt[row] > self.warm_up // 2:
                self._scored[row] += 1
                w = 1.0 / min(int(self._scored[row]), self.memory)
                delta = float(model.score_one(values)) - self._mean[row]
                self._mean[row] += w * delta
                self._var[row] = (1.0 - w) * (self._var[row] + w * delta * delta)
            model.learn_one(values)

    def explain(self, rows: Rows, x: Floats) -> Floats:
        """Return zeros: river does not say which feature it was."""
        return np.zeros((len(rows), self.n_features))

    def rebaseline(self, rows: Rows) -> None:
        """Forget the assets."""
        for row in rows:
            self._models[row] = None
        for a in (self._learnt, self._scored, self._mean, self._var):
            a[rows] = 0

    def state(self) -> dict[str, Any]:
        """Return the state: the models pickled, so only for a store that nobody else writes to."""
        return {
            "version": VERSION,
            "models": [None if m is None else pickle.dumps(m) for m in self._models],
            "learnt": self._learnt.copy(),
            "scored": self._scored.copy(),
            "mean": self._mean.copy(),
            "var": self._var.copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take a state that `state` returned."""
        if state.get("version") != VERSION:
            raise StateError(
                f"RiverDetector reads state version {VERSION}, got {state.get('version')}: "
                "reset the recovery store of this site"
            )
        self._models = [None if m is None else pickle.loads(m) for m in state["models"]]
        self._learnt, self._scored = np.array(state["learnt"]), np.array(state["scored"])
        self._mean, self._var = np.array(state["mean"]), np.array(state["var"])

    def _dict(self, x: Floats) -> dict[str, float]:
        return {name: value for name, value in zip(self._names, x.tolist(), strict=True) if np.isfinite(value)}
