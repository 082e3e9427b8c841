"""Telemetry as JSON messages: an object, or an array of objects, a message.

An object is a block, or the blocks of one asset together:

``{"asset": "b1", "signal": "flow", "start": "2026-01-05T00:00:00Z", "period_s": 1, "values": [1.5, null, 1.6]}``
    one block; its start is text as in `features.times`, or a number of seconds since 1970; its step is in seconds
    (`period_s`) or microseconds (`period_us`) and may be left out in a block of one sample; null is missing;
``{"asset": "l1", "start": 1767571200, "period_us": 10000, "signals": {"vibration_z": [0.1, 0.2], "motor_current":
{"period_us": 100000, "values": [11.5, 11.7]}}}``
    blocks of one asset; start and step hold for each signal that does not give its own.

Keys that are not named here are not read. A word is the number that the class has for it, where the class is known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from features.gathering import Columns, Gathered, Moment, as_text, finish
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason

__all__ = ["Read", "decode_json", "number_of", "read_objects"]

Whole = Annotated[int, Meta(ge=-(2**62), le=2**62)]
Samples = list[int | float | None]
"""Whole numbers stay such: small ones cost no memory, so zeros and ones do not cost 16 times their bytes."""


class _Series(Struct, gc=False):
    values: Samples
    start: Moment = None
    period_us: Whole | None = None
    period_s: float | None = None


class _Object(Struct, gc=False):
    asset: str
    signal: str = ""
    start: Moment = None
    period_us: Whole | None = None
    period_s: float = 0.0
    values: Samples | None = None
    signals: dict[str, Samples | _Series] | None = None


_OBJECTS = msgspec.json.Decoder(_Object | list[_Object])
_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)

_EITHER = 'expected either "values" or an object of "signals"'
_DENSEST = 8
"""A sound payload of numbers takes at most ten times its bytes as Python's objects; more of nothing but brackets."""
_SMALL = 65_536
"""Bytes of a payload that may take any form: Python's objects of it stay below two megabytes."""


class Read:
    """A batch of payloads while it is read: the blocks, and the words of the class."""

    def __init__(self, source: str, payloads: Sequence[bytes], equipment: EquipmentClass | None) -> None:
        self.gathered = Gathered(source, payloads)
        self.codes: dict[str, dict[str, float]] = (
            {} if equipment is None else {name: signal.codes for name, signal in equipment.signals.items()}
        )
        self.zone = None if equipment is None else equipment.time_zone

    def finish(self, *others: Columns) -> Decoded:
        """Return what was read, together with columns that were read in another way."""
        return finish([*others, self.gathered.columns(self.zone)], self.gathered.rejections)


def decode_json(payloads: Sequence[bytes], *, source: str, equipment: EquipmentClass | None = None) -> Decoded:
    """Decode messages of JSON blocks; never fails.

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
    >>> payload = b'{"asset":"b1","start":0,"period_s":1,"signals":{"flow":[1.5,1.6],"supply":["hot",60]}}'
    >>> decoded = decode_json([payload], source="example")
    >>> [b["values"] for b in decoded.blocks.to_pylist()], decoded.rejected[0].reason.value
    ([[1.5, 1.6], [nan, 60.0]], 'bad_value')
    """
    read = Read(source, payloads, equipment)
    decode, gathered = _OBJECTS.decode, read.gathered
    for number, payload in enumerate(payloads):
        try:
            found = decode(payload)
        except _ERRORS:
            _read_any(read, number, payload)
            continue
        for one in found if type(found) is list else (found,):
            if not _take(gathered, number, one):
                gathered.rejections.add(number, Reason.MALFORMED, 1, _EITHER, one.asset)
    return read.finish()


def _take(gathered: Gathered, number: int, one: _Object) -> bool:
    """Take the blocks of an object; False where it is not exactly one of the two forms."""
    step: float = one.period_s * 1e6 if one.period_us is None else one.period_us
    if one.signals is None:
        if one.values is None:
            return False
        gathered.add(number, one.asset, one.signal, one.start, step, one.values)
        return True
    if one.values is not None:
        return False
    asset, start, add = one.asset, one.start, gathered.add
    for signal, given in one.signals.items():
        if isinstance(given, list):
            add(number, asset, signal, start, step, given)
            continue
        own: float | None = given.period_us
        if own is None:
            own = step if given.period_s is None else given.period_s * 1e6
        add(number, asset, signal, start if given.start is None else given.start, own, given.values)
    return True


