"""The two ways in which a function becomes a compiled kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")

_REORDER = {"reassoc", "contract", "arcp", "nsz"}


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of numbers and arrays with numba, cached on disk, without the interpreter lock.

    Sums may be reordered so that they vectorise, and multiply-adds may be contracted; NaN and infinity keep their
    meaning, and a division by zero gives infinity as in numpy.
    """
    compiled: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDER)(function)
    return compiled


def finite_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function whose numbers are known to be finite, so that minima and maxima vectorise too.

    A NaN or an infinity given to such a kernel is a fault of the caller.
    """
    compiled: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDER | {"nnan", "ninf"})(
        function
    )
    return compiled
