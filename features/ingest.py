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
    Scratch,
    close_until,
    flush,
    new_scratch,
)
from features.compiled import kernel
from features.fourier import LANES
from features.prefetch import LINE, ask_for, prefetch
from features.queues import Pages
from features.segments import Grid, Segments, fill, release, whole
from features.state import NO_WINDOW, Blocks, Layout, Output, Spectra, State

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
def _count_pieces(window_us: int, blocks: Blocks, begin: int, end: int) -> int:
    """Return into how many pieces blocks are cut at most."""
    pieces = end - begin
    if blocks.single:
        return pieces
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
    place, block_signal, signal_of, starts = blocks.place, blocks.block_signal, blocks.signal, blocks.start
    single = blocks.single
    for k in range(begin, end):
        block = place[k]
        start = starts[block]
        signal = signal_of[block_signal[block]]
        if single and _EARLIEST <= start <= _LATEST:
            if not (opens <= start < opens + window_us):
                window = start // window_us
                opens = window * window_us
            at = window * signals + signal
            piece[n_pieces, 0], piece[n_pieces, 1], piece[n_pieces, 2] = block, 0, 1
            key[n_pieces] = at
            low = min(low, at)
            high = max(high, at)
            n_pieces += 1
            continue
        n = blocks.length[block]
        period = blocks.period[block]
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
                if start + (last - 1) * period > _LATEST:
                    last = i + (_LATEST - time) // period + 1
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
    spectra: Spectra,
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
            close_until(layout, state, pool, pages, segments, spectra, out, row, due, scratch)


@kernel
def _to_spectra(
    layout: Layout,
    state: State,
    segments: Segments,
    spectra: Spectra,
    row: int,
    signal: int,
    first: int,
    step: int,
    values: NDArray[np.float64],
) -> None:
    """Put accepted samples of a vibration into their segments; those that are complete wait for their spectrum."""
    v = layout.spectral[signal]
    p = layout.plan[v]
    if p < 0:
        return
    grid = Grid(layout.window_us, layout.segment_us[v], layout.segment_slots[v], layout.segments[v])
    oldest = (state.newest[row] - layout.lateness_us) // grid.window * grid.segments
    waiting = spectra.waiting
    i = 0
    while i < len(values):
        taken, node = fill(grid, segments, state.segment[row, v : v + 1], first + i * step, step, values[i:], oldest)
        if node >= 0:
            lane = waiting.used[p]
            waiting.values[p, lane, : grid.slots] = segments.values[node, : grid.slots]
            waiting.row[p, lane] = row
            waiting.window[p, lane] = segments.number[node] // grid.segments
            waiting.signal[p, lane] = v
            waiting.used[p] = lane + 1
            release(segments, node)
            if lane + 1 == LANES:
                flush(layout, state, spectra, p)
        i += taken


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
    spectra: Spectra,
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
        _advance(layout, state, pool, pages, segments, spectra, out, row, time, scratch)
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
            _to_spectra(layout, state, segments, spectra, row, signal, time, 0, values[i : i + 1])


@kernel
def _ask(layout: Layout, state: State, pages: Pages, blocks: Blocks, begin: int, end: int, row: int) -> None:
    """Ask memory for what the next asset will need: its blocks, its runs and moments, its newest pages."""
    start, values, signal = blocks.start.ctypes.data, blocks.values.ctypes.data, blocks.block_signal.ctypes.data
    place = blocks.place
    known = np.int64(-2)
    for k in range(begin, end):
        block = np.int64(place[k])
        if block != known + 1:
            prefetch(start + 8 * block)
            prefetch(start + 8 * block + LINE)
            prefetch(signal + 4 * block)
            if blocks.single:
                prefetch(values + 8 * block)
                prefetch(values + 8 * block + LINE)
        known = block
    # Those of the asset before are here already, and assets are about as far.
    newest = blocks.start[place[begin - 1]]
    slot = newest // layout.window_us % layout.slots
    ask_for(state.moments.ctypes.data, row * layout.slots + slot, state.moments.shape[2] * state.moments.shape[3] * 8)
    ask_for(state.runs.ctypes.data, row, state.runs.shape[1] * state.runs.shape[2] * 8)
    address = pages.values.ctypes.data
    for q in range(state.queue_tail.shape[1]):
        ask_for(address, max(state.queue_tail[row, q], 0), queues.PAGE * 4)


@kernel
def _pause(layout: Layout, state: State, spectra: Spectra, out: Output, group: int, at: int, why: int) -> int:
    """Note where to go on when the caller has made room; return what is wanted."""
    out.used[NEXT] = group
    out.used[PIECE] = at
    for p in range(len(spectra.waiting.used)):
        flush(layout, state, spectra, p)
    return why


