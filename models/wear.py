"""How wear goes on from here: a Wiener process whose drift is learned, and when it reaches the failure limit.

Degradation of a failure mode (0 as new, 1 at its failure limit) is a Wiener process with a drift that itself changes
slowly. A Kalman filter learns level and drift from one observation a step; the time to failure is the first passage of
the failure limit. Time is counted in *days* of 24 steps (`models.health.step_s`), which are days of 24 h for every
class whose paging horizon is a day or longer.

The probabilities follow from the model alone. They are not yet calibrated on recorded failures; calibration follows.

References
----------
.. [1] Wang, Carr, Xu, Kobbacy: A model for residual life prediction based on Brownian motion with an adaptive drift,
   Microelectronics Reliability 51 (2011), eq. 2 to 9.
.. [2] Peng, Tseng: Mis-specification analysis of linear degradation models, IEEE Trans. Reliability 58 (2009), eq. 10:
   first passage of a Wiener process with normally distributed drift.
.. [3] Si, Wang, Hu, Zhou: Remaining useful life estimation - a review on the statistical data driven approaches,
   European Journal of Operational Research 213 (2011).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = [
    "QUANTILES",
    "Trend",
    "failure_probability",
    "first_passage",
    "limit_distances",
    "log_normal_cdf",
    "new_trend",
    "normal_quantile",
    "observe",
    "remaining_life",
    "reset",
    "under_way",
    "unsettle",
    "variance_a_day",
]

QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles of the remaining useful life."""

DRIFT_PRIOR = 0.02
"""Standard deviation of the drift of an asset that has just been commissioned, a day: healthy until it shows."""
DRIFT_CHANGE = 0.08
"""How much the drift may change in a day, one standard deviation (1/day per square root of a day)."""
DRIFT_MEMORY = 10.0
"""Days in which a drift that is no longer seen is forgotten."""
DIFFUSION = 0.03
"""Prior of the diffusion, per square root of a day: van Noortwijk's survey has gamma processes of this roughness."""
DIFFUSION_PRIOR_DAYS = 3.0
DIFFUSION_MEMORY = 7.0
ONSET_ODDS = 0.05
"""Odds that a failure mode is wearing before anything is seen of it: 1.4 wear failures a year, two weeks each."""
HEALTHY_SPREAD = 0.05
"""How far the level of a healthy asset strays with season and use, one standard deviation."""
LIMIT_SPREAD = 0.1
"""Scatter of the failure limit between assets, one standard deviation: no two break at the same wear."""
REJECT = 3.0
"""Innovations beyond this many standard deviations are taken for a spell, not for wear."""
SHIFT_AFTER = 4
"""Rejected observations in a row after which the new level is accepted: as a shift, which says nothing of the drift."""
ENOUGH = 6
"""Observations before a probability is known."""
FARTHEST = 91.0
"""Days beyond which a remaining life is not told."""


class Trend(NamedTuple):
    """Level and drift of the degradation, arrays of shape ``(assets, failure_modes)``.

    `level` and `drift` with their covariance `p_level`, `p_cross`, `p_drift`; `offset`, the part of the level that is
    taken for a sensor's; `at_us` of the last observation (-1 none); `seen` observations; `odd` rejected ones in a row,
    negative below; of the daily increments `day_level` and `day_us` of the last, and the sum of squares `rough` of
    `rough_days`.
    """

    level: NDArray[np.float64]
    drift: NDArray[np.float64]
    p_level: NDArray[np.float64]
    p_cross: NDArray[np.float64]
    p_drift: NDArray[np.float64]
    offset: NDArray[np.float64]
    at_us: NDArray[np.int64]
    seen: NDArray[np.int32]
    odd: NDArray[np.int32]
    day_level: NDArray[np.float64]
    day_us: NDArray[np.int64]
    rough: NDArray[np.float64]
    rough_days: NDArray[np.float64]


