"""Telemetry as JSON lines, the form that any gateway can write.

A line is one of

``{"asset": "b1", "signal": "flow", "time": "2026-01-05T00:00:00Z", "value": 1.5}``
    one sample; its time is text as in `features.times`, or a number of seconds since 1970;
``{"asset": "b1", "signal": "flow", "start": "2026-01-05T00:00:00Z", "period_s": 1, "values": [1.5, null, 1.6]}``
    a block, with the step in seconds (`period_s`) or microseconds (`period_us`); null is missing;
``{"asset": "b1", "time": "2026-01-05T00:00:00Z", "flow": 1.5, "water_pressure": 1.2}``
    a row: every other key is a signal.

Keys of a sample or block that are not named here are not read.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any, TypeGuard

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Meta, Struct
from numpy.typing import NDArray

from features.arrow_blocks import LONGEST_PERIOD_US
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason, Rejected, empty_blocks, new_blocks
from features.times import LATEST_US, read_times

__all__ = ["decode_jsonlines"]

Moment = str | float | None
Whole = Annotated[int, Meta(ge=-(2**62), le=2**62)]


class _Line(Struct, gc=False):
    """A line in which every value is a number; its names and times may still be wrong."""

    asset: str
    signal: str
    time: Moment = None
    start: Moment = None
    value: float | None = None
    values: list[float | None] | None = None
    period_us: Whole | None = None
    period_s: float | None = None


_LINES = msgspec.json.Decoder(_Line)
_MARKS = {"asset", "signal", "time", "start", "value", "values", "period_us", "period_s"}
_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)


def decode_jsonlines(payload: bytes, *, source: str, equipment: EquipmentClass | None = None) -> Decoded:
    r"""Decode lines of JSON; never fails.

    Parameters
    ----------
    payload
        Whole lines.
    source
        Name of the input.
    equipment
        Gives the numbers of words and the zone of naive times, where the lines are of one class.

    Examples
    --------
    >>> payload = b'{"asset":"b1","signal":"flow","time":0,"value":1.5}\n{"asset":"b1","time":1,"flow":"leak"}\n'
    >>> decoded = decode_jsonlines(payload, source="example")
    >>> decoded.blocks.num_rows, decoded.rejected[0].reason.value
    (1, 'bad_value')
    """
    read = _Read(source, [line for line in payload.split(b"\n") if line.strip()])
    try:
        read.records = _LINES.decode_lines(payload)
        read.numbers = range(len(read.lines))
        clean = len(read.records) == len(read.lines)
    except _ERRORS:
        clean = False
    if not clean:
        _read_each(read, {} if equipment is None else {name: s.codes for name, s in equipment.signals.items()})
    return _blocks(read, None if equipment is None else equipment.time_zone)


@dataclass(slots=True)
class _Read:
    """What has been read of a payload: records, and the number of the line of each."""

    source: str
    lines: list[bytes]
    records: list[_Line] = field(default_factory=list)
    numbers: Any = ()
    rejected: list[Rejected] = field(default_factory=list)

    def reject(self, line: int, reason: Reason, readings: int, detail: str, record: _Line | None = None) -> None:
        names = (None, None) if record is None else (record.asset or None, record.signal or None)
        self.rejected.append(Rejected(reason, readings, self.source, self.lines[line], *names, detail=detail))


def _read_each(read: _Read, codes: dict[str, dict[str, float]]) -> None:
    """Read a payload in which some line is not as it should be."""
    read.records, read.numbers = [], []
    for number, line in enumerate(read.lines):
        try:
            records = [_LINES.decode(line)]
        except _ERRORS:
            records = _read_any(read, number, codes)
        read.records += records
        read.numbers += [number] * len(records)


def _read_any(read: _Read, number: int, codes: dict[str, dict[str, float]]) -> list[_Line]:
    """Read a line that may hold anything: reject what is wrong in it, return the rest."""
    try:
        line = json.loads(read.lines[number])
    except (ValueError, RecursionError) as error:
        read.reject(number, Reason.MALFORMED, 1, f"expected a JSON object: {error}")
        return []
    if not isinstance(line, dict) or not _is_text(line.get("asset")):
        read.reject(number, Reason.MALFORMED, 1, 'expected a JSON object with an "asset"')
        return []
    cells: dict[str, Any] = {key: cell for key, cell in line.items() if key not in _MARKS}
    if not all(map(_is_text, cells)):
        read.reject(number, Reason.MALFORMED, 1, "expected keys of whole characters")
        return []
    if {"signal", "value", "values"} & set(line):
        if not _is_text(line.get("signal")):
            read.reject(number, Reason.MALFORMED, 1, 'expected a "signal" beside the value')
            return []
        cells = {line["signal"]: line["values"] if line.get("values") is not None else line.get("value")}
    period_us = _finite(line.get("period_us"))
    found = []
    for signal, given in cells.items():
        words = codes.get(signal, {})
        values = [_number(cell, words) for cell in (given if isinstance(given, list) else [given])]
        record = _Line(
            asset=line["asset"],
            signal=signal,
            time=_moment(line.get("time")),
            start=_moment(line.get("start")),
            values=[math.nan if value is None else value for value in values],
            period_us=None if period_us is None else round(period_us),
            period_s=_finite(line.get("period_s")),
        )
        found.append(record)
        wrong = values.count(None)
        if wrong:
            read.reject(number, Reason.BAD_VALUE, wrong, f"expected a number, got {str(given)[:80]!r}", record)
    return found


def _blocks(read: _Read, zone: str | None) -> Decoded:
    """Put the records together to blocks; reject those without names, time or step."""
    records = read.records
    if not records:
        return Decoded(empty_blocks(), read.rejected)
    samples = [(r.value,) if r.values is None else r.values for r in records]
    length = np.fromiter(map(len, samples), np.int64, len(samples))
    values = np.array(list(chain.from_iterable(samples)), np.float64)
    period = np.array([r.period_us or 0 for r in records], np.int64)
    for place, record in enumerate(records):
        if record.period_us is None and record.period_s is not None and abs(record.period_s) < 1e12:
            period[place] = round(record.period_s * 1e6)
    period[length <= 1] = 0
    asset, signal = (_encoded([getattr(r, name) for r in records]) for name in ("asset", "signal"))
    # A repeated hour of a naive clock is told by the order of the samples of one signal.
    group = asset[1] * np.int32(len(signal[0])) + signal[1]
    times = read_times(_text_of([r.time if r.start is None else r.start for r in records]), zone, group)
    nameless = ~(asset[2] & signal[2])
    reach = (LATEST_US - times.us) // np.maximum(period, 1)
    stepless = (length > 1) & ((period < 1) | (period > LONGEST_PERIOD_US))
    untimed = times.bad | (~times.naive & ((times.us < 0) | (length > reach)))
    bad = nameless | times.naive | stepless | untimed
    total = np.concatenate(([0], np.cumsum(values == values)))
    ends = np.cumsum(length)
    present = total[ends] - total[ends - length]
    for place in np.flatnonzero(bad & (present > 0)).tolist():
        record = records[place]
        reason, detail = Reason.BAD_TIME, "expected a time from 1970 to 2200 such as 2026-01-05T00:00:00Z"
        if nameless[place]:
            reason, detail = Reason.MALFORMED, "expected the names of an asset and of a signal"
        elif times.naive[place]:
            reason, detail = Reason.NAIVE_TIME, "the time has no zone"
        elif stepless[place]:
            detail = "a block of several samples needs a period_s or period_us above 0"
        read.reject(read.numbers[place], reason, int(present[place]), detail, record)
    kept = ~bad & (present > 0)
    if not kept.all():
        values = values[np.repeat(kept, length)]
        length = length[kept]
    offsets = np.concatenate(([0], np.cumsum(length))).astype(np.int32)
    batch = new_blocks(
        asset[0], signal[0], asset[1][kept], signal[1][kept], times.us[kept], period[kept], offsets, values
    )
    return Decoded(batch, read.rejected)


def _encoded(names: list[str]) -> tuple[list[str], NDArray[np.int32], NDArray[np.bool_]]:
    """Return the different names, the index of each, and whether it is one."""
    column = pa.array(names, pa.utf8()).dictionary_encode()
    different = column.dictionary.to_pylist()
    where = column.indices.to_numpy()
    return different, where, np.array([name != "" for name in different], np.bool_)[where]


def _text_of(moments: list[Moment]) -> pa.StringArray:
    """Return times as text; a number is written out, so that it is read like text that is one."""
    if not all(isinstance(moment, str) for moment in moments):
        moments = [f"{m:.6f}" if isinstance(m, float) and m >= 0 else m if isinstance(m, str) else "" for m in moments]
    return pa.array(moments, pa.utf8())


def _number(cell: Any, words: dict[str, float]) -> float | None:
    """Return a number, NaN for a missing one, None for what is none."""
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        return words.get(cell)
    if isinstance(cell, int | float):
        try:
            return float(cell)
        except OverflowError:
            return math.copysign(math.inf, cell)
    return None


def _is_text(cell: Any) -> TypeGuard[str]:
    """Tell whether it is text that UTF-8 can hold; JSON can escape half a character."""
    return isinstance(cell, str) and not any("\ud800" <= c <= "\udfff" for c in cell)


def _moment(cell: Any) -> Moment:
    return cell if _is_text(cell) else _finite(cell)


def _finite(cell: Any) -> float | None:
    """Return a number that arithmetic can bear, or None."""
    if isinstance(cell, bool) or not isinstance(cell, int | float) or not abs(cell) < 1e18:
        return None
    return float(cell)
