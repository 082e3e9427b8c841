"""How the energy of a vibration block is spread over frequency, and how impulsive its highest band is.

A block is a run of samples of fixed length, such as one second of a 100 Hz accelerometer. Each is looked at on its own,
so a block's numbers do not depend on which blocks came with it, to the last bit, though 32 are transformed side by
side. What a window needs of them merges: sums and maxima of band powers, sums of the two moments of the envelope.

References
----------
.. [1] F. J. Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform", Proceedings of
   the IEEE 66(1), 1978: the Hann window, and the correction of its power by the mean of its square.
.. [2] J. Antoni, "The spectral kurtosis: a useful tool for characterising non-stationary signals", Mechanical Systems
   and Signal Processing 20(2), 2006: ``<|Y|^4> / <|Y|^2>^2 - 2``, 0 for stationary Gaussian noise.
.. [3] L. Marple, "Computing the discrete-time analytic signal via FFT", IEEE Trans. Signal Processing 47(9), 1999.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.compiled import kernel
from features.fourier import LANES, Chain, chain_of, transform

__all__ = ["Lanes", "SpectraPlan", "Terms", "band_powers", "envelope", "examine", "place_blocks", "spectral_kurtosis"]

Real = np.float32 | np.float64
Floats = NDArray[np.float64]


class Terms(NamedTuple):
    """A plan as the kernels read it."""

    window: Floats  # (n,)
    chain: Chain  # of half the length where that is even: even samples are real parts, odd ones imaginary
    turns: Floats  # (n // 2 + 1, 2) cosine and sine that part the two halves again
    edges: NDArray[np.int64]  # (k, 2) bins of each band
    scale: float
    first: int  # lowest bin of the highest band, and its width
    width: int
    band: Chain  # the inverse of the highest band, at twice as many points
    gain: Floats  # (points,) in the order in which they come, 0 = not read
    points: int  # that are read


class Lanes(NamedTuple):
    """Blocks that wait for their transform, a lane each, and room for it."""

    x: Floats
    y: Floats
    band: Floats  # (points / 2, 4 LANES)
    envelope: Floats
    result: Floats  # (2 + k, LANES)


class SpectraPlan:
    """Band powers and envelope of vibration blocks of one length and rate.

    The block is shifted to its weighted mean and weighted with a Hann window, because a lift that accelerates drifts
    through its block, and without a window that drift alone puts more power above 30 Hz than a worn bearing does. The
    price is that the middle of a block counts more than its edges. A power is the mean square of the weighted block in
    the band over the mean square of the window [1]_: the powers of bands that cover all frequencies sum to the block's
    variance, each sample weighted with the square of the window.

    The envelope is that of the highest band: the modulus of its analytic signal [3]_, read at points in the middle two
    thirds of the block, half as far apart as the band's width asks for, each scaled so that white noise is equally loud
    at all of them. It fails on impacts slower than a block, which then differ between blocks instead of within one.

    Costs about 2.5 ns a sample for blocks of 100, in groups of 32.

    Parameters
    ----------
    n
        Samples in a block, at least 8.
    period_s
        Time between samples in seconds.
    bands_hz
        Lower and upper edge of each band in Hz, shape ``(k, 2)``. A frequency on an edge belongs to the band above it,
        the highest one (half the sampling rate) to the band that ends there.

    Examples
    --------
    A sine of amplitude 2 at 20 Hz has a mean square of 2, all of it between 15 and 30 Hz, and is not impulsive:

    >>> t = np.arange(100) * 0.01
    >>> plan = SpectraPlan(100, 0.01, [[1.0, 15.0], [15.0, 30.0]])
    >>> square, fourth, low, high = plan(2.0 * np.sin(2.0 * np.pi * 20.0 * t)[None, :])[0].tolist()
    >>> round(low, 9), round(high, 9), round(spectral_kurtosis(square, fourth), 2)
    (0.0, 2.0, -0.99)
    """

    def __init__(self, n: int, period_s: float, bands_hz: ArrayLike) -> None:
        self.n = n
        self.period_s = period_s
        self.bands = np.atleast_2d(np.asarray(bands_hz, dtype=np.float64))
        if n < 8:
            raise ValueError(f"a spectrum needs blocks of at least 8 samples, got {n}")
        top = n // 2
        # Edges are compared as numbers of bins, where 15 Hz times 1 s may come out as 15.000000000000002.
        edges = np.ceil(self.bands * n * period_s - 1e-9).astype(np.int64)
        edges[self.bands * n * period_s >= n / 2 - 1e-9] = top + 1
        edges = np.clip(edges, 1, top + 1)
        self._window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n) / n)
        first = int(edges[-1, 0])
        self._width = max(0, min(int(edges[-1, 1]), (n + 1) // 2) - first)
        self._points = max(2 * self._width, 2)
        gain = self._envelope_gain()
        band = chain_of(self._points, first=2)
        places = np.empty(self._points)
        places[band.place] = gain
        turn = -2.0 * np.pi * np.arange(top + 1) / n
        self.terms = Terms(
            window=self._window,
            chain=chain_of(top if n % 2 == 0 else n),
            turns=np.stack((np.cos(turn), np.sin(turn)), axis=1),
            edges=edges,
            # One side of the spectrum is kept, so each bin stands for two, but for the highest of an even length.
            scale=2.0 / (n * float(np.sum(self._window**2))),
            first=first,
            width=self._width,
            band=band,
            gain=places,
            points=int(np.count_nonzero(gain)),
        )

    def lanes(self) -> Lanes:
        """Return room for `LANES` blocks."""
        rows, points = len(self.terms.chain.place), self._points
        return Lanes(
            x=np.zeros((rows, 2 * LANES)),
            y=np.zeros((rows, 2 * LANES)),
            band=np.zeros((points // 2, 4 * LANES)),
            envelope=np.zeros((points, 2 * LANES)),
            result=np.zeros((2 + len(self.bands), LANES)),
        )

    def _envelope_gain(self) -> NDArray[np.float64]:
        """Factor on the squared envelope at each point: 0 near the edges, else what makes white noise equally loud."""
        at = np.arange(self._points) * (self.n / self._points)
        lag = (at[:, None] - np.arange(self.n)) / self.n
        # The band's response to one sample has the modulus of a Dirichlet kernel, seen through the window.
        response = 2.0 / self.n * self._width * np.sinc(self._width * lag) / np.sinc(lag) * self._window
        loudness = np.sum(response**2, axis=1)
        middle = np.abs(at / self.n - 0.5) < 1.0 / 3.0 + 1e-9
        middle &= loudness > 0.0
        # What white noise of variance 1 has in the band, twice: the squared modulus is twice the mean square.
        expected = 4.0 * self._width / self.n
        return np.where(middle, expected / np.where(middle, loudness, 1.0), 0.0) * (2.0 / self.n) ** 2

    def __call__(self, x: NDArray[Real]) -> NDArray[np.float64]:
        """Return squared envelope, its square, and the power of each band, of blocks of shape ``(m, n)``.

        Returns
        -------
        Mean of ``|y|^2``, mean of ``|y|^4``, then the band powers in the order of the bands: float64 of shape
        ``(m, 2 + k)``, in squared units of the samples, but for the second column, which has them to the fourth. A
        block with a NaN gives NaN.
        """
        if x.ndim != 2 or x.shape[1] != self.n:
            raise ValueError(f"expected blocks of shape (m, {self.n}), got {x.shape}")
        out = np.empty((len(x), 2 + len(self.bands)))
        # An infinite sample makes its block NaN; that is the caller's to reject, not a fault of the arithmetic.
        with np.errstate(invalid="ignore", over="ignore"):
            _each(self.terms, self.lanes(), np.ascontiguousarray(x), out)
        return out


@kernel
def place_blocks(terms: Terms, lanes: Lanes, blocks: Floats) -> None:
    """Put the first n samples of `LANES` blocks into the lanes through the window.

    Each is shifted by its first sample, so that an offset costs no precision.
    """
    n = len(terms.window)
    x = lanes.x
    if n % 2 == 0:
        for j in range(n // 2):
            a, b = terms.window[2 * j], terms.window[2 * j + 1]
            for lane in range(LANES):
                x[j, lane] = (blocks[lane, 2 * j] - blocks[lane, 0]) * a
                x[j, LANES + lane] = (blocks[lane, 2 * j + 1] - blocks[lane, 0]) * b
    else:
        for j in range(n):
            for lane in range(LANES):
                x[j, lane] = (blocks[lane, j] - blocks[lane, 0]) * terms.window[j]
                x[j, LANES + lane] = 0.0


@kernel
def examine(terms: Terms, lanes: Lanes) -> None:
    """Write into `lanes.result` what `SpectraPlan` says of the block in each lane."""
    spectrum = lanes.y if transform(terms.chain, 0, lanes.x, lanes.y) else lanes.x
    _powers(terms, spectrum, lanes.band, lanes.result)
    points = lanes.band.reshape(len(terms.gain), 2 * LANES)
    signal = lanes.envelope if transform(terms.band, 1, points, lanes.envelope) else points
    _moments(terms, signal, lanes.result)


@kernel
def _powers(terms: Terms, z: Floats, band: Floats, result: Floats) -> None:
    """Sum the power of each band, and put the highest one through the first pass of its inverse.

    The spectrum of real samples at bin k comes from rows k and m - k of the transform of their halves. The transform of
    the window is n/2, -n/4 at bins 0 and 1: half the sum at bin 0, added at bin 1, takes out the weighted mean.
    """
    n = len(terms.window)
    place = terms.chain.place
    m = len(place)
    halves = n % 2 == 0
    for index in range(len(terms.edges)):
        power = result[2 + index]
        power[:] = 0.0
        for k in range(terms.edges[index, 0], terms.edges[index, 1]):
            one = z[place[k if k < m else 0]]
            factor = terms.scale * (0.5 if 2 * k == n else 1.0)
            r = k - terms.first
            wanted = index == len(terms.edges) - 1 and r < terms.width
            if halves:
                two = z[place[m - k]]
                c, d = terms.turns[k, 0], terms.turns[k, 1]
                mean = 0.5 if k == 1 else 0.0
                if wanted:
                    u, v = terms.band.turns[2 * r], terms.band.turns[2 * r + 1]
                    _part_and_keep(one, two, z[place[0]], mean, c, d, 0.25 * factor, power, u, v, band[r])
                elif k == 1:
                    _part_first(one, two, z[place[0]], c, d, 0.25 * factor, power)
                else:
                    _part(one, two, c, d, 0.25 * factor, power)
            else:
                mean = 0.5 if k == 1 else 0.0
                zero = z[place[0]]
                for s in range(LANES):
                    re, im = one[s] + mean * zero[s], one[LANES + s]
                    power[s] += factor * (re * re + im * im)
                if wanted:
                    u, v = terms.band.turns[2 * r], terms.band.turns[2 * r + 1]
                    for s in range(LANES):
                        re, im = 2.0 * (one[s] + mean * zero[s]), -2.0 * one[LANES + s]
                        band[r, s], band[r, LANES + s] = re, im
                        band[r, 2 * LANES + s], band[r, 3 * LANES + s] = re * u - im * v, re * v + im * u


@kernel
def _part(one: Floats, two: Floats, c: float, d: float, factor: float, power: Floats) -> None:
    for s in range(LANES):
        i = LANES + s
        even_re, even_im, odd_re, odd_im = one[s] + two[s], one[i] - two[i], one[i] + two[i], two[s] - one[s]
        re, im = even_re + c * odd_re - d * odd_im, even_im + c * odd_im + d * odd_re
        power[s] += factor * (re * re + im * im)


@kernel
def _part_first(one: Floats, two: Floats, zero: Floats, c: float, d: float, factor: float, power: Floats) -> None:
    for s in range(LANES):
        i = LANES + s
        even_re, even_im, odd_re, odd_im = one[s] + two[s], one[i] - two[i], one[i] + two[i], two[s] - one[s]
        re, im = even_re + c * odd_re - d * odd_im + zero[s] + zero[i], even_im + c * odd_im + d * odd_re
        power[s] += factor * (re * re + im * im)


@kernel
def _part_and_keep(
    one: Floats,
    two: Floats,
    zero: Floats,
    mean: float,
    c: float,
    d: float,
    factor: float,
    power: Floats,
    u: float,
    v: float,
    band: Floats,
) -> None:
    """Part a bin; its complex conjugate goes where the transform then gives the modulus of the inverse, twice over."""
    for s in range(LANES):
        i = LANES + s
        even_re, even_im, odd_re, odd_im = one[s] + two[s], one[i] - two[i], one[i] + two[i], two[s] - one[s]
        re = even_re + c * odd_re - d * odd_im + 2.0 * mean * (zero[s] + zero[i])
        im = -(even_im + c * odd_im + d * odd_re)
        power[s] += factor * (re * re + im * im)
        band[s] = re
        band[LANES + s] = im
        band[2 * LANES + s] = re * u - im * v
        band[3 * LANES + s] = re * v + im * u


@kernel
def _moments(terms: Terms, signal: Floats, result: Floats) -> None:
    """Average the squared modulus and its square over the points that count."""
    square, fourth = result[0], result[1]
    square[:] = 0.0
    fourth[:] = 0.0
    for i in range(len(terms.gain)):
        if terms.gain[i] > 0.0:
            x = signal[i]
            # The bins were kept twice as large.
            gain = 0.25 * terms.gain[i]
            for s in range(LANES):
                value = (x[s] * x[s] + x[LANES + s] * x[LANES + s]) * gain
                square[s] += value
                fourth[s] += value * value
    for s in range(LANES):
        square[s] /= terms.points
        fourth[s] /= terms.points


@kernel
def _each(terms: Terms, lanes: Lanes, x: NDArray[Real], out: Floats) -> None:
    blocks = np.zeros((LANES, x.shape[1]))
    for start in range(0, len(x), LANES):
        used = min(LANES, len(x) - start)
        for lane in range(used):
            for j in range(x.shape[1]):
                blocks[lane, j] = x[start + lane, j]
        place_blocks(terms, lanes, blocks)
        examine(terms, lanes)
        for lane in range(used):
            for column in range(out.shape[1]):
                out[start + lane, column] = lanes.result[column, lane]


def band_powers(x: NDArray[Real], period_s: float, bands_hz: ArrayLike) -> NDArray[np.float64]:
    """Return the power of each block of `x`, shape ``(m, n)``, in each band: float64 of shape ``(m, k)``.

    Examples
    --------
    >>> x = np.sin(2.0 * np.pi * 10.0 * np.arange(100) * 0.01)[None, :]
    >>> band_powers(x, 0.01, [[1.0, 5.0], [5.0, 15.0]]).round(6).tolist()
    [[0.0, 0.5]]
    """
    return SpectraPlan(x.shape[1], period_s, bands_hz)(x)[:, 2:]


def envelope(x: NDArray[Real], period_s: float, band_hz: tuple[float, float]) -> NDArray[np.float64]:
    """Return the mean of ``|y|^2`` and of ``|y|^4`` of each block's band-passed analytic signal, shape ``(m, 2)``."""
    return SpectraPlan(x.shape[1], period_s, band_hz)(x)[:, :2]


def spectral_kurtosis(square: float, fourth: float) -> float:
    """Return how impulsive a band is from its merged moments: -1 a steady tone, 0 Gaussian noise, above 0 impacts.

    References
    ----------
    .. [1] J. Antoni, "The spectral kurtosis", Mechanical Systems and Signal Processing 20(2), 2006.
    """
    return fourth / (square * square) - 2.0 if square > 0.0 else float("nan")
