"""Fourier transforms of many blocks side by side, a lane a block, so that the processor's vectors are full.

A transform of n points is a chain of small ones by the factors of n [1]_, each pass in the same geometry [2]_: point R
of every part is read at ``R + i n / r`` and the r results are written one after the other. What a pass writes is
therefore one run of memory, without which the compiler could not tell it from what the pass reads, and would not
vectorise it. The frequencies end in the order of their reversed digits, which `Chain.place` undoes.

References
----------
.. [1] J. W. Cooley, J. W. Tukey, "An algorithm for the machine calculation of complex Fourier series", Mathematics of
   Computation 19, 1965.
.. [2] M. C. Pease, "An adaptation of the fast Fourier transform for parallel processing", Journal of the ACM 15(2),
   1968.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["LANES", "Chain", "chain_of", "transform"]

LANES = 32
"""Blocks side by side: with fewer the passes' loops are too short, with more a block of 100 leaves the first cache."""

_COS_1, _SIN_1 = math.cos(2.0 * math.pi / 5.0), math.sin(2.0 * math.pi / 5.0)
_COS_2, _SIN_2 = math.cos(4.0 * math.pi / 5.0), math.sin(4.0 * math.pi / 5.0)

Floats = NDArray[np.float64]


class Chain(NamedTuple):
    """A transform of one length.

    The factors of its passes, their turns (a row a point, cosine and sine for each result but the first), and the row
    in which each frequency ends.
    """

    factors: NDArray[np.int64]
    turns: Floats
    place: NDArray[np.int64]


