"""Which samples have already been accepted: the memory that tells a duplicate from a late arrival.

For each signal of each asset the accepted times are kept as runs (first time, step, count), newest first, so a regular
stream is one run whatever its rate. Runs of closed windows are dropped. The runs of a shard share one pool of nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel

__all__ = ["NONE", "Pool", "accept_run", "forget", "insert", "is_accepted", "new_pool", "newest"]

NONE = -1
"""No node."""
NEVER = -(2**62)
"""Before any time."""


class Pool(NamedTuple):
    """Nodes of the runs of a shard.

    `first` and `step` are microseconds; `following` links to the next older run; `free` holds the head of the free
    list and the number of free nodes.
    """

    first: NDArray[np.int64]
    step: NDArray[np.int64]
    length: NDArray[np.int64]
    following: NDArray[np.int32]
    free: NDArray[np.int64]


def new_pool(size: int, old: Pool | None = None) -> Pool:
    """Make a pool of `size` nodes that starts with the nodes of `old`."""
    used = 0 if old is None else len(old.first)
    pool = Pool(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
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
def newest(pool: Pool, head: int) -> int:
    """Return the last time of the newest run, or `NEVER`."""
    if head == NONE:
        return NEVER
    return int(pool.first[head] + pool.step[head] * (pool.length[head] - 1))


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
def accept_run(pool: Pool, head: int, first: int, step: int, count: int) -> int:
    """Record a run that begins after everything accepted so far; return the new head. Needs one free node."""
    if head != NONE:
        last = pool.first[head] + pool.step[head] * (pool.length[head] - 1)
        gap = first - last
        known = pool.length[head]
        if (count == 1 or gap == step) and (known == 1 or gap == pool.step[head]):
            pool.step[head] = gap
            pool.length[head] = known + count
            return head
    return _take(pool, first, step, count, head)


@kernel
def is_accepted(pool: Pool, head: int, time: int) -> bool:
    """Tell whether a sample of exactly this time has been accepted."""
    node = head
    while node != NONE:
        ahead = time - pool.first[node]
        if ahead == 0:
            return True
        if ahead > 0 and pool.length[node] > 1:
            step = pool.step[node]
            if ahead % step == 0 and ahead // step < pool.length[node]:
                return True
        node = pool.following[node]
    return False


@kernel
def insert(pool: Pool, head: int, time: int) -> int:
    """Record one sample anywhere in the past or future; return the new head. Needs one free node."""
    if time > newest(pool, head):
        return accept_run(pool, head, time, 0, 1)
    # The head must stay the run that ends last: older samples go behind it.
    node = int(pool.following[head])
    if node != NONE and pool.length[node] > 1:
        if time == pool.first[node] + pool.step[node] * pool.length[node]:
            pool.length[node] += 1
            return head
    elif node != NONE and pool.length[node] == 1 and time > pool.first[node]:
        pool.step[node] = time - pool.first[node]
        pool.length[node] = 2
        return head
    pool.following[head] = _take(pool, time, 0, 1, node)
    return head


@kernel
def forget(pool: Pool, head: int, before: int) -> int:
    """Free the runs that end before a time; return the new head."""
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