def new_trend(assets: int, modes: int) -> Trend:
    """Return the trends of assets that have sent nothing."""
    shape = (assets, modes)
    trend = Trend(
        level=np.zeros(shape),
        drift=np.zeros(shape),
        p_level=np.zeros(shape),
        p_cross=np.zeros(shape),
        p_drift=np.zeros(shape),
        offset=np.zeros(shape),
        at_us=np.zeros(shape, np.int64),
        seen=np.zeros(shape, np.int32),
        odd=np.zeros(shape, np.int32),
        day_level=np.zeros(shape),
        day_us=np.zeros(shape, np.int64),
        rough=np.zeros(shape),
        rough_days=np.zeros(shape),
    )
    _reset_all(trend)
    return trend


@kernel
def _reset_all(t: Trend) -> None:
    for a in range(t.level.shape[0]):
        for m in range(t.level.shape[1]):
            reset(t, a, m)


@kernel
def reset(t: Trend, a: int, m: int) -> None:
    """Forget the wear of an asset: it is new, or has been repaired."""
    t.level[a, m] = t.drift[a, m] = t.p_cross[a, m] = t.offset[a, m] = 0.0
    t.p_level[a, m] = 0.05**2
    t.p_drift[a, m] = DRIFT_PRIOR**2
    t.at_us[a, m] = t.day_us[a, m] = -1
    t.seen[a, m] = t.odd[a, m] = 0
    t.day_level[a, m] = t.rough[a, m] = t.rough_days[a, m] = 0.0


@kernel
def unsettle(t: Trend, a: int, m: int) -> None:
    """Let the level be new after an outage: whatever was done, it is no wear."""
    t.p_level[a, m] += 0.3**2
    t.day_us[a, m] = -1
    t.odd[a, m] = 0


@kernel
def observe(t: Trend, a: int, m: int, at_us: int, day_us: float, value: float, variance: float, seconded: bool) -> None:
    """Learn from one observed degradation.

    An observation far off what was expected is left out. When `SHIFT_AFTER` of them in a row agree, the level moves
    there at once and the drift learns nothing from it: wear does not jump, an offset of a sensor does. A jump up that
    no second indicator confirms is taken for that: the level shows it, but the failure limit moves along.

    Parameters
    ----------
    at_us
        Event time of the observation.
    day_us
        Microseconds of a day of 24 steps.
    value, variance
        The degradation, and the variance of its error.
    seconded
        Whether more than one indicator speaks in it.
    """
    if t.at_us[a, m] < 0:
        t.at_us[a, m] = at_us
    dt = max(0.0, (at_us - t.at_us[a, m]) / day_us)
    t.at_us[a, m] = at_us
    # Predict: the drift fades towards that of a healthy asset.
    fade = math.exp(-dt / DRIFT_MEMORY)
    diffusion = variance_a_day(t, a, m)
    level = t.level[a, m] + t.drift[a, m] * dt
    p_level = t.p_level[a, m] + dt * (2.0 * t.p_cross[a, m] + dt * t.p_drift[a, m]) + diffusion * dt
    p_cross = fade * (t.p_cross[a, m] + dt * t.p_drift[a, m])
    p_drift = fade * fade * t.p_drift[a, m] + DRIFT_CHANGE**2 * dt
    drift = fade * t.drift[a, m]
    # Weigh what was seen.
    innovation = value - level
    spread = p_level + variance
    if innovation * innovation > REJECT * REJECT * spread:
        sign = 1 if innovation > 0.0 else -1
        t.odd[a, m] = t.odd[a, m] + sign if t.odd[a, m] * sign > 0 else sign
        if abs(t.odd[a, m]) < SHIFT_AFTER:
            t.level[a, m], t.drift[a, m] = level, drift
            t.p_level[a, m], t.p_cross[a, m], t.p_drift[a, m] = p_level, p_cross, p_drift
            return
        if not seconded:
            t.offset[a, m] += innovation
        p_level += innovation * innovation
        p_cross = 0.0
        spread = p_level + variance
        t.day_us[a, m] = -1
    t.odd[a, m] = 0
    gain_level = p_level / spread
    gain_drift = p_cross / spread
    t.level[a, m] = level + gain_level * innovation
    t.drift[a, m] = drift + gain_drift * innovation
    t.offset[a, m] = min(max(t.offset[a, m], 0.0), max(t.level[a, m], 0.0))
    t.p_level[a, m] = p_level * (1.0 - gain_level)
    t.p_cross[a, m] = p_cross * (1.0 - gain_level)
    t.p_drift[a, m] = p_drift - gain_drift * p_cross
    t.seen[a, m] += 1
    _roughness(t, a, m, at_us, day_us)


