"""Half-space trees for every asset of a shard: few windows of its own look like this one."""

from __future__ import annotations

from math import log2, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from models.detector import ArrayDetector, Floats, Rows
from models.reference import effective, follow, spread

__all__ = ["HalfSpaceTrees"]

VERSION = 2

PADDING = 0.15
"""Share of a node's range at either end in which it is not split, as river does it."""

SIZE_LIMIT = 0.1
"""Share of the window below which a node is not descended into when scoring (Tan et al. 2011, section 3.3)."""

RANGE = 4.0
"""Standard deviations about the mean that the unit interval of a feature covers."""

COMPLETE = 0.5
"""Share of the features that must be there: a lift that stands still shows no combination of values of a trip."""

SMALLEST_LEVEL = 1e-3
"""Alarm level in bits where all windows of the warm-up were the same."""

LARGEST_WINDOW = 250
"""Windows in a mass profile (Tan et al. 2011, section 4); at most 255, so that a mass is one byte."""


class State(NamedTuple):
    """One row an asset; D features, T trees of 2^(height + 1) - 1 nodes."""

    learnt: NDArray[np.int32]  # (A,)
    seen: NDArray[np.int32]  # (A, D) of the normalisation, which stops when it is known
    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    step: NDArray[np.float64]
    last: NDArray[np.float64]
    scale: NDArray[np.float32]  # (A, D) of the normalisation, 0 = not yet known
    latest: NDArray[np.uint8]  # (A, T, leaves) masses of the profile that fills; inner ones are their sums
    reference: NDArray[np.uint8]  # (A, T, leaves) masses of the profile that judges
    scored: NDArray[np.int32]  # (A,)
    level_mean: NDArray[np.float64]  # (A,) of the rarity of normal windows
    level_var: NDArray[np.float64]
    level_third: NDArray[np.float64]  # third central moment


class Forest(NamedTuple):
    """The splits, which all assets share: node i has the children 2 i + 1 (below the threshold) and 2 i + 2."""

    feature: NDArray[np.int64]  # (T, 2^height - 1)
    threshold: NDArray[np.float64]


