"""Runs of equal steps: how the columns of a wide table become blocks.

A block ends where the step between samples changes, where a sample is missing, and where a window of the class ends, so
that no block lasts longer than a window. A signal with frequency bands is also cut to spectra, counted from the
beginning of the window: the same readings give the same spectra wherever a source has cut its stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compiled import kernel
from features.segments import segment_samples
from features.signals import EquipmentClass, Signal
from features.telemetry import empty_blocks, new_blocks

__all__ = ["blocks_of_columns", "grid_us"]


def grid_us(equipment: EquipmentClass, signal: Signal) -> int:
    """Return the length in microseconds to which a signal is cut within each window: a spectrum, or the window.

    Examples
    --------
    >>> from features.signals import load_class
    >>> lift = load_class("lift")
    >>> grid_us(lift, lift.signals["vibration_z"]), grid_us(lift, lift.signals["motor_current"])
    (1000000, 10000000)
    """
    window = round(equipment.window_s * 1e6)
    if not signal.bands_hz:
        return window
    return min(window, round(segment_samples(equipment.window_s, signal.period_s) * signal.period_s * 1e6))


@kernel
def _cut(
    order: NDArray[np.int64],
    asset: NDArray[np.int32],
    time: NDArray[np.int64],
    cell: NDArray[np.int64],
    column: NDArray[np.float64],
    signal: int,
    heads: NDArray[np.int64],
    values: NDArray[np.float64],
    used: NDArray[np.int64],
) -> None:
    """Append the runs of one column; `heads` has a row (asset, signal, start, period, first value) a block."""
    block, at = used[0], used[1]
    length = 0
    last = np.int64(0)
    last_row = np.int64(0)
    period = np.int64(0)
    for i in range(len(order)):
        row = order[i]
        value = column[row]
        if value != value:
            continue
        step = time[row] - last
        joins = length > 0 and step > 0 and (length == 1 or step == period)
        if joins and asset[row] == asset[last_row] and cell[row] == cell[last_row]:
            if length == 1:
                period = step
                heads[block - 1, 3] = step
            length += 1
        else:
            heads[block, 0] = asset[row]
            heads[block, 1] = signal
            heads[block, 2] = time[row]
            heads[block, 3] = 0
            heads[block, 4] = at
            block += 1
            length = 1
        values[at] = value
        at += 1
        last = time[row]
        last_row = row
    used[0] = block
    used[1] = at


@kernel
def _gather(
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    offsets: NDArray[np.int32],
    values: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Bring the values of blocks into the order of the blocks."""
    for i in range(len(order)):
        begin = first[order[i]]
        for k in range(offsets[i + 1] - offsets[i]):
            out[offsets[i] + k] = values[begin + k]


def blocks_of_columns(
    equipment: EquipmentClass,
    assets: Sequence[str],
    asset: NDArray[np.int32],
    time_us: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: Sequence[tuple[str, NDArray[np.float64]]],
) -> pa.RecordBatch:
    """Return the blocks of a wide table in the order of their start.

    Parameters
    ----------
    equipment
        The class, for its windows.
    assets, asset
        Names, and the index of each row's asset, shape ``(n,)``.
    time_us
        Time of each row, shape ``(n,)``.
    rows
        The rows to take, those of an asset together and in their order.
    columns
        Signal and its values of shape ``(n,)``, NaN = missing.

    Examples
    --------
    >>> from features.signals import load_class
    >>> time = np.arange(4) * 1_000_000
    >>> blocks = blocks_of_columns(load_class("boiler"), ["b1"], np.zeros(4, np.int32), time, np.arange(4),
    ...                            [("flow", np.array([1.0, 2.0, np.nan, 4.0]))])
    >>> [(b["start"].second, b["period_us"], b["values"]) for b in blocks.to_pylist()]
    [(0, 1000000, [1.0, 2.0]), (3, 0, [4.0])]
    """
    room = len(rows) * len(columns)
    if room == 0:
        return empty_blocks()
    heads = np.empty((room, 5), np.int64)
    values = np.empty(room)
    used = np.zeros(2, np.int64)
    names = equipment.signal_names
    window = round(equipment.window_s * 1e6)
    cells: dict[int, NDArray[np.int64]] = {}
    for name, column in columns:
        grid = grid_us(equipment, equipment.signals[name])
        if grid not in cells:
            opening = time_us // window
            cells[grid] = opening * (window // grid + 1) + (time_us - opening * window) // grid
        _cut(rows, asset, time_us, cells[grid], column, names.index(name), heads, values, used)
    blocks, samples = used.tolist()
    if blocks == 0:
        return empty_blocks()
    heads = heads[:blocks]
    order = np.argsort(heads[:, 2], kind="stable")
    first = heads[:, 4]
    count = np.diff(np.append(first, samples))
    offsets = np.concatenate(([0], np.cumsum(count[order]))).astype(np.int32)
    sorted_values = np.empty(samples)
    _gather(order, np.ascontiguousarray(first), offsets, values, sorted_values)
    heads = heads[order]
    return new_blocks(
        assets,
        names,
        heads[:, 0].astype(np.int32),
        heads[:, 1].astype(np.int32),
        np.ascontiguousarray(heads[:, 2]),
        np.ascontiguousarray(heads[:, 3]),
        offsets,
        sorted_values,
    )
