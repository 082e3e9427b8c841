"""Blocks of many messages, gathered one by one and checked all at once.

The decoders of small messages (`json_blocks`, `cbor_blocks`, `senml`) only take a payload apart; what is a block, and
what is rejected with the raw bytes of its payload, is decided here for all payloads together.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from features.arrow_blocks import LONGEST_PERIOD_US
from features.telemetry import Decoded, Reason, Rejected, empty_blocks, new_blocks
from features.times import LATEST_US, read_times

__all__ = ["Columns", "Gathered", "Moment", "Rejections", "as_text", "finish", "numbers_of", "steps_us", "times_us"]

Moment = str | float | None
"""A time as a payload gives it: text as in `features.times`, or seconds since 1970."""


class Rejections:
    """What of each payload is rejected: one entry a payload and reason, however many readings it stands for."""

    def __init__(self, source: str, payloads: Sequence[bytes]) -> None:
        self.source = source
        self.payloads = payloads
        self._found: dict[tuple[int, Reason], Rejected] = {}

    def add(
        self,
        payload: int,
        reason: Reason,
        readings: int,
        detail: str,
        asset: str | None = None,
        signal: str | None = None,
        start_us: int | None = None,
    ) -> None:
        """Reject readings of a payload; names stay where all of them share one."""
        if readings <= 0:
            return
        before = self._found.get((payload, reason))
        if before is not None:
            readings += before.readings
            asset = asset if asset == before.asset else None
            signal = signal if signal == before.signal else None
            detail, start_us = before.detail, before.start_us
        self._found[payload, reason] = Rejected(
            reason, readings, self.source, self.payloads[payload], asset, signal, start_us, detail
        )

    def all(self, heard: ArrayLike) -> list[Rejected]:
        """Return them in the order of the payloads; one that is not among the `heard` and not yet rejected is so now.

        Every message counts: one without a single reading is malformed.
        """
        counted = np.zeros(len(self.payloads), np.bool_)
        counted[np.asarray(heard, np.int64)] = True
        counted[[payload for payload, _ in self._found]] = True
        for payload in np.flatnonzero(~counted).tolist():
            self.add(payload, Reason.MALFORMED, 1, "expected a reading, got a message without one")
        return [self._found[key] for key in sorted(self._found, key=lambda key: key[0])]


class Gathered:
    """Blocks of many payloads while they are read.

    Parameters
    ----------
    source
        Name of the input.
    payloads
        The messages.

    Examples
    --------
    >>> read = Gathered("example", [b"..."])
    >>> read.add(0, "b1", "flow", 1_767_571_200.0, 1_000_000, [1.5, 1.6])
    >>> finish([read.columns(None)], read.rejections).blocks.to_pylist()[0]["values"]
    [1.5, 1.6]
    """

    def __init__(self, source: str, payloads: Sequence[bytes]) -> None:
        self.rejections = Rejections(source, payloads)
        self._rows: list[tuple[int, str, str, Moment, float, int]] = []
        self._values = array("d")

    def add(
        self,
        payload: int,
        asset: str,
        signal: str,
        start: Moment,
        period_us: float,
        values: list[Any] | NDArray[np.float64],
    ) -> None:
        """Take a block; 0 is no step, and None among its values a missing sample."""
        self._rows.append((payload, asset, signal, start, period_us, len(values)))
        if isinstance(values, list):
            try:
                # Three times as fast as numpy, and content with nothing but numbers.
                self._values.fromlist(values)
                return
            except (TypeError, OverflowError):
                values = numbers_of(values)
        self._values.frombytes(values.tobytes())

    def columns(self, zone: str | None) -> Columns:
        """Return what was gathered, with local times read in an IANA zone."""
        if not self._rows:
            return _NOTHING
        payload, asset_names, signal_names, start, period_us, length = zip(*self._rows, strict=True)
        assets, asset = _encoded(asset_names)
        signals, signal = _encoded(signal_names)
        # A repeated hour of a naive clock is told by the order of the samples of one signal.
        start_us, untimed, naive = _times(start, zone, asset * np.int32(len(signals)) + signal)
        return Columns(
            np.array(payload, np.int64), assets, asset, signals, signal, start_us, untimed, naive,
            steps_us(numbers_of(period_us)), np.array(length, np.int64), np.frombuffer(self._values, np.float64),
        )  # fmt: skip


class Columns(NamedTuple):
    """Blocks that are not checked yet, a row a block; `values` are the samples of all of them."""

    payload: NDArray[np.int64]
    assets: Sequence[str]
    asset: NDArray[np.int32]
    signals: Sequence[str]
    signal: NDArray[np.int32]
    start_us: NDArray[np.int64]
    untimed: NDArray[np.bool_]
    naive: NDArray[np.bool_]
    period_us: NDArray[np.int64]
    length: NDArray[np.int64]
    values: NDArray[np.float64]


_NOTHING = Columns(
    np.zeros(0, np.int64), [], np.zeros(0, np.int32), [], np.zeros(0, np.int32), np.zeros(0, np.int64),
    np.zeros(0, np.bool_), np.zeros(0, np.bool_), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0),
)  # fmt: skip


def finish(columns: Sequence[Columns], rejections: Rejections) -> Decoded:
    """Put blocks together, in the order of their payloads; reject those without names, time or step.

    Parameters
    ----------
    columns
        What was gathered; a payload stands in one of them only.
    rejections
        What was rejected before.
    """
    found = [_checked(one, rejections) for one in columns if len(one.payload)]
    heard = [payload for _, payload in found]
    rejected = rejections.all(np.concatenate(heard) if heard else [])
    if len(found) < 2:
        return Decoded(found[0][0] if found else empty_blocks(), rejected)
    table = pa.Table.from_batches([batch for batch, _ in found]).unify_dictionaries().combine_chunks()
    order = np.argsort(np.concatenate(heard), kind="stable")
    blocks = table.take(pa.array(order)).combine_chunks().to_batches()
    return Decoded(blocks[0] if blocks else empty_blocks(), rejected)


def _checked(given: Columns, rejections: Rejections) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Return the blocks that are ones, and the payload of each."""
    start, period, length, values = given.start_us, given.period_us, given.length, given.values
    stepless = (length > 1) & (period < 1)
    period = np.where(length > 1, period, 0)
    nameless = (np.array([not n for n in given.assets])[given.asset]
                | np.array([not n for n in given.signals])[given.signal])  # fmt: skip
    reach = (LATEST_US - start) // np.maximum(period, 1)
    untimed = given.untimed | (~given.naive & ((start < 0) | (length > reach)))
    bad = nameless | given.naive | stepless | untimed
    present = _present(values, length)
    for place in np.flatnonzero(bad & (present > 0)).tolist():
        reason, detail = Reason.BAD_TIME, "expected a start from 1970 to 2200 such as 2026-01-05T00:00:00Z"
        if nameless[place]:
            reason, detail = Reason.MALFORMED, "expected the names of an asset and of a signal"
        elif given.naive[place]:
            reason, detail = Reason.NAIVE_TIME, "the time has no zone"
        elif stepless[place]:
            detail = "a block of several samples needs a period_s or period_us above 0"
        names = given.assets[given.asset[place]] or None, given.signals[given.signal[place]] or None
        rejections.add(int(given.payload[place]), reason, int(present[place]), detail, *names)
    kept = ~bad & (present > 0)
    payload, asset, signal = given.payload, given.asset, given.signal
    if not kept.all():
        values = values[np.repeat(kept, length)]
        payload, length, asset, signal, start, period = (
            c[kept] for c in (payload, length, asset, signal, start, period)
        )
    offsets = np.concatenate(([0], np.cumsum(length))).astype(np.int32)
    batch = new_blocks(given.assets, given.signals, asset, signal, start, period, offsets, values)
    return batch, payload


