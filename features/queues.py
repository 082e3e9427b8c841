"""The samples that cycles will read, until their window closes: values in the order of time, on pages of a pool.

A signal holds pages only for what it has sent, so a slow one costs little and a fast one may send what its rate allows.
Times are not kept: they are those of the accepted runs (`features.acceptance`). Values are 32-bit floats: seven digits,
more than any of the sensors has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.acceptance import NONE
from features.compiled import kernel

__all__ = ["PAGE", "Pages", "drop", "extend", "insert", "new_pages", "pages_for", "read"]

PAGE = 16
"""Values on a page: 64 bytes, a line of the cache."""


class Pages(NamedTuple):
    """Pages of values; `following` links a signal's pages, and the free ones; `free` is their head and number."""

    values: NDArray[np.float32]
    following: NDArray[np.int32]
    free: NDArray[np.int64]


def new_pages(size: int, old: Pages | None = None) -> Pages:
    """Make a pool of `size` pages that starts with those of `old`."""
    used = 0 if old is None else len(old.following)
    pages = Pages(
        np.empty((size, PAGE), np.float32),
        np.arange(1, size + 1, dtype=np.int32),
        np.array([used, size - used], np.int64),
    )
    if size > used:
        pages.following[-1] = NONE if old is None else old.free[0]
    if old is not None:
        pages.values[:used] = old.values
        pages.following[:used] = old.following
        pages.free[1] += old.free[1]
        if size == used:
            pages.free[0] = old.free[0]
    return pages


@kernel
def pages_for(count: int, more: int) -> int:
    """Return how many pages must be free to add values to so many."""
    return (count + more + PAGE - 1) // PAGE - (count + PAGE - 1) // PAGE


@kernel
def _append_page(pages: Pages, head: NDArray[np.int32], tail: NDArray[np.int32], q: int) -> None:
    node = np.int32(pages.free[0])
    pages.free[0] = pages.following[node]
    pages.free[1] -= 1
    pages.following[node] = NONE
    if head[q] == NONE:
        head[q] = node
    else:
        pages.following[tail[q]] = node
    tail[q] = node


@kernel
def extend(
    pages: Pages,
    head: NDArray[np.int32],
    tail: NDArray[np.int32],
    count: NDArray[np.int32],
    q: int,
    values: NDArray[np.float64],
) -> None:
    """Append values that are later than all that are there."""
    at = count[q] % PAGE
    i = 0
    while i < len(values):
        if at == 0:
            _append_page(pages, head, tail, q)
        page = pages.values[tail[q]]
        last = min(len(values), i + PAGE - at)
        for k in range(last - i):
            page[at + k] = values[i + k]
        i = last
        at = 0
    count[q] += len(values)


@kernel
def insert(
    pages: Pages,
    head: NDArray[np.int32],
    tail: NDArray[np.int32],
    count: NDArray[np.int32],
    q: int,
    place: int,
    value: float,
) -> None:
    """Put one value in at its place in the order of time."""
    if count[q] % PAGE == 0:
        _append_page(pages, head, tail, q)
    node = head[q]
    for _ in range(place // PAGE):
        node = pages.following[node]
    carried = np.float32(value)
    for i in range(place, count[q] + 1):
        if i > place and i % PAGE == 0:
            node = pages.following[node]
        there = pages.values[node, i % PAGE]
        pages.values[node, i % PAGE] = carried
        carried = there
    count[q] += 1


@kernel
def read(pages: Pages, head: int, count: int, out: NDArray[np.float32]) -> None:
    """Write the first `count` values."""
    node = head
    for i in range(0, count, PAGE):
        for k in range(min(PAGE, count - i)):
            out[i + k] = pages.values[node, k]
        node = pages.following[node]


@kernel
def drop(
    pages: Pages, head: NDArray[np.int32], tail: NDArray[np.int32], count: NDArray[np.int32], q: int, first: int
) -> None:
    """Forget the first values; the others move up, and pages that are empty then are free."""
    left = count[q] - first
    source = head[q]
    for _ in range(first // PAGE):
        source = pages.following[source]
    into = head[q]
    for i in range(left):
        if i > 0 and i % PAGE == 0:
            into = pages.following[into]
        pages.values[into, i % PAGE] = pages.values[source, (first + i) % PAGE]
        if (first + i) % PAGE == PAGE - 1:
            source = pages.following[source]
    count[q] = left
    node = head[q] if left == 0 else pages.following[into]
    if left == 0:
        head[q] = NONE
        tail[q] = NONE
    else:
        pages.following[into] = NONE
        tail[q] = into
    while node != NONE:
        after = pages.following[node]
        pages.following[node] = pages.free[0]
        pages.free[0] = node
        pages.free[1] += 1
        node = after