@kernel
def _roughness(t: Trend, a: int, m: int, at_us: int, day_us: float) -> None:
    """Learn the diffusion from what the level did in a day beside its drift."""
    if t.day_us[a, m] >= 0:
        days = (at_us - t.day_us[a, m]) / day_us
        if days < 0.999:
            return
        step = t.level[a, m] - t.day_level[a, m] - t.drift[a, m] * days
        keep = math.exp(-days / DIFFUSION_MEMORY)
        t.rough[a, m] = keep * t.rough[a, m] + max(0.0, step * step - 2.0 * t.p_level[a, m])
        t.rough_days[a, m] = keep * t.rough_days[a, m] + days
    t.day_us[a, m] = at_us
    t.day_level[a, m] = t.level[a, m]


@kernel
def variance_a_day(t: Trend, a: int, m: int) -> float:
    """Return the variance that the diffusion adds in a day."""
    prior = DIFFUSION_PRIOR_DAYS * DIFFUSION**2
    variance: float = (prior + t.rough[a, m]) / (DIFFUSION_PRIOR_DAYS + t.rough_days[a, m])
    return variance


@kernel
def log_normal_cdf(x: float) -> float:
    """Return the logarithm of the standard normal distribution function, also far out where the function is 0.

    Examples
    --------
    >>> round(log_normal_cdf(0.0), 6), round(log_normal_cdf(-50.0), 6)
    (-0.693147, -1254.831361)
    """
    if x > -20.0:
        return math.log(0.5 * math.erfc(-x * math.sqrt(0.5)))
    inverse = 1.0 / (x * x)
    series = 1.0 - inverse * (1.0 - 3.0 * inverse * (1.0 - 5.0 * inverse * (1.0 - 7.0 * inverse)))
    return -0.5 * x * x - math.log(-x * math.sqrt(2.0 * math.pi)) + math.log(series)


@kernel
def normal_quantile(p: float) -> float:
    """Return the standard normal quantile of `p` in (0, 1), by Newton steps on the logarithm of the probability.

    Examples
    --------
    >>> round(normal_quantile(0.975), 6), round(normal_quantile(1e-12), 6)
    (1.959964, -7.034484)
    """
    if p > 0.5:
        return -normal_quantile_low(1.0 - p)
    return normal_quantile_low(p)


@kernel
def normal_quantile_low(p: float) -> float:
    """Return the quantile of `p` up to 0.5."""
    goal = math.log(max(p, 1e-300))
    x = -math.sqrt(max(0.0, -2.0 * (goal + math.log(2.0))))  # Chernoff's bound: never right of the quantile
    for _ in range(30):
        log_p = log_normal_cdf(x)
        hazard = math.exp(-0.5 * x * x - 0.5 * math.log(2.0 * math.pi) - log_p)
        step = (goal - log_p) / hazard
        x += step
        if abs(step) < 1e-12:
            break
    return x


