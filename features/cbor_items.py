"""CBOR (RFC 8949), taken apart with care: what a length claims is checked before anything is made of it.

A compiled walk over the heads of all items tells whether a payload is well-formed, how deep it is, and how much memory
Python's objects of it would take; only then `cbor2` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["CborError", "head", "items", "load", "skip"]

DEEPEST = 32
"""Containers and tags inside each other; telemetry has six."""
_LONGEST_BIGNUM = 1024
"""Bytes of an integer; a double holds 128."""
_COSTLIEST = 4
"""Python's objects of a payload may take so many times its bytes, and a megabyte."""
_ALLOWANCE = 1_048_576

UINT, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
"""Major types."""
_INDEFINITE = 31

_REASONS = {
    -1: "expected CBOR: it ends inside an item, or is not well-formed",
    -2: f"expected CBOR of at most {DEEPEST} items inside each other",
    -3: "expected a number of at most 1,024 bytes",
    -4: "expected no other CBOR tags than those of times, numbers, typed arrays and names",
    -5: "expected nothing behind the CBOR item",
    -6: "expected numbers and text, got little but empty containers",
}


class CborError(ValueError):
    """A payload that is not CBOR, or none that is worth its memory; the message says why."""


@kernel
def head(data: NDArray[np.uint8], at: int, end: int, out: NDArray[np.int64]) -> int:
    """Read the head of an item into `out` (major type, additional information, argument); return where it ends.

    Returns -1 where there is none. An argument beyond 63 bits reads as -1.
    """
    if at >= end:
        return -1
    first = np.int64(data[at])
    info = first & 31
    out[0] = first >> 5
    out[1] = info
    at += 1
    if info < 24:
        out[2] = info
        return at
    if info > 27:
        out[2] = 0
        return at if info == _INDEFINITE else -1
    size = np.int64(1) << (info - 24)
    if end - at < size:
        return -1
    value = np.int64(0)
    for i in range(size):
        value = (value << 8) | np.int64(data[at + i])
    out[2] = value if value >= 0 or out[0] == SIMPLE else -1
    return int(at + size)


@kernel
def _is_known(tag: int) -> bool:
    """Tell the tags that telemetry may have: what cbor2 makes of others can run, loop or take its time."""
    times_and_numbers = 0 <= tag <= 5
    return times_and_numbers or 64 <= tag <= 87 or tag == 32 or tag == 37 or tag == 100 or tag == 55799


@kernel
def skip(data: NDArray[np.uint8], at: int, end: int, out: NDArray[np.int64], stack: NDArray[np.int64]) -> int:
    """Return where the item at `at` ends, or a negative number that says what is wrong with it.

    `stack` has room for `DEEPEST` levels; the memory that the item would take in Python is added to ``out[3]``.
    """
    depth = 0
    tags = 0
    bignum = False
    while True:
        if depth > 0 and stack[depth - 1] <= -1 and at < end and data[at] == 255:
            # The end of a container of unknown length; of a map only behind a value.
            if stack[depth - 1] == -3:
                return -1
            at += 1
            depth -= 1
            if tags > 0:
                return -1
        else:
            at = head(data, at, end, out)
            if at < 0:
                return -1
            major, info, argument = out[0], out[1], out[2]
            if major == TAG:
                if not _is_known(argument):
                    return -4
                tags += 1
                if depth + tags > DEEPEST:
                    return -2
                bignum = argument == 2 or argument == 3
                out[3] += 64
                continue
            tags = 0
            if major in (BYTES, TEXT):
                if info == _INDEFINITE:
                    out[3] += 64
                    while True:
                        if at < end and data[at] == 255:
                            at += 1
                            break
                        at = head(data, at, end, out)
                        if at < 0 or out[0] != major or out[1] == _INDEFINITE or out[2] < 0 or out[2] > end - at:
                            return -1
                        at += out[2]
                        out[3] += 96 + 2 * out[2]
                else:
                    if argument < 0 or argument > end - at:
                        return -1
                    if bignum and argument > _LONGEST_BIGNUM:
                        return -3
                    at += argument
                    out[3] += 56 + argument
            elif major in (ARRAY, MAP):
                if info != _INDEFINITE and (argument < 0 or argument > end - at):
                    return -1
                if depth + 1 > DEEPEST:
                    return -2
                out[3] += 88 if major == ARRAY else 264
                if info == _INDEFINITE:
                    stack[depth] = -1 if major == ARRAY else -2
                    depth += 1
                    bignum = False
                    continue
                if argument > 0:
                    stack[depth] = argument if major == ARRAY else 2 * argument
                    depth += 1
                    bignum = False
                    continue
            elif info == _INDEFINITE:
                return -1
            elif major == SIMPLE:
                if info == 24 and argument < 32:
                    return -1
                out[3] += 24 if info >= 25 else 0
            elif argument > 255 or argument < 0:
                out[3] += 32
            bignum = False
        # An item is complete: so may be what holds it.
        while True:
            if depth == 0:
                return at
            out[3] += 8
            if stack[depth - 1] < 0:
                if stack[depth - 1] != -1:
                    stack[depth - 1] = -5 - stack[depth - 1]
                break
            stack[depth - 1] -= 1
            if stack[depth - 1] > 0:
                break
            depth -= 1


