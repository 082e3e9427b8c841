"""Band powers and envelope of vibration segments, by definition: a discrete Fourier transform and sums.

Written from the documentation of `features.spectra`. A segment is one second of samples, or 64 where that is more,
counted from the start of the window, in which it lies whole; one with a missing sample says nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Sample = tuple[int, float]


def segments(
    samples: Sequence[Sample], n: int, period_us: int, window_us: int
) -> list[tuple[int, NDArray[np.float64]]]:
    """Return the whole segments, each with the start of its window.

    A sample belongs to the slot of its time, or to the next one where that begins within a hundredth of a period.
    """
    held: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
    for at, value in samples:
        window, inside = divmod(at + period_us // 100, window_us)
        number, within = divmod(inside, n * period_us)
        if (number + 1) * n * period_us <= window_us:
            held[window, number].setdefault(within // period_us, value)
    return [
        (window * window_us, np.array([slots[k] for k in range(n)]))
        for (window, _), slots in sorted(held.items())
        if len(slots) == n
    ]


def powers(x: NDArray[np.float64], period_s: float, bands: Sequence[tuple[float, float]]) -> list[float]:
    """Return the power of a segment in each band, as the mean square of what the band holds seen through the window."""
    n = len(x)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    weighted = (x - np.sum(window * x) / np.sum(window)) * window
    spectrum = np.abs(np.fft.fft(weighted)) ** 2 / n / np.sum(window**2)
    frequency = np.abs(np.fft.fftfreq(n, period_s))
    top = 0.5 / period_s
    found = []
    for low, high in bands:
        inside = (frequency >= low - 1e-9) & ((frequency < high - 1e-9) | (high > top - 1e-9))
        inside[0] = False
        found.append(float(spectrum[inside].sum()))
    return found


def envelope(x: NDArray[np.float64], period_s: float, band: tuple[float, float]) -> tuple[float, float]:
    """Return the mean of the squared envelope of a band and of its square, over the middle two thirds of a segment."""
    n = len(x)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    weighted = (x - np.sum(window * x) / np.sum(window)) * window
    frequency = np.arange(n) / (n * period_s)
    bins = np.flatnonzero((frequency >= band[0] - 1e-9) & (frequency < min(band[1], 0.5 / period_s) - 1e-9))
    points = np.arange(2 * len(bins)) * (n / (2 * len(bins)))
    points = points[np.abs(points / n - 0.5) < 1 / 3 + 1e-9]
    waves = 2.0 / n * np.exp(2j * np.pi * np.outer(points, bins) / n)
    spectrum = np.fft.fft(weighted)
    analytic = waves @ spectrum[bins]
    # What each sample of white noise adds to the envelope at each point.
    response = waves @ np.exp(-2j * np.pi * np.outer(bins, np.arange(n)) / n) * window
    loudness = np.sum(np.abs(response) ** 2, axis=1)
    square = np.abs(analytic) ** 2 * (4.0 * len(bins) / n) / loudness
    return float(square.mean()), float((square**2).mean())


def features(
    found: Sequence[NDArray[np.float64]], period_s: float, bands: Sequence[tuple[float, float]]
) -> dict[str, float]:
    """Return the features of a window that holds these segments."""
    names = [f"band_{low:g}_{high:g}" for low, high in bands]
    if not found:
        return {**{n: math.nan for n in names}, **{f"{n}_max": math.nan for n in names}, "envelope": math.nan}
    power = np.array([powers(x, period_s, bands) for x in found])
    square, fourth = np.mean([envelope(x, period_s, bands[-1]) for x in found], axis=0)
    said = {name: float(power[:, i].mean()) for i, name in enumerate(names)}
    said |= {f"{name}_max": float(power[:, i].max()) for i, name in enumerate(names)}
    return said | {"envelope": float(fourth / square**2 - 2.0) if square > 0.0 else math.nan}
