"""Which samples have already been accepted: the memory that tells a duplicate from a late arrival.

For each signal of each asset the accepted times are kept as runs (first time, step, count). A regular stream is one
run whatever its rate; that newest run stands beside the signal's other state, so a stream without disorder touches
nothing else. Older runs are nodes of a pool that the shard's signals share. Runs of closed windows are dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["NONE", "Pool", "accept_run", "before", "expand", "forget", "insert", "is_accepted", "new_pool", "newest"]

NONE = -1
"""No node."""
NEVER = -(2**62)
"""Before any time."""

FIRST, STEP, COUNT = range(3)
"""Places in a run, int64 of shape (3,): times in microseconds; a count of 0 is no run."""

Run = NDArray[np.int64]


class Pool(NamedTuple):
    """Nodes of the older runs of a shard.

    `first` and `step` are microseconds; `following` links to the next node; `free` holds the head of the free list and
    the number of free nodes.
    """

    first: NDArray[np.int64]
    step: NDArray[np.int64]
    length: NDArray[np.int32]
    following: NDArray[np.int32]
    free: NDArray[np.int64]


def new_pool(size: int, old: Pool | None = None) -> Pool:
    """Make a pool of `size` nodes that starts with the nodes of `old`."""
    used = 0 if old is None else len(old.first)
    pool = Pool(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size, np.int32),
        np.arange(1, size + 1, dtype=np.int32),
        np.array([used, size - used], np.int64),
    )
    pool.following[-1] = NONE if old is None else old.free[0]
    if old is not None:
        for name in ("first", "step", "length", "following"):
            getattr(pool, name)[:used] = getattr(old, name)
        pool.free[1] += old.free[1]
    return pool


@kernel
def newest(run: Run) -> int:
    """Return the last time of the newest run, or `NEVER`."""
    if run[COUNT] == 0:
        return NEVER
    return int(run[FIRST] + run[STEP] * (run[COUNT] - 1))


@kernel
def _take(pool: Pool, first: int, step: int, count: int, following: int) -> int:
    node = int(pool.free[0])
    pool.free[0] = pool.following[node]
    pool.free[1] -= 1
    pool.first[node] = first
    pool.step[node] = step
    pool.length[node] = count
    pool.following[node] = following
    return node


@kernel
def accept_run(run: Run, pool: Pool, head: int, first: int, step: int, count: int) -> int:
    """Record a run that begins after everything accepted so far; return the new head. Needs one free node."""
    known = run[COUNT]
    if known > 0:
        gap = first - (run[FIRST] + run[STEP] * (known - 1))
        if (count == 1 or gap == step) and (known == 1 or gap == run[STEP]):
            run[STEP] = gap
            run[COUNT] = known + count
            return head
        head = _take(pool, run[FIRST], run[STEP], known, head)
    run[FIRST] = first
    run[STEP] = step
    run[COUNT] = count
    return head


@kernel
def _holds(first: int, step: int, count: int, time: int) -> bool:
    ahead = time - first
    if ahead == 0:
        return count > 0
    return ahead > 0 and count > 1 and ahead % step == 0 and ahead // step < count


@kernel
def is_accepted(run: Run, pool: Pool, head: int, time: int) -> bool:
    """Tell whether a sample of exactly this time has been accepted."""
    if _holds(run[FIRST], run[STEP], run[COUNT], time):
        return True
    node = head
    while node != NONE:
        if _holds(pool.first[node], pool.step[node], pool.length[node], time):
            return True
        node = pool.following[node]
    return False


@kernel
def insert(run: Run, pool: Pool, head: int, time: int) -> int:
    """Record one sample anywhere in the past or future; return the new head. Needs one free node."""
    if time > newest(run):
        return accept_run(run, pool, head, time, 0, 1)
    if head != NONE and pool.length[head] > 1:
        if time == pool.first[head] + pool.step[head] * pool.length[head]:
            pool.length[head] += 1
            return head
    elif head != NONE and pool.length[head] == 1 and time > pool.first[head]:
        pool.step[head] = time - pool.first[head]
        pool.length[head] = 2
        return head
    return _take(pool, time, 0, 1, head)


@kernel
def _earlier(first: int, step: int, count: int, time: int) -> int:
    """Return how many samples of a run lie before a time."""
    if count == 0 or time <= first:
        return 0
    if count == 1:
        return 1
    return min(count, (time - first - 1) // step + 1)


@kernel
def before(run: Run, pool: Pool, head: int, origin: int, time: int) -> int:
    """Return how many accepted samples lie from `origin` to before `time`."""
    found = _earlier(run[FIRST], run[STEP], run[COUNT], time) - _earlier(run[FIRST], run[STEP], run[COUNT], origin)
    node = head
    while node != NONE:
        first, step, count = pool.first[node], pool.step[node], pool.length[node]
        found += _earlier(first, step, count, time) - _earlier(first, step, count, origin)
        node = pool.following[node]
    return int(found)


@kernel
def _write(first: int, step: int, count: int, origin: int, end: int, times: NDArray[np.int64], n: int) -> int:
    """Append the times of a run from `origin` to before `end`; return how many there are now."""
    last = min(_earlier(first, step, count, end), _earlier(first, step, count, origin) + len(times) - n)
    for i in range(_earlier(first, step, count, origin), last):
        times[n] = first + i * step
        n += 1
    return n


@kernel
def expand(run: Run, pool: Pool, head: int, origin: int, end: int, times: NDArray[np.int64]) -> int:
    """Write the accepted times from `origin` to before `end` in their order; return how many they are."""
    n = _write(run[FIRST], run[STEP], run[COUNT], origin, end, times, 0)
    if head == NONE:
        return n
    runs = 1 if n > 0 else 0
    node = head
    while node != NONE:
        more = _write(pool.first[node], pool.step[node], pool.length[node], origin, end, times, n)
        runs += 1 if more > n else 0
        n = more
        node = pool.following[node]
    if runs > 1:
        times[:n].sort()
    return n


@kernel
def forget(run: Run, pool: Pool, head: int, before: int) -> int:
    """Drop the runs that end before a time; return the new head."""
    if newest(run) < before:
        run[COUNT] = 0
    previous = NONE
    node = head
    while node != NONE:
        after = pool.following[node]
        if pool.first[node] + pool.step[node] * (pool.length[node] - 1) < before:
            if previous == NONE:
                head = after
            else:
                pool.following[previous] = after
            pool.following[node] = pool.free[0]
            pool.free[0] = node
            pool.free[1] += 1
        else:
            previous = node
        node = after
    return head
