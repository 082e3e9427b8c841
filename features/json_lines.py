"""Telemetry as JSON lines, the form that any gateway can write.

A line is one of

``{"asset": "b1", "signal": "flow", "time": "2026-01-05T00:00:00Z", "value": 1.5}``
    one sample; its time is text as in `features.times`, or a number of seconds since 1970;
``{"asset": "b1", "signal": "flow", "start": "2026-01-05T00:00:00Z", "period_s": 1, "values": [1.5, null, 1.6]}``
    a block, with the step in seconds (`period_s`) or microseconds (`period_us`); null is missing;
``{"asset": "b1", "time": "2026-01-05T00:00:00Z", "flow": 1.5, "water_pressure": 1.2}``
    a row: every other key is a signal.

Keys of a sample or block that are not named here are not read. Lines that are rejected for the same reason, with
the same names, come as one `Rejected` with all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Any, TypeGuard

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta, Raw, Struct
from numpy.typing import NDArray

from features.arrow_blocks import LONGEST_PERIOD_US
from features.lines import SLICE, RejectedLines, slices
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason, empty_blocks, new_blocks
from features.times import LATEST_US, read_times

__all__ = ["decode_jsonlines"]

Moment = str | float | None
Samples = list[int | float | None]
Whole = Annotated[int, Meta(ge=-(2**62), le=2**62)]


class _Line(Struct, gc=False):
    """A line in which every value is a number; its names and times may still be wrong."""

    asset: str
    signal: str
    time: Moment = None
    start: Moment = None
    value: float | None = None
    values: Samples | None = None
    period_us: Whole | None = None
    period_s: float | None = None


class _Long(Struct, gc=False):
    """A block of which the samples have not been read yet."""

    asset: str
    signal: str
    values: Raw
    time: Moment = None
    start: Moment = None
    period_us: Whole | None = None
    period_s: float | None = None


_LINES = msgspec.json.Decoder(_Line)
_LONG = msgspec.json.Decoder(_Long)
_SAMPLES = msgspec.json.Decoder(Samples)
_MARKS = {"asset", "signal", "time", "start", "value", "values", "period_us", "period_s"}
_NAMED = {"signal", "value", "values"}
_PLAIN = {int, float, type(None)}
_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)
_LARGEST = 1_048_576
"""Bytes of sound lines that are read at a time, or an eighth of the payload: small slices cost a third of the time."""
_RECORDS = 4096
"""Records that are gathered at a time where lines are read one by one: a line can hold as many as it likes."""
_DENSEST = 8
"""A line of numbers takes at most ten times its bytes as Python's objects; a long one of nothing but brackets more."""


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
    read = _Read(RejectedLines(source, len(payload)), None if equipment is None else equipment.time_zone)
    codes = {} if equipment is None else {name: signal.codes for name, signal in equipment.signals.items()}
    for lines in slices(payload, min(_LARGEST, max(SLICE, len(payload) // 8))):
        if not _read_sound(read, lines):
            for some in slices(lines):
                _read_each(read, some, codes)
    return read.finish()


@dataclass(slots=True)
class _Kept:
    """Columns of the blocks that have been read, a part a slice."""

    asset: list[pa.Array] = field(default_factory=list)
    signal: list[pa.Array] = field(default_factory=list)
    time: list[pa.Array] = field(default_factory=list)
    start_us: list[NDArray[np.int64]] = field(default_factory=list)
    period_us: list[NDArray[np.int64]] = field(default_factory=list)
    length: list[NDArray[np.int32]] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass(slots=True)
class _Read:
    """What has been read of a payload."""

    rejected: RejectedLines
    zone: str | None
    kept: _Kept = field(default_factory=_Kept)
    repeated: bool = False

    def finish(self) -> Decoded:
        """Put the slices together; where a time of theirs exists twice, its order in the whole payload decides."""
        kept = self.kept
        if not kept.start_us:
            return Decoded(empty_blocks(), self.rejected.finish())
        asset, signal, start_us = _joined_names(kept.asset), _joined_names(kept.signal), _joined(kept.start_us)
        if self.repeated:
            group = asset.indices.to_numpy() * np.int32(len(signal.dictionary)) + signal.indices.to_numpy()
            start_us = read_times(_joined_names(kept.time), self.zone, group).us
        offsets = np.zeros(len(start_us) + 1, np.int32)
        np.cumsum(_joined(kept.length), out=offsets[1:])
        batch = new_blocks(
            asset.dictionary, signal.dictionary, asset.indices.to_numpy(), signal.indices.to_numpy(), start_us,
            _joined(kept.period_us), offsets, _joined(kept.values),
        )  # fmt: skip
        return Decoded(batch, self.rejected.finish())


def _read_sound(read: _Read, lines: bytes) -> bool:
    """Read lines of which each is a record as it should be; return False, and nothing read, where one is not."""
    if len(lines) > _LARGEST or (len(lines) > SLICE and lines.find(b"\n", 0, -1) < 0):
        return False
    try:
        records = _LINES.decode_lines(lines)
    except _ERRORS:
        return False
    count = lines.count(b"\n") + (not lines.endswith(b"\n"))
    if len(records) != count and len(records) != sum(1 for line in lines.split(b"\n") if line.strip()):
        return False
    _take(read, records, lines, None)
    return True


def _read_each(read: _Read, lines: bytes, codes: dict[str, dict[str, float]]) -> None:
    """Read lines of which some are not as they should be."""
    records: list[_Line] = []
    whole: list[bytes] = []
    for line in lines.split(b"\n"):
        if not line.strip() or (len(line) > SLICE and _read_long(read, line, codes)):
            continue
        for record in _read_line(read, line, codes):
            records.append(record)
            whole.append(line)
            if len(records) == _RECORDS:
                _take(read, records, b"", whole)
                records, whole = [], []
    _take(read, records, b"", whole)


def _read_long(read: _Read, line: bytes, codes: dict[str, dict[str, float]]) -> bool:
    """Read a long line if it is a block, its samples a piece at a time; return False, and nothing read, if not."""
    try:
        block = _LONG.decode(line)
    except _ERRORS:
        return False
    text = bytes(block.values)
    if text.count(b"[") != 1 or text[:1] != b"[" or len(text) < SLICE:
        return False
    words = codes.get(block.signal, {})
    samples = np.empty(text.count(b",") + 1)
    read_so_far, wrong, got = 0, 0, ""
    for piece in slices(text, SLICE, b","):
        array = b"[%b]" % piece.removeprefix(b"[").removesuffix(b"]").removesuffix(b",")
        try:
            given: list[Any] = _SAMPLES.decode(array)
        except _ERRORS:
            try:
                given = json.loads(array)
            except (ValueError, RecursionError):
                # A comma of something else than the array has been taken for one of it.
                return False
        values = [_number(cell, words) for cell in given] if set(map(type, given)) - _PLAIN else given
        missed = values.count(None) if values is not given else 0
        if missed and not wrong:
            got = f"got {_excerpt([cell for cell, value in zip(given, values, strict=True) if value is None])}"
        wrong += missed
        samples[read_so_far : read_so_far + len(values)] = _floats(values)
        read_so_far += len(values)
    del text
    if wrong:
        names = block.asset or None, block.signal or None
        read.rejected.add(line, Reason.BAD_VALUE, wrong, "expected a number", got, *names)
    record = _Line(
        block.asset, block.signal, block.time, block.start, period_us=block.period_us, period_s=block.period_s
    )
    _take(read, [record], b"", [line], samples[:read_so_far])
    return True


def _read_line(read: _Read, line: bytes, codes: dict[str, dict[str, float]]) -> Iterable[_Line]:
    try:
        return (_LINES.decode(line),)
    except _ERRORS:
        return _read_any(read, line, codes)


def _read_any(read: _Read, raw: bytes, codes: dict[str, dict[str, float]]) -> Iterator[_Line]:
    """Read a line that may hold anything: reject what is wrong in it, yield the rest."""
    reject = read.rejected.add
    if len(raw) > SLICE and _structure(raw) > _DENSEST * len(raw):
        reject(raw, Reason.MALFORMED, 1, "expected numbers, got little but brackets and quotes")
        return
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reject(raw, Reason.MALFORMED, 1, f"expected a JSON object: {error}"[:200])
        return
    if not isinstance(line, dict) or not _is_text(line.get("asset")):
        reject(raw, Reason.MALFORMED, 1, 'expected a JSON object with an "asset"')
        return
    cells: dict[str, Any] = line
    if not all(map(_is_text, cells)):
        reject(raw, Reason.MALFORMED, 1, "expected keys of whole characters")
        return
    if not _NAMED.isdisjoint(line):
        if not _is_text(line.get("signal")):
            reject(raw, Reason.MALFORMED, 1, 'expected a "signal" beside the value')
            return
        cells = {line["signal"]: line["values"] if line.get("values") is not None else line.get("value")}
    asset, time, start = line["asset"], _moment(line.get("time")), _moment(line.get("start"))
    period_us, period_s = _finite(line.get("period_us")), _finite(line.get("period_s"))
    step = None if period_us is None else round(period_us)
    for signal, given in cells.items():
        if cells is line and signal in _MARKS:
            continue
        words = codes.get(signal, {})
        values: list[Any] = [_number(cell, words) for cell in (given if isinstance(given, list) else [given])]
        wrong = values.count(None)
        if wrong:
            values = [math.nan if value is None else value for value in values]
            got = f"got {_excerpt(given)}"
            reject(raw, Reason.BAD_VALUE, wrong, "expected a number", got, asset or None, signal or None)
        yield _Line(asset, signal, time, start, values=values, period_us=step, period_s=period_s)


def _structure(raw: bytes) -> int:
    """Return how many bytes Python's objects take for the marks of a line, its numbers not counted."""
    opened = raw.count(b"[") + raw.count(b"{")
    return 80 * opened + 24 * raw.count(b",") + 60 * raw.count(b":") + 30 * raw.count(b'"')


def _take(
    read: _Read,
    records: list[_Line],
    lines: bytes,
    whole: list[bytes] | None,
    values: NDArray[np.float64] | None = None,
) -> None:
    """Keep the blocks of records; reject those without names, time or step.

    The line of a record is its neighbour in `whole`; without that, the lines are those of `lines`. Where `values` are
    given, they are those of the one record.
    """
    if not records:
        return
    if values is None:
        samples = [(r.value,) if r.values is None else r.values for r in records]
        length = np.fromiter(map(len, samples), np.int32, len(samples))
        values = _floats(list(chain.from_iterable(samples)))
    else:
        length = np.array([len(values)], np.int32)
    period = np.array([r.period_us or 0 for r in records], np.int64)
    for place, record in enumerate(records):
        if record.period_us is None and record.period_s is not None and abs(record.period_s) < 1e12:
            period[place] = round(record.period_s * 1e6)
    period[length <= 1] = 0
    asset, signal = (
        pa.array([getattr(r, name) for r in records], pa.utf8()).dictionary_encode() for name in ("asset", "signal")
    )
    text = _text_of([r.time if r.start is None else r.start for r in records])
    group = asset.indices.to_numpy() * np.int32(len(signal.dictionary)) + signal.indices.to_numpy()
    times = read_times(text, read.zone, group)
    nameless = ~(_is_named(asset) & _is_named(signal))
    reach = (LATEST_US - times.us) // np.maximum(period, 1)
    stepless = (length > 1) & ((period < 1) | (period > LONGEST_PERIOD_US))
    untimed = times.bad | (~times.naive & ((times.us < 0) | (length > reach)))
    bad = nameless | times.naive | stepless | untimed
    total = np.zeros(len(values) + 1, np.int32)
    np.cumsum(values == values, dtype=np.int32, out=total[1:])
    ends = np.cumsum(length)
    present = total[ends] - total[ends - length]
    refused = np.flatnonzero(bad & (present > 0)).tolist()
    if refused and whole is None:
        whole = [line for line in lines.split(b"\n") if line.strip()]
    for place in refused:
        record = records[place]
        reason, why = Reason.BAD_TIME, "expected a time from 1970 to 2200 such as 2026-01-05T00:00:00Z"
        if nameless[place]:
            reason, why = Reason.MALFORMED, "expected the names of an asset and of a signal"
        elif times.naive[place]:
            reason, why = Reason.NAIVE_TIME, "the time has no zone"
        elif stepless[place]:
            why = "a block of several samples needs a period_s or period_us above 0"
        assert whole is not None
        names = record.asset or None, record.signal or None
        read.rejected.add(whole[place], reason, int(present[place]), why, "", *names)
    keep = ~bad & (present > 0)
    if not keep.any():
        return
    us, some = times.us, pa.array(keep)
    if not keep.all():
        values = values[np.repeat(keep, length)]
        length, period, us = length[keep], period[keep], us[keep]
        asset, signal, text = asset.filter(some), signal.filter(some), text.filter(some)
    kept = read.kept
    kept.asset.append(asset)
    kept.signal.append(signal)
    kept.start_us.append(us)
    kept.period_us.append(period)
    kept.length.append(length)
    kept.values.append(values)
    if read.zone is not None:
        kept.time.append(text.dictionary_encode())
        read.repeated = read.repeated or bool((times.repeated & keep).any())


def _joined(parts: list[Any]) -> Any:
    """Return the parts as one, and forget them."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    parts.clear()
    return whole


def _joined_names(parts: list[pa.Array]) -> pa.DictionaryArray:
    whole = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
    parts.clear()
    return whole


def _floats(samples: Sequence[int | float | None]) -> NDArray[np.float64]:
    """Return samples as numbers, NaN where one is missing; a whole number beyond all of them is infinite."""
    try:
        return np.array(samples, np.float64)
    except OverflowError:
        return np.array([_number(sample, {}) for sample in samples], np.float64)


def _is_named(names: pa.DictionaryArray) -> NDArray[np.bool_]:
    """Tell which of the names are more than nothing."""
    different: NDArray[np.bool_] = pc.not_equal(names.dictionary, "").to_numpy(zero_copy_only=False)
    named: NDArray[np.bool_] = different[names.indices.to_numpy()]
    return named


def _text_of(moments: list[Moment]) -> pa.StringArray:
    """Return times as text; a number is written out, so that it is read like text that is one."""
    if not all(isinstance(moment, str) for moment in moments):
        moments = [f"{m:.6f}" if isinstance(m, float) and m >= 0 else m if isinstance(m, str) else "" for m in moments]
    return pa.array(moments, pa.utf8())


def _excerpt(given: Any) -> str:
    """Return the beginning of what came, without writing all of it out."""
    return repr(str(given[:8] if isinstance(given, list) else given)[:80]) if not isinstance(given, dict) else "'{...}'"


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
            return math.inf if cell > 0 else -math.inf
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
