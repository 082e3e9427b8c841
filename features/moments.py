"""Mergeable statistics of the samples of one signal: central moments to the fourth, extremes, trend, ends.

An accumulator is a row of `SIZE` float64. Two accumulators merge without a second pass over the samples, so a window
can be filled from blocks in any order, and longer horizons are merges of windows in the order of time.

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

from features.compiled import exact_kernel, finite_kernel, kernel

__all__ = ["MERGED", "SIZE", "add_block", "add_sample", "append", "reset", "screen", "statistics"]

COUNT, MEAN, M2, M3, M4, LOW, HIGH, TIME, TIME_TIME, TIME_VALUE, FIRST, LAST, ORIGIN, FIRST_TIME, LAST_TIME = range(15)
SIZE = 15
"""Length of an accumulator. Times in it are seconds since the start of its window; the mean is that less `ORIGIN`, the
first value that came, so that a small spread on a large offset keeps its digits."""
MERGED = 13
"""Length of an accumulator to which later ones are appended: its first and its last sample need no times."""
_EXPONENT = 0x7FF0000000000000
"""Bits of a float64 that are all set in NaN and infinity."""


@kernel
def reset(accumulator: NDArray[np.float64]) -> None:
    """Empty an accumulator."""
    for i in range(len(accumulator)):
        accumulator[i] = 0.0


@exact_kernel
def shifted(mean: float, origin: float, other: float) -> float:
    """Return a mean above one origin as a mean above another."""
    return mean + (origin - other)


@exact_kernel
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


@exact_kernel
def add_sample(into: NDArray[np.float64], value: float, time_s: float) -> None:
    """Add one finite sample taken `time_s` seconds after the start of the window."""
    if into[COUNT] == 0.0:
        _set(into, 1.0, 0.0, 0.0, 0.0, 0.0, time_s, 0.0, 0.0)
        into[ORIGIN] = value
        into[LOW] = value
        into[HIGH] = value
        into[FIRST] = value
        into[LAST] = value
        into[FIRST_TIME] = time_s
        into[LAST_TIME] = time_s
        return
    _combine(into, 1.0, value - into[ORIGIN], 0.0, 0.0, 0.0, time_s, 0.0, 0.0)
    into[LOW] = min(into[LOW], value)
    into[HIGH] = max(into[HIGH], value)
    if time_s < into[FIRST_TIME]:
        into[FIRST_TIME] = time_s
        into[FIRST] = value
    if time_s > into[LAST_TIME]:
        into[LAST_TIME] = time_s
        into[LAST] = value


@finite_kernel
def screen(values: NDArray[np.float64], above: NDArray[np.float64]) -> tuple[bool, float, float, float]:
    """Write how far each sample lies above the first; return whether all are finite, the sum of that, and the extremes.

    Finite is told from the bits, because to this kernel every number is. The differences are stored, so that no
    reordering of the sum can undo them.

    Examples
    --------
    >>> above = np.empty(2)
    >>> screen(np.array([1.0, 4.0]), above), screen(np.array([1.0, np.nan]), above)[0]
    ((True, 3.0, 1.0, 4.0), False)
    """
    bits = values.view(np.int64)
    odd = 0
    total = 0.0
    origin = values[0]
    low = values[0]
    high = values[0]
    for i in range(len(values)):
        value = values[i]
        odd += (bits[i] & _EXPONENT) == _EXPONENT
        above[i] = value - origin
        total += above[i]
        low = min(low, value)
        high = max(high, value)
    return odd == 0, total, low, high


@finite_kernel
def add_block(
    into: NDArray[np.float64],
    first: float,
    last: float,
    above: NDArray[np.float64],
    time_s: float,
    period_s: float,
    total: float,
    low: float,
    high: float,
) -> None:
    """Add a run of finite samples, the first `time_s` seconds after the window's start, then one each `period_s`.

    `above`, its sum and the extremes are those of `screen`: this is the second pass over the block, which lies in the
    cache, with the moments about its mean.
    """
    n = len(above)
    mean = total / n
    m2 = 0.0
    m3 = 0.0
    m4 = 0.0
    by_time = 0.0
    middle = 0.5 * (n - 1)
    for i in range(n):
        d = above[i] - mean
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
        into[ORIGIN] = first
        into[LOW] = low
        into[HIGH] = high
        into[FIRST] = first
        into[LAST] = last
        into[FIRST_TIME] = time_s
        into[LAST_TIME] = last_time
        return
    _combine(into, float(n), shifted(mean, first, into[ORIGIN]), m2, m3, m4, time, time_time, by_time * period_s)
    into[LOW] = min(into[LOW], low)
    into[HIGH] = max(into[HIGH], high)
    if time_s < into[FIRST_TIME]:
        into[FIRST_TIME] = time_s
        into[FIRST] = first
    if last_time > into[LAST_TIME]:
        into[LAST_TIME] = last_time
        into[LAST] = last


@exact_kernel
def append(into: NDArray[np.float64], other: NDArray[np.float64], later_s: float) -> None:
    """Merge an accumulator whose samples are all later, and whose window starts `later_s` seconds after that of `into`.

    Either may be `SIZE` or `MERGED` long.

    Examples
    --------
    >>> import numpy as np
    >>> first, second = np.zeros(MERGED), np.zeros(SIZE)
    >>> add_sample(second, 1.0, 0.0)
    >>> append(first, second, 0.0)
    >>> add_sample(second, 4.0, 1.0)
    >>> append(first, second, 2.0)
    >>> out = np.empty(13)
    >>> statistics(first, out)
    >>> float(out[1]), float(out[12])
    (2.0, 4.0)
    """
    if other[COUNT] == 0.0:
        return
    if into[COUNT] == 0.0:
        for i in range(MERGED):
            into[i] = other[i]
        into[TIME] += later_s
        return
    _combine(
        into,
        other[COUNT],
        shifted(other[MEAN], other[ORIGIN], into[ORIGIN]),
        other[M2],
        other[M3],
        other[M4],
        other[TIME] + later_s,
        other[TIME_TIME],
        other[TIME_VALUE],
    )
    into[LOW] = min(into[LOW], other[LOW])
    into[HIGH] = max(into[HIGH], other[HIGH])
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
    mean = accumulator[ORIGIN] + accumulator[MEAN]
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
