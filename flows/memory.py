"""How this process asks the system for memory."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's `mallopt`."""

KEPT_BYTES = 256 << 20
"""Freed memory at the end of the heap that is kept: what a message of a hundred megabytes passes through."""

LARGE_BYTES = 32 << 20
"""What is larger has pages of its own, which go back to the system at once: the most that glibc lets one set."""


def keep_freed_memory() -> bool:
    """Keep memory that is freed for the next message, instead of handing its pages back and asking for them again.

    Each message needs some ten arrays of its own size for a few milliseconds. By default glibc returns such memory at
    once, and the kernel clears each page that is asked for anew: up to half of what decoding costs.

    Returns
    -------
    Whether the C library took it; another than glibc does not know it, and nothing changes.

    Examples
    --------
    >>> keep_freed_memory() in (True, False)
    True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, LARGE_BYTES))
