"""SenML (RFC 8428) as JSON and as CBOR: packs of records, each a reading.

Base fields (`bn`, `bt`, `bu`, `bv`, `bs`, `bver`) hold from their record to the end of the pack; a record that has
nothing else sets them and measures nothing. A reading is what is left when they are resolved:

* **Name**: base name and name, of the characters that the RFC allows. What stands behind the last ``/`` or ``:`` is the
  signal, all before it the asset: ``urn:dev:ow:10e2073a01080063:flow`` is the signal `flow` of the asset
  ``urn:dev:ow:10e2073a01080063``.
* **Time**: base time and time. From 2**28 seconds on it counts from 1970; below, and without one, from the arrival of
  the message, so that such records are refused where nobody knows when it came.
* **Value**: `v` (and base value), `vb` as 0 or 1, `vs` as the number that the class has for the word. Other words and
  data (`vd`) are refused. A sum (`s` and base sum) is a reading of the signal ``NAME_sum``, in the unit times seconds.
* **Unit**: where the class is known it must be the one of the signal; units are not converted, and those of RFC 8798
  are not known.

A pack of a higher version than 10, or with a field whose name ends with ``_``, is refused as a whole, as the RFC asks.
`ut` and fields that nobody knows are not read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.arrow_blocks import LONGEST_PERIOD_US
from features.cbor_items import CborError, items
from features.gathering import Rejections, as_text, numbers_of
from features.readings import blocks_of_readings
from features.senml_scan import scan_packs
from features.signals import EquipmentClass
from features.telemetry import Decoded, Reason, empty_blocks
from features.times import LATEST_US

__all__ = ["LABELS", "decode_senml", "decode_senml_cbor"]

LABELS = {
    "bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6,
    "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5, "t": 6, "ut": 7, "vd": 8,
}  # fmt: skip
"""Labels of the fields in CBOR, RFC 8428 table 4."""

VERSION = 10
"""Of RFC 8428, and the default."""
ABSOLUTE_S = float(2**28)
"""From here on a time counts from 1970, RFC 8428 section 4.5.3."""

_NAMES = {label: name for name, label in LABELS.items()}
_UNITS = {"/": "1", "count": "1", "%RH": "%"}
"""Units of RFC 8428 that UCUM writes in another way."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*\Z")
_VALUES = ("v", "vs", "vb", "vd")
_SMALL = 65_536
"""Bytes of a pack that is taken apart at once; a larger one is read record by record, so that it costs no memory."""


def decode_senml(
    payloads: Sequence[bytes],
    *,
    source: str,
    equipment: EquipmentClass | None = None,
    times_us: Sequence[int] | None = None,
) -> Decoded:
    """Decode packs of SenML JSON; never fails.

    Parameters
    ----------
    payloads
        The packs.
    source
        Name of the input.
    equipment
        Gives the numbers of words, and the units, where the packs are of one class.
    times_us
        When each pack came, in microseconds since 1970.

    Examples
    --------
    >>> pack = b'[{"bn":"b1:","n":"flow","v":1.5,"bt":1.767e9},{"n":"flow","v":1.6,"t":1},{"n":"valve","vb":true}]'
    >>> decoded = decode_senml([pack], source="example")
    >>> [(b["signal"], b["values"]) for b in decoded.blocks.to_pylist()]
    [('flow', [1.5, 1.6]), ('valve', [1.0])]
    """
    read = _Read(source, payloads, equipment)
    # The units of a class are looked at record by record.
    for number in read.scan() if equipment is None else range(len(payloads)):
        _read_json(read, number, payloads[number])
    return read.finish(times_us)