def chain_of(n: int, first: int = 1) -> Chain:
    """Plan the transform of `n` points; `first` is the factor of a first pass that the caller does itself.

    Examples
    --------
    >>> chain_of(100).factors.tolist()
    [5, 5, 4]
    """
    factors = [first] if first > 1 else []
    left = n // first
    for factor in (5, 4, 2, 3):
        while left % factor == 0:
            factors.append(factor)
            left //= factor
    divisor = 7
    while left > 1:
        while left % divisor == 0:
            factors.append(divisor)
            left //= divisor
        divisor += 2
    turns = [np.zeros(0)]
    frequency = np.zeros(n, np.int64)
    done = 1
    for r in factors:
        rows = np.arange(n // r)
        angle = -2.0 * np.pi * np.outer(rows // done, np.arange(1, r)) / (n // done)
        turns.append(np.stack((np.cos(angle), np.sin(angle)), axis=2).ravel())
        after = np.empty(n, np.int64)
        for i in range(r):
            after[r * rows + i] = frequency[rows] + i * done
        frequency = after
        done *= r
    place = np.empty(n, np.int64)
    place[frequency] = np.arange(n)
    return Chain(np.array(factors, np.int64), np.concatenate(turns), place)


@kernel
def _by_two(x: Floats, y: Floats, turns: Floats) -> None:
    m = len(x) // 2
    for row in range(m):
        a, b = x[row], x[row + m]
        out = y[2 * row : 2 * row + 2].reshape(4 * LANES)
        c, d = turns[2 * row], turns[2 * row + 1]
        for s in range(LANES):
            re, im = a[s] - b[s], a[LANES + s] - b[LANES + s]
            out[s] = a[s] + b[s]
            out[LANES + s] = a[LANES + s] + b[LANES + s]
            out[2 * LANES + s] = re * c - im * d
            out[3 * LANES + s] = re * d + im * c


@kernel
def _by_four(x: Floats, y: Floats, turns: Floats) -> None:
    m = len(x) // 4
    for row in range(m):
        a, b, e, f = x[row], x[row + m], x[row + 2 * m], x[row + 3 * m]
        out = y[4 * row : 4 * row + 4].reshape(8 * LANES)
        at = 6 * row
        c1, d1, c2, d2, c3, d3 = turns[at], turns[at + 1], turns[at + 2], turns[at + 3], turns[at + 4], turns[at + 5]
        for s in range(LANES):
            i = LANES + s
            even_re, even_im, odd_re, odd_im = a[s] + e[s], a[i] + e[i], b[s] + f[s], b[i] + f[i]
            left_re, left_im, right_re, right_im = a[s] - e[s], a[i] - e[i], b[s] - f[s], b[i] - f[i]
            out[s] = even_re + odd_re
            out[LANES + s] = even_im + odd_im
            re, im = left_re + right_im, left_im - right_re
            out[2 * LANES + s] = re * c1 - im * d1
            out[3 * LANES + s] = re * d1 + im * c1
            re, im = even_re - odd_re, even_im - odd_im
            out[4 * LANES + s] = re * c2 - im * d2
            out[5 * LANES + s] = re * d2 + im * c2
            re, im = left_re - right_im, left_im + right_re
            out[6 * LANES + s] = re * c3 - im * d3
            out[7 * LANES + s] = re * d3 + im * c3


@kernel
def _by_five(x: Floats, y: Floats, turns: Floats) -> None:
    m = len(x) // 5
    for row in range(m):
        a, b, e, f, g = x[row], x[row + m], x[row + 2 * m], x[row + 3 * m], x[row + 4 * m]
        out = y[5 * row : 5 * row + 5].reshape(10 * LANES)
        at = 8 * row
        c1, d1, c2, d2 = turns[at], turns[at + 1], turns[at + 2], turns[at + 3]
        c3, d3, c4, d4 = turns[at + 4], turns[at + 5], turns[at + 6], turns[at + 7]
        for s in range(LANES):
            i = LANES + s
            p_re, p_im, q_re, q_im = b[s] + g[s], b[i] + g[i], e[s] + f[s], e[i] + f[i]
            u_re, u_im, v_re, v_im = b[s] - g[s], b[i] - g[i], e[s] - f[s], e[i] - f[i]
            out[s] = a[s] + p_re + q_re
            out[LANES + s] = a[i] + p_im + q_im
            one_re, one_im = a[s] + _COS_1 * p_re + _COS_2 * q_re, a[i] + _COS_1 * p_im + _COS_2 * q_im
            two_re, two_im = a[s] + _COS_2 * p_re + _COS_1 * q_re, a[i] + _COS_2 * p_im + _COS_1 * q_im
            side_re, side_im = _SIN_1 * u_re + _SIN_2 * v_re, _SIN_1 * u_im + _SIN_2 * v_im
            over_re, over_im = _SIN_2 * u_re - _SIN_1 * v_re, _SIN_2 * u_im - _SIN_1 * v_im
            re, im = one_re + side_im, one_im - side_re
            out[2 * LANES + s] = re * c1 - im * d1
            out[3 * LANES + s] = re * d1 + im * c1
            re, im = two_re + over_im, two_im - over_re
            out[4 * LANES + s] = re * c2 - im * d2
            out[5 * LANES + s] = re * d2 + im * c2
            re, im = two_re - over_im, two_im + over_re
            out[6 * LANES + s] = re * c3 - im * d3
            out[7 * LANES + s] = re * d3 + im * c3
            re, im = one_re - side_im, one_im + side_re
            out[8 * LANES + s] = re * c4 - im * d4
            out[9 * LANES + s] = re * d4 + im * c4


@kernel
def _by_any(r: int, x: Floats, y: Floats, turns: Floats) -> None:
    """Do a pass of any factor from the definition."""
    m = len(x) // r
    for row in range(m):
        for result in range(r):
            out = y[r * row + result]
            out[:] = 0.0
            for part in range(r):
                angle = -2.0 * math.pi * ((part * result) % r) / r
                c, d = math.cos(angle), math.sin(angle)
                if result > 0:
                    u, v = turns[2 * (row * (r - 1) + result - 1)], turns[2 * (row * (r - 1) + result - 1) + 1]
                    c, d = c * u - d * v, c * v + d * u
                a = x[row + part * m]
                for s in range(LANES):
                    out[s] += a[s] * c - a[LANES + s] * d
                    out[LANES + s] += a[s] * d + a[LANES + s] * c


@kernel
def transform(chain: Chain, passed: int, x: Floats, y: Floats) -> bool:
    """Transform the lanes of `x`, shape ``(n, 2 LANES)``: real parts first, then imaginary ones.

    The first `passed` passes have been done. Both tables are written; the result is in `y` where True is returned.
    """
    n = len(x)
    at = 0
    flipped = False
    for number in range(len(chain.factors)):
        r = chain.factors[number]
        turns = chain.turns[at : at + n // r * 2 * (r - 1)]
        at += len(turns)
        if number < passed:
            continue
        a, b = (y, x) if flipped else (x, y)
        if r == 5:
            _by_five(a, b, turns)
        elif r == 4:
            _by_four(a, b, turns)
        elif r == 2:
            _by_two(a, b, turns)
        else:
            _by_any(r, a, b, turns)
        flipped = not flipped
    return flipped