@kernel
def first_passage(days: float, distance: float, drift: float, drift_sd: float, diffusion: float) -> float:
    """Return the probability that a Wiener process has come `distance` far at least once within `days`.

    Parameters
    ----------
    days
        Time, above 0.
    distance
        Way to the failure limit, above 0.
    drift, drift_sd
        Mean and standard deviation of the drift a day.
    diffusion
        Variance a day, above 0.

    Examples
    --------
    Half of the way left at a tenth a day:

    >>> [round(first_passage(days, 0.5, 0.1, 0.02, 0.001), 3) for days in (1.0, 5.0, 7.0, 30.0)]
    [0.0, 0.516, 0.898, 1.0]

    References
    ----------
    Peng and Tseng 2009, eq. 10; the inverse Gaussian distribution where `drift_sd` is 0.
    """
    sd = math.sqrt(diffusion * days + (drift_sd * days) ** 2)
    direct = 0.5 * math.erfc(-(drift * days - distance) / sd * math.sqrt(0.5))
    turn = 2.0 * drift * distance / diffusion + 2.0 * (drift_sd * distance / diffusion) ** 2
    back = -(2.0 * drift_sd**2 * distance * days + diffusion * (drift * days + distance)) / (diffusion * sd)
    return min(1.0, max(0.0, direct + math.exp(min(0.0, turn + log_normal_cdf(back)))))


@kernel
def limit_distances(level: float, variance: float, out: NDArray[np.float64]) -> None:
    """Write three equally likely ways to the failure limit, given that it has not been reached.

    The limit scatters between assets. An asset that still runs at a degradation of 1 has a higher one.

    Examples
    --------
    >>> out = np.empty(3)
    >>> limit_distances(0.5, 0.0, out)
    >>> out.round(2).tolist()
    [0.4, 0.5, 0.6]
    >>> limit_distances(1.1, 0.0, out)
    >>> bool((out > 0).all())
    True
    """
    sd = math.sqrt(variance + LIMIT_SPREAD**2)
    left = math.exp(log_normal_cdf((1.0 - level) / sd))
    for i in range(3):
        # From above, where a probability near 1 would lose its digits.
        above = left * (5.0 - 2.0 * i) / 6.0
        out[i] = max(1e-3, 1.0 - level - sd * normal_quantile(max(above, 1e-300)))


@kernel
def under_way(worn: float, variance: float) -> float:
    """Return the probability that there is any wear, given how far the level has gone.

    The drift of a healthy asset is never known to be exactly none, and extrapolated over a week its uncertainty alone
    would reach the limit now and then. So the odds of wear are those of its being seen at all.

    Examples
    --------
    >>> [round(under_way(worn, 0.0), 2) for worn in (-0.1, 0.0, 0.1, 0.15, 0.2)]
    [0.05, 0.05, 0.27, 0.82, 0.99]
    """
    z = max(0.0, worn) / math.sqrt(variance + HEALTHY_SPREAD**2)
    odds = ONSET_ODDS * math.exp(min(0.5 * z * z, 100.0))
    share: float = odds / (1.0 + odds)
    return share


@kernel
def failure_probability(
    days: float, distances: NDArray[np.float64], drift: float, drift_sd: float, diffusion: float
) -> float:
    """Return the probability that wear that is under way ends in failure within `days`, averaged over the ways left."""
    total = 0.0
    for i in range(len(distances)):
        total += first_passage(days, distances[i], drift, drift_sd, diffusion)
    return total / len(distances)


@kernel
def remaining_life(
    distances: NDArray[np.float64],
    drift: float,
    drift_sd: float,
    diffusion: float,
    wearing: float,
    out: NDArray[np.float64],
) -> None:
    """Write the 10, 50 and 90 % quantiles of the days to failure.

    Without a median within `FARTHEST` days nothing is known of the remaining life, and all are NaN; a 90 % quantile
    alone may be NaN, because what may be no wear may never lead to failure.

    Parameters
    ----------
    wearing
        Probability that there is any wear, `under_way`.
    """
    for i in range(3):
        out[i] = math.nan
    farthest = failure_probability(FARTHEST, distances, drift, drift_sd, diffusion)
    if wearing * farthest < 0.5:
        return
    low = 1e-4
    for i in range(3):
        goal = (0.1 + 0.4 * i) / wearing
        if farthest < goal:
            return
        high = FARTHEST
        while high > 1.001 * low:
            # By ratios: a remaining life of an hour deserves the same digits as one of a month.
            middle = math.sqrt(low * high)
            if failure_probability(middle, distances, drift, drift_sd, diffusion) < goal:
                low = middle
            else:
                high = middle
        out[i] = high
        low = high / 1.001
