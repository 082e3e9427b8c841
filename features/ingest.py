"""The compiled heart of a shard: accepts or rejects every sample, fills the open windows, closes them in event time.

One call takes the blocks of many assets. Nothing here allocates per block; where a table is full the call returns at a
block boundary, the caller drains or grows it, and calls again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features import acceptance, boiler, lift, moments
from features.acceptance import NONE, Pool
from features.compiled import kernel

__all__ = ["NO_WINDOW", "REASONS", "Blocks", "Layout", "Output", "State", "close_due", "forget_rows", "ingest"]

NO_WINDOW = -(2**62)
"""Index of the first open window of an asset that has sent nothing yet."""
REASONS = ("out_of_range", "future", "late", "duplicate", "overrate", "bad_time")
"""Reasons that the kernel gives, by number."""
OUT_OF_RANGE, FUTURE, LATE, DUPLICATE, OVERRATE, BAD_TIME = range(6)

ROWS, HORIZONS, REJECTS, NEXT, ACCEPTED = range(5)
"""Places in `Output.used`."""

_FOREVER = 2**62
"""After any time."""
_EARLIEST = 0
_LATEST = 7_258_118_400_000_000  # 2200-01-01: beyond lies a broken clock or a wrong unit


class Layout(NamedTuple):
    """The class, as numbers: set once, never changed."""

    window_us: int
    lateness_us: int
    idle_us: int
    tick_us: int
    slots: int
    state_signal: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    most: NDArray[np.int64]
    spectral: NDArray[np.int64]
    bands: NDArray[np.int64]
    band_column: NDArray[np.int64]
    queue: NDArray[np.int64]
    queue_start: NDArray[np.int64]
    cycle_code: NDArray[np.int64]
    cycle_queues: NDArray[np.int64]
    cycle_parameters: NDArray[np.float64]
    cycle_state: NDArray[np.int64]
    cycle_column: NDArray[np.int64]
    horizon_us: NDArray[np.int64]


class State(NamedTuple):
    """What a shard remembers, a row an asset."""

    first_open: NDArray[np.int64]
    newest: NDArray[np.int64]
    arrival: NDArray[np.int64]
    partition: NDArray[np.int32]
    state_code: NDArray[np.float64]
    samples: NDArray[np.int64]
    moments: NDArray[np.float64]
    spectra: NDArray[np.float64]
    queue_time: NDArray[np.int32]
    queue_value: NDArray[np.float32]
    queue_count: NDArray[np.int32]
    cycles: NDArray[np.float64]
    horizon: NDArray[np.int64]
    horizon_samples: NDArray[np.int64]
    horizon_moments: NDArray[np.float64]
    head: NDArray[np.int32]


class Blocks(NamedTuple):
    """The blocks of a call: `clock` is the event time of the input partition when the block arrived."""

    row: NDArray[np.int32]
    signal: NDArray[np.int32]
    start: NDArray[np.int64]
    period: NDArray[np.int64]
    first: NDArray[np.int64]
    length: NDArray[np.int64]
    clock: NDArray[np.int64]
    spectrum: NDArray[np.int64]
    values: NDArray[np.float64]
    spectra: NDArray[np.float64]
    partition: int
    limit_us: int


class Output(NamedTuple):
    """Tables that a call fills; `used` counts their rows."""

    row: NDArray[np.int32]
    window: NDArray[np.int64]
    samples: NDArray[np.int64]
    state_code: NDArray[np.float64]
    features: NDArray[np.float64]
    horizon_row: NDArray[np.int32]
    horizon_level: NDArray[np.int32]
    horizon_index: NDArray[np.int64]
    horizon_samples: NDArray[np.int64]
    horizon_features: NDArray[np.float64]
    reject_block: NDArray[np.int64]
    reject_first: NDArray[np.int64]
    reject_count: NDArray[np.int64]
    reject_reason: NDArray[np.int64]
    used: NDArray[np.int64]


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
def _run_cycles(
    layout: Layout,
    state: State,
    row: int,
    window: int,
    features: NDArray[np.float64],
    times: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[np.float32],
) -> None:
    """Hand the queued samples of one window to each cycle kernel in the order of time, then drop them."""
    start = window * layout.window_us
    end = start + layout.window_us
    queues = len(layout.queue_start) - 1
    ends = np.zeros(queues, np.int64)
    origin = state.first_open[row] * layout.window_us
    limit = (end - origin) // layout.tick_us
    for q in range(queues):
        base = layout.queue_start[q]
        n = 0
        while n < state.queue_count[row, q] and state.queue_time[row, base + n] < limit:
            n += 1
        ends[q] = n
    at = np.zeros(layout.cycle_queues.shape[1], np.int64)
    for c in range(len(layout.cycle_code)):
        at[:] = 0
        n = 0
        while True:
            best = -1
            earliest = np.int64(2**62)
            for role in range(layout.cycle_queues.shape[1]):
                q = layout.cycle_queues[c, role]
                if q >= 0 and at[role] < ends[q]:
                    time = np.int64(state.queue_time[row, layout.queue_start[q] + at[role]])
                    if time < earliest:
                        earliest = time
                        best = role
            if best < 0:
                break
            times[n] = origin + earliest * layout.tick_us
            roles[n] = best
            values[n] = state.queue_value[row, layout.queue_start[layout.cycle_queues[c, best]] + at[best]]
            at[best] += 1
            n += 1
        memory = state.cycles[row, layout.cycle_state[c] : layout.cycle_state[c + 1]]
        result = features[layout.cycle_column[c] : layout.cycle_column[c + 1]]
        parameters = layout.cycle_parameters[c]
        code = layout.cycle_code[c]
        if code == 1:
            lift.trips_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 2:
            lift.doors_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 3:
            lift.levelling_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 11:
            boiler.burner_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 12:
            boiler.ignition_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 13:
            boiler.difference_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 14:
            boiler.flue_loss_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 15:
            boiler.pressure_decay_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
        elif code == 16:
            boiler.circulation_step(memory, times[:n], roles[:n], values[:n], start, end, parameters, result)
    for q in range(queues):
        base = layout.queue_start[q]
        left = state.queue_count[row, q] - ends[q]
        for i in range(left):
            state.queue_time[row, base + i] = state.queue_time[row, base + ends[q] + i]
            state.queue_value[row, base + i] = state.queue_value[row, base + ends[q] + i]
        state.queue_count[row, q] = left


@kernel
def _emit_horizon(state: State, out: Output, row: int, level: int) -> None:
    used = out.used[HORIZONS]
    out.horizon_row[used] = row
    out.horizon_level[used] = level
    out.horizon_index[used] = state.horizon[row, level]
    out.horizon_samples[used] = state.horizon_samples[row, level]
    columns = out.horizon_features.shape[1] // state.moments.shape[2]
    for signal in range(state.moments.shape[2]):
        accumulator = state.horizon_moments[row, level, signal]
        moments.statistics(accumulator, out.horizon_features[used, signal * columns : (signal + 1) * columns])
        moments.reset(accumulator)
    out.used[HORIZONS] = used + 1
    state.horizon[row, level] = NO_WINDOW
    state.horizon_samples[row, level] = 0


@kernel
def _close_horizon(layout: Layout, state: State, out: Output, row: int, level: int) -> None:
    """Merge a finished horizon into the next longer one, and emit it."""
    longer = level + 1
    if longer < len(layout.horizon_us):
        start = state.horizon[row, level] * layout.horizon_us[level]
        index = start // layout.horizon_us[longer]
        state.horizon[row, longer] = index
        later = (start - index * layout.horizon_us[longer]) / 1e6
        for signal in range(state.moments.shape[2]):
            moments.merge(state.horizon_moments[row, longer, signal], state.horizon_moments[row, level, signal], later)
        state.horizon_samples[row, longer] += state.horizon_samples[row, level]
    _emit_horizon(state, out, row, level)


@kernel
def _close_window(
    layout: Layout,
    state: State,
    out: Output,
    row: int,
    window: int,
    times: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[np.float32],
) -> None:
    """Write the features of one window of one asset, merge it into its horizons, and empty its slot."""
    slot = window % layout.slots
    if state.samples[row, slot] == 0:
        return
    used = out.used[ROWS]
    features = out.features[used]
    signals = state.moments.shape[2]
    columns = 13
    if layout.state_signal >= 0 and state.moments[row, slot, layout.state_signal, moments.COUNT] > 0.0:
        state.state_code[row] = state.moments[row, slot, layout.state_signal, moments.LAST]
    for signal in range(signals):
        moments.statistics(state.moments[row, slot, signal], features[signal * columns : (signal + 1) * columns])
    for v in range(len(layout.bands)):
        sums = state.spectra[row, slot, v]
        column = layout.band_column[v]
        for band in range(layout.bands[v]):
            features[column + 2 * band] = sums[3 + 2 * band] / sums[0] if sums[0] > 0.0 else np.nan
            features[column + 2 * band + 1] = sums[4 + 2 * band] if sums[0] > 0.0 else np.nan
        square = sums[1] / sums[0] if sums[0] > 0.0 else 0.0
        features[column + 2 * layout.bands[v]] = sums[2] / sums[0] / (square * square) - 2.0 if square > 0.0 else np.nan
        sums[:] = 0.0
    _run_cycles(layout, state, row, window, features, times, roles, values)
    out.row[used] = row
    out.window[used] = window
    out.samples[used] = state.samples[row, slot]
    out.state_code[used] = state.state_code[row]
    out.used[ROWS] = used + 1
    start = window * layout.window_us
    if len(layout.horizon_us) > 0:
        for level in range(len(layout.horizon_us)):
            index = start // layout.horizon_us[level]
            if state.horizon[row, level] != NO_WINDOW and state.horizon[row, level] != index:
                _close_horizon(layout, state, out, row, level)
        index = start // layout.horizon_us[0]
        state.horizon[row, 0] = index
        state.horizon_samples[row, 0] += state.samples[row, slot]
        later = (start - index * layout.horizon_us[0]) / 1e6
        for signal in range(signals):
            moments.merge(state.horizon_moments[row, 0, signal], state.moments[row, slot, signal], later)
    for signal in range(signals):
        moments.reset(state.moments[row, slot, signal])
    state.samples[row, slot] = 0


@kernel
def _close_until(
    layout: Layout,
    state: State,
    pool: Pool,
    out: Output,
    row: int,
    until: int,
    times: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[np.float32],
) -> None:
    """Close the windows of an asset up to window index `until`, which becomes the first open one."""
    window = state.first_open[row]
    if window == NO_WINDOW or until <= window:
        return
    last = min(until, window + layout.slots)
    while window < last:
        _close_window(layout, state, out, row, window, times, roles, values)
        window += 1
    shift = (until - state.first_open[row]) * (layout.window_us // layout.tick_us)
    for q in range(len(layout.queue_start) - 1):
        base = layout.queue_start[q]
        for i in range(state.queue_count[row, q]):
            state.queue_time[row, base + i] -= shift
    state.first_open[row] = until
    before = until * layout.window_us
    for signal in range(state.head.shape[1]):
        head = state.head[row, signal]
        if head != NONE:
            state.head[row, signal] = acceptance.forget(pool, head, before)


@kernel
def _advance(
    layout: Layout,
    state: State,
    pool: Pool,
    out: Output,
    row: int,
    time: int,
    times: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[np.float32],
) -> None:
    """Let the asset's watermark follow a sample that it has sent."""
    if time > state.newest[row]:
        state.newest[row] = time
        due = (time - layout.lateness_us) // layout.window_us
        if due > state.first_open[row]:
            _close_until(layout, state, pool, out, row, due, times, roles, values)


