"""The compiled scanner of SenML JSON: from the bytes of many packs to columns of readings, without an object a record.

It knows packs of plain records: names, units, times, numbers and booleans, base names, times and units anywhere, text
of ASCII without escapes, numbers of up to 19 digits. Any other pack is left to the reader with more patience.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.compiled import literal_kernel
from features.json_numbers import read_number

__all__ = ["Readings", "scan_packs"]

_SHORTEST = 8
"""Bytes of a record and the comma behind it: {"v":1},"""

BN, BT, BU, BVER, NAME, UNIT, VALUE, TIME, BOOLEAN, UNKNOWN = range(10)
"""Fields that the scanner knows."""


class Readings(NamedTuple):
    """Readings of packs, a row a reading; `names` are full ones, base name and name."""

    pack: NDArray[np.int64]
    names: list[str]
    name: NDArray[np.int32]
    time_s: NDArray[np.float64]
    value: NDArray[np.float64]


class _Names(NamedTuple):
    """Different pairs of base name and name by hash; `place` has a row (base begin, base size, begin, size) each."""

    slots: NDArray[np.int32]
    place: NDArray[np.int64]
    used: NDArray[np.int64]


@literal_kernel
def _gap(data: NDArray[np.uint8], at: int, end: int) -> int:
    """Return where white space ends."""
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@literal_kernel
def _text(data: NDArray[np.uint8], at: int, end: int) -> int:
    """Return where plain text in quotes ends, behind its last quote; -1 where there is none."""
    if at >= end or data[at] != 34:
        return -1
    at += 1
    while at < end:
        c = data[at]
        if c == 34:
            return at + 1
        if c < 32 or c == 92 or c > 126:
            return -1
        at += 1
    return -1


@literal_kernel
def _field(data: NDArray[np.uint8], at: int, size: int) -> int:
    """Return which field a label of so many bytes is."""
    a = data[at]
    if size == 1:
        return NAME if a == 110 else VALUE if a == 118 else TIME if a == 116 else UNIT if a == 117 else UNKNOWN
    b = data[at + 1]
    if size == 2:
        if a == 98:
            return BN if b == 110 else BT if b == 116 else BU if b == 117 else UNKNOWN
        return BOOLEAN if a == 118 and b == 98 else UNKNOWN
    if size == 4 and a == 98 and b == 118 and data[at + 2] == 101 and data[at + 3] == 114:
        return BVER
    return UNKNOWN


@literal_kernel
def _same(data: NDArray[np.uint8], a: int, b: int, size: int) -> bool:
    i = 0
    while i < size and data[a + i] == data[b + i]:
        i += 1
    return i == size


@literal_kernel
def _boolean(data: NDArray[np.uint8], at: int, end: int) -> int:
    """Return how many bytes the boolean at `at` has, 4 of true and 5 of false; -1 where there is none."""
    if end - at >= 4 and data[at] == 116 and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
        return 4
    if end - at >= 5 and data[at] == 102 and data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115:
        return 5 if data[at + 4] == 101 else -1
    return -1


@literal_kernel
def _number_of(data: NDArray[np.uint8], base: int, base_size: int, begin: int, size: int, names: _Names) -> int:
    """Return the number of a full name, a new one where it was not seen before; -1 where there is no room."""
    code = np.uint64(14695981039346656037)
    for i in range(base_size):
        code = (code ^ np.uint64(data[base + i])) * np.uint64(1099511628211)
    code = (code ^ np.uint64(256)) * np.uint64(1099511628211)
    for i in range(size):
        code = (code ^ np.uint64(data[begin + i])) * np.uint64(1099511628211)
    mask = len(names.slots) - 1
    slot = np.int64((code ^ (code >> np.uint64(32))) & np.uint64(mask))
    while True:
        number = np.int64(names.slots[slot])
        if number < 0:
            number = names.used[0]
            if number >= len(names.place):
                return -1
            names.used[0] += 1
            names.slots[slot] = number
            row = names.place[number]
            row[0], row[1], row[2], row[3] = base, base_size, begin, size
            return int(number)
        row = names.place[number]
        alike = row[1] == base_size and row[3] == size and _same(data, row[2], begin, size)
        if alike and _same(data, row[0], base, base_size):
            return int(number)
        slot = (slot + 1) & mask


@literal_kernel
def _pack(
    data: NDArray[np.uint8], at: int, end: int, used: int, names: _Names, name: NDArray[np.int32],
    time_s: NDArray[np.float64], value: NDArray[np.float64], bits: NDArray[np.int64], number: NDArray[np.float64],
) -> int:  # fmt: skip
    """Take the readings of a pack behind the `used` first rows; return how many are used now, -1 for another form."""
    at = _gap(data, at, end)
    if at >= end or data[at] != 91:
        return -1
    at = _gap(data, at + 1, end)
    base, base_size, base_time = 0, 0, 0.0
    last, last_size, last_number = 0, -1, -1
    while True:
        if at >= end or data[at] != 123:
            return -1
        at = _gap(data, at + 1, end)
        begin, size, time, measured = 0, 0, 0.0, 0.0
        values, regular, rebased = 0, False, False
        while True:
            label = at + 1
            at = _text(data, at, end)
            if at < 0:
                return -1
            field = _field(data, label, at - 1 - label) if at - 1 > label else UNKNOWN
            at = _gap(data, at, end)
            if at >= end or data[at] != 58:
                return -1
            at = _gap(data, at + 1, end)
            if field in (NAME, UNIT, BN, BU):
                first = at + 1
                at = _text(data, at, end)
                if at < 0:
                    return -1
                if field == NAME:
                    begin, size, regular = first, at - 1 - first, True
                elif field == BN:
                    base, base_size, rebased = first, at - 1 - first, True
                elif field == UNIT:
                    regular = True
            elif field == BOOLEAN:
                values += 1
                length = _boolean(data, at, end)
                if length < 0:
                    return -1
                measured = 1.0 if length == 4 else 0.0
                at += length
            elif field != UNKNOWN:
                at = read_number(data, at, end, bits, number)
                if at < 0:
                    return -1
                if field == VALUE:
                    values += 1
                    measured = number[0]
                elif field == TIME:
                    time, regular = number[0], True
                elif field == BT:
                    base_time = number[0]
                elif number[0] != 10.0:
                    return -1
            else:
                return -1
            at = _gap(data, at, end)
            if at >= end:
                return -1
            if data[at] == 44:
                at = _gap(data, at + 1, end)
                continue
            if data[at] != 125:
                return -1
            at += 1
            break
        if values == 1:
            if used >= len(value):
                return -1
            again = not rebased and size == last_size and _same(data, last, begin, size)
            if not again:
                last_number = _number_of(data, base, base_size, begin, size, names)
                last, last_size = begin, size
                if last_number < 0:
                    return -1
            name[used] = last_number
            time_s[used] = base_time + time
            value[used] = measured
            used += 1
        elif values > 1 or regular:
            return -1
        at = _gap(data, at, end)
        if at >= end:
            return -1
        if data[at] == 44:
            at = _gap(data, at + 1, end)
            continue
        if data[at] != 93:
            return -1
        return used if _gap(data, at + 1, end) == end else -1


@literal_kernel
def _packs(
    data: NDArray[np.uint8], ends: NDArray[np.int64], count: NDArray[np.int64], names: _Names, name: NDArray[np.int32],
    time_s: NDArray[np.float64], value: NDArray[np.float64], bits: NDArray[np.int64], number: NDArray[np.float64],
) -> None:  # fmt: skip
    """Take the readings of all packs; `count` becomes how many each has, -1 where it is in another form."""
    used = 0
    for pack in range(len(count)):
        after = _pack(data, ends[pack], ends[pack + 1], used, names, name, time_s, value, bits, number)
        count[pack] = after - used if after >= 0 else -1
        used = max(used, after)


def scan_packs(payloads: Sequence[bytes]) -> tuple[Readings, list[int]]:
    """Return the readings of the packs that are known, and the numbers of the others.

    Examples
    --------
    >>> packs = [b'[{"bn":"b1:","n":"flow","v":1.5,"bt":1.767e9}]', b'[{"n":"b1:valve","vs":"open"}]']
    >>> readings, others = scan_packs(packs)
    >>> readings.names, readings.value.tolist(), others
    (['b1:flow'], [1.5], [1])
    """
    joined = b"".join(payloads)
    data = np.frombuffer(joined, np.uint8)
    ends = np.concatenate(([0], np.cumsum([len(payload) for payload in payloads], dtype=np.int64)))
    room = len(data) // _SHORTEST + 1
    # Names repeat: a pack of nothing but new ones is left to the other reader.
    most = len(data) // 64 + 64
    names = _Names(
        np.full(1 << (2 * most).bit_length(), -1, np.int32), np.empty((most, 4), np.int64), np.zeros(1, np.int64)
    )
    count = np.empty(len(payloads), np.int64)
    name, time_s, value = np.empty(room, np.int32), np.empty(room), np.empty(room)
    bits = np.zeros(1, np.int64)
    _packs(data, ends, count, names, name, time_s, value, bits, bits.view(np.float64))
    others = np.flatnonzero(count < 0).tolist()
    pack = np.repeat(np.arange(len(payloads)), np.maximum(count, 0))
    n = len(pack)
    seen = [
        (joined[a : a + b] + joined[c : c + d]).decode("ascii") for a, b, c, d in names.place[: names.used[0]].tolist()
    ]
    return Readings(pack, seen, name[:n], time_s[:n], value[:n]), others
