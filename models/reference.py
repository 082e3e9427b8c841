"""What is usual for one feature of one asset: mean, spread, and how many independent looks stand behind them.

Windows that follow one another resemble one another. A motor that has warmed up for two hours has shown one value many
times, not many values: its range is not known yet, however many windows there were. Each feature therefore carries the
mean square of its successive differences beside its variance (von Neumann 1941); their ratio gives the number of
independent observations, and that number says how far the spread may be trusted.

References
----------
.. [1] von Neumann, J., 1941. Distribution of the ratio of the mean square successive difference to the variance.
   Annals of Mathematical Statistics 12(4).
.. [2] Bayley, G. and Hammersley, J., 1946. The "effective" number of independent observations in an autocorrelated
   time series. Supplement to the JRSS 8(2).
"""

from __future__ import annotations

from math import sqrt

from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["effective", "follow", "least_seen", "spread", "standardised"]

SELDOM = 10
"""A feature takes part once it has been seen in a tenth of the warm-up's windows, but at least in so many."""

CLIP = 5.0
"""Standard deviations beyond which a window that is learnt counts as if it lay there (Winsorised; Huber 1981)."""

LARGEST = 1e15
"""What a deviation is cut to in any case, so that its square is finite."""

UNSEEN = 20
"""Observations before which nothing is clipped."""

RELATIVE_FLOOR = 1e-12
"""Smallest standard deviation relative to the mean: some thousand times what float64 can tell apart."""

ABSOLUTE_FLOOR = 1e-12
"""Smallest standard deviation of a feature that was never anything but 0."""


@kernel
def least_seen(warm_up: int) -> int:
    """Return in how many windows a feature must have been seen before it takes part."""
    return max(SELDOM, warm_up // 10)


@kernel
def follow(
    x: float,
    memory: float,
    j: int,
    count: NDArray,  # type: ignore[type-arg]
    mean: NDArray,  # type: ignore[type-arg]
    var: NDArray,  # type: ignore[type-arg]
    step: NDArray,  # type: ignore[type-arg]
    last: NDArray,  # type: ignore[type-arg]
) -> tuple[float, float]:
    """Move mean and variance of feature `j` towards `x` with weight 1 / min(count, memory); give deviation and weight.

    The deviation is the (clipped) one from the mean before the move.
    """
    n = count[j] + 1
    if n == 1:
        count[j] = 1
        mean[j] = x
        var[j] = 0.0
        step[j] = 0.0
        last[j] = x
        return 0.0, 1.0
    w = 1.0 / min(float(n), memory)
    d = x - mean[j]
    sd = sqrt(var[j])
    # A feature that never moved has no spread to clip at: let it begin.
    bound = CLIP * sd if n > UNSEEN and sd > RELATIVE_FLOOR * abs(mean[j]) else LARGEST
    d = min(bound, max(-bound, d))
    mean[j] += w * d
    var[j] = (1.0 - w) * (var[j] + w * d * d)
    s = min(2.0 * bound, max(-2.0 * bound, x - last[j]))
    ws = 1.0 / min(float(n - 1), memory)
    step[j] += ws * (s * s - step[j])
    last[j] = x
    count[j] = n
    return d, w


@kernel
def effective(count: float, var: float, step: float, memory: float) -> float:
    """Return the number of independent observations behind a mean and variance, as if the feature were AR(1).

    With lag-1 correlation r it is n (1 - r) / (1 + r), and half the mean square successive difference over the variance
    estimates 1 - r.
    """
    n = min(count, memory)
    if var <= 0.0:
        return n
    ratio = min(1.0, 0.5 * step / var)
    return n * ratio / (2.0 - ratio)


@kernel
def spread(mean: float, var: float, independent: float) -> float:
    """Return the standard deviation of the next value about a mean of so few independent ones; infinite below two.

    The variance of a prediction, s2 (1 + 1/n) with s2 freed of its bias by n / (n - 1).
    """
    if independent <= 1.0:
        return float("inf")
    floor = max(RELATIVE_FLOOR * abs(mean), ABSOLUTE_FLOOR)
    return max(floor, sqrt(var * (independent + 1.0) / (independent - 1.0)))


@kernel
def standardised(d: float, sd: float, count: float) -> float:
    """Return a deviation in standard deviations, at most the root of `count`.

    After n windows without a deviation of this size its variance may still be d2 / n, so no more can be concluded.
    """
    z = min(LARGEST, max(-LARGEST, d / sd))
    return z / sqrt(1.0 + z * z / count)
