"""Blocks as Arrow: the fast form between gateways, processes and files.

What comes as Arrow is brought to exactly the form of `features.telemetry.BLOCKS`: names may be plain text, times of any
unit, lists large or of a fixed size, samples of any number type, and a table of one reading a row (`asset`, `signal`,
`time`, `value`) is as good as blocks of one. What then cannot be a block is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.arrow_messages import ARROW_ERRORS, most_bytes, read_table
from features.columns import legible, read_numbers
from features.compiled import kernel
from features.telemetry import BLOCKS, Decoded, Reason, Rejected, empty_blocks, has_readings, new_blocks
from features.times import LATEST_US, Times, read_times

__all__ = ["decode_arrow", "decode_arrows", "decode_blocks", "holds_blocks"]

_COLUMNS = {*BLOCKS.names, "time", "value", "period_s"}

LONGEST_PERIOD_US = 366 * 86_400_000_000
"""A step above a year is a wrong unit; below it no sum of steps overflows."""


def holds_blocks(schema: pa.Schema) -> bool:
    """Tell whether a table is one of blocks, or of one reading a row, and not a wide one.

    Examples
    --------
    >>> holds_blocks(BLOCKS), holds_blocks(pa.schema({"time": pa.string(), "flow": pa.float64()}))
    (True, False)
    """
    names = set(schema.names)
    return {"asset", "signal"} <= names and bool(names & {"values", "value"}) and bool(names & {"start", "time"})


def decode_arrow(payload: bytes | pa.Buffer | pa.RecordBatch, *, source: str) -> Decoded:
    """Decode an Arrow IPC stream or file of blocks, or a batch of them; never fails.

    A payload in the very form of `BLOCKS` is handed on without a copy.

    Parameters
    ----------
    payload
        Bytes of the stream or file, or a batch.
    source
        Name of the input.

    Examples
    --------
    >>> decode_arrow(b"no arrow", source="example").rejected[0].reason.value
    'malformed'
    """
    if isinstance(payload, pa.RecordBatch):
        if _is_clean(payload):
            return Decoded(payload)
        try:
            payload.validate(full=True)
        except pa.ArrowInvalid as error:
            rows = max(1, payload.num_rows)
            return _malformed(
                _json_lines(legible(payload)), rows, source, f"expected valid Arrow: {_first_line(error)}"
            )
        return decode_blocks(payload, source=source)
    data = payload if isinstance(payload, pa.Buffer) else pa.py_buffer(payload)
    try:
        table = read_table(data, _COLUMNS)
        batches = table.to_batches()
        if len(batches) == 1 and _is_clean(batches[0]):
            return Decoded(batches[0])
        table.validate(full=True)
        table.schema.names  # noqa: B018 - it raises where a name is no text
        batches = table.unify_dictionaries().combine_chunks().to_batches()
        spelled = sum(map(_spelled_bytes, batches))
        if spelled > most_bytes(data.size):
            raise ValueError(f"{data.size:,} bytes would become {spelled:,} of names")
    except ARROW_ERRORS as error:
        return _malformed(data.to_pybytes(), 1, source, f"expected an Arrow stream of blocks: {_first_line(error)}")
    decoded = [decode_blocks(batch, source=source) for batch in batches]
    if len(decoded) == 1:
        return decoded[0]
    if not decoded:
        if holds_blocks(table.schema):
            return Decoded(empty_blocks())
        return _malformed(data.to_pybytes(), 1, source, _expected(table))
    blocks = pa.Table.from_batches([one.blocks for one in decoded]).unify_dictionaries().combine_chunks().to_batches()
    return Decoded(blocks[0] if blocks else empty_blocks(), [r for one in decoded for r in one.rejected])


def decode_arrows(payloads: Sequence[bytes], *, source: str) -> Decoded:
    """Decode many Arrow IPC streams or files of blocks into one batch; never fails.

    A payload without a single reading counts as one that is malformed, so that every message counts.

    Parameters
    ----------
    payloads
        Bytes of the streams or files.
    source
        Name of the input.

    Examples
    --------
    >>> [one.raw for one in decode_arrows([b"one", b""], source="example").rejected]
    [b'one', b'']
    """
    tables, rejected = [], []
    for payload in payloads:
        decoded = decode_arrow(payload, source=source)
        rejected += decoded.rejected
        if decoded.blocks.num_rows:
            tables.append(pa.Table.from_batches([decoded.blocks]))
        if not decoded.rejected and not has_readings(decoded.blocks):
            rejected += _malformed(payload, 1, source, "expected a reading, got a message without one").rejected
    if not tables:
        return Decoded(empty_blocks(), rejected)
    [batch] = pa.concat_tables(tables).unify_dictionaries().combine_chunks().to_batches()
    return Decoded(batch, rejected)


def decode_blocks(batch: pa.RecordBatch, *, source: str) -> Decoded:
    """Bring a batch of blocks, valid as Arrow, to the form of `BLOCKS`; reject the blocks that have none.

    Parameters
    ----------
    batch
        The batch, such as a piece of a Parquet file.
    source
        Name of the input.

    Examples
    --------
    >>> batch = pa.record_batch({"asset": ["b1"], "signal": ["flow"], "time": ["2026-01-05T00:00:00Z"], "value": [1.5]})
    >>> decode_blocks(batch, source="example").blocks.to_pylist()[0]["values"]
    [1.5]
    """
    if _is_clean(batch):
        return Decoded(batch)
    batch = legible(batch)
    names = batch.schema.names
    if not holds_blocks(batch.schema) or len(set(names)) != len(names):
        return _malformed(_json_lines(batch), max(1, batch.num_rows), source, _expected(batch))
    try:
        parts = _Parts(batch)
    except ARROW_ERRORS as error:
        return _malformed(_json_lines(batch), max(1, batch.num_rows), source, f"expected blocks: {_first_line(error)}")
    blocks = parts.blocks()
    kept = ~(parts.nameless | parts.untimed | parts.naive | (parts.length == 0))
    return Decoded(blocks if kept.all() else blocks.filter(pa.array(kept)), parts.rejected(source))


def _is_clean(batch: pa.RecordBatch) -> bool:
    """Tell whether a batch is in the form of `BLOCKS` already, valid, and nothing in it can be rejected.

    Looks at each row once; pyarrow's own validation takes four times as long.
    """
    if not batch.schema.equals(BLOCKS) or batch.num_rows == 0:
        return False
    try:
        batch.validate()
        asset, signal, start, period, samples = batch.columns
        for column in (asset, signal):
            column.dictionary.validate(full=True)
    except pa.ArrowInvalid:
        return False
    if any(c.null_count for c in (*batch.columns, samples.values)):
        return False
    for column in (asset, signal):
        names = column.dictionary
        # An asset under two numbers would be two assets on their way, and one late behind the other.
        if names.null_count or pc.index(names, "").as_py() >= 0 or len(names.unique()) != len(names):
            return False
    good, latest, longest, step = _look(
        asset.indices.to_numpy(), len(asset.dictionary), signal.indices.to_numpy(), len(signal.dictionary),
        start.view(pa.int64()).to_numpy(), period.to_numpy(), samples.offsets.to_numpy(), len(samples.values),
    )  # fmt: skip
    return good and latest + longest * step < LATEST_US


@kernel
def _look(
    asset: NDArray[np.int32], assets: int, signal: NDArray[np.int32], signals: int, start: NDArray[np.int64],
    period: NDArray[np.int64], offsets: NDArray[np.int32], samples: int,
) -> tuple[bool, int, int, int]:  # fmt: skip
    """Tell whether places, times and steps are sound; return the latest start, the longest block and step."""
    bad = (offsets[0] < 0) | (offsets[len(start)] > samples)
    latest = longest = longest_step = np.int64(0)
    for i in range(len(start)):
        length = np.int64(offsets[i + 1]) - np.int64(offsets[i])
        step = period[i]
        bad |= (asset[i] < 0) | (asset[i] >= assets) | (signal[i] < 0) | (signal[i] >= signals)
        bad |= (length < 1) | (start[i] < 0) | (step < 0) | (step > LONGEST_PERIOD_US) | ((length > 1) & (step == 0))
        latest = max(latest, start[i])
        longest = max(longest, length)
        longest_step = max(longest_step, step)
    return not bad, int(latest), int(longest), int(longest_step)


def _spelled_bytes(batch: pa.RecordBatch) -> int:
    """Return the bytes that the texts of a batch take once each row has its own."""
    total = 0
    for column in batch.columns:
        if not pa.types.is_dictionary(column.type):
            continue
        names = column.dictionary
        if pa.types.is_string(names.type) or pa.types.is_large_string(names.type):
            lengths = pc.binary_length(names).fill_null(0).to_numpy(zero_copy_only=False)
            where = column.indices.drop_null().to_numpy(zero_copy_only=False)
            total += int(np.bincount(where, minlength=len(lengths)) @ lengths)
    return total


class _Parts:
    """The columns of a batch of blocks, and which of its blocks are none."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        names = batch.schema.names
        self.asset = _names(batch.column("asset"))
        self.signal = _names(batch.column("signal"))
        self.offsets, self.values, self.wrong = _samples(batch.column("values" if "values" in names else "value"))
        self.length = np.diff(self.offsets)
        start = batch.column("start" if "start" in names else "time")
        if start.type == BLOCKS.field("start").type and start.null_count == 0:
            nothing = np.zeros(len(start), np.bool_)
            times = Times(start.view(pa.int64()).to_numpy(), nothing, nothing, nothing)
        else:
            times = read_times(start)
        self.start, self.naive = times.us, times.naive
        self.period, steady = _period(batch, self.length)
        # Compared before the product, which may not fit into 64 bits.
        reach = (LATEST_US - self.start) // np.maximum(self.period, 1)
        sane = (self.start >= 0) & (self.start < LATEST_US) & ((self.period == 0) | (self.length <= reach))
        self.untimed = times.bad | (~times.naive & ~(steady & sane))
        self.nameless = ~(_is_named(self.asset) & _is_named(self.signal))

    def blocks(self) -> pa.RecordBatch:
        """Return the batch in the form of `BLOCKS`, the blocks without name or time among them."""
        return new_blocks(
            self.asset.dictionary.to_pylist() or [""],
            self.signal.dictionary.to_pylist() or [""],
            self.asset.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32),
            self.signal.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int32),
            self.start,
            self.period,
            self.offsets,
            self.values,
        )

    def rejected(self, source: str) -> list[Rejected]:
        """Return the blocks that are none, one `Rejected` a reason."""
        found = []
        if self.wrong.any():
            raw = _json_lines(self.batch.filter(pa.array(self.wrong)))
            count = int(np.count_nonzero(self.wrong))
            found.append(Rejected(Reason.BAD_VALUE, count, source, raw, detail="expected a number"))
        untimed = self.untimed & ~self.nameless
        for where, reason, detail in (
            (self.nameless, Reason.MALFORMED, "a block needs an asset and a signal"),
            (untimed, Reason.BAD_TIME, "expected a start from 1970 to 2200 and a step above 0 microseconds"),
            (self.naive & ~untimed & ~self.nameless, Reason.NAIVE_TIME, "expected a start with a zone"),
        ):
            rows = np.flatnonzero(where)
            if len(rows) == 0:
                continue
            present = np.concatenate(([0], np.cumsum(self.values == self.values)))
            readings = int((present[self.offsets[1:][rows]] - present[self.offsets[:-1][rows]]).sum())
            if readings:
                raw = _json_lines(self.batch.take(pa.array(rows)))
                found.append(Rejected(reason, readings, source, raw, detail=detail))
        return found