@kernel
def _queue(layout: Layout, state: State, row: int, signal: int, time: int, value: float) -> bool:
    """Keep a sample for the cycle kernels, in the order of time; False where the queue is full."""
    q = layout.queue[signal]
    if q < 0:
        return True
    base = layout.queue_start[q]
    n = state.queue_count[row, q]
    if n >= layout.queue_start[q + 1] - base:
        return False
    offset = np.int32((time - state.first_open[row] * layout.window_us) // layout.tick_us)
    i = n
    while i > 0 and state.queue_time[row, base + i - 1] > offset:
        state.queue_time[row, base + i] = state.queue_time[row, base + i - 1]
        state.queue_value[row, base + i] = state.queue_value[row, base + i - 1]
        i -= 1
    state.queue_time[row, base + i] = offset
    state.queue_value[row, base + i] = value
    state.queue_count[row, q] = n + 1
    return True


@kernel
def _add_each(
    layout: Layout,
    state: State,
    pool: Pool,
    out: Output,
    block: int,
    row: int,
    signal: int,
    start: int,
    period: int,
    values: NDArray[np.float64],
    skipped: int,
    limit: int,
    times: NDArray[np.int64],
    roles: NDArray[np.int8],
    scratch: NDArray[np.float32],
) -> None:
    """Accept or reject the samples of a run one by one."""
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
        head = state.head[row, signal]
        if time <= acceptance.newest(pool, head) and acceptance.is_accepted(pool, head, time):
            _reject(out, block, skipped + i, 1, DUPLICATE)
            continue
        _open(layout, state, row, time)
        _advance(layout, state, pool, out, row, time, times, roles, scratch)
        slot = window % layout.slots
        accumulator = state.moments[row, slot, signal]
        full = accumulator[moments.COUNT] >= layout.most[signal]
        if full or not _queue(layout, state, row, signal, time, value):
            _reject(out, block, skipped + i, 1, OVERRATE)
            continue
        moments.add_sample(accumulator, value, (time - window * layout.window_us) / 1e6)
        state.samples[row, slot] += 1
        state.head[row, signal] = acceptance.insert(pool, state.head[row, signal], time)
        out.used[ACCEPTED] += 1


@kernel
def _open(layout: Layout, state: State, row: int, time: int) -> None:
    """Open the first window of an asset so that everything within the lateness before its first sample has room."""
    if state.first_open[row] == NO_WINDOW:
        state.first_open[row] = (time - layout.lateness_us) // layout.window_us


@kernel
def ingest(layout: Layout, state: State, pool: Pool, blocks: Blocks, out: Output) -> None:
    """Take the blocks from `out.used[NEXT]` on, in order; stop early where a table of `out` or the pool is full.

    The common case, a block of good samples that follows what its signal has sent, is written out here on local
    names: a call that passes the tables costs more than adding a sample.
    """
    room = layout.queue_start[-1] * layout.cycle_queues.shape[1] + 1
    times = np.empty(room, np.int64)
    roles = np.empty(room, np.int8)
    scratch = np.empty(room, np.float32)
    horizons = len(layout.horizon_us)
    window_us, lateness_us, idle_us, tick_us = layout.window_us, layout.lateness_us, layout.idle_us, layout.tick_us
    slots, limit_us, partition = layout.slots, blocks.limit_us, blocks.partition
    low, high, most = layout.low, layout.high, layout.most
    queue_of, queue_start = layout.queue, layout.queue_start
    first_open, newest, arrival, home = state.first_open, state.newest, state.arrival, state.partition
    samples, accumulators, heads = state.samples, state.moments, state.head
    queue_time, queue_value, queue_count = state.queue_time, state.queue_value, state.queue_count
    run_first, run_step, run_count = pool.first, pool.step, pool.length
    free, used = pool.free, out.used
    row_room, horizon_room, reject_room = len(out.row), len(out.horizon_row), len(out.reject_block)
    block_row, block_signal, block_start, block_period = blocks.row, blocks.signal, blocks.start, blocks.period
    block_first, block_count, block_clock = blocks.first, blocks.length, blocks.clock
    block_spectrum, values = blocks.spectrum, blocks.values
    for block in range(used[NEXT], len(block_row)):
        n = block_count[block]
        closing = slots + min(n, (n - 1) * max(block_period[block], 0) // window_us + 2)
        if (
            used[ROWS] + 2 * closing > row_room
            or used[HORIZONS] + horizons * closing > horizon_room
            or used[REJECTS] + n + 1 > reject_room
            or free[1] < n + 1
        ):
            used[NEXT] = block
            return
        row = block_row[block]
        signal = block_signal[block]
        start = block_start[block]
        period = block_period[block]
        offset = block_first[block]
        if start < _EARLIEST or start + (n - 1) * period > _LATEST or (n > 1 and period <= 0):
            for i in range(n):
                if not math.isnan(values[offset + i]):
                    _reject(out, block, i, 1, BAD_TIME)
            continue
        clock = block_clock[block]
        if home[row] != partition:
            home[row] = partition
            arrival[row] = clock
        elif clock > arrival[row]:
            if first_open[row] != NO_WINDOW and clock - arrival[row] > idle_us:
                until = newest[row] // window_us + 1
                _close_until(layout, state, pool, out, row, until, times, roles, scratch)
            arrival[row] = clock
        counted = block_spectrum[block]
        i = 0
        while i < n:
            first = start + i * period
            window = first // window_us
            last = n
            if n - i > 1:
                last = min(n, i + ((window + 1) * window_us - 1 - first) // period + 1)
            final = first + (last - i - 1) * period
            whole = window >= first_open[row] and final <= limit_us
            if whole:
                for k in range(offset + i, offset + last):
                    whole &= low[signal] <= values[k] <= high[signal]
            if whole:
                head = heads[row, signal]
                whole = head == NONE or first > run_first[head] + run_step[head] * (run_count[head] - 1)
            if whole:
                if first_open[row] == NO_WINDOW:
                    first_open[row] = (first - lateness_us) // window_us
                if first > newest[row]:
                    newest[row] = first
                    due = (first - lateness_us) // window_us
                    if due > first_open[row]:
                        _close_until(layout, state, pool, out, row, due, times, roles, scratch)
                slot = window % slots
                held = 0
                q = queue_of[signal]
                if q >= 0:
                    held = queue_count[row, q]
                    whole = held + last - i <= queue_start[q + 1] - queue_start[q]
                whole = whole and accumulators[row, slot, signal, moments.COUNT] + (last - i) <= most[signal]
                if whole and held > 0:
                    # Disorder inside a signal is sorted sample by sample; after it the queue is in order again.
                    origin = (first - first_open[row] * window_us) // tick_us
                    whole = queue_time[row, queue_start[q] + held - 1] <= origin
            if not whole:
                counted = -1
                _add_each(
                    layout, state, pool, out, block, row, signal, first, period, values[offset + i : offset + last], i,
                    limit_us, times, roles, scratch,
                )  # fmt: skip
                i = last
                continue
            if q >= 0:
                origin = first - first_open[row] * window_us
                place = queue_start[q] + held
                for k in range(last - i):
                    queue_time[row, place + k] = np.int32((origin + k * period) // tick_us)
                    queue_value[row, place + k] = values[offset + i + k]
                queue_count[row, q] = held + last - i
            time = (first - window * window_us) / 1e6
            if last - i == 1:
                moments.add_sample(accumulators[row, slot, signal], values[offset + i], time)
            else:
                moments.add_block(
                    accumulators[row, slot, signal], values[offset + i : offset + last], time, period / 1e6
                )
            samples[row, slot] += last - i
            head = heads[row, signal]
            gap = first - run_first[head] - run_step[head] * (run_count[head] - 1) if head != NONE else 0
            if gap > 0 and (last - i == 1 or gap == period) and (run_count[head] == 1 or gap == run_step[head]):
                run_step[head] = gap
                run_count[head] += last - i
            else:
                heads[row, signal] = acceptance.accept_run(pool, head, first, period, last - i)
            used[ACCEPTED] += last - i
            if counted >= 0:
                _add_spectrum(layout, state, row, signal, window, blocks.spectra[counted])
                counted = -1
            if final > newest[row]:
                newest[row] = final
                due = (final - lateness_us) // window_us
                if due > first_open[row]:
                    _close_until(layout, state, pool, out, row, due, times, roles, scratch)
            i = last
    used[NEXT] = len(block_row)


@kernel
def _add_spectrum(
    layout: Layout, state: State, row: int, signal: int, window: int, spectrum: NDArray[np.float64]
) -> None:
    """Add the band powers of a block to the window in which it began."""
    v = layout.spectral[signal]
    sums = state.spectra[row, window % layout.slots, v]
    sums[0] += 1.0
    sums[1] += spectrum[0]
    sums[2] += spectrum[1]
    for band in range(layout.bands[v]):
        power = spectrum[2 + band]
        sums[3 + 2 * band] += power
        sums[4 + 2 * band] = max(sums[4 + 2 * band], power)


@kernel
def close_due(
    layout: Layout, state: State, pool: Pool, out: Output, partition: int, clock: int, everything: bool
) -> bool:
    """Close what an input partition's time has left behind, or everything; False where `out` is full: drain, repeat.

    Horizons close with their last window only when everything is closed: silence alone does not end an hour.
    """
    room = layout.queue_start[-1] * layout.cycle_queues.shape[1] + 1
    times = np.empty(room, np.int64)
    roles = np.empty(room, np.int8)
    scratch = np.empty(room, np.float32)
    for row in range(len(state.first_open)):
        if state.first_open[row] == NO_WINDOW:
            continue
        if not everything and (state.partition[row] != partition or clock - state.arrival[row] <= layout.idle_us):
            continue
        if (
            out.used[ROWS] + 2 * layout.slots > len(out.row)
            or out.used[HORIZONS] + len(layout.horizon_us) * (layout.slots + 1) > len(out.horizon_row)
        ):  # fmt: skip
            return False
        until = state.newest[row] // layout.window_us + 1
        _close_until(layout, state, pool, out, row, until, times, roles, scratch)
        if everything:
            for level in range(len(layout.horizon_us)):
                if state.horizon[row, level] != NO_WINDOW:
                    _close_horizon(layout, state, out, row, level)
    return True


@kernel
def forget_rows(state: State, pool: Pool, rows: NDArray[np.int32]) -> None:
    """Give the pool back what the rows' assets hold of it."""
    for row in rows:
        for signal in range(state.head.shape[1]):
            head = state.head[row, signal]
            if head != NONE:
                state.head[row, signal] = acceptance.forget(pool, head, _FOREVER)
