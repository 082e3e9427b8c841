"""Random numbers that depend only on where they are used: on the seed, the asset, the stream and the place in it.

So the fleet says the same however the time is cut into steps, and wherever a run resumes.

References
----------
Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (the mixing function `mix`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["TABLE", "WHITE", "Tables", "exponential", "key_of", "mix", "normal", "poisson", "tables", "uniform"]

TABLE = 1 << 17
"""Samples of a table of band noise: 22 minutes at 100 Hz, after which it wraps."""
WHITE = 1 << 16
"""Samples of the table of white noise."""
LONGEST_RUN = 1 << 13
"""Samples that are repeated after the end of each table, so that a run of this length needs no wrapping."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)
_S11 = np.uint64(11)


@kernel
def mix(x: np.uint64) -> np.uint64:
    """Return 64 bits that look unrelated to the 64 bits given."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@kernel
def key_of(seed: int, asset: int, stream: int, index: int) -> np.uint64:
    """Return the 64-bit key of one place: the same in every run with this seed."""
    key = mix(np.uint64(seed) + _GOLDEN)
    key = mix(key ^ (np.uint64(asset) + _GOLDEN))
    key = mix(key ^ (np.uint64(stream) + _GOLDEN))
    return mix(key ^ (np.uint64(index) + _GOLDEN))


@kernel
def uniform(state: NDArray[np.uint64]) -> float:
    """Draw from [0, 1) and advance the state, an array of one key."""
    state[0] += _GOLDEN
    return float(mix(state[0]) >> _S11) * (1.0 / 9007199254740992.0)


@kernel
def normal(state: NDArray[np.uint64]) -> float:
    """Draw from the standard normal distribution (Box and Muller)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
    return radius * math.cos(2.0 * math.pi * uniform(state))


@kernel
def exponential(state: NDArray[np.uint64]) -> float:
    """Draw from the exponential distribution of mean 1."""
    return -math.log(1.0 - uniform(state))


@kernel
def poisson(state: NDArray[np.uint64], mean: float) -> int:
    """Draw from the Poisson distribution; meant for means below 500."""
    count = 0
    left = mean - exponential(state)
    while left > 0.0:
        count += 1
        left -= exponential(state)
    return count


class Tables(NamedTuple):
    """Noise of unit variance at 100 Hz, float32: white, and in the bands 1-5, 5-15, 15-30 and 30-50 Hz."""

    white: NDArray[np.float32]
    sway: NDArray[np.float32]
    rumble: NDArray[np.float32]
    hum: NDArray[np.float32]
    rattle: NDArray[np.float32]


def tables(seed: int) -> Tables:
    """Make the noise tables of a fleet; they repeat their beginning at the end (`LONGEST_RUN`).

    Examples
    --------
    >>> [len(t) for t in tables(0)] == [WHITE + LONGEST_RUN] + 4 * [TABLE + LONGEST_RUN]
    True
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    white = rng.standard_normal(WHITE)
    bands = [_band(rng, low, high) for low, high in ((1.0, 5.0), (5.0, 15.0), (15.0, 30.0), (30.0, 49.5))]
    return Tables(*[np.concatenate([t, t[:LONGEST_RUN]]).astype(np.float32) for t in (white, *bands)])


def _band(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float64]:
    hz = np.fft.rfftfreq(TABLE, 0.01)
    inside = (hz > low) & (hz < high)
    spectrum = np.where(inside, rng.standard_normal(len(hz)) + 1j * rng.standard_normal(len(hz)), 0.0)
    noise = np.fft.irfft(spectrum, TABLE)
    scaled: NDArray[np.float64] = noise / noise.std()
    return scaled
