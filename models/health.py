"""Health of each failure mode, from the signals that its class file names for it.

An indicator (a feature that speaks for a failure mode) is averaged over a *step*, one hour for every class whose paging
horizon is a day or longer. Each asset has two references for it: a frozen one, its level over the first day in service
after commissioning or after the last accepted repair, and an adaptive one, which follows the level over some hours.
Their divergence, as a share of the way to the failure limit of the class file, is the degradation of the indicator.

A failure mode's degradation is the mean over its indicators, each weighted by the inverse of its variance in
commissioning, to which comes that by which healthy indicators of one wear differ (`PEERS`). From the mean goes half
of the scatter between the indicators: two that agree count in full, one of two that goes alone counts a quarter, which
is what a drifting sensor does. A failure mode with a single indicator has nobody to disagree: there a drifting sensor
looks like wear.

Health is 1 less the degradation that `models.wear` filters from these observations. It is unknown until the reference
is known, in an asset that never shows the indicator, and where the reference gives no failure limit (a factor on 0).

References
----------
ISO 13374-1, health assessment; ISO 13381-1, failure mode symptoms and thresholds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from features.signals import EquipmentClass, parse_duration_s

__all__ = [
    "Indicators",
    "References",
    "close_level",
    "combine",
    "degradation",
    "gather",
    "indicators_of",
    "new_references",
    "renew",
    "step_s",
]

DAY_STEPS = 24
"""Steps of the commissioning: one day, so that the time of the day is averaged out."""
LEVELS_LEAST = 8
"""Levels that a reference needs; an asset that moves rarely takes longer than a day to get it."""
WINDOWS_LEAST = 4
"""Windows that know the indicator before a step's level is taken; fewer are carried into the next step."""
TRIM = 0.125
"""Share of the commissioning's levels that is left out at either end: a spell of misuse on the first day."""
SPREAD_LEAST = 0.03
"""No level is trusted further than this share of the way to the failure limit (standard deviation)."""
PEERS = 0.1
"""How far apart two indicators of the same wear may be (standard deviation): it limits their weights."""
CORRELATION_MOST = 12.0
"""Most levels that count for one where neighbours are alike: half a daily cycle."""
MEMORY_STEPS = 6.0
"""Time constant of the adaptive reference."""
LOWEST, HIGHEST = -0.5, 1.5
"""Bounds of one window's degradation: how far a single reading may pull."""


class Indicators(NamedTuple):
    """The indicators of a class, by failure mode: those of mode ``m`` stand in ``first[m]:first[m + 1]``.

    `column` of the feature; `condition` column with its bounds `low` and `high` (-1: none); `sign` +1 where wear moves
    it up, -1 down; the failure limit as `factor` on the reference, or as `change` where the factor is 0.
    """

    first: NDArray[np.int64]
    column: NDArray[np.int64]
    condition: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    sign: NDArray[np.float64]
    factor: NDArray[np.float64]
    change: NDArray[np.float64]


class References(NamedTuple):
    """What is known of each asset's indicators, arrays of shape ``(assets, indicators)``.

    Of the step that is open: `windows`, `total`. Of the commissioning: the levels `first` (a last axis of `DAY_STEPS`),
    how many are `kept`, and the step `began` (-1: none). Then the frozen reference `frozen` and the failure `limit`
    (NaN unknown), the `variance` of a level's degradation, its `error`, the variance of the reference itself, and the
    adaptive reference `adaptive` of step `at`.
    """

    windows: NDArray[np.int32]
    total: NDArray[np.float64]
    first: NDArray[np.float64]
    kept: NDArray[np.int32]
    began: NDArray[np.int64]
    frozen: NDArray[np.float64]
    limit: NDArray[np.float64]
    variance: NDArray[np.float64]
    error: NDArray[np.float64]
    adaptive: NDArray[np.float64]
    at: NDArray[np.int64]


def step_s(equipment: EquipmentClass) -> float:
    """Return the length of a step: an hour, or a 24th of a paging horizon shorter than a day, but at least a window.

    Examples
    --------
    >>> from features.signals import load_class
    >>> step_s(load_class("lift"))
    3600.0
    """
    return max(equipment.window_s, min(3600.0, parse_duration_s(equipment.paging_horizon) / DAY_STEPS))


