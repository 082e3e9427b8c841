"""How windows close: their features are written, their cycles run, their moments merged into the longer horizons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features import acceptance, boiler, lift, moments, queues
from features.acceptance import NONE, Pool
from features.compiled import kernel
from features.queues import Pages
from features.segments import Segments, drop_before
from features.spectra import examine, place_blocks
from features.state import NO_WINDOW, Layout, Output, Spectra, State

__all__ = [
    "ACCEPTED",
    "AFTER_ZERO",
    "HORIZONS",
    "NEXT",
    "PIECE",
    "REJECTS",
    "ROWS",
    "close_due",
    "close_until",
    "flush",
    "forget_rows",
    "new_scratch",
]

ROWS, HORIZONS, REJECTS, NEXT, PIECE, ACCEPTED = range(6)
"""Places in `Output.used`."""

AFTER_ZERO = 1
"""Microseconds by which the cycles' clock is ahead: to them a time of 0 is none, and recordings may begin at 0."""
_FOREVER = 2**62
"""After any time."""

Scratch = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.int8], NDArray[np.float32]]


@kernel
def flush(layout: Layout, state: State, spectra: Spectra, p: int) -> None:
    """Examine the segments that wait for a plan, and add their spectra to their windows."""
    waiting = spectra.waiting
    used = waiting.used[p]
    if used == 0:
        return
    waiting.used[p] = 0
    plan = spectra.plans[p]
    place_blocks(plan.terms, plan.lanes, waiting.values[p])
    examine(plan.terms, plan.lanes)
    result = plan.lanes.result
    for lane in range(used):
        v = waiting.signal[p, lane]
        sums = state.spectra[waiting.row[p, lane], waiting.window[p, lane] % layout.slots, v]
        sums[0] += 1.0
        sums[1] += result[0, lane]
        sums[2] += result[1, lane]
        for band in range(layout.bands[v]):
            power = result[2 + band, lane]
            sums[3 + 2 * band] += power
            sums[4 + 2 * band] = max(sums[4 + 2 * band], power)


@kernel
def _run_cycles(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    row: int,
    window: int,
    features: NDArray[np.float64],
    scratch: Scratch,
) -> None:
    """Hand the queued samples of one window to each cycle kernel in the order of time, then drop them.

    The samples of one instant come in the order of their roles, whatever order they arrived in.
    """
    queue_times, queue_values, times, roles, values = scratch
    start = window * layout.window_us
    end = start + layout.window_us
    queued = len(layout.queued)
    ends = np.zeros(queued, np.int64)
    for q in range(queued):
        signal = layout.queued[q]
        base = layout.queue_start[q]
        room = queue_times[base : layout.queue_start[q + 1]]
        ends[q] = acceptance.expand(state.runs[row, signal], pool, state.head[row, signal], start, end, room)
        queues.read(pages, state.queue_head[row, q], ends[q], queue_values[base : layout.queue_start[q + 1]])
    for c in range(len(layout.cycle_code)):
        n = _merge(layout.cycle_queues[c], layout.queue_start, ends, queue_times, queue_values, times, roles, values)
        memory = state.cycles[row, layout.cycle_state[c] : layout.cycle_state[c + 1]]
        result = features[layout.cycle_column[c] : layout.cycle_column[c + 1]]
        parameters = layout.cycle_parameters[c]
        code = layout.cycle_code[c]
        begin, finish = start + AFTER_ZERO, end + AFTER_ZERO
        if code == 1:
            lift.trips_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 2:
            lift.doors_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 3:
            lift.levelling_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 11:
            boiler.burner_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 12:
            boiler.ignition_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 13:
            boiler.difference_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 14:
            boiler.flue_loss_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 15:
            boiler.pressure_decay_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
        elif code == 16:
            boiler.circulation_step(memory, times[:n], roles[:n], values[:n], begin, finish, parameters, result)
    for q in range(queued):
        if ends[q] > 0:
            queues.drop(pages, state.queue_head[row], state.queue_tail[row], state.queue_count[row], q, ends[q])


@kernel
def _merge(
    of_role: NDArray[np.int64],
    queue_start: NDArray[np.int64],
    ends: NDArray[np.int64],
    queue_times: NDArray[np.int64],
    queue_values: NDArray[np.float32],
    times: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[np.float32],
) -> int:
    """Merge the queues of a cycle's roles by time; return how many samples there are.

    A signal has one sample an instant; where roles share an instant, they follow in their order.
    """
    count = 0
    at = np.zeros(len(of_role), np.int64)
    last = np.zeros(len(of_role), np.int64)
    while count < len(of_role) and of_role[count] >= 0:
        at[count] = queue_start[of_role[count]]
        last[count] = at[count] + ends[of_role[count]]
        count += 1
    n = 0
    if count == 1:
        for i in range(at[0], last[0]):
            times[n] = queue_times[i] + AFTER_ZERO
            roles[n] = 0
            values[n] = queue_values[i]
            n += 1
        return n
    size = last[0] - at[0]
    alike = size > 0
    for role in range(1, count):
        alike &= last[role] - at[role] == size
    if alike:
        # Sampled at the same instants, as the signals of one controller are.
        different = np.int64(0)
        for role in range(1, count):
            for i in range(size):
                different |= queue_times[at[role] + i] ^ queue_times[at[0] + i]
        alike = different == 0
    if alike:
        for role in range(count):
            first = at[role]
            for i in range(size):
                times[i * count + role] = queue_times[first + i] + AFTER_ZERO
                roles[i * count + role] = role
                values[i * count + role] = queue_values[first + i]
        return int(size * count)
    while True:
        earliest = np.int64(_FOREVER)
        for role in range(count):
            if at[role] < last[role]:
                earliest = min(earliest, queue_times[at[role]])
        if earliest == _FOREVER:
            return n
        for role in range(count):
            if at[role] < last[role] and queue_times[at[role]] == earliest:
                times[n] = earliest + AFTER_ZERO
                roles[n] = role
                values[n] = queue_values[at[role]]
                at[role] += 1
                n += 1


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
            moments.append(state.horizon_moments[row, longer, signal], state.horizon_moments[row, level, signal], later)
    used = out.used[HORIZONS]
    out.horizon_row[used] = row
    out.horizon_level[used] = level
    out.horizon_index[used] = state.horizon[row, level]
    out.horizon_samples[used] = 0
    columns = out.horizon_features.shape[1] // state.moments.shape[2]
    for signal in range(state.moments.shape[2]):
        accumulator = state.horizon_moments[row, level, signal]
        out.horizon_samples[used] += int(accumulator[moments.COUNT])
        moments.statistics(accumulator, out.horizon_features[used, signal * columns : (signal + 1) * columns])
        moments.reset(accumulator)
    out.used[HORIZONS] = used + 1
    state.horizon[row, level] = NO_WINDOW


