"""Numbers of JSON, read from bytes to the nearest double without an object in between.

The method is that of Lemire (2021), "Number Parsing at a Gigabyte per Second": the decimal digits, as a whole number of
64 bits, times a power of five of 128 bits. What it cannot decide - more than 19 digits, exponents that no telemetry
has - is left to Python.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.compiled import literal_kernel

__all__ = ["read_number"]

_REACH = 64
"""Largest power of ten, either way, that is in the tables."""


def _power_of_five(q: int) -> int:
    """Return the first 128 bits of 5**q, rounded up where q is negative, as the method asks."""
    if q >= 0:
        power: int = 5**q
        size = power.bit_length()
        return power << (128 - size) if size <= 128 else power >> (size - 128)
    power = 5**-q
    size = power.bit_length()
    if q >= -27:
        return int(2 ** (size + 127) // power + 1)
    inverse: int = 2 ** (2 * size + 128) // power + 1
    return inverse >> (inverse.bit_length() - 128)


_POWERS = [_power_of_five(q) for q in range(-_REACH, _REACH + 1)]
_HIGH = np.array([power >> 64 for power in _POWERS], np.uint64)
_LOW = np.array([power & (2**64 - 1) for power in _POWERS], np.uint64)

_U = np.uint64
_HALF = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)


@literal_kernel
def _product(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the upper and the lower half of a product of 64 bits each."""
    a1, a0 = a >> _32, a & _HALF
    b1, b0 = b >> _32, b & _HALF
    low = a0 * b0
    cross = a1 * b0 + (low >> _32)
    other = a0 * b1 + (cross & _HALF)
    return a1 * b1 + (cross >> _32) + (other >> _32), (other << _32) | (low & _HALF)


@literal_kernel
def _nearest(w: np.uint64, q: int) -> np.int64:
    """Return the bits of the double nearest to w * 10**q, w above 0; -1 where it is not decided."""
    if q < -_REACH or q > _REACH:
        return np.int64(-1)
    zeros = 0
    for step in (32, 16, 8, 4, 2, 1):
        if w >> _U(64 - step) == _ZERO:
            w = w << _U(step)
            zeros += step
    high, low = _product(w, _HIGH[q + _REACH])
    if high & _U(0x1FF) == _U(0x1FF):
        more, _ = _product(w, _LOW[q + _REACH])
        low = low + more
        if more > low:
            high = high + _ONE
    upper = np.int64(high >> _U(63))
    shift = _U(upper + 9)
    mantissa = high >> shift
    power = ((217706 * q) >> 16) + 63 + upper - zeros + 1023
    if power <= 0 or power >= 2046:
        return np.int64(-1)
    if low <= _ONE and -4 <= q <= 23 and mantissa & _U(3) == _ONE and mantissa << shift == high:
        mantissa = mantissa & ~_ONE
    mantissa = (mantissa + (mantissa & _ONE)) >> _ONE
    if mantissa >= _U(1 << 53):
        mantissa = _U(1 << 52)
        power += 1
    return np.int64(mantissa & ~_U(1 << 52)) | (np.int64(power) << 52)


@literal_kernel
def read_number(
    data: NDArray[np.uint8], at: int, end: int, bits: NDArray[np.int64], number: NDArray[np.float64]
) -> int:
    """Read the number at `at` into `number`, which is the memory of `bits`; return where it ends.

    Returns -1 where there is none, or one that is not decided.

    Examples
    --------
    >>> text = np.frombuffer(b"-12.5e-1,", np.uint8)
    >>> bits = np.zeros(1, np.int64)
    >>> read_number(text, 0, 9, bits, bits.view(np.float64)), bits.view(np.float64)[0].item()
    (8, -1.25)
    """
    negative = at < end and data[at] == 45
    if negative:
        at += 1
    begin = at
    whole = _ZERO
    while at < end and 48 <= data[at] <= 57:
        whole = whole * _U(10) + _U(data[at] - 48)
        at += 1
    digits = at - begin
    if digits == 0 or (data[begin] == 48 and digits > 1):
        return -1
    exponent = 0
    if at < end and data[at] == 46:
        at += 1
        begin = at
        if digits == 1 and whole == _ZERO:
            # Zeros in front are no digits of the whole number.
            while at < end and data[at] == 48:
                at += 1
            digits = begin - at
        while at < end and 48 <= data[at] <= 57:
            whole = whole * _U(10) + _U(data[at] - 48)
            at += 1
        if at == begin:
            return -1
        exponent = begin - at
        digits -= exponent
    if digits > 19:
        return -1
    if at < end and (data[at] == 101 or data[at] == 69):
        at += 1
        down = False
        if at < end and (data[at] == 45 or data[at] == 43):
            down = data[at] == 45
            at += 1
        begin = at
        given = 0
        while at < end and 48 <= data[at] <= 57:
            given = min(10_000, given * 10 + int(data[at]) - 48)
            at += 1
        if at == begin:
            return -1
        exponent += -given if down else given
    if whole == _ZERO:
        number[0] = -0.0 if negative else 0.0
        return at
    found = _nearest(whole, exponent)
    if found < 0:
        return -1
    bits[0] = found
    if negative:
        number[0] = -number[0]
    return at