def decode_senml_cbor(
    payloads: Sequence[bytes],
    *,
    source: str,
    equipment: EquipmentClass | None = None,
    times_us: Sequence[int] | None = None,
) -> Decoded:
    """Decode packs of SenML CBOR; never fails.

    Parameters and result are those of `decode_senml`.

    Examples
    --------
    >>> pack = bytes.fromhex("81a3 20 0a 00 6762313a666c6f77 02 f93e00")
    >>> decode_senml_cbor([pack], source="example", times_us=[0]).blocks.to_pylist()[0]["values"]
    [1.5]
    """
    read = _Read(source, payloads, equipment)
    for number, payload in enumerate(payloads):
        try:
            records = (
                {_NAMES.get(k, k): v for k, v in r.items()} if isinstance(r, Mapping) else r for r in items(payload)
            )
            resolve(read, number, records)
        except CborError as error:
            read.refuse(number, str(error))
    return read.finish(times_us)


class _Read:
    """Resolved readings of many packs while they are read."""

    def __init__(self, source: str, payloads: Sequence[bytes], equipment: EquipmentClass | None) -> None:
        self.rejections = Rejections(source, payloads)
        self.equipment = equipment
        self.names: dict[str, int] = {}
        self._chunks: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]] = []

    def refuse(self, payload: int, detail: str, records: int = 1) -> None:
        """Reject a pack as a whole."""
        self.rejections.add(payload, Reason.MALFORMED, max(1, records), detail)

    def add(self, payload: int, names: list[int], times_s: list[float], values: list[float]) -> None:
        """Take readings of one pack."""
        payloads = np.full(len(names), payload, np.int64)
        self._chunks.append((payloads, np.array(names, np.int32), numbers_of(times_s), numbers_of(values)))

    def scan(self) -> list[int]:
        """Take the packs that the scanner knows; return the numbers of the others."""
        found, others = scan_packs(self.rejections.payloads)
        if len(found.pack):
            numbers = np.array([self.names.setdefault(name, len(self.names)) for name in found.names], np.int32)
            self._chunks.append((found.pack, numbers[found.name], found.time_s, found.value))
        return others

    def is_unit(self, name: str, unit: str) -> bool:
        """Tell whether a unit is the one that the class has for a signal; any is that of an unknown signal."""
        if self.equipment is None:
            return True
        signal = self.equipment.signals.get(_split(name)[1])
        return signal is None or _UNITS.get(unit, unit) == signal.unit or unit == signal.unit

    def code(self, name: str, word: str) -> float | None:
        """Return the number that the class has for a word."""
        signal = None if self.equipment is None else self.equipment.signals.get(_split(name)[1])
        return None if signal is None else signal.codes.get(word)

    def finish(self, times_us: Sequence[int] | None) -> Decoded:
        """Put the readings together to blocks; reject those without names or time."""
        if not self._chunks:
            return Decoded(empty_blocks(), self.rejections.all([]))
        names = [_split(name) if _NAME.match(name) else ("", "") for name in self.names]
        payload, name, seconds, values = self._columns()
        time_us, untimed = _event_times(seconds, payload, times_us)
        bad = untimed | np.isnan(values)
        unnamed = np.array([not asset or not signal for asset, signal in names], np.bool_)
        if unnamed.any():
            bad |= unnamed[name]
        if bad.any():
            present = ~np.isnan(values)
            nameless = unnamed[name] & present
            self._reject(payload, nameless, Reason.MALFORMED,
                         'expected a name of an asset and a signal, parted by "/" or ":"')  # fmt: skip
            self._reject(payload, untimed & ~nameless & present, Reason.BAD_TIME,
                         "expected a time from 1970 to 2200, or one relative to an arrival that is known")  # fmt: skip
            payload, name, time_us, values = (payload[~bad], name[~bad], time_us[~bad], values[~bad])
        heard = payload[np.flatnonzero(np.diff(payload, prepend=-1))]
        blocks = blocks_of_readings(names, name, payload, time_us, values, LONGEST_PERIOD_US)
        return Decoded(blocks, self.rejections.all(heard))

    def _columns(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        """Return what was read in the order of the payloads."""
        if len(self._chunks) == 1:
            return self._chunks[0]
        payload, name, seconds, values = (np.concatenate(column) for column in zip(*self._chunks, strict=True))
        order = np.argsort(payload, kind="stable")
        return payload[order], name[order], seconds[order], values[order]

    def _reject(self, payload: NDArray[np.int64], where: NDArray[np.bool_], reason: Reason, detail: str) -> None:
        if where.any():
            for number, count in zip(*np.unique(payload[where], return_counts=True), strict=True):
                self.rejections.add(int(number), reason, int(count), detail)


def _event_times(
    seconds: NDArray[np.float64], payload: NDArray[np.int64], times_us: Sequence[int] | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return microseconds since 1970, and which readings have no time."""
    sane = np.abs(seconds) < LATEST_US / 1e6
    us = np.rint(np.where(sane, seconds, 0.0) * 1e6).astype(np.int64)
    relative = seconds < ABSOLUTE_S
    if relative.any():
        if times_us is None:
            sane &= ~relative
        else:
            us = np.where(relative, us + np.asarray(times_us, np.int64)[payload], us)
    untimed = ~sane | (us < 0) | (us >= LATEST_US)
    us[untimed] = 0
    return us, untimed


def _split(name: str) -> tuple[str, str]:
    """Return asset and signal of a full name."""
    place = max(name.rfind("/"), name.rfind(":"))
    return (name[:place], name[place + 1 :]) if place > 0 else ("", name)


def _read_json(read: _Read, number: int, payload: bytes) -> None:
    """Read a pack that may hold anything."""
    try:
        resolve(read, number, _json_records(payload))
    except (ValueError, RecursionError) as error:
        read.refuse(number, f"expected a SenML pack: {error}"[:200])


def _json_records(payload: bytes) -> Iterator[Any]:
    """Yield the elements of a JSON array one by one."""
    if len(payload) <= _SMALL:
        found = json.loads(payload)
        if not isinstance(found, list):
            raise ValueError("expected an array of records")
        yield from found
        return
    text, decode, gap = payload.decode(), json.JSONDecoder().raw_decode, re.compile(r"[ \t\n\r]*")

    def skip(at: int) -> int:
        return gap.match(text, at).end()  # type: ignore[union-attr]

    at = skip(0)
    if text[at : at + 1] != "[":
        raise ValueError("expected an array of records")
    at = skip(at + 1)
    while text[at : at + 1] != "]":
        record, at = decode(text, at)
        yield record
        at = skip(at)
        if text[at : at + 1] == ",":
            at = skip(at + 1)
        elif text[at : at + 1] != "]":
            raise ValueError("expected a comma between records")
    if skip(at + 1) != len(text):
        raise ValueError("expected nothing behind the array")


class _PackError(ValueError):
    """A pack that must not be used, with the reason."""


class _Base:
    """The base fields that hold for a record."""

    __slots__ = ("bn", "bs", "bt", "bu", "bv", "bver")

    def __init__(self) -> None:
        self.bn = ""
        self.bt = 0.0
        self.bu: str | None = None
        self.bv: float | None = None
        self.bs: float | None = None
        self.bver: int | None = None

    def follow(self, record: Mapping[Any, Any]) -> None:
        """Take the base fields of a record."""
        for field, value in record.items():
            if not isinstance(field, str):
                continue
            if field in ("bn", "bu"):
                text = as_text(value)
                if text is None:
                    raise _PackError(f"expected text in {field!r}")
                setattr(self, field, text)
            elif field in ("bt", "bv", "bs"):
                number = _number(value)
                if number is None:
                    raise _PackError(f"expected a number in {field!r}")
                setattr(self, field, number)
            elif field == "bver":
                whole = isinstance(value, int | float) and not isinstance(value, bool)
                if not whole or self.bver not in (None, value):
                    raise _PackError("expected one version number in the whole pack")
                if not 0 < value <= VERSION:
                    raise _PackError(f"expected a version up to {VERSION}, got {str(value)[:20]}")
                self.bver = int(value)
            elif field.endswith("_") and field not in LABELS:
                raise _PackError(f"the field {field[:40]!r} must be understood, and nobody knows it")


def resolve(read: _Read, number: int, records: Iterable[Any]) -> None:
    """Resolve the records of a pack one by one; reject exactly those that are wrong."""
    base = _Base()
    wrong: dict[Reason, tuple[int, str]] = {}
    names: list[int] = []
    times: list[float] = []
    values: list[float] = []
    total = 0

    def reject(reason: Reason, detail: str) -> None:
        wrong[reason] = (wrong[reason][0] + 1, wrong[reason][1]) if reason in wrong else (1, detail)

    try:
        for record in records:
            total += 1
            if not isinstance(record, Mapping):
                reject(Reason.MALFORMED, "expected a record with fields")
                continue
            base.follow(record)
            if not any(field in LABELS and LABELS[field] >= 0 for field in record if isinstance(field, str)):
                total -= 1
                continue
            name = as_text(record.get("n", ""))
            if name is None:
                reject(Reason.MALFORMED, "expected text in 'n'")
                continue
            name = base.bn + name
            found = _measured(read, name, record, base)
            if isinstance(found, Reason):
                reject(found, _DETAILS[found])
                continue
            time = _number(record.get("t", 0.0))
            for label, value in found:
                if time is None:
                    reject(Reason.BAD_TIME, "expected a number in 't'")
                    continue
                names.append(read.names.setdefault(name + label, len(read.names)))
                times.append(base.bt + time)
                values.append(value)
    except _PackError as error:
        # A pack of another version or with a field that must be understood is not to be used in part.
        rest = sum(1 for _ in records) if isinstance(records, Iterator) else 0
        read.refuse(number, str(error), total + rest)
        return
    for reason, (count, detail) in wrong.items():
        read.rejections.add(number, reason, count, detail)
    if names:
        read.add(number, names, times, values)


_DETAILS = {
    Reason.MALFORMED: "expected one value or a sum in a record",
    Reason.BAD_VALUE: "expected a number, a boolean, or a word of the class, in the unit of the signal",
}


def _measured(read: _Read, name: str, record: Mapping[Any, Any], base: _Base) -> list[tuple[str, float]] | Reason:
    """Return what a record measures as (suffix of the name, value), or why it cannot be used."""
    given = [field for field in _VALUES if field in record]
    if len(given) > 1:
        return Reason.MALFORMED
    found: list[tuple[str, float]] = []
    unit = record.get("u", base.bu)
    if unit is not None and (as_text(unit) is None or not read.is_unit(name, unit)):
        return Reason.BAD_VALUE
    value: float | None = None
    if given == ["v"]:
        value = _number(record["v"])
        if value is not None and base.bv is not None:
            value += base.bv
    elif given == ["vb"] and isinstance(record["vb"], bool):
        value = float(record["vb"])
    elif given == ["vs"]:
        word = as_text(record["vs"])
        value = None if word is None else read.code(name, word)
    if given and value is None:
        return Reason.BAD_VALUE
    summed = _number(record["s"]) if "s" in record else None if base.bs is None else 0.0
    if "s" in record and summed is None:
        return Reason.BAD_VALUE
    if not given and "s" not in record and base.bv is not None:
        # Without a value of its own a record has the base value.
        value = base.bv
    if value is not None:
        found.append(("", value))
    if summed is not None:
        found.append(("_sum", summed + (base.bs or 0.0)))
    return found or Reason.MALFORMED


def _number(cell: Any) -> float | None:
    """Return a number; what CBOR has as decimal fraction or bigfloat is one."""
    if type(cell) is float:
        return cell
    if isinstance(cell, bool) or cell is None or isinstance(cell, str | bytes | list | tuple | Mapping):
        return None
    try:
        return float(cell)
    except OverflowError:
        return math.inf if cell > 0 else -math.inf
    except (TypeError, ValueError, ArithmeticError):
        return None