class HalfSpaceTrees(ArrayDetector):
    """Says how rare a window's combination of values is among the asset's recent windows.

    Random trees halve the range of random features; a window that falls into cells that hold few of the last
    `window` windows is abnormal [1]_. The splits are drawn once for all assets, the masses are each asset's own.
    A window that lacks more than half of its features is no combination: it scores 0 and is not learnt.
    Features are put into 0 .. 1 as four deviations about the mean of the first third of the warm-up; the second third
    fills the first mass profile, the last gives the alarm level.

    High = abnormal. The score is the rarity, log2 of the largest mass score over the window's, over its alarm level:
    the quantile that mean, variance and skewness of the rarity of the asset's normal windows give; calibration follows.
    It saturates, since a cell cannot hold less than none, so it alarms on windows that are unusual in several features
    at once. One feature among many it only ranks higher, and a slow drift it follows: those are for Hotelling and
    CUSUM. It needs independent windows: where few were learnt that are smoothed over many, it alarms too often. Costs
    1.5 microseconds a window, and 1 kB + 40 D bytes an asset with 15 trees of height 5.

    Parameters
    ----------
    n_features
        Number of features D.
    warm_up
        Windows before which the score is NaN.
    memory
        Windows that the alarm level remembers.
    above
        Share of normal windows that may score above 1.
    n_trees, height
        Number of trees and their height.
    seed
        Seed of the splits.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> detector = HalfSpaceTrees(n_features=5, warm_up=600)
    >>> detector.grow(1)
    >>> row = np.zeros(1, np.int32)
    >>> for seconds in rng.normal(3.0, 0.2, (600, 5)):
    ...     detector.learn(row, seconds[None])
    >>> usual, slow = np.full((1, 5), 3.0), np.full((1, 5), 3.8)
    >>> bool(detector.score(row, usual)[0] < 0.5), bool(detector.score(row, slow)[0] > 1.0)
    (True, True)

    References
    ----------
    .. [1] Tan, S., Ting, K. and Liu, T., 2011. Fast anomaly detection for streaming data. IJCAI 22, 1511-1516.
    """

    def __init__(
        self,
        n_features: int,
        warm_up: int = 360,
        memory: int = 5000,
        above: float = 0.001,
        n_trees: int = 15,
        height: int = 5,
        seed: int = 0,
    ) -> None:
        self.n_features = n_features
        self.warm_up = warm_up
        self.memory = memory
        self.above = above
        self.n_trees = n_trees
        self.height = height
        self.seed = seed
        self.window = max(1, min(LARGEST_WINDOW, warm_up // 3))
        self.forest = grown(n_features, n_trees, height, seed)
        self._quantile = NormalDist().inv_cdf(1.0 - above)
        super().__init__(VERSION, _empty(n_features, n_trees, 2**height))

    @property
    def _state(self) -> State:
        return self._arrays  # type: ignore[return-value]

    def score(self, rows: Rows, x: Floats) -> Floats:
        """Return how abnormal each window is, shape ``(n,)``; NaN while its asset is warming."""
        out = np.empty(len(rows))
        _score(rows, x, self._state, self.forest, self.window, self.warm_up, self._quantile, out)
        return out

    def explain(self, rows: Rows, x: Floats) -> Floats:
        """Return each feature's share: how much less mass its splits leave on the window's side than half."""
        share = np.zeros((len(rows), self.n_features))
        _explain(rows, x, self._state, self.forest, self.window, self.warm_up, share)
        return share

    def learn(self, rows: Rows, x: Floats) -> None:
        """Take the windows as normal."""
        _learn(rows, x, self._state, self.forest, self.window, self.warm_up, float(self.memory))

    def load(self, state: dict[str, Any]) -> None:
        """Take a state that `state` returned, also that of version 1, which kept the masses of inner nodes too."""
        if state.get("version") == 1:
            leaves = slice(2**self.height - 1, None)
            profiles = {name: state[name][..., leaves] for name in ("latest", "reference")}
            state = {**state, **profiles, "version": VERSION}
        super().load(state)


def grown(n_features: int, n_trees: int, height: int, seed: int) -> Forest:
    """Draw the splits: at each node a feature, and a threshold in the middle 70 % of what is left of its range."""
    rng = np.random.default_rng(seed)
    nodes = 2**height - 1
    feature = rng.integers(0, n_features, (n_trees, nodes))
    place = rng.uniform(PADDING, 1.0 - PADDING, (n_trees, nodes))
    low = np.zeros((n_trees, 2 * nodes + 1, n_features))
    high = np.ones((n_trees, 2 * nodes + 1, n_features))
    threshold = np.empty((n_trees, nodes))
    trees = np.arange(n_trees)
    for node in range(nodes):
        f = feature[:, node]
        at = low[trees, node, f] + place[:, node] * (high[trees, node, f] - low[trees, node, f])
        threshold[:, node] = at
        for child in (2 * node + 1, 2 * node + 2):
            low[:, child], high[:, child] = low[:, node], high[:, node]
        high[trees, 2 * node + 1, f] = at
        low[trees, 2 * node + 2, f] = at
    return Forest(feature, threshold)


def _empty(d: int, trees: int, leaves: int) -> State:
    one = np.zeros((0, d))
    masses = np.zeros((0, trees, leaves), np.uint8)
    number = np.zeros(0, np.int32)
    return State(
        learnt=number,
        seen=np.zeros((0, d), np.int32),
        mean=one,
        var=one,
        step=one,
        last=one,
        scale=np.zeros((0, d), np.float32),
        latest=masses,
        reference=masses,
        scored=number,
        level_mean=np.zeros(0),
        level_var=np.zeros(0),
        level_third=np.zeros(0),
    )


@kernel
def _sum(masses: NDArray[np.uint8], low: int, size: int) -> int:
    """Return the mass of a node: that of its leaves, which lie side by side."""
    total = 0
    for leaf in range(low, low + size):
        total += masses[leaf]
    return total


@kernel
def _goes_right(u: NDArray[np.float64], forest: Forest, t: int, node: int, left: int, right: int) -> bool:
    """Tell into which child the window falls; where the feature is missing, into the heavier one."""
    value = u[forest.feature[t, node]]
    if np.isnan(value):
        return right > left
    return bool(value >= forest.threshold[t, node])


@kernel
def mass_score(u: NDArray[np.float64], forest: Forest, masses: NDArray[np.uint8], window: int) -> float:
    """Return the mass score of one window: over all trees, mass times 2^depth summed down the path; low = abnormal."""
    trees, leaves = masses.shape
    limit = SIZE_LIMIT * window
    total = 0.0
    for t in range(trees):
        node, low, size = 0, 0, leaves
        mass = _sum(masses[t], 0, leaves)
        weight = 1.0
        while True:
            total += mass * weight
            if size == 1 or mass < limit:
                break
            size //= 2
            left = _sum(masses[t], low, size)
            if _goes_right(u, forest, t, node, left, mass - left):
                node, low, mass = 2 * node + 2, low + size, mass - left
            else:
                node, mass = 2 * node + 1, left
            weight *= 2.0
    return total


@kernel
def _rarity(total: float, trees: int, nodes: int, window: int) -> float:
    """Return log2 of the largest possible mass score over this one: 0 where all windows lie in one cell."""
    return log2(trees * window * float(nodes) / max(total, 1.0))


@kernel
def _level(mean: float, var: float, third: float, quantile: float) -> float:
    """Return the alarm level: the quantile by the first three moments (Cornish and Fisher 1938)."""
    sd = sqrt(var)
    skew = third / (var * sd) if sd > 0.0 else 0.0
    return max(SMALLEST_LEVEL, mean + sd * (quantile + (quantile * quantile - 1.0) * max(0.0, skew) / 6.0))


@kernel
def _normalise(x: NDArray[np.float64], row: int, s: State, u: NDArray[np.float64]) -> None:
    """Write the features in 0 .. 1, NaN where missing or not yet known."""
    for j in range(len(x)):
        u[j] = np.nan
        if s.scale[row, j] > 0.0 and np.isfinite(x[j]):
            u[j] = 0.5 + (x[j] - s.mean[row, j]) * s.scale[row, j]


@kernel
def _score(
    rows: NDArray[np.int32],
    x: NDArray[np.float64],
    s: State,
    forest: Forest,
    window: int,
    warm_up: int,
    quantile: float,
    out: NDArray[np.float64],
) -> None:
    trees = s.reference.shape[1]
    nodes = 2 * s.reference.shape[2] - 1
    u = np.empty(x.shape[1])
    for i in range(len(rows)):
        row = rows[i]
        out[i] = np.nan
        if s.learnt[row] >= warm_up:
            out[i] = 0.0
            if np.isfinite(x[i]).mean() < COMPLETE:
                continue
            _normalise(x[i], row, s, u)
            rarity = _rarity(mass_score(u, forest, s.reference[row], window), trees, nodes, window)
            out[i] = rarity / _level(s.level_mean[row], s.level_var[row], s.level_third[row], quantile)


@kernel
def _explain(
    rows: NDArray[np.int32],
    x: NDArray[np.float64],
    s: State,
    forest: Forest,
    window: int,
    warm_up: int,
    share: NDArray[np.float64],
) -> None:
    trees = len(forest.feature)
    limit = SIZE_LIMIT * window
    u = np.empty(x.shape[1])
    for i in range(len(rows)):
        row = rows[i]
        if s.learnt[row] < warm_up or np.isfinite(x[i]).mean() < COMPLETE:
            continue
        _normalise(x[i], row, s, u)
        masses = s.reference[row]
        total = 0.0
        for t in range(trees):
            node, low, size = 0, 0, masses.shape[1]
            mass = _sum(masses[t], 0, size)
            while size > 1 and mass >= limit:
                size //= 2
                left = _sum(masses[t], low, size)
                f = forest.feature[t, node]
                right = _goes_right(u, forest, t, node, left, mass - left)
                child = mass - left if right else left
                if not np.isnan(u[f]):
                    bits = log2((0.5 * mass + 0.5) / (child + 0.5))
                    share[i, f] += max(0.0, bits)
                    total += max(0.0, bits)
                low += size if right else 0
                node = 2 * node + (2 if right else 1)
                mass = child
        if total > 0.0:
            share[i] /= total


@kernel
def _learn(
    rows: NDArray[np.int32],
    x: NDArray[np.float64],
    s: State,
    forest: Forest,
    window: int,
    warm_up: int,
    memory: float,
) -> None:
    trees, leaves = s.reference.shape[1:]
    nodes = 2 * leaves - 1
    d = x.shape[1]
    u = np.empty(d)
    known = warm_up - 2 * window
    for i in range(len(rows)):
        row = rows[i]
        if np.isfinite(x[i]).mean() < COMPLETE:
            continue
        s.learnt[row] += 1
        n = s.learnt[row]
        for j in range(d):
            if s.seen[row, j] < known and np.isfinite(x[i, j]):
                follow(x[i, j], float(known), j, s.seen[row], s.mean[row], s.var[row], s.step[row], s.last[row])
                if s.seen[row, j] == known:
                    independent = effective(float(known), s.var[row, j], s.step[row, j], float(known))
                    s.scale[row, j] = 0.5 / (RANGE * spread(s.mean[row, j], s.var[row, j], independent))
        if n <= known:
            continue
        _normalise(x[i], row, s, u)
        if n > known + window:
            rarity = _rarity(mass_score(u, forest, s.reference[row], window), trees, nodes, window)
            s.scored[row] += 1
            w = 1.0 / min(float(s.scored[row]), memory)
            delta = rarity - s.level_mean[row]
            s.level_mean[row] += w * delta
            # Terriberry's update of the third moment, with weights that follow.
            s.level_third[row] = (1.0 - w) * (
                s.level_third[row] - 3.0 * w * delta * s.level_var[row] + w * (1.0 - 2.0 * w) * delta**3
            )
            s.level_var[row] = (1.0 - w) * (s.level_var[row] + w * delta * delta)
        for t in range(trees):
            masses = s.reference[row, t]
            node, low, size = 0, 0, leaves
            while size > 1:
                size //= 2
                left = right = 0
                if np.isnan(u[forest.feature[t, node]]):
                    left, right = _sum(masses, low, size), _sum(masses, low + size, size)
                if _goes_right(u, forest, t, node, left, right):
                    node, low = 2 * node + 2, low + size
                else:
                    node = 2 * node + 1
            s.latest[row, t, low] += 1
        if (n - known) % window == 0:
            s.reference[row] = s.latest[row]
            s.latest[row] = 0