def _read_any(read: Read, number: int, payload: bytes) -> None:
    """Read a payload that may hold anything."""
    reject = read.gathered.rejections.add
    structure = 80 * (payload.count(b"[") + payload.count(b"{")) + 8 * payload.count(b",") + 30 * payload.count(b'"')
    if len(payload) > _SMALL and structure > _DENSEST * len(payload):
        reject(number, Reason.MALFORMED, 1, "expected numbers, got little but brackets and quotes")
        return
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        reject(number, Reason.MALFORMED, 1, f"expected a JSON object or an array of them: {error}"[:200])
        return
    read_objects(read, number, found)


def read_objects(read: Read, number: int, found: Any) -> None:
    """Take what can be read of an object or an array of objects, decoded to Python's own types; reject the rest."""
    reject = read.gathered.rejections.add
    objects = found if isinstance(found, list | tuple) else [found]
    if not objects:
        reject(number, Reason.MALFORMED, 1, "expected an object, got an empty array")
    for one in objects:
        if not isinstance(one, Mapping):
            reject(number, Reason.MALFORMED, 1, 'expected an object with an "asset"')
            continue
        # What has no name is rejected with all of its readings, when they are counted.
        asset = as_text(one.get("asset")) or ""
        signals = one.get("signals")
        if "signals" in one and "values" not in one and isinstance(signals, Mapping) and signals:
            for signal, given in signals.items():
                series = given if isinstance(given, Mapping) else {"values": given}
                _read_series(read, number, asset, signal, series, one)
        elif "values" in one and "signals" not in one:
            _read_series(read, number, asset, one.get("signal"), one, one)
        else:
            reject(number, Reason.MALFORMED, 1, _EITHER, asset)


def _read_series(read: Read, number: int, asset: str, name: Any, series: Mapping[Any, Any], one: Any) -> None:
    """Take one block, with the start and the step of its object where it has none of its own."""
    gathered, reject = read.gathered, read.gathered.rejections.add
    signal = as_text(name) or ""
    given = series.get("values")
    values: Any = given
    if not isinstance(given, np.ndarray):
        words = read.codes.get(signal, {})
        values = [number_of(cell, words) for cell in (given if isinstance(given, list | tuple) else [given])]
        wrong = values.count(None)
        if wrong:
            reject(number, Reason.BAD_VALUE, wrong, f"expected numbers, got {_excerpt(given)}", asset, signal)
            values = [math.nan if value is None else value for value in values]
    start, step = series.get("start"), _step(series)
    if step is None:
        step = _step(one) or 0.0
    gathered.add(
        number,
        asset,
        signal,
        _moment(one.get("start") if start is None else start),
        step,
        values,
    )


def number_of(cell: Any, words: Mapping[str, float]) -> float | None:
    """Return a number, NaN for a missing one, None for what is none."""
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        return words.get(cell)
    if isinstance(cell, int | float):
        try:
            return float(cell)
        except OverflowError:
            return math.inf if cell > 0 else -math.inf
    return None


def _step(given: Mapping[Any, Any]) -> float | None:
    """Return the step in microseconds that an object gives, 0 for one that is none, None for nothing."""
    for key, unit in (("period_us", 1.0), ("period_s", 1e6)):
        step = given.get(key)
        if step is not None:
            sane = isinstance(step, int | float) and not isinstance(step, bool) and abs(step) < 1e15
            return step * unit if sane else 0
    return None


def _moment(cell: Any) -> Moment:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return as_text(cell)
    return float(cell) if abs(cell) < 1e15 else None


def _excerpt(given: Any) -> str:
    """Return the beginning of what came, without writing all of it out."""
    return repr(given[:8] if isinstance(given, list | tuple | str | bytes) else type(given).__name__)[:80]
