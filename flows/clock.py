"""The event time of an input partition: the newest reading that it has delivered, whatever a wrong clock claims."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.windows import NO_LIMIT

__all__ = ["LEAP_US", "NEVER", "arrival_clock"]

NEVER = -(2**62)
"""Before any time."""

LEAP_US = 86_400_000_000
"""How far ahead of the middle of a message, or of all that came before, a reading may move an input's clock."""


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
    count = np.diff(blocks.column("values").offsets.to_numpy().astype(np.int64))
    start = blocks.column("start").cast(pa.int64()).to_numpy()
    end = start + np.maximum(count - 1, 0) * blocks.column("period_us").to_numpy()
    end = np.where((end > limit_us) | (end < start), NEVER, end)
    valid = end > NEVER
    if valid.any():
        middle = int(np.median(end[valid][:: max(1, len(end) // 1024)]))
        end[end > max(before_us, middle) + LEAP_US] = NEVER
    return np.maximum(np.maximum.accumulate(end), before_us)
