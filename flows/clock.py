"""The event time of an input partition: the newest reading that it has delivered, whatever a wrong clock claims."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compiled import kernel
from features.windows import NO_LIMIT

__all__ = ["LEAP_US", "NEVER", "arrival_clock"]

NEVER = -(2**62)
"""Before any time."""

LEAP_US = 86_400_000_000
"""How far ahead of the middle of a message, or of all that came before, a reading may move an input's clock."""

_LOOKS = 1024
"""Blocks from which the middle of a message is taken."""


def arrival_clock(blocks: pa.RecordBatch, before_us: int, limit_us: int = NO_LIMIT) -> NDArray[np.int64]:
    """Return the clock of an input partition as each of a message's blocks arrives.

    A reading or two far ahead of the rest are a wrong clock: they must not close everybody's windows.

    Parameters
    ----------
    blocks
        Blocks of `features.telemetry.BLOCKS`, n of them, in the order of arrival.
    before_us
        The clock before the message.
    limit_us
        Latest time that is not in the future.

    Returns
    -------
    Microseconds since 1970, rising, of shape ``(n,)``.

    Examples
    --------
    >>> from features.telemetry import BLOCKS
    >>> rows = [{"asset": "b", "signal": "s", "start": t, "period_us": 0, "values": [1.0]} for t in (5, 3, 10**15, 9)]
    >>> arrival_clock(pa.RecordBatch.from_pylist(rows, schema=BLOCKS), 4).tolist()
    [5, 5, 5, 9]
    """
    lists = blocks.column("values")
    offsets = lists.offsets.to_numpy()
    start = blocks.column("start").view(pa.int64()).to_numpy()
    clock = np.empty(len(start), np.int64)
    _last_times(start, blocks.column("period_us").to_numpy(), offsets, limit_us, clock)
    looks = clock[:: max(1, len(clock) // _LOOKS)]
    looks = looks[looks > NEVER]
    if len(looks) == 0:
        looks = clock[clock > NEVER]
    reach = max(before_us, int(np.median(looks))) + LEAP_US if len(looks) else before_us
    _keep_time(clock, before_us, reach)
    return clock


@kernel
def _last_times(
    start: NDArray[np.int64], period: NDArray[np.int64], offsets: NDArray[np.int32], limit: int, end: NDArray[np.int64]
) -> None:
    """Write the last time of each block, `NEVER` where it is in the future."""
    for i in range(len(start)):
        last = start[i] + max(np.int64(offsets[i + 1]) - np.int64(offsets[i]) - 1, 0) * period[i]
        end[i] = NEVER if last > limit or last < start[i] else last


@kernel
def _keep_time(clock: NDArray[np.int64], before: int, reach: int) -> None:
    """Turn last times into the partition's clock at each block, which no time beyond `reach` moves."""
    now = np.int64(before)
    for i in range(len(clock)):
        if now < clock[i] <= reach:
            now = clock[i]
        clock[i] = now
