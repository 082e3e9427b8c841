"""The two ways in which a function becomes a compiled kernel, and where compiled code is kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numba
from numba import njit
from numba.core import config

P = ParamSpec("P")
R = TypeVar("R")


def _cache_folder() -> str:
    """Return a folder for compiled code that belongs to exactly these sources.

    numba looks only at the file of a kernel, so a kernel that calls one of another file would keep the old code when
    that file changes. Here every source that holds a kernel counts.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    root = Path(__file__).parents[1]
    for room in ("features", "models", "flows"):
        for path in sorted((root / room).rglob("*.py")):
            source = path.read_bytes()
            if b"\n@kernel" in source or b"\n@finite_kernel" in source:
                digest.update(str(path).encode() + source)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for base in (home, Path(tempfile.gettempdir())):
        folder = base / "vigie" / digest.hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return str(folder)
    return ""


if not config.CACHE_DIR:  # type: ignore[attr-defined]
    config.CACHE_DIR = _cache_folder()  # type: ignore[attr-defined]

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