def _names(column: pa.Array) -> pa.DictionaryArray:
    """Return names as dictionary<int32, utf8> in which every null is a null of the index."""
    wanted = BLOCKS.field("asset").type
    if column.type == wanted and column.null_count == 0:
        names = column.dictionary
        if names.null_count == 0 and len(names.unique()) == len(names):
            return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.utf8()).dictionary_encode()


def _is_named(column: pa.DictionaryArray) -> NDArray[np.bool_]:
    """Tell which rows have a name."""
    named: NDArray[np.bool_] = column.indices.is_valid().to_numpy(zero_copy_only=False)
    nothing = pc.index(column.dictionary, "").as_py()
    if nothing >= 0:
        named = named & (column.indices.fill_null(nothing).to_numpy(zero_copy_only=False) != nothing)
    return named


def _samples(column: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.bool_]]:
    """Return offsets that begin at 0, samples with NaN for null, and which single values are no number."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        values, wrong = read_numbers(column)
        there = values == values
        return np.concatenate(([0], np.cumsum(there))).astype(np.int32), values[there], wrong
    length = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(length, dtype=np.int64)))
    if offsets[-1] >= 2**31:
        raise ValueError("more than two thousand million samples in a batch")
    values = column.flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return offsets.astype(np.int32), values, np.zeros(len(column), np.bool_)


def _period(batch: pa.RecordBatch, length: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the step of each block in microseconds, 0 in a block of one, and whether it is one."""
    step = np.full(batch.num_rows, np.nan)
    for name, unit in (("period_us", 1.0), ("period_s", 1e6)):
        if name in batch.schema.names:
            given = batch.column(name)
            if name == "period_us" and given.type == pa.int64() and given.null_count == 0:
                exact: NDArray[np.int64] = given.to_numpy()
                good = (exact > 0) & (exact <= LONGEST_PERIOD_US)
                return np.where(good, exact, 0), good | (length <= 1)
            step = given.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) * unit
    good = (step >= 0.5) & (step <= LONGEST_PERIOD_US)
    period = np.rint(np.where(good, step, 0.0)).astype(np.int64)
    return period, (period > 0) | (length <= 1)


def _json_lines(batch: pa.RecordBatch) -> bytes:
    """Return the rows as lines of JSON."""
    try:
        columns = [
            (c.cast(pa.utf8()) if pa.types.is_temporal(c.type) else c).to_pylist() for c in batch.columns
        ]  # A time need not be a `datetime`.
        rows = [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
        return msgspec.json.Encoder(enc_hook=str).encode_lines(rows).removesuffix(b"\n")
    except (*ARROW_ERRORS, TypeError):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        stream: bytes = sink.getvalue().to_pybytes()
        return stream


def _malformed(raw: bytes, readings: int, source: str, detail: str) -> Decoded:
    return Decoded(empty_blocks(), [Rejected(Reason.MALFORMED, readings, source, raw, detail=detail)])


def _expected(table: pa.Table | pa.RecordBatch) -> str:
    return f"expected the columns asset, signal, start, period_us and values, got {', '.join(table.schema.names[:8])}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
