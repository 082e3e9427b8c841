"""The state of a shard's windows as it is stored: rows in use only, pools without free nodes, with a version.

Version 1 kept the time of every queued sample, the newest run of a signal in the pool, and the times of the first and
last sample of a horizon and the number of its readings; it had no buffers of segments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import moments
from features.acceptance import NONE, Pool
from features.closing import AFTER_ZERO
from features.compiled import kernel
from features.queues import PAGE, Pages, extend, new_pages
from features.segments import Segments
from features.signals import EquipmentClass
from features.state import Layout, State, new_state, plan_keys

__all__ = ["VERSION", "load_state", "state_of"]

VERSION = 2

_WINDOW_1 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, -1, 11, 13]
_HORIZON_1 = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, -1]
"""Where version 1 had the numbers of an accumulator; -1 = nowhere. Its means are above 0."""

_TIMES_1 = {
    1: (0, 1, 4, 11),
    2: (1, 4),
    3: (1, 4),
    11: (0, 1, 4, 6, 8),
    12: (1, 5, 7, 9),
    13: (1, 4),
    14: (0, 2, 3, 5),
    15: (0,),
    16: (0,),
}
"""Which numbers of a cycle's memory are times, by its code: version 1 kept them without `AFTER_ZERO`."""

Heads = NDArray[np.int32]


def state_of(state: State, pool: Pool, pages: Pages, segments: Segments, used: int) -> dict[str, Any]:
    """Return a copy of the used rows, and of the pools without free nodes."""
    lists = "head", "segment", "queue_head", "queue_tail"
    arrays = {name: array[:used].copy() for name, array in state._asdict().items() if name not in lists}
    head, nodes = _packed(state.head[:used], pool.following)
    arrays |= {"head": head, "pool_first": pool.first[nodes], "pool_step": pool.step[nodes]}
    arrays |= {"pool_length": pool.length[nodes], "pool_following": _links(pool.following, nodes)}
    queue, nodes = _packed(state.queue_head[:used], pages.following)
    length = (arrays["queue_count"] - 1) // PAGE
    arrays |= {"queue_head": queue, "queue_tail": np.where(queue == NONE, NONE, queue + length).astype(np.int32)}
    arrays |= {"pages_values": pages.values[nodes], "pages_following": _links(pages.following, nodes)}
    segment, nodes = _packed(state.segment[:used], segments.following)
    arrays |= {"segment": segment, "segments_number": segments.number[nodes], "segments_filled": segments.filled[nodes]}
    arrays |= {"segments_values": segments.values[nodes]}
    arrays["segments_following"] = _links(segments.following, nodes)
    return arrays


def load_state(
    c: EquipmentClass, layout: Layout, stored: dict[str, Any]
) -> tuple[list[str], dict[str, int], State, Pool, Pages, Segments]:
    """Return names, partitions, state and pools of a stored state, which is emptied.

    Raises
    ------
    ValueError
        If it is of another version, or the class has had other signals or windows.
    """
    version = stored.get("version")
    if version not in (1, VERSION):
        raise ValueError(f"the state of a shard's windows has version {version}, expected {VERSION}")
    if version == 1:
        _migrate_1(c, layout, stored)
    arrays = {}
    for name, mine in new_state(c, layout, 0)._asdict().items():
        array = stored.pop(name)
        if array.shape[1:] != mine.shape[1:]:
            raise ValueError(
                f"the state of a shard's windows has {name} of shape {array.shape[1:]} an asset, expected"
                f" {mine.shape[1:]}: the class file has changed, reset the recovery store of this site"
            )
        arrays[name] = np.require(array, mine.dtype, ["C", "W"])

    def pool_of(prefix: str, fields: tuple[str, ...]) -> list[NDArray[Any]]:
        taken = [np.require(stored.pop(f"{prefix}_{name}"), None, ["C", "W"]) for name in fields[:-1]]
        return [*taken, np.array([NONE, 0], np.int64)]

    pool, pages = Pool(*pool_of("pool", Pool._fields)), Pages(*pool_of("pages", Pages._fields))
    samples = max([1, *(samples for samples, _, _ in plan_keys(c))])
    if stored["segments_values"].shape[1:] != (samples,):
        stored["segments_values"] = np.full((len(stored["segments_number"]), samples), np.nan)
    segments = Segments(*pool_of("segments", Segments._fields))
    names, partitions = list(stored["names"]), dict(stored["partitions"])
    stored.clear()
    return names, partitions, State(**arrays), pool, pages, segments


