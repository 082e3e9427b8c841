"""Two-sided tabular CUSUM of every feature of every asset of a shard."""

from __future__ import annotations

from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from models.detector import ArrayDetector, Floats, Rows
from models.reference import effective, follow, least_seen, spread

__all__ = ["Cusum"]

VERSION = 2

ALLOWANCE = 1.0
"""The allowance k in standard deviations: half of the shift to be found soonest (Montgomery, section 9.1.2).

Weather and traffic move a healthy asset by half a deviation for days; the usual 0.5 would add that up to an alarm."""

CLIP = 3.0
"""Deviations that count at most in one window, so that a single outlier fills no sum (Lucas and Crosier 1982)."""

CEILING = 2.0
"""Multiple of h beyond which a sum does not grow, so that a fault that is over is soon forgotten."""


class State(NamedTuple):
    """One row an asset; D features."""

    learnt: NDArray[np.int32]  # (A,)
    seen: NDArray[np.int32]  # (A, D)
    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    step: NDArray[np.float64]
    last: NDArray[np.float64]
    up: NDArray[np.float32]  # (A, D) sum of what exceeds the mean by more than k, in standard deviations
    down: NDArray[np.float32]


class Cusum(ArrayDetector):
    """Says whether a feature has been a little too high, or too low, for too long.

    Sums of standardised deviations beyond an allowance of one deviation, one upwards and one downwards [1]_, [2]_,
    about a mean that follows with `memory`: it finds small shifts that last, which no single window shows. It is slow
    on large ones, and blind to drifts slower than `memory`. A sum in its steady state exceeds h with probability
    exp(-2 k h / V), where V = (1 + r) / (1 - r) is its variance a window with lag-1 correlation r [3]_; h is set so
    that all 2 D sums together do so in a share `above` of the windows.

    High = abnormal; the score is the largest sum with this window over its h, at most 2. What a window adds is kept
    only where it is learnt, so the sums stand still through an alarm. Theory assumes normal features; calibration
    follows. Costs 2 microseconds a window, and 44 D bytes an asset.

    Parameters
    ----------
    n_features
        Number of features D.
    warm_up
        Windows before which the score is NaN; nothing is summed before.
    memory
        Windows that the mean and variance remember.
    above
        Share of normal windows that may score above 1.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> detector = Cusum(n_features=1, warm_up=200)
    >>> detector.grow(1)
    >>> row = np.zeros(1, np.int32)
    >>> for pressure_bar in rng.normal(1.5, 0.1, 200):
    ...     detector.learn(row, np.array([[pressure_bar]]))
    >>> for _ in range(10):  # two deviations too low, again and again
    ...     detector.learn(row, np.array([[1.3]]))
    >>> bool(detector.score(row, np.array([[1.3]]))[0] > 1)
    True

    References
    ----------
    .. [1] Page, E., 1954. Continuous inspection schemes. Biometrika 41(1/2).
    .. [2] Montgomery, D., 2009. Introduction to statistical quality control, 6th ed., section 9.1.
    .. [3] Harrison, J., 1985. Brownian motion and stochastic flow systems, section 5.6 (reflected Brownian motion).
    """

    def __init__(self, n_features: int, warm_up: int = 360, memory: int = 5000, above: float = 0.001) -> None:
        self.n_features = n_features
        self.warm_up = warm_up
        self.memory = memory
        self.above = above
        self._factor = log(2.0 * n_features / above) / (2.0 * ALLOWANCE)
        seen = np.zeros((0, n_features), np.int32)
        one = np.zeros((0, n_features))
        sums = np.zeros((0, n_features), np.float32)
        super().__init__(VERSION, State(np.zeros(0, np.int32), seen, one, one, one, one, sums, sums))

    @property
    def _state(self) -> State:
        return self._arrays  # type: ignore[return-value]

    def score(self, rows: Rows, x: Floats) -> Floats:
        """Return how abnormal each window is, shape ``(n,)``; NaN while its asset is warming."""
        return self._walk(rows, x)[0]

    def explain(self, rows: Rows, x: Floats) -> Floats:
        """Return each feature's share: its larger sum over h, squared as the contributions of a distance are."""
        return self._walk(rows, x)[1]

    def _walk(self, rows: Rows, x: Floats) -> tuple[Floats, Floats]:
        out, share = np.empty(len(rows)), np.zeros((len(rows), self.n_features))
        _score(rows, x, self._state, self.warm_up, float(self.memory), self._factor, out, share)
        return out, share

    def load(self, state: dict[str, Any]) -> None:
        """Take a state that `state` returned, also that of version 1, which kept spread and h beside the variance."""
        super().load({**state, "version": VERSION} if state.get("version") == 1 else state)

    def learn(self, rows: Rows, x: Floats) -> None:
        """Take the windows as normal."""
        _learn(rows, x, self._state, self.warm_up, float(self.memory), self._factor)


@kernel
def _next(x: float, row: int, j: int, s: State, least: int, memory: float, factor: float) -> tuple[float, float, float]:
    """Return both sums of feature `j` with this value, and h; 0 where its spread is not yet known."""
    if s.seen[row, j] < least:
        return 0.0, 0.0, 1.0
    n = min(float(s.seen[row, j]), memory)
    independent = effective(n, s.var[row, j], s.step[row, j], memory)
    h = n * factor / independent
    z = min(CLIP, max(-CLIP, (x - s.mean[row, j]) / spread(s.mean[row, j], s.var[row, j], independent)))
    up = min(CEILING * h, max(0.0, s.up[row, j] + z - ALLOWANCE))
    return up, min(CEILING * h, max(0.0, s.down[row, j] - z - ALLOWANCE)), h


@kernel
def _score(
    rows: NDArray[np.int32],
    x: NDArray[np.float64],
    s: State,
    warm_up: int,
    memory: float,
    factor: float,
    out: NDArray[np.float64],
    share: NDArray[np.float64],
) -> None:
    least = least_seen(warm_up)
    for i in range(len(rows)):
        row = rows[i]
        out[i] = np.nan
        if s.learnt[row] >= warm_up:
            out[i] = 0.0
            total = 0.0
            for j in range(x.shape[1]):
                if not np.isfinite(x[i, j]):
                    continue
                up, down, h = _next(x[i, j], row, j, s, least, memory, factor)
                ratio = max(up, down) / h
                out[i] = max(out[i], ratio)
                share[i, j] = ratio * ratio
                total += ratio * ratio
            if total > 0.0:
                share[i] /= total


@kernel
def _learn(
    rows: NDArray[np.int32], x: NDArray[np.float64], s: State, warm_up: int, memory: float, factor: float
) -> None:
    least = least_seen(warm_up)
    for i in range(len(rows)):
        row = rows[i]
        if not np.isfinite(x[i]).any():
            continue
        warm = s.learnt[row] >= warm_up
        s.learnt[row] += 1
        for j in range(x.shape[1]):
            if np.isfinite(x[i, j]):
                if warm:
                    s.up[row, j], s.down[row, j], _ = _next(x[i, j], row, j, s, least, memory, factor)
                follow(x[i, j], memory, j, s.seen[row], s.mean[row], s.var[row], s.step[row], s.last[row])
