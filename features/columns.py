"""Cells of a column of any Arrow type: as numbers, as names, as they are; nothing here fails, whatever the cells."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["as_text", "is_present", "legible", "plain_cells", "read_names", "read_numbers"]

_IS_NUMBER = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)$"


def read_numbers(
    column: pa.Array, codes: dict[str, float] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the numbers of a column, NaN where missing or wrong, and which cells are wrong; never fails.

    Examples
    --------
    >>> numbers, wrong = read_numbers(pa.array(["1.5", "", "open", "much"]), {"open": 1.0})
    >>> numbers.tolist(), wrong.tolist()
    ([1.5, nan, 1.0, nan], [False, False, False, True])
    """
    kind = column.type
    right = np.zeros(len(column), np.bool_)
    if pa.types.is_dictionary(kind):
        numbers, wrong = read_numbers(column.dictionary, codes)
        where = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(numbers, np.nan)[where], np.append(wrong, False)[where]
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), right
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False), right
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return np.full(len(column), np.nan), column.is_valid().to_numpy(zero_copy_only=False)
    text = pc.utf8_trim_whitespace(column.cast(pa.utf8()).fill_null(""))
    missing = pc.equal(text, "")
    place = pc.index_in(text, value_set=pa.array(list(codes or {}), pa.utf8()))
    skip = pc.or_(missing, place.is_valid())
    try:
        numbers = pc.if_else(skip, "nan", text).cast(pa.float64())
        wrong = right
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(text, _IS_NUMBER)
        numbers = pc.if_else(pc.and_not(good, skip), text, "nan").cast(pa.float64())
        wrong = pc.invert(pc.or_(good, skip)).to_numpy(zero_copy_only=False)
    result: NDArray[np.float64] = numbers.to_numpy(zero_copy_only=False)
    if codes:
        where = place.fill_null(len(codes)).to_numpy(zero_copy_only=False)
        result = np.where(where < len(codes), np.array([*codes.values(), np.nan])[where], result)
    return result, wrong


def read_names(column: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
    """Return the names of a column of assets, and the index of each row's; -1 where it names none."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names: dict[str, int] = {}
    numbers = []
    for name in plain_cells(column.dictionary):
        text = "" if name is None else str(name).strip()
        numbers.append(names.setdefault(text, len(names)) if text else -1)
    where = column.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
    return list(names), np.array([*numbers, -1], np.int32)[where]


def is_present(column: pa.Array) -> NDArray[np.bool_]:
    """Tell which cells of a column say anything."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    there = column.is_valid()
    if pa.types.is_floating(column.type):
        there = pc.and_(there, pc.invert(pc.is_nan(column).fill_null(True)))
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        there = pc.and_(there, pc.not_equal(pc.utf8_trim_whitespace(column.fill_null("")), ""))
    present: NDArray[np.bool_] = there.to_numpy(zero_copy_only=False)
    return present


def plain_cells(column: pa.Array) -> list[object]:
    """Return the cells as Python objects; times as text, because not every time is a `datetime`."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.utf8())
    found: list[object] = column.to_pylist()
    return found


def as_text(column: pa.Array) -> pa.Array:
    """Make text safe to read: Parquet promises UTF-8 and does not check it; what is no column at all becomes nulls."""
    kind = column.type
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        large = pa.types.is_large_string(kind)
        if not (large or pa.types.is_string(kind)):
            return pa.nulls(len(column))
        # Bytes that are no UTF-8 are told apart from places outside the column, which must not be looked at.
        return as_text(column.view(pa.large_binary() if large else pa.binary()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pa.array([None if c is None else c.decode(errors="replace") for c in column.to_pylist()], pa.utf8())
    return column


def legible(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose column names can be read; where one is no UTF-8, the columns are numbered instead.

    Examples
    --------
    >>> legible(pa.record_batch({"time": [0]})).schema.names
    ['time']
    """
    try:
        batch.schema.names  # noqa: B018 - it raises
    except UnicodeDecodeError:
        # A column is asked for by way of its name too, but as the field of a struct.
        columns = batch.to_struct_array().flatten()
        return pa.RecordBatch.from_arrays(columns, [f"column {i}" for i in range(len(columns))])
    return batch