@kernel
def ingest(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    segments: Segments,
    spectra: Spectra,
    blocks: Blocks,
    out: Output,
) -> int:
    """Take the blocks from where the last call stopped; return `DONE`, or what is wanted before the next call.

    The common case, a run of good samples that follows what its signal has sent, is written out here on local names:
    a call that passes the tables costs more than adding ten samples.
    """
    scratch = new_scratch(layout)
    horizons = len(layout.horizon_us)
    closing = 4 * layout.slots + 2
    counts = np.empty(KEYS + 3, np.int64)
    piece = np.empty((256, 3), np.int64)
    key = np.empty(256, np.int64)
    order = np.empty(256, np.int64)
    together = np.empty(LONGEST)
    above = np.empty(LONGEST)
    window_us, lateness_us, slots = layout.window_us, layout.lateness_us, layout.slots
    low, high, most, queue_of, spectral = layout.low, layout.high, layout.most, layout.queue, layout.spectral
    plan_of, segment_us, segment_slots = layout.plan, layout.segment_us, layout.segment_slots
    segments_of = layout.segments
    first_open, newest, arrival, home = state.first_open, state.newest, state.arrival, state.partition
    samples, accumulators, runs, heads = state.samples, state.moments, state.runs, state.head
    queue_head, queue_tail, queue_count = state.queue_head, state.queue_tail, state.queue_count
    page_values, page_following, page_free = pages.values, pages.following, pages.free
    node_free, buffer_free, used = pool.free, segments.free, out.used
    waiting_values, waiting_row, waiting_window = spectra.waiting.values, spectra.waiting.row, spectra.waiting.window
    waiting_signal, waiting_used = spectra.waiting.signal, spectra.waiting.used
    row_room, horizon_room, reject_room = len(out.row), len(out.horizon_row), len(out.reject_block)
    place, block_signal, single = blocks.place, blocks.block_signal, blocks.single
    block_start, block_period, block_first = blocks.start, blocks.period, blocks.first
    block_clock, row_of, signal_of, values = blocks.clock, blocks.row, blocks.signal, blocks.values
    group_end = blocks.end
    limit_us, partition = blocks.limit_us, blocks.partition
    signals = len(low)
    origin = block_first[0]
    for group in range(used[NEXT], len(row_of)):
        begin = 0 if group == 0 else int(group_end[group - 1])
        end = int(group_end[group])
        row = row_of[group]
        need = _count_pieces(window_us, blocks, begin, end)
        if need > len(key):
            piece, key = np.empty((2 * need, 3), np.int64), np.empty(2 * need, np.int64)
            order = np.empty(2 * need, np.int64)
        n_pieces, smallest, largest = _cut(window_us, signals, blocks, begin, end, piece, key)
        _sort(n_pieces, smallest, largest, key, order, counts)
        if home[row] != partition:
            home[row] = partition
            arrival[row] = block_clock[place[begin]]
        arrival[row] = max(arrival[row], block_clock[place[end - 1]])
        state.silent[row] = False
        if group + 1 < len(row_of):
            _ask(layout, state, pages, blocks, end, int(group_end[group + 1]), row_of[group + 1])
        at = used[PIECE]
        while at < n_pieces:
            p = order[at]
            block, skipped, n = piece[p, 0], piece[p, 1], piece[p, 2]
            if (
                used[ROWS] + closing > row_room
                or used[HORIZONS] + horizons * closing > horizon_room
                or used[REJECTS] == reject_room
            ):
                return _pause(layout, state, spectra, out, group, at, DRAIN)
            offset = origin + block if single else block_first[block] + skipped
            if key[p] < 0:
                present = False
                for i in range(n):
                    present |= not math.isnan(values[offset + i])
                if present:
                    _reject(out, block, skipped, n, BAD_TIME)
                at += 1
                continue
            signal = signal_of[block_signal[block]]
            window = key[p] // signals
            first = block_start[block]
            step = 0
            if not single:
                step = int(block_period[block])
                first += skipped * step
            found = 1
            if n == 1:
                # Blocks of one sample that follow each other at one step are one run.
                step = 0
                last = first
                together[0] = values[offset]
                while at + found < n_pieces and found < LONGEST:
                    other = order[at + found]
                    if key[other] != key[p]:
                        break
                    other_block = piece[other, 0]
                    time = block_start[other_block]
                    if not single:
                        if piece[other, 2] != 1:
                            break
                        time += piece[other, 1] * block_period[other_block]
                    gap = time - last
                    if gap <= 0 or (found > 1 and gap != step):
                        break
                    step = int(gap)
                    last = time
                    if single:
                        together[found] = values[origin + other_block]
                    else:
                        together[found] = values[block_first[other_block] + piece[other, 1]]
                    found += 1
                n = found
            q = queue_of[signal]
            v = spectral[signal]
            if node_free[1] == 0:
                return _pause(layout, state, spectra, out, group, at, MORE_RUNS)
            if q >= 0 and page_free[1] * queues.PAGE < n + queues.PAGE:
                return _pause(layout, state, spectra, out, group, at, MORE_PAGES)
            if v >= 0 and plan_of[v] >= 0 and buffer_free[1] < min(n, (n - 1) * step // segment_us[v] + 2):
                return _pause(layout, state, spectra, out, group, at, MORE_SEGMENTS)
            run = together[:n] if found > 1 else values[offset : offset + n]
            final = first + (n - 1) * step
            known = runs[row, signal, 2]
            newest_run = runs[row, signal, 0] + runs[row, signal, 1] * (known - 1)
            good = window >= first_open[row] and final <= limit_us and (known == 0 or first > newest_run)
            total = lowest = highest = 0.0
            slot = np.int64(0)
            if good:
                finite, total, lowest, highest = moments.screen(run, above)
                good = finite and lowest >= low[signal] and highest <= high[signal]
            if good:
                if first_open[row] == NO_WINDOW:
                    first_open[row] = (first - lateness_us) // window_us
                if first > newest[row]:
                    newest[row] = first
                    if first - lateness_us >= (first_open[row] + 1) * window_us:
                        due = (first - lateness_us) // window_us
                        close_until(layout, state, pool, pages, segments, spectra, out, row, due, scratch)
                slot = window % slots
                good = accumulators[row, slot, signal, moments.COUNT] + n <= most[signal]
            if not good:
                if used[REJECTS] + n > reject_room:
                    return _pause(layout, state, spectra, out, group, at, DRAIN)
                if node_free[1] < n:
                    return _pause(layout, state, spectra, out, group, at, MORE_RUNS)
                for i in range(at, at + found):
                    block, skipped = piece[order[i], 0], piece[order[i], 1]
                    offset = block_first[block] + skipped
                    _add_each(
                        layout, state, pool, pages, segments, spectra, out, block, row, signal,
                        block_start[block] + skipped * block_period[block], block_period[block],
                        values[offset : offset + piece[order[i], 2]], skipped, limit_us, scratch,
                    )  # fmt: skip
                at += found
                continue
            if q >= 0:
                count = queue_count[row, q]
                node = queue_tail[row, q]
                inside = count % queues.PAGE
                for i in range(n):
                    if inside == 0:
                        after = np.int32(page_free[0])
                        page_free[0] = page_following[after]
                        page_free[1] -= 1
                        page_following[after] = acceptance.NONE
                        if queue_head[row, q] == acceptance.NONE:
                            queue_head[row, q] = after
                        else:
                            page_following[node] = after
                        node = after
                    page_values[node, inside] = run[i]
                    inside += 1
                    if inside == queues.PAGE:
                        inside = 0
                queue_tail[row, q] = node
                queue_count[row, q] = count + n
            time_s = (first - window * window_us) / 1e6
            if n == 1:
                moments.add_sample(accumulators[row, slot, signal], run[0], time_s)
            else:
                moments.add_block(
                    accumulators[row, slot, signal], run[0], run[n - 1], above[:n], time_s, step / 1e6, total, lowest,
                    highest,
                )  # fmt: skip
            samples[row, slot] += n
            used[ACCEPTED] += n
            gap = first - newest_run
            if known > 0 and (n == 1 or gap == step) and (known == 1 or gap == runs[row, signal, 1]):
                runs[row, signal, 1] = gap
                runs[row, signal, 2] = known + n
            else:
                heads[row, signal] = acceptance.accept_run(runs[row, signal], pool, heads[row, signal], first, step, n)
            if v >= 0 and plan_of[v] >= 0:
                number = -1
                if n == segment_slots[v]:
                    number = whole(Grid(window_us, segment_us[v], segment_slots[v], segments_of[v]), first, step, n)
                if number < 0:
                    _to_spectra(layout, state, segments, spectra, row, signal, first, step, run)
                else:
                    plan = plan_of[v]
                    lane = waiting_used[plan]
                    for i in range(n):
                        waiting_values[plan, lane, i] = run[i]
                    waiting_row[plan, lane] = row
                    waiting_window[plan, lane] = number // segments_of[v]
                    waiting_signal[plan, lane] = v
                    waiting_used[plan] = lane + 1
                    if lane + 1 == LANES:
                        flush(layout, state, spectra, plan)
            if final > newest[row]:
                newest[row] = final
                if final - lateness_us >= (first_open[row] + 1) * window_us:
                    due = (final - lateness_us) // window_us
                    close_until(layout, state, pool, pages, segments, spectra, out, row, due, scratch)
            at += found
        used[PIECE] = 0
    for p in range(len(waiting_used)):
        flush(layout, state, spectra, p)
    used[NEXT] = 0
    return DONE