def indicators_of(equipment: EquipmentClass) -> Indicators:
    """Lay the indicators of a class out as arrays.

    Examples
    --------
    >>> from features.signals import load_class
    >>> indicators_of(load_class("boiler")).first.tolist()
    [0, 2, 3, 4, 5]
    """
    found = [indicator for mode in equipment.failure_modes.values() for indicator in mode.indicators]
    names = [indicator.feature.partition("@") for indicator in found]
    conditions = [equipment.conditions[condition] if condition else None for _, _, condition in names]
    index = equipment.feature_index
    counts = [len(mode.indicators) for mode in equipment.failure_modes.values()]
    return Indicators(
        first=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64),
        column=np.array([index[name] for name, _, _ in names], np.int64),
        condition=np.array([index[c.feature] if c is not None else -1 for c in conditions], np.int64),
        low=np.array([c.at_least if c is not None else 0.0 for c in conditions], np.float64),
        high=np.array([c.at_most if c is not None else 0.0 for c in conditions], np.float64),
        sign=np.array([1.0 if indicator.direction == "up" else -1.0 for indicator in found], np.float64),
        factor=np.array([indicator.fails_at or 0.0 for indicator in found], np.float64),
        change=np.array([indicator.fails_by or 0.0 for indicator in found], np.float64),
    )


def new_references(assets: int, indicators: int) -> References:
    """Return the references of assets that have sent nothing."""
    shape = (assets, indicators)
    return References(
        windows=np.zeros(shape, np.int32),
        total=np.zeros(shape),
        first=np.zeros((*shape, DAY_STEPS)),
        kept=np.zeros(shape, np.int32),
        began=np.full(shape, -1, np.int64),
        frozen=np.full(shape, np.nan),
        limit=np.full(shape, np.nan),
        variance=np.full(shape, np.nan),
        error=np.full(shape, np.nan),
        adaptive=np.full(shape, np.nan),
        at=np.full(shape, -1, np.int64),
    )


@kernel
def renew(r: References, a: int, i: int) -> None:
    """Forget an asset's references: what comes now is its commissioning."""
    r.windows[a, i] = r.kept[a, i] = 0
    r.total[a, i] = 0.0
    r.began[a, i] = r.at[a, i] = -1
    r.frozen[a, i] = r.limit[a, i] = r.variance[a, i] = r.error[a, i] = r.adaptive[a, i] = math.nan


@kernel
def gather(k: Indicators, r: References, a: int, features: NDArray[np.float64]) -> None:
    """Add a window to the open step of each indicator that it knows."""
    for i in range(len(k.column)):
        value = features[k.column[i]]
        condition = k.condition[i]
        if condition >= 0 and not (k.low[i] <= features[condition] <= k.high[i]):
            continue
        if not math.isfinite(value):
            continue
        if math.isfinite(r.limit[a, i]):
            # A single window cannot pull further than the function is lost, twice over.
            way = r.limit[a, i] - r.frozen[a, i]
            share = (value - r.frozen[a, i]) / way
            value = r.frozen[a, i] + way * min(max(share, LOWEST), HIGHEST)
        r.windows[a, i] += 1
        r.total[a, i] += value


@kernel
def degradation(r: References, a: int, i: int, value: float) -> float:
    """Return how far a value has gone from the frozen reference to the failure limit, NaN where unknown."""
    share: float = (value - r.frozen[a, i]) / (r.limit[a, i] - r.frozen[a, i])
    return share


