"""Single readings of many messages, put together to blocks.

A sender of single readings repeats name and time with each. Those of one signal that follow each other at equal steps
inside one message are one block, so that all that comes after the decoder costs no more than with blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compiled import kernel
from features.telemetry import empty_blocks, new_blocks

__all__ = ["blocks_of_readings"]


@kernel
def _runs(
    group: NDArray[np.int64], time: NDArray[np.int64], first: NDArray[np.int64], period: NDArray[np.int64], longest: int
) -> int:
    """Find where runs of one group at an equal step begin; return how many there are."""
    found = 0
    length = 0
    for i in range(len(time)):
        step = time[i] - time[i - 1] if i > 0 else np.int64(0)
        if length > 0 and group[i] == group[i - 1] and 0 < step <= longest:
            if length == 1:
                period[found - 1] = step
                length = 2
                continue
            if step == period[found - 1]:
                length += 1
                continue
        first[found] = i
        period[found] = 0
        found += 1
        length = 1
    return found


def blocks_of_readings(
    assets: Sequence[str],
    signals: Sequence[str],
    asset: NDArray[np.int32],
    signal: NDArray[np.int32],
    message: NDArray[np.int64],
    time_us: NDArray[np.int64],
    values: NDArray[np.float64],
    longest_us: int,
) -> pa.RecordBatch:
    """Return the blocks of readings, those of a message and signal in the order in which they came.

    Parameters
    ----------
    assets, signals
        Names.
    asset, signal
        Index of each reading's names, shape ``(n,)``.
    message
        Number of the message of each reading, ascending.
    time_us, values
        The readings.
    longest_us
        No step of a block is longer.

    Examples
    --------
    >>> zero = np.zeros(3, np.int32)
    >>> blocks = blocks_of_readings(["b1"], ["flow"], zero, zero, np.zeros(3, np.int64),
    ...                             np.array([0, 10, 20]), np.array([1.0, 2.0, 3.0]), 100)
    >>> [(b["period_us"], b["values"]) for b in blocks.to_pylist()]
    [(10, [1.0, 2.0, 3.0])]
    """
    if len(values) == 0:
        return empty_blocks()
    group = (message * len(assets) + asset) * len(signals) + signal
    if (np.diff(group) < 0).any():
        order = np.argsort(group, kind="stable")
        group, asset, signal, time_us, values = (c[order] for c in (group, asset, signal, time_us, values))
    first = np.empty(len(values), np.int64)
    period = np.empty(len(values), np.int64)
    found = _runs(group, time_us, first, period, longest_us)
    first = first[:found].copy()
    offsets = np.append(first, len(values)).astype(np.int32)
    return new_blocks(
        assets, signals, asset[first], signal[first], time_us[first], period[:found].copy(), offsets, values
    )
