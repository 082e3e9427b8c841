"""Wide tables as CSV: a header and whole lines, UTF-8, one record a line (a quoted field may not hold a line break).

A payload in which every line has the header's fields and every number is one is read column by column at full speed.
Otherwise its lines are taken apart one by one, to the same result for the good ones.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from features.lines import RejectedLines, slices
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason, Rejected, TelemetryError, empty_blocks
from features.wide import Roles, WideTable, decode_table, roles_of

__all__ = ["check_header", "decode_wide_csv", "header_names"]

_ROWS = 4096
"""Lines that are found again at a time."""
_COPIES = 3
"""A row that is wrong in several columns is rejected with each, up to so many times the payload in all."""


def header_names(header: bytes, separator: str) -> list[str]:
    """Return the names of a header line.

    Raises
    ------
    TelemetryError
        If it is not a line of text.

    Examples
    --------
    >>> header_names(b'time;"flow"', ";")
    ['time', 'flow']
    """
    try:
        line = header.decode("utf-8-sig").rstrip("\r\n")
        [names] = csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True)
    except (UnicodeDecodeError, csv.Error, ValueError):
        raise TelemetryError(f"the first line is no header of a table: {_excerpt(header)}") from None
    if any(not c.isprintable() for name in names for c in name):
        raise TelemetryError(f"the first line is no header of a table: {_excerpt(header)}")
    return [name.strip() for name in names]


def check_header(header: bytes, equipment: EquipmentClass) -> None:
    """Check that a header line has what the class needs.

    Raises
    ------
    TelemetryError
        In one sentence: it is no text, a column stands twice, there is no time, or none of the class's columns.

    Examples
    --------
    >>> from features.signals import load_class
    >>> check_header(b"time,asset,flow", load_class("boiler"))
    """
    roles_of(header_names(header, equipment.table.separator), equipment)


def decode_wide_csv(payload: bytes, equipment: EquipmentClass, *, asset: str, source: str) -> Decoded:
    r"""Decode a header line and the lines after it; never fails.

    Parameters
    ----------
    payload
        Header and whole lines.
    equipment
        The class whose signals the columns are.
    asset
        Asset of a table without an asset column.
    source
        Name of the input.

    Examples
    --------
    >>> from features.signals import load_class
    >>> payload = b"time,flow\n2026-01-05T00:00:00Z,1.5\n2026-01-05T00:00:01Z,leak\n"
    >>> decoded = decode_wide_csv(payload, load_class("boiler"), asset="b1", source="example")
    >>> decoded.blocks.to_pylist()[0]["values"], decoded.rejected[0].reason.value, decoded.rejected[0].raw
    ([1.5], 'bad_value', b'2026-01-05T00:00:01Z,leak')
    """
    header, _, body = payload.partition(b"\n")
    try:
        names = header_names(header, equipment.table.separator)
        roles = roles_of(names, equipment)
    except TelemetryError as error:
        lines = max(1, sum(len(_lines(some)) for some in slices(body)))
        return Decoded(empty_blocks(), [Rejected(Reason.MALFORMED, lines, source, payload, detail=str(error))])
    table = _read_clean(body, names, roles, equipment)
    if table is None:
        table = _read_each(body, names, roles, equipment, source)
    return decode_table(table, equipment, asset=asset, source=source)


def _read_clean(body: bytes, names: Sequence[str], roles: Roles, equipment: EquipmentClass) -> WideTable | None:
    """Read a payload in which nothing is wrong, or return None."""
    if not body.strip() or body.count(b"\r") != body.count(b"\r\n") or not _quotes_close(body):
        return None
    keys = [str(number) for number in range(len(names))]
    types = {keys[number]: pa.utf8() for number in (roles.time, *roles.unknown)}
    if roles.asset is not None:
        types[keys[roles.asset]] = pa.dictionary(pa.int32(), pa.utf8())
    for number, signal in roles.signals:
        types[keys[number]] = pa.utf8() if equipment.signals[signal].codes else pa.float64()
    try:
        read = pacsv.read_csv(
            pa.py_buffer(body),
            pacsv.ReadOptions(use_threads=False, block_size=min(len(body) + 1, 2**30), column_names=keys),
            pacsv.ParseOptions(delimiter=equipment.table.separator),
            pacsv.ConvertOptions(column_types=types, include_columns=list(types), null_values=[""]),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    columns = {key: read.column(key).chunk(0) for key in types} if read.num_rows else {}
    if not columns:
        return None
    return WideTable(names, [columns.get(key) for key in keys], _Lines(body, None).at, limit=_COPIES * len(body))


def _read_each(body: bytes, names: Sequence[str], roles: Roles, equipment: EquipmentClass, source: str) -> WideTable:
    """Take the lines apart one by one; a line that has not the header's fields is malformed."""
    separator = equipment.table.separator
    used = sorted({roles.time, *roles.unknown, *(number for number, _ in roles.signals)})
    used += [] if roles.asset is None else [roles.asset]
    rejected = RejectedLines(source, len(body))
    parts: dict[int, list[pa.Array]] = {number: [] for number in used}
    kept: list[NDArray[np.bool_]] = []
    for some in slices(body):
        lines = _lines(some)
        rows = []
        keep = np.zeros(len(lines), np.bool_)
        for place, line in enumerate(lines):
            text = line.decode(errors="surrogateescape")
            try:
                fields = next(csv.reader([text], delimiter=separator)) if '"' in text else text.split(separator)
            except csv.Error:
                fields = []
            if "\r" in text or len(fields) != len(names):
                why = f"expected {len(names)} fields as in the header, got {len(fields)}"
            elif not text.isascii() and any(_is_broken(fields[number]) for number in used):
                why = "expected UTF-8"
            else:
                keep[place] = True
                rows.append(fields)
                continue
            rejected.add(line, Reason.MALFORMED, 1, why)
        kept.append(keep)
        for number in used:
            parts[number].append(pa.array([fields[number] for fields in rows], pa.utf8()))
    columns: list[pa.Array | None] = [None] * len(names)
    for number in used:
        columns[number] = pa.concat_arrays(parts.pop(number)) if kept else pa.array([], pa.utf8())
    raw = _Lines(body, np.concatenate(kept) if kept else np.zeros(0, np.bool_)).at
    return WideTable(names, columns, raw, rejected.finish(), _COPIES * len(body))


