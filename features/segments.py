"""Segments of vibration: the samples of a signal on a fixed grid, put together from blocks of any cut.

From the start of each window a signal is divided into segments of n slots of its nominal period: one second, or 64
samples where that is more, and never more than a window; what is left at the end of a window has no segment. A stream
may have any phase: a sample belongs to the slot in which it lies, or to the next one where it comes within a hundredth
of a period before it, because clocks are rounded. A segment gives a spectrum when each of its slots has a sample: one
missing or rejected sample and there is none. Where several samples fall into one slot the first
that arrives counts; apart from that neither the cut into blocks nor the order of arrival changes anything.

A block that is exactly a segment is looked at where it lies. Any other segment waits in a buffer of a pool that all
signals of a shard share, until it is complete, its window closes, or it lies back further than the lateness.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.acceptance import NONE
from features.compiled import kernel

__all__ = ["Grid", "Segments", "complete", "drop_before", "fill", "new_segments", "release", "segment_samples", "whole"]


class Grid(NamedTuple):
    """Where the segments of one signal lie: all in microseconds but for the number of slots and of segments."""

    window: int
    length: int
    slots: int
    segments: int  # in a window


class Segments(NamedTuple):
    """Buffers of incomplete segments; `number` counts segments since 1970, `values` are NaN where a slot is empty.

    `following` links the buffers of a signal, and the free ones; `free` holds the head of the free list and the number
    of free buffers.
    """

    number: NDArray[np.int64]
    filled: NDArray[np.int32]
    following: NDArray[np.int32]
    values: NDArray[np.float64]
    free: NDArray[np.int64]


def segment_samples(window_s: float, period_s: float) -> int:
    """Return the number of samples of a segment.

    Examples
    --------
    >>> segment_samples(10.0, 0.01), segment_samples(10.0, 0.1), segment_samples(10.0, 0.5)
    (100, 64, 20)
    """
    return min(max(64, round(1.0 / period_s)), int(window_s / period_s + 1e-9))


def new_segments(size: int, samples: int, old: Segments | None = None) -> Segments:
    """Make a pool of `size` buffers of `samples` slots that starts with the buffers of `old`."""
    used = 0 if old is None else len(old.number)
    pool = Segments(
        np.zeros(size, np.int64),
        np.zeros(size, np.int32),
        np.arange(1, size + 1, dtype=np.int32),
        np.empty((size, samples)),
        np.array([used, size - used], np.int64),
    )
    if size:
        pool.following[-1] = NONE if old is None else old.free[0]
    if old is not None:
        for name in ("number", "filled", "following", "values"):
            getattr(pool, name)[:used] = getattr(old, name)
        pool.free[1] += old.free[1]
        if size == used:
            pool.free[0] = old.free[0]
    return pool


@kernel
def _place(grid: Grid, time: int) -> tuple[int, int]:
    """Return the segment and the slot of a sample; segment -1 between the last segment of a window and its end."""
    shifted = time + grid.length // (100 * grid.slots)
    window = shifted // grid.window
    inside = shifted - window * grid.window
    index = inside // grid.length
    if index >= grid.segments:
        return -1, 0
    return window * grid.segments + index, (inside - index * grid.length) * grid.slots // grid.length


@kernel
def whole(grid: Grid, first: int, step: int, count: int) -> int:
    """Return the segment that a run of samples fills exactly, -1 where it is none."""
    if count != grid.slots:
        return -1
    number, slot = _place(grid, first)
    if number < 0 or slot != 0:
        return -1
    last_number, last = _place(grid, first + (count - 1) * step)
    # Slots rise by 0 or 1, or by 1 or 2, a step: over n steps they can only come out right if each was 1.
    return number if last_number == number and last == grid.slots - 1 else -1


@kernel
def release(pool: Segments, node: int) -> None:
    """Give a buffer back."""
    pool.following[node] = pool.free[0]
    pool.free[0] = node
    pool.free[1] += 1


@kernel
def drop_before(pool: Segments, head: int, number: int) -> int:
    """Give back a signal's buffers of earlier segments; return the new head."""
    previous = NONE
    node = head
    while node != NONE:
        after = pool.following[node]
        if pool.number[node] < number:
            if previous == NONE:
                head = after
            else:
                pool.following[previous] = after
            release(pool, node)
        else:
            previous = node
        node = after
    return head


@kernel
def fill(
    grid: Grid,
    pool: Segments,
    heads: NDArray[np.int32],
    first: int,
    step: int,
    values: NDArray[np.float64],
    oldest: int,
) -> tuple[int, int]:
    """Put samples into their slots, up to the end of the first one's segment.

    Buffers of segments before `oldest` are given back. Needs one free buffer.

    Returns
    -------
    taken, node
        How many samples were taken, and the buffer that they completed, no longer among the signal's, or `NONE`.
    """
    n = len(values)
    number, slot = _place(grid, first)
    if number < 0:
        return 1, NONE
    previous = NONE
    node = heads[0]
    while node != NONE and pool.number[node] != number:
        previous = node
        node = pool.following[node]
    if node == NONE:
        heads[0] = drop_before(pool, heads[0], oldest)
        previous = NONE
        node = np.int32(pool.free[0])
        pool.free[0] = pool.following[node]
        pool.free[1] -= 1
        pool.number[node] = number
        pool.filled[node] = 0
        pool.values[node, : grid.slots] = np.nan
        pool.following[node] = heads[0]
        heads[0] = node
    buffer = pool.values[node]
    taken = min(n, grid.slots - slot)
    if taken > 1:
        last_number, last = _place(grid, first + (taken - 1) * step)
        if last_number != number or last != slot + taken - 1:
            taken = 1
    for i in range(taken):
        if np.isnan(buffer[slot + i]):
            buffer[slot + i] = values[i]
            pool.filled[node] += 1
    if pool.filled[node] < grid.slots:
        return taken, NONE
    if previous == NONE:
        heads[0] = pool.following[node]
    else:
        pool.following[previous] = pool.following[node]
    return taken, node


@kernel
def complete(pool: Segments, node: int, grid: Grid) -> NDArray[np.float64]:
    """Return the samples of a complete buffer."""
    return pool.values[node, : grid.slots]
