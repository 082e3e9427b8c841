"""Arrow IPC as it comes from outside: what its buffers claim to become is added up before any memory is asked for.

A compressed buffer says how large it will be, a column of nulls needs no buffer at all, and a cell of a view may be
shown any number of times: a kilobyte can ask for gigabytes. The sizes stand in the metadata of each message, which
pyarrow does not show, so they are read from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from struct import error as StructError
from struct import unpack_from

import pyarrow as pa

__all__ = ["ARROW_ERRORS", "most_bytes", "read_table"]

ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)
"""What Arrow raises on bytes that are not what they claim to be."""

FACTOR, ALLOWANCE = 8, 1_048_576
"""Buffers may become so many times their message, and a megabyte beside."""

_MAGIC = b"ARROW1\0\0"
"""How a file begins; behind it stands a stream."""

_DICTIONARY, _BATCH = 2, 3
"""Kinds of messages that have a body: Arrow's Message.fbs."""
_V5 = 4
"""Number of the format since Arrow 1.0; before it a batch said in metadata of its own that it was compressed."""


def most_bytes(size: int) -> int:
    """Return how many bytes a message of `size` bytes may become.

    Examples
    --------
    >>> most_bytes(1_000_000)
    9048576
    """
    return FACTOR * size + ALLOWANCE


def read_table(data: pa.Buffer, columns: Collection[str]) -> pa.Table:
    """Read some columns of an IPC stream or file.

    Parameters
    ----------
    data
        Its bytes. Of a file the stream in it is read; the index at its end is not needed.
    columns
        Names of the columns that are wanted; the others are left out. They hold numbers, times, text, dictionaries of
        text, or lists of numbers.

    Raises
    ------
    pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError
        If it is none, a column holds something else, or it would become more than `most_bytes` of its size.

    Examples
    --------
    >>> sink = pa.BufferOutputStream()
    >>> table = pa.table({"value": [1.5], "remark": ["none"]})
    >>> with pa.ipc.new_stream(sink, table.schema) as writer:
    ...     writer.write(table)
    >>> read_table(sink.getvalue(), {"value"}).to_pylist()
    [{'value': 1.5}]
    """
    if data[: len(_MAGIC)].to_pybytes() == _MAGIC:
        data = data.slice(len(_MAGIC))
    size = most_bytes(data.size)
    claimed = sum(_claims(data))
    if claimed > size:
        raise ValueError(f"{data.size:,} bytes would become {claimed:,}, {size:,} are allowed")
    schema = pa.ipc.open_stream(data).schema
    wanted = [place for place, name in enumerate(schema.names) if name in columns]
    if not wanted:
        return schema.empty_table()
    for place in wanted:
        if not _is_plain(schema.field(place).type):
            raise ValueError(f"columns of the type {schema.field(place).type} are not read")
    table = pa.ipc.open_stream(data, options=pa.ipc.IpcReadOptions(included_fields=wanted)).read_all()
    # The places of 8 bytes that one row of nothing would take further on.
    if 8 * table.num_rows > size:
        raise ValueError(f"{data.size:,} bytes cannot hold {table.num_rows:,} rows")
    return table


def _claims(data: pa.Buffer) -> Iterator[int]:
    """Yield how large each compressed buffer says it will be."""
    reader = pa.ipc.MessageReader.open_stream(data)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        try:
            yield from _sizes(memoryview(message.metadata), message.body)
        except StructError:
            raise ValueError("its metadata point outside themselves") from None


def _sizes(metadata: memoryview, body: pa.Buffer | None) -> Iterator[int]:
    """Yield the sizes that the compressed buffers of one message claim."""
    root = _int(metadata, 0, "<I")
    version, kind, header = (_field(metadata, root, number) for number in range(3))
    if body is None or kind is None or header is None or metadata[kind] not in (_DICTIONARY, _BATCH):
        return
    if (version is None or _int(metadata, version, "<h") < _V5) and _field(metadata, root, 4) is not None:
        raise ValueError("batches with metadata of their own are not read in the format of before Arrow 1.0")
    table = header + _int(metadata, header, "<I")
    batch: int | None = table
    if metadata[kind] == _DICTIONARY:
        grows, inner = _field(metadata, table, 2), _field(metadata, table, 1)
        if grows is not None and metadata[grows]:
            # Each of them would be kept beside all that it grew from.
            raise ValueError("dictionaries that grow are not read")
        batch = None if inner is None else inner + _int(metadata, inner, "<I")
    if batch is None or _field(metadata, batch, 3) is None:
        return
    buffers = _field(metadata, batch, 2)
    if buffers is None:
        return
    first = buffers + _int(metadata, buffers, "<I")
    bytes_of = memoryview(body)
    for number in range(min(_int(metadata, first, "<I"), len(metadata) // 16)):
        begin, length = unpack_from("<qq", metadata, first + 4 + 16 * number)
        if length >= 8 and 0 <= begin <= len(bytes_of) - 8:
            # -1: a buffer that would not become smaller, and was left as it was.
            yield max(_int(bytes_of, begin, "<q"), 0)


def _field(metadata: memoryview, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffer's table lies, None where it has none."""
    index = table - _int(metadata, table, "<i")
    place = 4 + 2 * number
    if index < 0 or place + 2 > _int(metadata, index, "<H"):
        return None
    offset = _int(metadata, index + place, "<H")
    return table + offset if offset else None


def _int(data: memoryview, at: int, form: str) -> int:
    if at < 0:
        raise StructError("before the beginning")
    found: int = unpack_from(form, data, at)[0]
    return found


def _is_plain(kind: pa.DataType) -> bool:
    """Tell the types whose cells each have bytes of their own, but for dictionaries of text and columns of nothing."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_number(kind.value_type) and not pa.types.is_boolean(kind.value_type)
    return _is_number(kind) or _is_text(kind) or bool(pa.types.is_temporal(kind) or pa.types.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return bool(whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