class _Lines:
    """The lines of a payload that are rows, found again by their numbers.

    Parameters
    ----------
    body
        The payload without its header.
    kept
        Which of its lines that are not empty are rows; None if all of them are.
    """

    def __init__(self, body: bytes, kept: NDArray[np.bool_] | None) -> None:
        self._body = body
        self._kept = kept
        self._ends: NDArray[Any] | None = None

    def at(self, rows: NDArray[np.int64]) -> bytes:
        """Return lines, parted by newlines."""
        if self._ends is None:
            self._ends = self._find()
        joined = bytearray()
        for i in range(0, len(rows), _ROWS):
            for end in self._ends[rows[i : i + _ROWS]].tolist():
                line = self._body[self._body.rfind(b"\n", 0, end) + 1 : end]
                joined += line.removesuffix(b"\r")
                joined += b"\n"
        del joined[-1:]
        return bytes(joined)

    def _find(self) -> NDArray[Any]:
        """Return where each row ends."""
        data = np.frombuffer(self._body, np.uint8)
        narrow = np.int32 if len(data) < 2**31 else np.int64
        ends: NDArray[Any] = np.flatnonzero(data == ord("\n")).astype(narrow)
        if not self._body.endswith(b"\n"):
            ends = np.append(ends, narrow(len(data)))
        length = np.diff(ends, prepend=narrow(-1)) - 1
        empty = length == 0
        alone = np.flatnonzero(length == 1)
        empty[alone[data[ends[alone] - 1] == ord("\r")]] = True
        pairs = np.flatnonzero((length == 2) & (ends < len(data)))
        empty[pairs[(data[ends[pairs] - 1] == ord("\r")) & (data[ends[pairs] - 2] == ord("\r"))]] = True
        if empty.any():
            ends = ends[~empty]
        return ends if self._kept is None else ends[self._kept]


def _lines(body: bytes) -> list[bytes]:
    """Return the lines that are not empty."""
    return [line for line in body.replace(b"\r\n", b"\n").split(b"\n") if line and line != b"\r"]


def _quotes_close(body: bytes) -> bool:
    """Tell whether every line holds an even number of quotes, so that no field runs on into the next line."""
    if b'"' not in body:
        return True
    data = np.frombuffer(body, np.uint8)
    # Quotes fit into a byte again as often as they like: whether their number is even stays.
    so_far = np.cumsum(data == ord('"'), dtype=np.uint8)
    return not (so_far[data == ord("\n")] % 2).any() and so_far[-1] % 2 == 0


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _excerpt(line: bytes) -> str:
    shown = line[:40].decode(errors="replace")
    return repr("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown))
