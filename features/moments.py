"""Mergeable statistics of the samples of one signal: central moments to the fourth, extremes, trend, ends.

An accumulator is a row of `SIZE` float64. Two accumulators merge without a second pass over the samples, so a window
can be filled from blocks in any order, and longer horizons are merges of windows.

References
----------
.. [1] P. Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical
   moments", Sandia report SAND2008-6212, 2008, equations 2.1, 3.1 and 3.2.
.. [2] T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
   variances", 1979.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import finite_kernel, kernel

__all__ = ["SIZE", "add_block", "add_sample", "merge", "reset", "statistics"]

COUNT, MEAN, M2, M3, M4, LOW, HIGH, TIME, TIME_TIME, TIME_VALUE, FIRST, FIRST_TIME, LAST, LAST_TIME = range(14)
SIZE = 14
"""Length of an accumulator. Times in it are seconds since the start of its window."""


@kernel
def reset(accumulator: NDArray[np.float64]) -> None:
    """Empty an accumulator."""
    for i in range(SIZE):
        accumulator[i] = 0.0


@kernel
def _combine(
    into: NDArray[np.float64],
    count: float,
    mean: float,
    m2: float,
    m3: float,
    m4: float,
    time: float,
    time_time: float,
    time_value: float,
) -> None:
    """Merge central moments and the co-moment with time, [1]_ equations 2.1, 3.1 and 3.2."""
    before = into[COUNT]
    total = before + count
    delta = mean - into[MEAN]
    share = count / total
    step = delta * share
    cross = delta * step * before
    into[M4] += (
        m4
        + cross * delta * delta * (before * before - before * count + count * count) / (total * total)
        + 6.0 * delta * delta * (before * before * m2 + count * count * into[M2]) / (total * total)
        + 4.0 * delta * (before * m3 - count * into[M3]) / total
    )
    into[M3] += m3 + cross * delta * (before - count) / total + 3.0 * delta * (before * m2 - count * into[M2]) / total
    into[M2] += m2 + cross
    shift = time - into[TIME]
    into[TIME_TIME] += time_time + shift * shift * before * share
    into[TIME_VALUE] += time_value + shift * delta * before * share
    into[TIME] += shift * share
    into[MEAN] += step
    into[COUNT] = total


@kernel
def _set(
    into: NDArray[np.float64],
    count: float,
    mean: float,
    m2: float,
    m3: float,
    m4: float,
    time: float,
    time_time: float,
    time_value: float,
) -> None:
    into[COUNT] = count
    into[MEAN] = mean
    into[M2] = m2
    into[M3] = m3
    into[M4] = m4
    into[TIME] = time
    into[TIME_TIME] = time_time
    into[TIME_VALUE] = time_value


@kernel
def add_sample(into: NDArray[np.float64], value: float, time_s: float) -> None:
    """Add one finite sample taken `time_s` seconds after the start of the window."""
    if into[COUNT] == 0.0:
        _set(into, 1.0, value, 0.0, 0.0, 0.0, time_s, 0.0, 0.0)
        into[LOW] = value
        into[HIGH] = value
        into[FIRST] = value
        into[LAST] = value
        into[FIRST_TIME] = time_s
        into[LAST_TIME] = time_s
        return
    _combine(into, 1.0, value, 0.0, 0.0, 0.0, time_s, 0.0, 0.0)
    into[LOW] = min(into[LOW], value)
    into[HIGH] = max(into[HIGH], value)
    if time_s < into[FIRST_TIME]:
        into[FIRST_TIME] = time_s
        into[FIRST] = value
    if time_s > into[LAST_TIME]:
        into[LAST_TIME] = time_s
        into[LAST] = value


@finite_kernel
def add_block(into: NDArray[np.float64], values: NDArray[np.float64], time_s: float, period_s: float) -> None:
    """Add a run of finite samples, the first `time_s` seconds after the window's start, then one each `period_s`.

    Two passes over the block, which lies in the cache: the mean first, then the moments about it, so that a large
    offset costs no precision.
    """
    n = len(values)
    total = 0.0
    low = values[0]
    high = values[0]
    for i in range(n):
        value = values[i]
        total += value
        low = min(low, value)
        high = max(high, value)
    mean = total / n
    m2 = 0.0
    m3 = 0.0
    m4 = 0.0
    by_time = 0.0
    middle = 0.5 * (n - 1)
    for i in range(n):
        d = values[i] - mean
        square = d * d
        m2 += square
        m3 += square * d
        m4 += square * square
        by_time += (i - middle) * d
    time = time_s + middle * period_s
    time_time = period_s * period_s * n * (float(n) * n - 1.0) / 12.0
    last_time = time_s + (n - 1) * period_s
    if into[COUNT] == 0.0:
        _set(into, float(n), mean, m2, m3, m4, time, time_time, by_time * period_s)
        into[LOW] = low
        into[HIGH] = high
        into[FIRST] = values[0]
        into[LAST] = values[n - 1]
        into[FIRST_TIME] = time_s
        into[LAST_TIME] = last_time
        return
    _combine(into, float(n), mean, m2, m3, m4, time, time_time, by_time * period_s)
    into[LOW] = min(into[LOW], low)
    into[HIGH] = max(into[HIGH], high)
    if time_s < into[FIRST_TIME]:
        into[FIRST_TIME] = time_s
        into[FIRST] = values[0]
    if last_time > into[LAST_TIME]:
        into[LAST_TIME] = last_time
        into[LAST] = values[n - 1]


@kernel
def merge(into: NDArray[np.float64], other: NDArray[np.float64], later_s: float) -> None:
    """Merge an accumulator whose window starts `later_s` seconds after the start of the window of `into`.

    Examples
    --------
    >>> import numpy as np
    >>> first, second = np.zeros(SIZE), np.zeros(SIZE)
    >>> add_block(first, np.array([1.0, 2.0]), 0.0, 1.0)
    >>> add_block(second, np.array([3.0, 4.0]), 0.0, 1.0)
    >>> merge(first, second, 2.0)
    >>> out = np.empty(13)
    >>> statistics(first, out)
    >>> float(out[1]), float(out[10])
    (2.5, 1.0)
    """
    if other[COUNT] == 0.0:
        return
    if into[COUNT] == 0.0:
        for i in range(SIZE):
            into[i] = other[i]
        into[TIME] += later_s
        into[FIRST_TIME] += later_s
        into[LAST_TIME] += later_s
        return
    _combine(
        into,
        other[COUNT],
        other[MEAN],
        other[M2],
        other[M3],
        other[M4],
        other[TIME] + later_s,
        other[TIME_TIME],
        other[TIME_VALUE],
    )
    into[LOW] = min(into[LOW], other[LOW])
    into[HIGH] = max(into[HIGH], other[HIGH])
    if other[FIRST_TIME] + later_s < into[FIRST_TIME]:
        into[FIRST_TIME] = other[FIRST_TIME] + later_s
        into[FIRST] = other[FIRST]
    if other[LAST_TIME] + later_s > into[LAST_TIME]:
        into[LAST_TIME] = other[LAST_TIME] + later_s
        into[LAST] = other[LAST]


@kernel
def statistics(accumulator: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Write the statistics of an accumulator, in the order of `features.signals.STATISTICS`.

    ==============  ====================================================================================
    count           number of samples, 0 where there is none; then all others are NaN
    mean            arithmetic mean
    std             standard deviation of the window's samples, sqrt(M2 / n)
    min, max        extremes
    peak_to_peak    max - min
    rms             sqrt(mean of squares)
    crest           largest magnitude / rms, NaN where rms is 0 (ISO 13372, 3.38)
    skewness        sqrt(n) M3 / M2^1.5, NaN for a constant
    kurtosis        n M4 / M2^2 - 3, 0 for a normal distribution, NaN for a constant
    slope           least-squares slope over time, a second, NaN for one sample
    first, last     the earliest and the latest sample
    ==============  ====================================================================================
    """
    n = accumulator[COUNT]
    out[0] = n
    if n == 0.0:
        for i in range(1, 13):
            out[i] = np.nan
        return
    mean = accumulator[MEAN]
    low = accumulator[LOW]
    high = accumulator[HIGH]
    # A constant has no spread, whatever rounding left in the moments.
    spread = accumulator[M2] if high > low else 0.0
    rms = math.sqrt(mean * mean + spread / n)
    out[1] = mean
    out[2] = math.sqrt(spread / n)
    out[3] = low
    out[4] = high
    out[5] = high - low
    out[6] = rms
    out[7] = max(abs(low), abs(high)) / rms if rms > 0.0 else np.nan
    out[8] = math.sqrt(n) * accumulator[M3] / (spread * math.sqrt(spread)) if spread > 0.0 else np.nan
    out[9] = n * accumulator[M4] / (spread * spread) - 3.0 if spread > 0.0 else np.nan
    out[10] = accumulator[TIME_VALUE] / accumulator[TIME_TIME] if accumulator[TIME_TIME] > 0.0 else np.nan
    out[11] = accumulator[FIRST]
    out[12] = accumulator[LAST]