def _migrate_1(c: EquipmentClass, layout: Layout, stored: dict[str, Any]) -> None:
    """Bring a state of version 1 to version 2."""
    head, following = stored["head"], stored["pool_following"]
    some = head != NONE
    runs = np.zeros((*head.shape, 3), np.int64)
    for place, name in enumerate(("first", "step", "length")):
        runs[some, place] = stored[f"pool_{name}"][head[some]]
    older = np.full_like(head, NONE)
    older[some] = following[head[some]]
    packed, nodes = _packed(older, following)
    links = _links(following, nodes)
    for name in ("first", "step", "length"):
        stored[f"pool_{name}"] = stored[f"pool_{name}"][nodes]
    stored["pool_length"] = stored["pool_length"].astype(np.int32)
    stored |= {"head": packed, "runs": runs, "pool_following": links}
    for name, places in (("moments", _WINDOW_1), ("horizon_moments", _HORIZON_1)):
        stored[name] = np.ascontiguousarray(stored[name][..., places])
        stored[name][..., moments.ORIGIN] = 0.0
    cycles = np.array(stored["cycles"])
    for code, begin in zip(layout.cycle_code.tolist(), layout.cycle_state[:-1].tolist(), strict=True):
        for place in _TIMES_1[code]:
            column = cycles[:, begin + place]
            column[column != 0.0] += AFTER_ZERO
    stored["cycles"] = cycles
    _queues_of_1(c, layout, stored)
    spectral = sum(1 for signal in c.signals.values() if signal.bands_hz)
    samples = max([1, *(samples for samples, _, _ in plan_keys(c))])
    stored |= {
        "segment": np.full((len(head), spectral), NONE, np.int32),
        "segments_number": np.zeros(0, np.int64),
        "segments_filled": np.zeros(0, np.int32),
        "segments_following": np.zeros(0, np.int32),
        "segments_values": np.zeros((0, samples)),
    }


def _queues_of_1(c: EquipmentClass, layout: Layout, stored: dict[str, Any]) -> None:
    """Put the queues of version 1, which had a fixed room, on pages."""
    del stored["queue_time"], stored["horizon_samples"]
    values, count = stored.pop("queue_value"), stored["queue_count"]
    periods = [signal.period_s for signal in c.signals.values()]
    room = [int(1.25 * (c.window_s + c.lateness_s) / periods[signal]) + 16 for signal in layout.queued]
    start = np.concatenate(([0], np.cumsum(room))).astype(np.int64)
    pages = new_pages(int((-(-count // PAGE)).sum()))
    head, tail = np.full(count.shape, NONE, np.int32), np.full(count.shape, NONE, np.int32)
    filled = np.zeros_like(count)
    for row in range(len(count)):
        for q in range(len(room)):
            some = values[row, start[q] : start[q] + count[row, q]].astype(np.float64)
            extend(pages, head[row], tail[row], filled[row], q, some)
    stored |= {"queue_head": head, "queue_tail": tail}
    stored |= {"pages_values": pages.values, "pages_following": pages.following}


def _packed(heads: Heads, following: NDArray[np.int32]) -> tuple[Heads, NDArray[np.int64]]:
    """Return heads that count only the nodes in use, and these nodes in that order."""
    nodes = np.empty(len(following), np.int64)
    packed = np.full(heads.shape, NONE, np.int32)
    used = _walk(heads.ravel(), following, packed.ravel(), nodes)
    return packed, nodes[:used]


def _links(following: NDArray[np.int32], nodes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the links between packed nodes: a list's nodes follow one another."""
    last = following[nodes] == NONE
    return np.where(last, NONE, np.arange(1, len(nodes) + 1)).astype(np.int32)


@kernel
def _walk(heads: Heads, following: NDArray[np.int32], packed: Heads, nodes: NDArray[np.int64]) -> int:
    used = 0
    for i in range(len(heads)):
        node = heads[i]
        if node != NONE:
            packed[i] = used
        while node != NONE:
            nodes[used] = node
            used += 1
            node = following[node]
    return used
