"""Credits: how much of what an input has read may be under way, so that a slow shard or sink holds its inputs back.

The engine holds nothing back within an epoch, and an epoch lasts a minute. Here an input spends credit for what it
sends, and each step that takes the data off its hands, in whichever process, gives it back. An input without credit
reads no further: the files, the broker or the spool keep what comes next.

The processes of one host share the account through a small file: process i writes what it has spent, and what it has
taken from each process j, in a row of its own, so that every number has one writer.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIMIT_BYTES", "Credits", "new_account"]

LIMIT_BYTES = 64_000_000
"""What one process may have under way: a second of the fastest input, a few of the usual."""


def new_account(path: Path, processes: int) -> None:
    """Write an account in which nothing is spent; the processes that share it start afterwards."""
    np.zeros((processes, processes + 1), np.int64).tofile(path)


class Credits:
    """What the inputs of one process may have under way.

    Parameters
    ----------
    process, processes
        Number of this process among those that share the account.
    path
        The account, which `new_account` has written; None for a process on its own.
    limit_bytes
        What may be under way.
    stop
        Once it is set nothing waits any more.

    Examples
    --------
    >>> credits = Credits(limit_bytes=100)
    >>> credits.spend(150)
    >>> credits.free()
    False
    >>> credits.give_back(0, 150)
    >>> credits.free(), credits.under_way
    (True, 0)
    """

    def __init__(
        self,
        process: int = 0,
        processes: int = 1,
        path: Path | None = None,
        limit_bytes: int = LIMIT_BYTES,
        stop: threading.Event | None = None,
    ) -> None:
        self.process = process
        self.limit_bytes = limit_bytes
        self._stop = stop
        shape = (processes, processes + 1)
        self._account: NDArray[np.int64] = (
            np.zeros(shape, np.int64) if path is None else np.memmap(path, np.int64, "r+", shape=shape)
        )

    @property
    def under_way(self) -> int:
        """Bytes that this process has spent and nobody has taken yet."""
        return int(self._account[self.process, 0] - self._account[:, 1 + self.process].sum())

    def free(self) -> bool:
        """Tell whether an input may read on."""
        return self.under_way < self.limit_bytes or (self._stop is not None and self._stop.is_set())

    def spend(self, nbytes: int) -> None:
        """Send data on its way."""
        self._account[self.process, 0] += nbytes

    def give_back(self, process: int, nbytes: int) -> None:
        """Take data that a process has sent."""
        self._account[self.process, 1 + process] += nbytes