@kernel
def _elements(data: NDArray[np.uint8], starts: NDArray[np.int32], out: NDArray[np.int64]) -> int:
    """Count the elements of the array that a payload is, and note where each begins, if `starts` has room.

    ``out[3]`` becomes the most memory that one of them takes. The last place of `starts` is where the last one ends.
    """
    end = len(data)
    stack = np.empty(DEEPEST, np.int64)
    at = head(data, 0, end, out)
    if at > 0 and out[0] == TAG and out[2] == 55799:
        at = head(data, at, end, out)
    if at < 0 or out[0] != ARRAY:
        return -1
    left = out[2] if out[1] != _INDEFINITE else np.int64(-1)
    if left > end - at:
        return -1
    found = 0
    most = np.int64(0)
    while left != 0:
        if left < 0 and at < end and data[at] == 255:
            at += 1
            break
        if found < len(starts):
            starts[found] = at
        out[3] = 0
        at = skip(data, at, end, out, stack)
        if at < 0:
            return at
        most = max(most, out[3])
        found += 1
        if found < len(starts):
            starts[found] = at
        if left > 0:
            left -= 1
    out[3] = most
    return found if at == end else -5


def _check(code: int, cost: int, size: int) -> None:
    if code >= 0 and cost > _COSTLIEST * size + _ALLOWANCE:
        code = -6
    if code < 0:
        raise CborError(_REASONS[code])


def load(payload: bytes) -> Any:
    """Return the item that a payload is.

    Raises
    ------
    CborError
        If it is not exactly one item, or one that would take far more memory than its bytes.

    Examples
    --------
    >>> load(bytes.fromhex("820102"))
    [1, 2]
    """
    data = np.frombuffer(payload, np.uint8)
    out = np.zeros(4, np.int64)
    code = skip(data, 0, len(data), out, np.empty(DEEPEST, np.int64))
    _check(-5 if 0 <= code < len(data) else code, int(out[3]), len(payload))
    return _loads(payload)


def items(payload: bytes) -> Iterator[Any]:
    """Yield the elements of the array that a payload is, each made when it is asked for.

    Raises
    ------
    CborError
        If the payload is not exactly one array, or an element would take far more memory than its bytes.

    Examples
    --------
    >>> list(items(bytes.fromhex("820102")))
    [1, 2]
    """
    data = np.frombuffer(payload, np.uint8)
    out = np.zeros(4, np.int64)
    count = _elements(data, np.empty(0, np.int32), out)
    _check(count, int(out[3]), len(payload))
    starts = np.empty(count + 1, np.int32)
    _elements(data, starts, out)
    for i in range(count):
        yield _loads(payload[starts[i] : starts[i + 1]])


def _loads(payload: bytes) -> Any:
    try:
        # Text that is no UTF-8 spoils only what it names: half a character is no text of ours.
        return cbor2.loads(payload, max_depth=2 * DEEPEST, str_errors="surrogateescape")
    except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise CborError(f"expected CBOR: {error}"[:200]) from None
