"""The compiled heart of a shard: accepts or rejects every sample, and fills the open windows.

One call takes the blocks of many assets, asset by asset. An asset's blocks are cut where windows end and taken window
by window, signal by signal: none of them can make another one of the same call late, an accumulator stays in the
cache, and blocks of one sample that follow each other are taken together as a run. Nothing here allocates per block;
where a table is full the call returns between two pieces, the caller drains or grows it, and calls again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features import acceptance, moments, queues
from features.acceptance import Pool
from features.closing import (
    ACCEPTED,
    HORIZONS,
    NEXT,
    PIECE,
    REJECTS,
    ROWS,
    Plans,
    Scratch,
    close_until,
    flush,
    new_scratch,
)
from features.compiled import kernel
from features.fourier import LANES
from features.queues import Pages
from features.segments import Segments, complete, fill, whole
from features.spectra import place_block
from features.state import NO_WINDOW, Blocks, Layout, Output, Plan, State

__all__ = ["DONE", "LONGEST", "MORE_PAGES", "MORE_RUNS", "MORE_SEGMENTS", "REASONS", "ingest"]

REASONS = ("out_of_range", "future", "late", "duplicate", "overrate", "bad_time")
"""Reasons that the kernel gives, by number."""
OUT_OF_RANGE, FUTURE, LATE, DUPLICATE, OVERRATE, BAD_TIME = range(6)

LONGEST = 4096
"""Samples that are taken at once, so that no block asks for more room than this."""
DONE, DRAIN, MORE_RUNS, MORE_PAGES, MORE_SEGMENTS = range(5)
"""What `ingest` returns: done; drain the output; make room for more runs, pages of queues, or buffers of segments."""
KEYS = 8192
"""Windows times signals of an asset's blocks up to which they are sorted by counting."""

_EARLIEST = 0
_LATEST = 7_258_118_400_000_000  # 2200-01-01: beyond lies a broken clock or a wrong unit


@kernel
def _reject(out: Output, block: int, first: int, count: int, reason: int) -> None:
    used = out.used[REJECTS]
    if used > 0:
        last = used - 1
        together = out.reject_first[last] + out.reject_count[last] == first
        if out.reject_block[last] == block and out.reject_reason[last] == reason and together:
            out.reject_count[last] += count
            return
    out.reject_block[used] = block
    out.reject_first[used] = first
    out.reject_count[used] = count
    out.reject_reason[used] = reason
    out.used[REJECTS] = used + 1


@kernel
def _group(blocks: Blocks, begin: int) -> int:
    """Return where the blocks of one asset end."""
    place = blocks.place
    asset = blocks.block_asset[place[begin]]
    end = begin + 1
    while end < len(place) and blocks.block_asset[place[end]] == asset:
        end += 1
    return end


