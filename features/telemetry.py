"""The one form of telemetry: an Arrow record batch of blocks.

A block is a run of samples of one signal of one asset. A slow signal is a block of one sample, a 100 Hz accelerometer a
block of 100. Every source decodes into this form (`features.wire` has the decoders); what cannot be decoded becomes a
`Rejected`, never an exception and never silence. A reading is one present sample: NaN and empty cells are missing, not
readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "BLOCKS",
    "Decoded",
    "Reason",
    "Rejected",
    "TelemetryError",
    "count_readings",
    "empty_blocks",
    "has_readings",
    "new_blocks",
]

BLOCKS = pa.schema(
    [
        pa.field("asset", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("signal", pa.dictionary(pa.int32(), pa.utf8()), nullable=False),
        pa.field("start", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("period_us", pa.int64(), nullable=False),
        pa.field("values", pa.list_(pa.field("item", pa.float64(), nullable=False)), nullable=False),
    ]
)
"""Columns of a batch of blocks: `start` is the event time of the first sample, `period_us` the time between samples in
microseconds (0 in a block of one), `values` the samples in the signal's unit, NaN where one is missing."""


class TelemetryError(ValueError):
    """A table that holds no telemetry of the class; the message is one sentence that says what was expected."""


class Reason(StrEnum):
    """Why a reading was rejected: the closed set of the label `reason`."""

    MALFORMED = "malformed"
    BAD_VALUE = "bad_value"
    BAD_TIME = "bad_time"
    NAIVE_TIME = "naive_time"
    UNKNOWN_ASSET = "unknown_asset"
    UNKNOWN_SIGNAL = "unknown_signal"
    OUT_OF_RANGE = "out_of_range"
    FUTURE = "future"
    LATE = "late"
    DUPLICATE = "duplicate"
    OVERRATE = "overrate"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Readings that were not processed, with the reason and the raw bytes.

    Attributes
    ----------
    reason
        One of `Reason`.
    readings
        How many readings it stands for; a record that cannot be decoded counts as one.
    source
        Name of the input, such as a file's path or a topic.
    raw
        The bytes as they came, or the reading as a line of JSON where the source was not text.
    asset, signal
        Names, as far as they are known.
    start_us
        Event time of the first of them in microseconds since 1970, where it is known.
    detail
        What was expected and what came, for people.
    """

    reason: Reason
    readings: int
    source: str
    raw: bytes
    asset: str | None = None
    signal: str | None = None
    start_us: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of a payload.

    Attributes
    ----------
    blocks
        Record batch of the form `BLOCKS`, in the order of time where the payload was.
    rejected
        What could not be decoded.
    """

    blocks: pa.RecordBatch
    rejected: list[Rejected] = field(default_factory=list)


def empty_blocks() -> pa.RecordBatch:
    """Return a batch without blocks.

    Examples
    --------
    >>> empty_blocks().num_rows
    0
    """
    return pa.RecordBatch.from_pylist([], schema=BLOCKS)


def new_blocks(
    assets: Sequence[str],
    signals: Sequence[str],
    asset: NDArray[np.int32],
    signal: NDArray[np.int32],
    start_us: NDArray[np.int64],
    period_us: NDArray[np.int64],
    offsets: NDArray[np.int32],
    values: NDArray[np.float64],
) -> pa.RecordBatch:
    """Put columns together to a batch of blocks, without a copy.

    Parameters
    ----------
    assets, signals
        Names.
    asset, signal
        Index of each block in them, shape ``(n,)``.
    start_us, period_us
        First sample and step in microseconds, shape ``(n,)``.
    offsets
        Where each block begins in `values`, and where the last one ends, shape ``(n + 1,)``.
    values
        The samples.

    Examples
    --------
    >>> one = np.zeros(1, np.int32)
    >>> batch = new_blocks(["b1"], ["flow"], one, one, np.zeros(1, np.int64), np.full(1, 1_000_000),
    ...                    np.array([0, 2], np.int32), np.array([1.5, 1.6]))
    >>> batch.to_pylist()[0]["values"]
    [1.5, 1.6]
    """
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(asset), pa.array(assets, pa.utf8())),
        pa.DictionaryArray.from_arrays(pa.array(signal), pa.array(signals, pa.utf8())),
        pa.array(start_us).view(BLOCKS.field("start").type),
        pa.array(period_us),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=BLOCKS.field("values").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=BLOCKS)


def count_readings(blocks: pa.RecordBatch) -> int:
    """Return how many samples of a batch are present.

    Examples
    --------
    >>> count_readings(empty_blocks())
    0
    """
    values = blocks.column("values").flatten().to_numpy(zero_copy_only=False)
    return int(np.count_nonzero(values == values))


def has_readings(blocks: pa.RecordBatch) -> bool:
    """Tell whether any sample of a batch is present.

    Examples
    --------
    >>> has_readings(empty_blocks())
    False
    """
    values = blocks.column("values").flatten().to_numpy(zero_copy_only=False)
    return len(values) > 0 and bool(values[0] == values[0] or (values == values).any())