@kernel
def close_level(k: Indicators, r: References, a: int, i: int, step: int) -> float:
    """Close the step of an indicator and return the degradation of its level, NaN where there is none."""
    if r.windows[a, i] < WINDOWS_LEAST:
        return math.nan
    level = r.total[a, i] / r.windows[a, i]
    r.windows[a, i] = 0
    r.total[a, i] = 0.0
    if math.isnan(r.frozen[a, i]):
        if r.began[a, i] < 0:
            r.began[a, i] = step
        if r.kept[a, i] < DAY_STEPS:
            r.first[a, i, r.kept[a, i]] = level
            r.kept[a, i] += 1
        if step - r.began[a, i] >= DAY_STEPS - 1 and r.kept[a, i] >= LEVELS_LEAST:
            _freeze(k, r, a, i)
            r.at[a, i] = step
        return math.nan
    # The adaptive reference: a spell of an hour moves it little.
    keep = math.exp(-(step - r.at[a, i]) / MEMORY_STEPS)
    r.adaptive[a, i] = keep * r.adaptive[a, i] + (1.0 - keep) * level
    r.at[a, i] = step
    return degradation(r, a, i, level)


@kernel
def _freeze(k: Indicators, r: References, a: int, i: int) -> None:
    """Take the commissioning's levels for the reference: their trimmed mean, and their spread.

    Levels that follow one another are alike where the time of the day or the weather moves them. By the ratio of von
    Neumann (1941) the spread is widened to that of independent levels of the same weight.
    """
    n = r.kept[a, i]
    ranked = np.empty(n)
    for j in range(n):
        level = float(r.first[a, i, j])
        place = j
        while place > 0 and ranked[place - 1] > level:
            ranked[place] = ranked[place - 1]
            place -= 1
        ranked[place] = level
    cut = int(TRIM * n)
    low, high = ranked[cut], ranked[n - 1 - cut]
    reference = 0.0
    for j in range(cut, n - cut):
        reference += ranked[j]
    reference /= n - 2 * cut
    total = steps = before = 0.0
    for j in range(n):
        level = min(max(float(r.first[a, i, j]), low), high)
        total += (level - reference) ** 2
        if j > 0:
            steps += (level - before) ** 2
        before = level
    r.frozen[a, i] = r.adaptive[a, i] = reference
    limit = reference * k.factor[i] if k.factor[i] > 0.0 else reference + k.sign[i] * k.change[i]
    way = limit - reference
    if way * k.sign[i] <= 0.0:
        return  # a factor on 0 leads nowhere
    # Winsorising at 12.5 % leaves 0.6 of a normal variance.
    variance = total / (n - 1) / 0.6
    alike = total / (n - 1) / max(0.5 * steps / (n - 1), 1e-300) if total > 0.0 else 1.0
    correlation = min(max(2.0 * alike - 1.0, 1.0), CORRELATION_MOST)
    r.limit[a, i] = limit
    r.variance[a, i] = correlation * variance / (way * way)
    r.error[a, i] = max(r.variance[a, i], SPREAD_LEAST**2) / n


@kernel
def _variance(k: Indicators, r: References, a: int, i: int) -> float:
    """Return the variance of a level: where the limit is a factor on the reference, noise grows with the level."""
    grown = abs(r.adaptive[a, i] / r.frozen[a, i]) if k.factor[i] > 0.0 else 1.0
    variance: float = max(r.variance[a, i] * max(1.0, grown * grown), SPREAD_LEAST**2)
    return variance


@kernel
def combine(k: Indicators, r: References, a: int, m: int, levels: NDArray[np.float64], out: NDArray[np.float64]) -> int:
    """Write the degradation of a failure mode, its variance and its lasting error; return how many indicators spoke.

    Parameters
    ----------
    levels
        Degradation of each indicator of the class in this step, NaN where it has none.
    """
    weights = total = squares = noise = error = 0.0
    spoke = 0
    for i in range(k.first[m], k.first[m + 1]):
        value = levels[i]
        if math.isnan(value):
            continue
        variance = _variance(k, r, a, i)
        weight = 1.0 / (variance + PEERS**2)
        spoke += 1
        weights += weight
        total += weight * value
        squares += weight * value * value
        noise += weight * weight * variance
        error += weight * weight * r.error[a, i]
    if spoke == 0:
        return 0
    mean = total / weights
    apart = max(0.0, squares / weights - mean * mean)
    # Two that agree count in full; of one that goes alone, among two, a quarter.
    out[0] = mean * max(0.0, 1.0 - 0.5 * math.sqrt(apart) / max(abs(mean), 1e-300))
    out[1] = noise / (weights * weights)
    out[2] = error / (weights * weights) + apart
    return spoke