@kernel
def _count_pieces(window_us: int, blocks: Blocks, begin: int, end: int) -> int:
    """Return into how many pieces blocks are cut at most."""
    pieces = end - begin
    for k in range(begin, end):
        block = blocks.place[k]
        n = blocks.length[block]
        if n > 1:
            pieces += min(n, (n - 1) * max(blocks.period[block], 0) // window_us + 2) + n // LONGEST + 2
    return pieces


@kernel
def _cut(
    window_us: int,
    signals: int,
    blocks: Blocks,
    begin: int,
    end: int,
    piece: NDArray[np.int64],
    key: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Cut blocks where windows end; `piece` has a row (block, samples skipped, samples) each, `key` window and signal.

    Samples whose time cannot be are a piece with key -1. Returns the number of pieces, and the smallest and the
    largest key of the others.
    """
    n_pieces = 0
    low = np.int64(2**62)
    high = np.int64(-1)
    window = np.int64(0)
    opens = np.int64(0)
    for k in range(begin, end):
        block = blocks.place[k]
        n = blocks.length[block]
        start = blocks.start[block]
        period = blocks.period[block]
        signal = blocks.signal[blocks.block_signal[block]]
        i = np.int64(0)
        while i < n:
            time = start + i * period
            if time < _EARLIEST or time > _LATEST or (n > 1 and period <= 0):
                last = n
                if time < _EARLIEST and period > 0:
                    last = min(n, i + (_EARLIEST - time + period - 1) // period)
                piece[n_pieces, 0], piece[n_pieces, 1], piece[n_pieces, 2] = block, i, last - i
                key[n_pieces] = -1
                n_pieces += 1
                i = last
                continue
            if not (opens <= time < opens + window_us):
                window = time // window_us
                opens = window * window_us
            last = n
            if n - i > 1:
                last = min(n, i + LONGEST)
                if start + (last - 1) * period >= opens + window_us:
                    last = i + (opens + window_us - 1 - time) // period + 1
            piece[n_pieces, 0], piece[n_pieces, 1], piece[n_pieces, 2] = block, i, last - i
            at = window * signals + signal
            key[n_pieces] = at
            low = min(low, at)
            high = max(high, at)
            n_pieces += 1
            i = last
    return n_pieces, int(low), int(high)


@kernel
def _sort(
    n: int, low: int, high: int, key: NDArray[np.int64], order: NDArray[np.int64], counts: NDArray[np.int64]
) -> None:
    """Order pieces by key, those of one key as they came."""
    if 0 <= high - low < KEYS:
        # Place 0 is for pieces without a key.
        size = high - low + 2
        counts[: size + 1] = 0
        for i in range(n):
            counts[(key[i] - low + 1 if key[i] >= 0 else 0) + 1] += 1
        for i in range(size):
            counts[i + 1] += counts[i]
        for i in range(n):
            at = key[i] - low + 1 if key[i] >= 0 else 0
            order[counts[at]] = i
            counts[at] += 1
    else:
        order[:n] = np.argsort(key[:n], kind="mergesort")


@kernel
def _open(layout: Layout, state: State, row: int, time: int) -> None:
    """Open the first window of an asset so that everything within the lateness before its first sample has room."""
    if state.first_open[row] == NO_WINDOW:
        state.first_open[row] = (time - layout.lateness_us) // layout.window_us


@kernel
def _advance(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    segments: Segments,
    plans: Plans,
    out: Output,
    row: int,
    time: int,
    scratch: Scratch,
) -> None:
    """Let the asset's watermark follow a sample that it has sent."""
    if time > state.newest[row]:
        state.newest[row] = time
        due = (time - layout.lateness_us) // layout.window_us
        if due > state.first_open[row]:
            close_until(layout, state, pool, pages, segments, plans, out, row, due, scratch)


@kernel
def _to_spectra(
    layout: Layout,
    state: State,
    segments: Segments,
    plans: Plans,
    row: int,
    signal: int,
    first: int,
    step: int,
    values: NDArray[np.float64],
) -> None:
    """Hand accepted samples of a vibration to their segments, and complete segments to the lanes."""
    v = layout.spectral[signal]
    if layout.plan[v] < 0:
        return
    plan = plans[layout.plan[v]]
    number = whole(plan.grid, first, step, len(values))
    if number >= 0:
        _wait(layout, state, plan, row, v, number // plan.grid.segments, values)
        return
    oldest = (state.newest[row] - layout.lateness_us) // plan.grid.window * plan.grid.segments
    i = 0
    while i < len(values):
        taken, node = fill(
            plan.grid, segments, state.segment[row, v : v + 1], first + i * step, step, values[i:], oldest
        )
        if node >= 0:
            window = segments.number[node] // plan.grid.segments
            _wait(layout, state, plan, row, v, window, complete(segments, node, plan.grid))
            segments.following[node] = segments.free[0]
            segments.free[0] = node
            segments.free[1] += 1
        i += taken


@kernel
def _wait(layout: Layout, state: State, plan: Plan, row: int, v: int, window: int, values: NDArray[np.float64]) -> None:
    """Put a segment into the next lane of its plan; full lanes are examined."""
    lane = plan.ready.used[0]
    place_block(plan.terms, plan.lanes, lane, values)
    plan.ready.row[lane] = row
    plan.ready.window[lane] = window
    plan.ready.signal[lane] = v
    plan.ready.used[0] = lane + 1
    if lane + 1 == LANES:
        flush(layout, state, plan)


@kernel
def _queue(
    layout: Layout, state: State, pool: Pool, pages: Pages, row: int, signal: int, time: int, value: float
) -> None:
    """Keep a sample for the cycle kernels, in the order of time."""
    q = layout.queue[signal]
    if q < 0:
        return
    place = int(state.queue_count[row, q])
    run = state.runs[row, signal]
    if time < acceptance.newest(run):
        origin = state.first_open[row] * layout.window_us
        place = acceptance.before(run, pool, state.head[row, signal], origin, time)
    queues.insert(pages, state.queue_head[row], state.queue_tail[row], state.queue_count[row], q, place, value)


@kernel
def _add_each(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    segments: Segments,
    plans: Plans,
    out: Output,
    block: int,
    row: int,
    signal: int,
    start: int,
    period: int,
    values: NDArray[np.float64],
    skipped: int,
    limit: int,
    scratch: Scratch,
) -> None:
    """Accept or reject the samples of a piece one by one."""
    for i in range(len(values)):
        value = values[i]
        if math.isnan(value):
            continue
        time = start + i * period
        if not (layout.low[signal] <= value <= layout.high[signal]):
            _reject(out, block, skipped + i, 1, OUT_OF_RANGE)
            continue
        if time > limit:
            _reject(out, block, skipped + i, 1, FUTURE)
            continue
        window = time // layout.window_us
        if window < state.first_open[row]:
            _reject(out, block, skipped + i, 1, LATE)
            continue
        run = state.runs[row, signal]
        if time <= acceptance.newest(run) and acceptance.is_accepted(run, pool, state.head[row, signal], time):
            _reject(out, block, skipped + i, 1, DUPLICATE)
            continue
        _open(layout, state, row, time)
        _advance(layout, state, pool, pages, segments, plans, out, row, time, scratch)
        slot = window % layout.slots
        accumulator = state.moments[row, slot, signal]
        if accumulator[moments.COUNT] >= layout.most[signal]:
            _reject(out, block, skipped + i, 1, OVERRATE)
            continue
        _queue(layout, state, pool, pages, row, signal, time, value)
        moments.add_sample(accumulator, value, (time - window * layout.window_us) / 1e6)
        state.samples[row, slot] += 1
        state.head[row, signal] = acceptance.insert(run, pool, state.head[row, signal], time)
        out.used[ACCEPTED] += 1
        if layout.spectral[signal] >= 0:
            _to_spectra(layout, state, segments, plans, row, signal, time, 0, values[i : i + 1])


@kernel
def _add_run(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    segments: Segments,
    plans: Plans,
    out: Output,
    row: int,
    signal: int,
    window: int,
    first: int,
    step: int,
    values: NDArray[np.float64],
    above: NDArray[np.float64],
    limit: int,
    scratch: Scratch,
) -> bool:
    """Accept a run of good samples inside one window that follows what its signal has sent; False where it is none."""
    n = len(values)
    final = first + (n - 1) * step
    run = state.runs[row, signal]
    if window < state.first_open[row] or final > limit or first <= acceptance.newest(run):
        return False
    finite, total, low, high = moments.screen(values, above)
    if not finite or low < layout.low[signal] or high > layout.high[signal]:
        return False
    _open(layout, state, row, first)
    _advance(layout, state, pool, pages, segments, plans, out, row, first, scratch)
    slot = window % layout.slots
    accumulator = state.moments[row, slot, signal]
    if accumulator[moments.COUNT] + n > layout.most[signal]:
        return False
    q = layout.queue[signal]
    if q >= 0:
        queues.extend(pages, state.queue_head[row], state.queue_tail[row], state.queue_count[row], q, values)
    time_s = (first - window * layout.window_us) / 1e6
    if n == 1:
        moments.add_sample(accumulator, values[0], time_s)
    else:
        moments.add_block(accumulator, values[0], values[n - 1], above[:n], time_s, step / 1e6, total, low, high)
    state.samples[row, slot] += n
    state.head[row, signal] = acceptance.accept_run(run, pool, state.head[row, signal], first, step, n)
    out.used[ACCEPTED] += n
    if layout.spectral[signal] >= 0:
        _to_spectra(layout, state, segments, plans, row, signal, first, step, values)
    _advance(layout, state, pool, pages, segments, plans, out, row, final, scratch)
    return True


@kernel
def _segments_of(layout: Layout, plans: Plans, signal: int, n: int, step: int) -> int:
    """Return how many buffers of segments a piece may need."""
    plan = layout.plan[layout.spectral[signal]]
    return 0 if plan < 0 else min(n, (n - 1) * step // plans[plan].grid.length + 2)


@kernel
def _pause(layout: Layout, state: State, plans: Plans, out: Output, begin: int, at: int, why: int) -> int:
    """Note where to go on when the caller has made room; return what is wanted."""
    out.used[NEXT] = begin
    out.used[PIECE] = at
    for plan in plans:
        flush(layout, state, plan)
    return why


@kernel
def ingest(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    segments: Segments,
    plans: Plans,
    blocks: Blocks,
    out: Output,
) -> int:
    """Take the blocks from where the last call stopped; return `DONE`, or what is wanted before the next call."""
    scratch = new_scratch(layout)
    horizons = len(layout.horizon_us)
    closing = 4 * layout.slots + 2
    counts = np.empty(KEYS + 3, np.int64)
    piece = np.empty((256, 3), np.int64)
    key = np.empty(256, np.int64)
    order = np.empty(256, np.int64)
    together = np.empty(LONGEST)
    above = np.empty(LONGEST)
    values = blocks.values
    signals = len(layout.low)
    begin = out.used[NEXT]
    while begin < len(blocks.place):
        end = _group(blocks, begin)
        first_block = blocks.place[begin]
        row = blocks.row[blocks.block_asset[first_block]]
        need = _count_pieces(layout.window_us, blocks, begin, end)
        if need > len(key):
            piece, key, order = (
                np.empty((2 * need, 3), np.int64),
                np.empty(2 * need, np.int64),
                np.empty(2 * need, np.int64),
            )
        n_pieces, low, high = _cut(layout.window_us, signals, blocks, begin, end, piece, key)
        _sort(n_pieces, low, high, key, order, counts)
        begun = False
        at = out.used[PIECE]
        while at < n_pieces:
            block, skipped, n = piece[order[at], 0], piece[order[at], 1], piece[order[at], 2]
            signal = blocks.signal[blocks.block_signal[block]]
            first = blocks.start[block] + skipped * blocks.period[block]
            step = blocks.period[block]
            found = 1
            window = 0
            bad = key[order[at]] < 0
            if not bad:
                window = int(key[order[at]]) // signals
                if n == 1:
                    # Blocks of one sample that follow each other at one step are one run.
                    step = 0
                    last = first
                    while at + found < n_pieces and found < LONGEST and key[order[at + found]] == key[order[at]]:
                        p = order[at + found]
                        if piece[p, 2] != 1:
                            break
                        next_time = blocks.start[piece[p, 0]] + piece[p, 1] * blocks.period[piece[p, 0]]
                        gap = next_time - last
                        if gap <= 0 or (found > 1 and gap != step):
                            break
                        step = gap
                        last = next_time
                        found += 1
                    n = found
            if (
                out.used[ROWS] + closing > len(out.row)
                or out.used[HORIZONS] + horizons * closing > len(out.horizon_row)
                or out.used[REJECTS] == len(out.reject_block)
            ):
                return _pause(layout, state, plans, out, begin, at, DRAIN)
            if pool.free[1] == 0:
                return _pause(layout, state, plans, out, begin, at, MORE_RUNS)
            q = layout.queue[signal]
            if q >= 0 and pages.free[1] < queues.pages_for(state.queue_count[row, q], n):
                return _pause(layout, state, plans, out, begin, at, MORE_PAGES)
            if layout.spectral[signal] >= 0 and segments.free[1] < _segments_of(layout, plans, signal, n, step):
                return _pause(layout, state, plans, out, begin, at, MORE_SEGMENTS)
            if not begun:
                _arrive(state, blocks, row, begin, end)
                begun = True
            if bad:
                present = False
                for i in range(n):
                    present |= not math.isnan(values[blocks.first[block] + skipped + i])
                if present:
                    _reject(out, block, skipped, n, BAD_TIME)
                at += 1
                continue
            offset = blocks.first[block] + skipped
            if found > 1:
                for i in range(found):
                    p = order[at + i]
                    together[i] = values[blocks.first[piece[p, 0]] + piece[p, 1]]
                run = together[:found]
            else:
                run = values[offset : offset + n]
            if not _add_run(
                layout,
                state,
                pool,
                pages,
                segments,
                plans,
                out,
                row,
                signal,
                window,
                first,
                step,
                run,
                above,
                blocks.limit_us,
                scratch,
            ):
                if out.used[REJECTS] + n > len(out.reject_block):
                    return _pause(layout, state, plans, out, begin, at, DRAIN)
                if pool.free[1] < n:
                    return _pause(layout, state, plans, out, begin, at, MORE_RUNS)
                for i in range(found):
                    p = order[at + i]
                    block, skipped = piece[p, 0], piece[p, 1]
                    offset = blocks.first[block] + skipped
                    _add_each(
                        layout, state, pool, pages, segments, plans, out, block, row, signal,
                        blocks.start[block] + skipped * blocks.period[block], blocks.period[block],
                        values[offset : offset + piece[p, 2]], skipped, blocks.limit_us, scratch,
                    )  # fmt: skip
            at += found
        out.used[PIECE] = 0
        begin = end
    for plan in plans:
        flush(layout, state, plan)
    out.used[NEXT] = 0
    return DONE


@kernel
def _arrive(state: State, blocks: Blocks, row: int, begin: int, end: int) -> None:
    """Note when an asset's blocks came, by its input's clock."""
    if state.partition[row] != blocks.partition:
        state.partition[row] = blocks.partition
        state.arrival[row] = blocks.clock[blocks.place[begin]]
    for k in range(begin, end):
        state.arrival[row] = max(state.arrival[row], blocks.clock[blocks.place[k]])
    state.silent[row] = False
