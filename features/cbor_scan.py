"""The compiled scanner of CBOR blocks: from the bytes of many messages to columns, without an object in between.

It knows exactly the messages of `features.cbor_blocks` in containers of known length, and names the others, so that a
reader with more patience may take them. It stops where its columns are full, and goes on in larger ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.cbor_items import ARRAY, BYTES, DEEPEST, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UINT, head, skip
from features.compiled import kernel

__all__ = ["Found", "scan"]

_STEP_US, _STEP_S, _START, _ASSET, _SIGNAL, _VALUES, _SIGNALS, _OTHER = range(8)
"""Keys of an object."""
_KEYS = (b"period_us", b"period_s", b"start", b"asset", b"signal", b"values", b"signals")
_KEY_BYTES = np.frombuffer(b"".join(_KEYS), np.uint8)
_KEY_ENDS = np.cumsum([0, *(len(key) for key in _KEYS)])

BLOCKS, SAMPLES = 0, 1
"""Places of the running counts."""

_OTHER_FORM, _NO_ROW, _NO_ROOM = -1, -2, -3
"""Why an object was not taken: it is in another form, or rows or values are full."""


class Found(NamedTuple):
    """Blocks of the messages that the scanner knows, a row a block."""

    payload: NDArray[np.int64]
    assets: list[bytes]
    asset: NDArray[np.int32]
    signals: list[bytes]
    signal: NDArray[np.int32]
    start_s: NDArray[np.float64]
    period_us: NDArray[np.float64]
    length: NDArray[np.int64]
    values: NDArray[np.float64]


class _Bits(NamedTuple):
    """One number as bits and as what they mean: the two of a pair are the same memory."""

    int64: NDArray[np.int64]
    float64: NDArray[np.float64]
    int32: NDArray[np.int32]
    float32: NDArray[np.float32]


class _Names(NamedTuple):
    """Different names, found by hash: `slots` holds numbers of names, `begin` and `size` where each was seen first."""

    slots: NDArray[np.int32]
    begin: NDArray[np.int64]
    size: NDArray[np.int64]
    used: NDArray[np.int64]


class _Room(NamedTuple):
    """Columns to fill."""

    payload: NDArray[np.int64]
    asset: NDArray[np.int32]
    signal: NDArray[np.int32]
    start_s: NDArray[np.float64]
    period_us: NDArray[np.float64]
    length: NDArray[np.int64]
    values: NDArray[np.float64]


@kernel
def _key(data: NDArray[np.uint8], at: int, size: int) -> int:
    """Return which key stands at `at`."""
    for key in range(_OTHER):
        begin = _KEY_ENDS[key]
        if _KEY_ENDS[key + 1] - begin != size:
            continue
        same = True
        for i in range(size):
            if data[at + i] != _KEY_BYTES[begin + i]:
                same = False
                break
        if same:
            return key
    return _OTHER


@kernel
def _name(data: NDArray[np.uint8], begin: int, size: int, names: _Names) -> int:
    """Return the number of a name, a new one where it was not seen before; -1 where there is no room for that."""
    code = np.uint64(14695981039346656037)
    for i in range(size):
        code = (code ^ np.uint64(data[begin + i])) * np.uint64(1099511628211)
    mask = len(names.slots) - 1
    slot = np.int64((code ^ (code >> np.uint64(32))) & np.uint64(mask))
    while True:
        number = names.slots[slot]
        if number < 0:
            number = names.used[0]
            if number == len(names.begin):
                return -1
            names.used[0] += 1
            names.slots[slot] = number
            names.begin[number] = begin
            names.size[number] = size
            return int(number)
        if names.size[number] == size:
            same = True
            for i in range(size):
                if data[names.begin[number] + i] != data[begin + i]:
                    same = False
                    break
            if same:
                return int(number)
        slot = (slot + 1) & mask


@kernel
def _half(bits: int) -> float:
    """Return the number that 16 bits of IEEE 754 mean."""
    sign = -1.0 if bits & 0x8000 else 1.0
    exponent = (bits >> 10) & 31
    fraction = bits & 1023
    if exponent == 0:
        return sign * fraction * 2.0**-24
    if exponent == 31:
        return np.nan if fraction else sign * np.inf
    return sign * (1024 + fraction) * 2.0 ** (exponent - 25)


@kernel
def _float(size: int, raw: int, bits: _Bits) -> float:
    """Return the number that 16, 32 or 64 bits mean, given as an integer."""
    if size == 8:
        bits.int64[0] = raw
        return float(bits.float64[0])
    if size == 4:
        bits.int32[0] = np.int32(np.uint32(raw & 0xFFFFFFFF))
        return np.float64(bits.float32[0])
    return _half(raw)


@kernel
def _number(data: NDArray[np.uint8], at: int, end: int, out: NDArray[np.int64], bits: _Bits) -> tuple[int, float]:
    """Return where the number at `at` ends and what it is; null is NaN; -1 where there is none."""
    at = head(data, at, end, out)
    if at < 0:
        return -1, 0.0
    major, info, argument = out[0], out[1], out[2]
    if major in (UINT, NEGATIVE):
        # Beyond 63 bits the argument reads as -1: the patient reader takes it.
        if argument < 0 or info == 31:
            return -1, 0.0
        return at, np.float64(argument if major == UINT else -1 - argument)
    if major == SIMPLE:
        if info == 22 or info == 23:
            return at, np.nan
        if 25 <= info <= 27:
            return at, _float(1 << (info - 24), int(argument), bits)
    return -1, 0.0


@kernel
def _typed(tag: int) -> tuple[int, int, bool]:
    """Return (bytes an element, kind, little-endian) of a typed array; kind 0 unsigned, 1 signed, 2 float, -1 none."""
    code = tag - 64
    if not 0 <= code < 24:
        return 0, -1, False
    little = (code & 4) != 0
    power = code & 3
    if code >= 16:
        return (2 << power, 2, little) if power < 3 else (0, -1, False)
    if code == 12:
        return 0, -1, False
    if power == 0:
        little = True
    return 1 << power, 1 if code >= 8 else 0, little


@kernel
def _elements(
    data: NDArray[np.uint8],
    at: int,
    count: int,
    size: int,
    kind: int,
    little: bool,
    values: NDArray[np.float64],
    bits: _Bits,
) -> None:
    """Turn the bytes of a typed array into numbers."""
    if size == 8 and kind == 2 and little:
        # As they lie in memory, wherever that is: neither x86-64 nor aarch64 asks for an even place.
        values[:count] = data[at : at + 8 * count].view(np.float64)
        return
    for i in range(count):
        p = at + size * i
        raw = np.int64(0)
        for k in range(size):
            raw |= np.int64(data[p + k]) << (8 * k if little else 8 * (size - 1 - k))
        if kind == 2:
            values[i] = _float(size, int(raw), bits)
        elif kind == 1:
            shift = 64 - 8 * size
            values[i] = np.float64((raw << shift) >> shift)
        elif size == 8 and raw < 0:
            values[i] = np.float64(np.uint64(raw))
        else:
            values[i] = np.float64(raw)


@kernel
def _samples(
    data: NDArray[np.uint8], at: int, end: int, out: NDArray[np.int64], bits: _Bits, values: NDArray[np.float64],
    first: int,
) -> tuple[int, int]:  # fmt: skip
    """Write the values at `at`; return where they end and how many they are, or why there are none."""
    at = head(data, at, end, out)
    if at < 0:
        return _OTHER_FORM, 0
    if out[0] == TAG:
        size, kind, little = _typed(out[2])
        if kind < 0:
            return _OTHER_FORM, 0
        at = head(data, at, end, out)
        if at < 0 or out[0] != BYTES or out[1] == 31 or out[2] < 0 or out[2] > end - at or out[2] % size:
            return _OTHER_FORM, 0
        length = out[2]
        count = length // size
        if count > len(values) - first:
            return _NO_ROOM, 0
        _elements(data, at, count, size, kind, little, values[first:], bits)
        return at + length, count
    if out[0] != ARRAY or out[1] == 31 or out[2] < 0 or out[2] > end - at:
        return _OTHER_FORM, 0
    count = out[2]
    if count > len(values) - first:
        return _NO_ROOM, 0
    for i in range(count):
        at, value = _number(data, at, end, out, bits)
        if at < 0:
            return _OTHER_FORM, 0
        values[first + i] = value
    return at, count


@kernel
def _keys(
    data: NDArray[np.uint8], at: int, end: int, out: NDArray[np.int64], stack: NDArray[np.int64],
    places: NDArray[np.int64],
) -> int:  # fmt: skip
    """Note where the value of each key of the map at `at` begins, -1 for none; return where the map ends, or -1.

    Signals that come last are not walked through: the place returned is where they begin.
    """
    at = head(data, at, end, out)
    if at < 0 or out[0] != MAP or out[1] == 31 or out[2] < 0 or out[2] > end - at:
        return -1
    pairs = out[2]
    places[:] = -1
    for pair in range(pairs):
        at = head(data, at, end, out)
        if at < 0 or out[0] != TEXT or out[1] == 31 or out[2] < 0 or out[2] > end - at:
            return -1
        key = _key(data, at, out[2])
        at += out[2]
        if key < _OTHER:
            places[key] = at
        if key == _SIGNALS and pair == pairs - 1:
            return at
        at = skip(data, at, end, out, stack)
        if at < 0:
            return -1
    return at


@kernel
def _series(
    data: NDArray[np.uint8], end: int, out: NDArray[np.int64], bits: _Bits, places: NDArray[np.int64],
    start_s: float, period_us: float,
) -> tuple[bool, float, float]:  # fmt: skip
    """Return start and step of an object, those given where it has none; False where one is in another form."""
    if places[_START] >= 0:
        at = head(data, places[_START], end, out)
        begin = at if out[0] == TAG and out[2] == 1 else places[_START]
        at, start_s = _number(data, begin, end, out, bits)
        if at < 0 or start_s != start_s:
            return False, 0.0, 0.0
    for key, unit in ((_STEP_S, 1e6), (_STEP_US, 1.0)):
        if places[key] >= 0:
            at, step = _number(data, places[key], end, out, bits)
            if at < 0 or step != step:
                return False, 0.0, 0.0
            period_us = step * unit
    return True, start_s, period_us


@kernel
def _object(
    data: NDArray[np.uint8], at: int, end: int, out: NDArray[np.int64], stack: NDArray[np.int64], bits: _Bits,
    places: NDArray[np.int64], own: NDArray[np.int64], counts: NDArray[np.int64], room: _Room, number: int,
    assets: _Names, signals: _Names,
) -> int:  # fmt: skip
    """Take the blocks of the object at `at`; return where it ends, or why it was not taken."""
    after = _keys(data, at, end, out, stack, places)
    if after < 0 or places[_ASSET] < 0 or (places[_VALUES] < 0) == (places[_SIGNALS] < 0):
        return _OTHER_FORM
    good, start_s, period_us = _series(data, end, out, bits, places, np.nan, 0.0)
    at = head(data, places[_ASSET], end, out)
    if not good or out[0] != TEXT or out[1] == 31 or out[2] == 0:
        return _OTHER_FORM
    asset = _name(data, at, int(out[2]), assets)
    if asset < 0:
        return _NO_ROW
    many = places[_SIGNALS] >= 0
    if many:
        name, name_size = 0, np.int64(0)
        at = head(data, places[_SIGNALS], end, out)
        if at < 0 or out[0] != MAP or out[1] == 31 or out[2] <= 0:
            return _OTHER_FORM
        pairs = out[2]
    else:
        if places[_SIGNAL] < 0:
            return _OTHER_FORM
        name = head(data, places[_SIGNAL], end, out)
        name_size = out[2]
        if out[0] != TEXT or out[1] == 31 or name_size == 0:
            return _OTHER_FORM
        pairs = np.int64(1)
        at = places[_VALUES]
    for _ in range(pairs):
        if many:
            name = head(data, at, end, out)
            name_size = out[2]
            if name < 0 or out[0] != TEXT or out[1] == 31 or name_size <= 0 or name_size > end - name:
                return _OTHER_FORM
            at = name + name_size
        own_start, own_period = start_s, period_us
        values = at
        next_at = -1
        if many and at < end and data[at] >> 5 == MAP:
            next_at = _keys(data, at, end, out, stack, own)
            if next_at < 0 or own[_VALUES] < 0 or own[_SIGNALS] >= 0:
                return _OTHER_FORM
            good, own_start, own_period = _series(data, end, out, bits, own, start_s, period_us)
            if not good:
                return _OTHER_FORM
            values = own[_VALUES]
        at, count = _samples(data, values, end, out, bits, room.values, counts[SAMPLES])
        if at < 0:
            return at
        if next_at >= 0:
            at = next_at
        block = counts[BLOCKS]
        if block == len(room.payload):
            return _NO_ROW
        signal = _name(data, name, int(name_size), signals)
        if signal < 0:
            return _NO_ROW
        room.payload[block] = number
        room.asset[block] = asset
        room.signal[block] = signal
        room.start_s[block] = own_start
        room.period_us[block] = own_period
        room.length[block] = count
        counts[BLOCKS] += 1
        counts[SAMPLES] += count
    return int(at if after == places[_SIGNALS] else after)


@kernel
def _scan(
    data: NDArray[np.uint8], ends: NDArray[np.int64], first: int, known: NDArray[np.bool_],
    counts: NDArray[np.int64], room: _Room, bits: _Bits, assets: _Names, signals: _Names,
) -> tuple[int, int]:  # fmt: skip
    """Take messages from the `first` on and tell which are known; return where it stopped, and what was full."""
    out = np.zeros(4, np.int64)
    stack = np.empty(DEEPEST, np.int64)
    places = np.empty(_OTHER, np.int64)
    own = np.empty(_OTHER, np.int64)
    for number in range(first, len(known)):
        begin, end = ends[number], ends[number + 1]
        blocks, samples = counts[BLOCKS], counts[SAMPLES]
        at = head(data, begin, end, out)
        objects = np.int64(1)
        if at > 0 and out[0] == ARRAY and out[1] != 31 and 0 < out[2] <= end - at:
            objects = out[2]
        else:
            at = begin
        for _ in range(objects):
            at = _object(data, at, end, out, stack, bits, places, own, counts, room, number, assets, signals)
            if at < 0:
                break
        if at != end:
            counts[BLOCKS], counts[SAMPLES] = blocks, samples
            if at in (_NO_ROW, _NO_ROOM):
                return number, at
            known[number] = False
    return len(known), 0


def scan(payloads: Sequence[bytes]) -> tuple[Found, list[int]]:
    """Return the blocks of the messages that are known, and the numbers of the others.

    Examples
    --------
    >>> found, others = scan([bytes.fromhex("a0"), b""])
    >>> len(found.payload), others
    (0, [0, 1])
    """
    joined = b"".join(payloads)
    data = np.frombuffer(joined, np.uint8)
    ends = np.concatenate(([0], np.cumsum([len(payload) for payload in payloads], dtype=np.int64)))
    known = np.ones(len(payloads), np.bool_)
    counts = np.zeros(2, np.int64)
    bits = _bits()
    # Doubles with little around them fill what is made here; smaller numbers, and more names, ask for more.
    rows, most = 16 + len(joined) // 128, 16 + len(joined) // 8
    room, assets, signals = _room(rows, most), _names(rows), _names(rows)
    number, full = _scan(data, ends, 0, known, counts, room, bits, assets, signals)
    while full:
        rows, most = (2 * rows, most) if full == _NO_ROW else (rows, 2 * most)
        room = _sized(room, rows, most, *counts.tolist())
        assets, signals = _more_names(data, assets, rows), _more_names(data, signals, rows)
        number, full = _scan(data, ends, number, known, counts, room, bits, assets, signals)
    blocks, samples = counts.tolist()
    if 2 * samples < most:  # little of it is known: the rest is not held while others are read
        room = _sized(room, blocks, samples, blocks, samples)
    found = Found(
        room.payload[:blocks], _seen(joined, assets), room.asset[:blocks], _seen(joined, signals), room.signal[:blocks],
        room.start_s[:blocks], room.period_us[:blocks], room.length[:blocks], room.values[:samples],
    )  # fmt: skip
    return found, np.flatnonzero(~known).tolist()


def _sized(room: _Room, rows: int, most: int, blocks: int, samples: int) -> _Room:
    """Return columns of another size with what was found so far."""
    sized = _room(rows, most)
    pairs: zip[tuple[NDArray[Any], NDArray[Any]]] = zip(sized, room, strict=True)
    for new, old in pairs:
        used = samples if old is room.values else blocks
        new[:used] = old[:used]
    return sized


def _more_names(data: NDArray[np.uint8], names: _Names, most: int) -> _Names:
    """Return room for more names, with those found so far under their numbers."""
    larger = _names(most)
    _take_over(data, names, larger)
    return larger


@kernel
def _take_over(data: NDArray[np.uint8], names: _Names, larger: _Names) -> None:
    for number in range(names.used[0]):
        _name(data, int(names.begin[number]), int(names.size[number]), larger)


def _room(blocks: int, samples: int) -> _Room:
    return _Room(
        np.empty(blocks, np.int64), np.empty(blocks, np.int32), np.empty(blocks, np.int32), np.empty(blocks),
        np.empty(blocks), np.empty(blocks, np.int64), np.empty(samples),
    )  # fmt: skip


def _names(most: int) -> _Names:
    slots = 1 << max(4, (2 * most).bit_length())
    return _Names(
        np.full(slots, -1, np.int32), np.empty(most, np.int64), np.empty(most, np.int64), np.zeros(1, np.int64)
    )


def _seen(joined: bytes, names: _Names) -> list[bytes]:
    used = int(names.used[0])
    return [joined[b : b + n] for b, n in zip(names.begin[:used].tolist(), names.size[:used].tolist(), strict=True)]


def _bits() -> _Bits:
    eight, four = np.zeros(1, np.int64), np.zeros(1, np.int32)
    return _Bits(eight, eight.view(np.float64), four, four.view(np.float32))
