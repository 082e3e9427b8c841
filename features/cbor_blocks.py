"""Telemetry as CBOR messages: the objects of `features.json_blocks`, with arrays of numbers as they lie in memory.

Values are a typed array of RFC 8746 (tags 64 to 86: floats of 16, 32 and 64 bits, whole numbers of 8 to 64, either byte
order), NaN where one is missing, or an array of CBOR numbers and nulls. A start is a number of seconds since 1970, text,
or a time of tag 0 or 1.

A message of exactly that, in containers of known length, is read by a compiled scanner: one of an asset and a second
costs about a microsecond. Any other is taken apart by `cbor2`, to the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from features.cbor_items import CborError, load
from features.cbor_scan import Found, scan
from features.gathering import Columns, numbers_of, steps_us, times_us
from features.json_blocks import Read, read_objects
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason

__all__ = ["TYPED", "decode_cbor"]

TYPED = {
    64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: "u1", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
    80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8",
}  # fmt: skip
"""Tags of typed arrays, RFC 8746 section 2.1, but for the floats of 128 bits that nothing here could hold."""


def decode_cbor(payloads: Sequence[bytes], *, source: str, equipment: EquipmentClass | None = None) -> Decoded:
    """Decode messages of CBOR blocks; never fails.

    Parameters
    ----------
    payloads
        The messages.
    source
        Name of the input.
    equipment
        Gives the numbers of words and the zone of naive times, where the messages are of one class.

    Examples
    --------
    >>> values = cbor2.CBORTag(85, np.array([1.5, 1.75], "<f4").tobytes())
    >>> payload = cbor2.dumps({"asset": "b1", "signal": "flow", "start": 0, "period_s": 1, "values": values})
    >>> decode_cbor([payload], source="example").blocks.to_pylist()[0]["values"]
    [1.5, 1.75]
    """
    read = Read(source, payloads, equipment)
    found, others = scan(payloads)
    for number in others:
        try:
            plain = _plain(load(payloads[number]))
        except CborError as error:
            read.gathered.rejections.add(number, Reason.MALFORMED, 1, str(error))
            continue
        read_objects(read, number, plain)
    return read.finish(_columns(found))


def _columns(found: Found) -> Columns:
    """Bring what the scanner found to the form in which it is checked."""
    start_us, untimed = times_us(found.start_s)
    return Columns(
        found.payload, _text(found.assets), found.asset, _text(found.signals), found.signal, start_us, untimed,
        np.zeros(len(untimed), np.bool_), steps_us(found.period_us), found.length, found.values,
    )  # fmt: skip


def _text(names: Sequence[bytes]) -> list[str]:
    """Return names as text; what is not UTF-8 names nothing."""
    found = []
    for name in names:
        try:
            found.append(name.decode())
        except UnicodeDecodeError:
            found.append("")
    return found


def _plain(item: Any) -> Any:
    """Return the objects of a payload with typed arrays as arrays of numbers."""
    if isinstance(item, list | tuple):
        return [_plain_object(one) for one in item]
    return _plain_object(item)


def _plain_object(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    plain = {key: _cell(cell) for key, cell in item.items()}
    signals = plain.get("signals")
    if isinstance(signals, Mapping):
        plain["signals"] = {
            name: {key: _cell(cell) for key, cell in given.items()} if isinstance(given, Mapping) else _cell(given)
            for name, given in signals.items()
        }
    return plain


def _cell(cell: Any) -> Any:
    """Return a typed array as numbers, a time as text, and a number of any kind as one that arithmetic knows."""
    if isinstance(cell, cbor2.CBORTag):
        return _typed(cell)
    if isinstance(cell, datetime):
        return cell.isoformat()
    if isinstance(cell, list | tuple):
        return numbers_of(cell) if set(map(type, cell)) <= {int, float} and cell else [_number(one) for one in cell]
    return _number(cell)


def _typed(tag: cbor2.CBORTag) -> NDArray[np.float64] | None:
    kind = TYPED.get(tag.tag)
    if kind is None or not isinstance(tag.value, bytes) or len(tag.value) % np.dtype(kind).itemsize:
        return _NOT_NUMBERS
    with np.errstate(invalid="ignore"):
        return np.frombuffer(tag.value, kind).astype(np.float64)


_NOT_NUMBERS: Any = b"typed array"
"""What stands for a typed array that is none: no number."""


def _number(cell: Any) -> Any:
    if cell is None or isinstance(cell, bool | int | float | str | bytes | list | tuple | Mapping):
        return cell
    if cell is cbor2.undefined:
        return None
    try:
        return float(cell)
    except (TypeError, ValueError, ArithmeticError):
        return cell
