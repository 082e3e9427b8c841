"""Blocks while they are being written: plain columns, filled by kernels in any order, handed over as one Arrow batch.

A *cell* is what one asset reports of one second or one minute. Cells know their size before they are filled, so the
batch is laid out in the order of time first and written once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.telemetry import BLOCKS

__all__ = ["Blocks", "Cells", "as_batch", "lay_out", "new_blocks"]


class Cells(NamedTuple):
    """Cells in the order in which a kernel fills them.

    `asset` is the asset's index in its class, `second` on its clock, `start_us` the event time, `flags` what it holds,
    `blocks` and `values` how much room it takes.
    """

    asset: NDArray[np.int64]
    second: NDArray[np.int64]
    start_us: NDArray[np.int64]
    flags: NDArray[np.int64]
    blocks: NDArray[np.int64]
    values: NDArray[np.int64]


class Blocks(NamedTuple):
    """Columns of a batch: `offset` is where the values of a block begin."""

    asset: NDArray[np.int32]
    signal: NDArray[np.int32]
    start_us: NDArray[np.int64]
    period_us: NDArray[np.int64]
    offset: NDArray[np.int32]
    values: NDArray[np.float64]


def new_blocks(blocks: int, values: int) -> Blocks:
    """Make room for a number of blocks and readings; one batch holds at most 2**31 - 1 readings."""
    if values >= 2**31:
        raise ValueError(f"a step of {values} readings does not fit into one batch: take shorter steps")
    out = Blocks(
        np.empty(blocks, np.int32),
        np.empty(blocks, np.int32),
        np.empty(blocks, np.int64),
        np.empty(blocks, np.int64),
        np.empty(blocks + 1, np.int32),
        np.empty(values),
    )
    out.offset[-1] = values
    return out


def lay_out(parts: list[Cells]) -> tuple[list[tuple[NDArray[np.int64], NDArray[np.int64]]], int, int]:
    """Place the cells of several fillers in the order of time.

    Returns
    -------
    tuple
        For each part the first block and the first value of each of its cells; the number of blocks; of values.
    """
    start = np.concatenate([part.start_us for part in parts])
    blocks = np.concatenate([part.blocks for part in parts])
    values = np.concatenate([part.values for part in parts])
    order = np.argsort(start, kind="stable")
    at_block = np.empty(len(order), np.int64)
    at_value = np.empty(len(order), np.int64)
    at_block[order] = np.cumsum(blocks[order]) - blocks[order]
    at_value[order] = np.cumsum(values[order]) - values[order]
    places = []
    done = 0
    for part in parts:
        n = len(part.start_us)
        places.append((at_block[done : done + n], at_value[done : done + n]))
        done += n
    return places, int(blocks.sum()), int(values.sum())


def as_batch(blocks: Blocks, assets: pa.Array, signals: pa.Array) -> pa.RecordBatch:
    """Return the columns as a record batch of the form `BLOCKS`, without copying them."""
    n = len(blocks.asset)
    moments = pa.Array.from_buffers(BLOCKS.field("start").type, n, [None, pa.py_buffer(blocks.start_us)])
    values = pa.ListArray.from_arrays(
        pa.array(blocks.offset), pa.array(blocks.values), type=BLOCKS.field("values").type
    )
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(blocks.asset), assets),
        pa.DictionaryArray.from_arrays(pa.array(blocks.signal), signals),
        moments,
        pa.array(blocks.period_us),
        values,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=BLOCKS)