def _present(values: NDArray[np.float64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many samples of each block are not missing."""
    missing = np.isnan(values)
    if not missing.any():
        return length
    owner = np.searchsorted(np.cumsum(length), np.flatnonzero(missing), side="right")
    return length - np.bincount(owner, minlength=len(length))


def numbers_of(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Return Python's numbers as an array, NaN for None.

    Examples
    --------
    >>> numbers_of([1, None, 10**400]).tolist()
    [1.0, nan, inf]
    """
    try:
        return np.frombuffer(array("d", values), np.float64)  # type: ignore[type-var]
    except (TypeError, OverflowError):
        return np.array([_number(value) for value in values], np.float64)


def _number(value: float | None) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf  # type: ignore[operator]


def as_text(cell: object) -> str | None:
    """Return text that UTF-8 can hold, or None; JSON can escape half a character.

    Examples
    --------
    >>> as_text("b1"), as_text(1), as_text(chr(0xD800))
    ('b1', None, None)
    """
    if not isinstance(cell, str):
        return None
    try:
        cell.encode()
    except UnicodeEncodeError:
        return None
    return cell


def steps_us(given: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return steps in whole microseconds, 0 for what is none.

    Examples
    --------
    >>> steps_us(np.array([10_000.4, -1, np.nan])).tolist()
    [10000, 0, 0]
    """
    return np.rint(np.where((given >= 0.5) & (given <= LONGEST_PERIOD_US), given, 0.0)).astype(np.int64)


def times_us(seconds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return times in microseconds since 1970, and which are none.

    Examples
    --------
    >>> times_us(np.array([1.5, -1.0]))[0].tolist()
    [1500000, 0]
    """
    plausible = (seconds >= 0) & (seconds < LATEST_US / 1e6)
    # Whole seconds and the rest apart, as Python's datetime takes them: a product of both would round twice.
    rest, whole = np.modf(np.where(plausible, seconds, 0.0))
    return whole.astype(np.int64) * 1_000_000 + np.rint(rest * 1e6).astype(np.int64), ~plausible


def _encoded(names: Sequence[str]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the different names, and the index of each."""
    column = pa.array(names, pa.utf8()).dictionary_encode()
    return column.dictionary.to_pylist(), column.indices.to_numpy()


def _times(
    moments: Sequence[Moment], zone: str | None, group: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return microseconds since 1970, which are none, and which lack a zone."""
    try:
        seconds = np.frombuffer(array("d", moments), np.float64)  # type: ignore[type-var]
    except (TypeError, OverflowError):
        us, bad = times_us(numbers_of([None if isinstance(m, str) else m for m in moments]))
        places = np.array([place for place, m in enumerate(moments) if isinstance(m, str)], np.int64)
        known = pa.array([m for m in moments if isinstance(m, str)], pa.utf8())
        times = read_times(known, zone, group[places])
        naive = np.zeros(len(us), np.bool_)
        us[places], bad[places], naive[places] = times.us, times.bad, times.naive
        return us, bad, naive
    us, bad = times_us(seconds)
    return us, bad, np.zeros(len(us), np.bool_)
