"""How a car door works: it opens, waits, closes, turns back when somebody stands in it, and sticks when it is worn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from flows.simulator.draws import exponential, uniform

__all__ = ["Moves", "work_door"]


class Moves(NamedTuple):
    """Movements of the doors of one slot; those of lift ``a`` stand in ``first[a]:first[a + 1]``."""

    first: NDArray[np.int64]
    start: NDArray[np.float64]
    duration: NDArray[np.float64]
    begin: NDArray[np.float64]
    end: NDArray[np.float64]


@kernel
def work_door(
    moves: Moves,
    count: int,
    at: float,
    open_s: float,
    close_s: float,
    hold_s: float,
    reopening: float,
    stalling: float,
    state: NDArray[np.uint64],
) -> tuple[int, float]:
    """Write one working of the doors from `at` on; return the number of moves and when the doors are closed."""
    room = len(moves.start)
    hold = hold_s
    opened_from = 0.0
    for _ in range(24):
        share = 1.0 if opened_from == 0.0 else 0.25 + 0.75 * (1.0 - opened_from)
        if count < room:
            moves.start[count] = at
            moves.duration[count] = open_s * share
            moves.begin[count] = opened_from
            moves.end[count] = 1.0
        count += 1
        at += open_s * share + hold
        if uniform(state) < reopening:
            # Somebody stands in the light barrier: the leaf turns round on its way.
            back = 0.25 + 0.65 * uniform(state)
            share = 0.25 + 0.75 * (1.0 - back)
            if count < room:
                moves.start[count] = at
                moves.duration[count] = close_s * share
                moves.begin[count] = 1.0
                moves.end[count] = back
            count += 1
            at += close_s * share
            opened_from = back
            hold = 1.5 + exponential(state)
            continue
        if uniform(state) < stalling:
            # The leaf sticks on the sill and frees itself.
            stuck = 0.15 + 0.7 * uniform(state)
            pause = 0.2 + 0.5 * uniform(state)
            if count < room:
                moves.start[count] = at
                moves.duration[count] = close_s * (1.0 - stuck)
                moves.begin[count] = 1.0
                moves.end[count] = stuck
            count += 1
            at += close_s * (1.0 - stuck) + pause
            if count < room:
                moves.start[count] = at
                moves.duration[count] = close_s * stuck
                moves.begin[count] = stuck
                moves.end[count] = 0.0
            count += 1
            return count, at + close_s * stuck
        break
    if count < room:
        moves.start[count] = at
        moves.duration[count] = close_s
        moves.begin[count] = 1.0
        moves.end[count] = 0.0
    return count + 1, at + close_s
