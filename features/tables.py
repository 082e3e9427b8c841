"""Room for the kernels: tables that grow with a shard, and those that a thread lends to one call after another."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from features.acceptance import Pool, new_pool
from features.ingest import LONGEST
from features.queues import Pages, new_pages
from features.segments import Segments, new_segments
from features.signals import EquipmentClass
from features.state import Layout, Output, Plan, State, new_output, new_state, plan_keys, plans_of

__all__ = ["grown", "grown_pages", "grown_pool", "grown_segments", "output_of", "plans_for"]

ROWS = 512
"""Windows that a call may close before its caller drains them: 5 kB each, once a thread."""

_lent = threading.local()


def _lend(key: Any, make: Any) -> Any:
    tables = _lent.__dict__
    if key not in tables:
        tables[key] = make()
    return tables[key]


def output_of(c: EquipmentClass) -> Output:
    """Return this thread's output tables for classes of this shape; a call leaves them drained."""
    shape = len(c.features), len(c.signals), len(c.horizons_s)
    output: Output = _lend(shape, lambda: new_output(c, ROWS, 2 * LONGEST))
    return output


def plans_for(c: EquipmentClass) -> tuple[Plan, ...]:
    """Return this thread's plans of the class's spectra; between calls no segment waits in them."""
    key = c.window_s, *plan_keys(c)
    plans: tuple[Plan, ...] = _lend(key, lambda: plans_of(c))
    return plans


def grown(c: EquipmentClass, layout: Layout, state: State, assets: int) -> State:
    """Return the state with room for more assets: an eighth more than there was, so that memory follows the fleet."""
    used = len(state.first_open)
    room = max(assets, used + used // 8)
    arrays = state._asdict()
    fresh = new_state(c, layout, 1)
    for name in State._fields:
        # One after another, so that only one of them is in memory twice.
        old, one = arrays[name], getattr(fresh, name)
        if one.any():
            new = np.empty((room, *one.shape[1:]), one.dtype)
            new[used:] = one[0]
        else:
            new = np.zeros((room, *one.shape[1:]), one.dtype)
        new[:used] = old
        arrays[name] = new
        del old
    return State(**arrays)


def grown_pool(pool: Pool | None, least: int) -> Pool:
    """Return a pool of runs with at least so many free nodes."""
    if pool is None:
        return new_pool(least)
    return new_pool(len(pool.first) + max(least, len(pool.first) // 8), pool)


def grown_pages(pages: Pages | None, least: int) -> Pages:
    """Return pages of queues with at least so many free ones."""
    if pages is None:
        return new_pages(0)
    return new_pages(len(pages.following) + max(least, len(pages.following) // 16), pages)


def grown_segments(c: EquipmentClass, segments: Segments | None) -> Segments:
    """Return buffers of segments with free ones for all of a window; none for a class without spectra, or at first."""
    keys = plan_keys(c)
    samples = max([1, *(samples for samples, _, _ in keys)])
    if segments is None:
        return new_segments(0, samples)
    used = len(segments.number)
    window = max(int(c.window_s / (samples * period_s)) for samples, period_s, _ in keys)
    return new_segments(used + max(window + 4, used // 8), samples, segments)