@kernel
def _close_window(
    layout: Layout, state: State, pool: Pool, pages: Pages, out: Output, row: int, window: int, scratch: Scratch
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
    _run_cycles(layout, state, pool, pages, row, window, features, scratch)
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
        later = (start - index * layout.horizon_us[0]) / 1e6
        for signal in range(signals):
            moments.append(state.horizon_moments[row, 0, signal], state.moments[row, slot, signal], later)
    for signal in range(signals):
        moments.reset(state.moments[row, slot, signal])
    state.samples[row, slot] = 0


@kernel
def close_until(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    segments: Segments,
    spectra: Spectra,
    out: Output,
    row: int,
    until: int,
    scratch: Scratch,
) -> None:
    """Close the windows of an asset up to window index `until`, which becomes the first open one."""
    window = state.first_open[row]
    if window == NO_WINDOW or until <= window:
        return
    waiting = spectra.waiting
    for p in range(len(waiting.used)):
        used = waiting.used[p]
        if used > 0 and waiting.row[p, used - 1] == row:
            flush(layout, state, spectra, p)
    last = min(until, window + layout.slots)
    while window < last:
        _close_window(layout, state, pool, pages, out, row, window, scratch)
        window += 1
    state.first_open[row] = until
    before = until * layout.window_us
    for signal in range(state.head.shape[1]):
        run = state.runs[row, signal]
        if state.head[row, signal] != NONE or acceptance.newest(run) < before:
            state.head[row, signal] = acceptance.forget(run, pool, state.head[row, signal], before)
    for v in range(len(layout.plan)):
        if state.segment[row, v] != NONE:
            state.segment[row, v] = drop_before(segments, state.segment[row, v], until * layout.segments[v])


@kernel
def close_due(
    layout: Layout,
    state: State,
    pool: Pool,
    pages: Pages,
    segments: Segments,
    spectra: Spectra,
    out: Output,
    partition: int,
    clock: int,
    everything: bool,
) -> bool:
    """Close what an input partition's time has left behind, or everything; False where `out` is full: drain, repeat.

    Horizons close with their last window only when everything is closed: silence alone does not end an hour.
    """
    scratch = new_scratch(layout)
    for row in range(out.used[NEXT], len(state.first_open)):
        if state.first_open[row] == NO_WINDOW:
            continue
        if not everything and (state.partition[row] != partition or clock - state.arrival[row] <= layout.idle_us):
            continue
        if (
            out.used[ROWS] + 2 * layout.slots > len(out.row)
            or out.used[HORIZONS] + len(layout.horizon_us) * (layout.slots + 1) > len(out.horizon_row)
        ):  # fmt: skip
            out.used[NEXT] = row
            return False
        until = state.newest[row] // layout.window_us + 1
        close_until(layout, state, pool, pages, segments, spectra, out, row, until, scratch)
        if everything:
            for level in range(len(layout.horizon_us)):
                if state.horizon[row, level] != NO_WINDOW:
                    _close_horizon(layout, state, out, row, level)
    out.used[NEXT] = 0
    return True


@kernel
def new_scratch(layout: Layout) -> Scratch:
    """Return room for the samples of one window of one asset: times by queue, then what a cycle reads."""
    room = layout.queue_start[-1] + 1
    return (
        np.empty(room, np.int64),
        np.empty(room, np.float32),
        np.empty(room, np.int64),
        np.empty(room, np.int8),
        np.empty(room, np.float32),
    )


@kernel
def forget_rows(state: State, pool: Pool, pages: Pages, segments: Segments, rows: NDArray[np.int32]) -> None:
    """Give the pools back what the rows' assets hold of them."""
    for row in rows:
        for signal in range(state.head.shape[1]):
            state.head[row, signal] = acceptance.forget(
                state.runs[row, signal], pool, state.head[row, signal], _FOREVER
            )
        for q in range(state.queue_count.shape[1]):
            if state.queue_count[row, q] > 0:
                count = state.queue_count[row, q]
                queues.drop(pages, state.queue_head[row], state.queue_tail[row], state.queue_count[row], q, count)
        for v in range(state.segment.shape[1]):
            state.segment[row, v] = drop_before(segments, state.segment[row, v], _FOREVER)
