"""The ways in which a function becomes a compiled kernel, and where compiled code is kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numba
from numba import njit
from numba.core import config

P = ParamSpec("P")
R = TypeVar("R")


_MARKS = (b"\n@kernel", b"\n@finite_kernel", b"\n@exact_kernel", b"\n@literal_kernel")
_ROOM = 100_000_000
"""Bytes that a disk must have free to keep compiled code."""


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
            if any(mark in source for mark in _MARKS):
                digest.update(str(path).encode() + source)
    # Compiled code is loaded and run, so the folder must be this user's own, and closed to others.
    homes = [os.environ.get("XDG_CACHE_HOME", ""), "~/.cache", f"{tempfile.gettempdir()}/vigie-{os.getuid()}"]
    for home in filter(None, homes):
        try:
            base = Path(home).expanduser() / "vigie"
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = base / digest.hexdigest()[:16]
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_uid == os.getuid() and shutil.disk_usage(folder).free > _ROOM:
                return str(folder)
        except (OSError, RuntimeError):
            continue
    return tempfile.mkdtemp(prefix="vigie-")


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


def exact_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function whose operations keep their order: differences of large numbers come out right."""
    compiled: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function)
    return compiled


def finite_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function whose numbers are known to be finite, so that minima and maxima vectorise too.

    A NaN or an infinity given to such a kernel is a fault of the caller.
    """
    compiled: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy", fastmath=_REORDER | {"nnan", "ninf"})(
        function
    )
    return compiled


def literal_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function whose arithmetic is to the letter: no sum is reordered and no division made a product."""
    compiled: Callable[P, R] = njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
