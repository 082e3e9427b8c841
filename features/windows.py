"""Windows of a shard: what a group of assets of one class remembers, and the features that it gives.

The watermark is per asset and follows event time only: a window closes when its asset has sent a reading beyond the
window's end plus the class's lateness, or when the asset has been silent for `idle_after_s` of the event time of its
input partition. Within the lateness, the order of arrival and the split into calls change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.closing import ACCEPTED, HORIZONS, REJECTS, ROWS, close_due, forget_rows
from features.ingest import DONE, LONGEST, MORE_PAGES, MORE_RUNS, MORE_SEGMENTS, REASONS, ingest
from features.numbering import Numbers
from features.queues import PAGE
from features.signals import EquipmentClass
from features.snapshots import VERSION, load_state, state_of
from features.state import NO_WINDOW, Blocks, Output, layout_of, new_state
from features.tables import grown, grown_pages, grown_pool, grown_segments, output_of, spectra_for
from features.telemetry import Reason, Rejected

__all__ = ["ClosedWindows", "ShardBatch", "ShardWindows", "Silence", "Step"]

NO_LIMIT = 2**62
"""Latest acceptable time where nothing is in the future: a replay."""


@dataclass(frozen=True, slots=True)
class ClosedWindows:
    """Windows that a shard has closed, in the order of (start, row).

    Attributes
    ----------
    names
        Asset ids of the shard by row, as they were when the windows closed: a later `ShardWindows.retire` and a new
        asset in the same row change nothing here.
    rows
        Row of each window's asset, int32 of shape ``(n,)``.
    start_us, end_us
        Event time in microseconds since 1970, int64 of shape ``(n,)``.
    samples
        Readings in the window, over all signals, int64 of shape ``(n,)``.
    state_code
        Last known value of the class's state signal, float64 of shape ``(n,)``, NaN where there is none.
    features
        One column for each of `EquipmentClass.features`, float64 of shape ``(n, n_features)``, NaN = cannot know.
    """

    names: list[str]
    rows: NDArray[np.int32]
    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    samples: NDArray[np.int64]
    state_code: NDArray[np.float64]
    features: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Silence:
    """Assets of a shard that have fallen silent.

    Attributes
    ----------
    names
        Asset ids of the shard by row.
    rows
        Rows of the assets that are silent from now on, int32 of shape ``(n,)``.
    since_us
        Event time of their last reading, int64 of shape ``(n,)``.
    at_us
        Event time of the input partition at which it was noticed.
    """

    names: list[str]
    rows: NDArray[np.int32]
    since_us: NDArray[np.int64]
    at_us: int


@dataclass(frozen=True, slots=True)
class ShardBatch:
    """The blocks of one message that belong to one shard.

    The columns may be those of the whole message, of which `places` are the shard's: dealing a message out copies none.

    Attributes
    ----------
    assets, signals
        The message's dictionaries of names. The same list from message to message is looked up once; it must not be
        changed.
    asset, signal
        Index of each block in them, int32 of shape ``(n,)``.
    start, period
        First sample and step in microseconds, int64 of shape ``(n,)``.
    first, count
        Where the block's samples lie in `values`, whole numbers below 2**31 of shape ``(n,)``.
    clock
        Newest event time that the input partition had delivered when the block came, int64 of shape ``(n,)``.
    values
        Samples of the whole message, float64.
    source
        Name of the input.
    limit_us
        Latest time that is not in the future.
    places
        Which blocks are the shard's: those of an asset together, and in the order of arrival. None = all.
    owners, ends
        The asset of each of these groups, and where it ends in `places`; given with `places`.
    single
        Whether each block of the message is one sample, and they lie in `values` one after the other.
    """

    assets: Sequence[str]
    signals: Sequence[str]
    asset: NDArray[np.int32]
    signal: NDArray[np.int32]
    start: NDArray[np.int64]
    period: NDArray[np.int64]
    first: NDArray[np.int32] | NDArray[np.int64]
    count: NDArray[np.int32] | NDArray[np.int64]
    clock: NDArray[np.int64]
    values: NDArray[np.float64]
    source: str
    limit_us: int = NO_LIMIT
    places: NDArray[np.int32] | NDArray[np.int64] | None = None
    owners: NDArray[np.int32] | None = None
    ends: NDArray[np.int64] | None = None
    single: bool = False

    def __len__(self) -> int:
        return len(self.start) if self.places is None else len(self.places)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the blocks and samples that are the shard's, not the message that they were dealt from."""
        place = slice(None) if self.places is None else self.places
        asset, count, first = self.asset[place], self.count[place].astype(np.int64), self.first[place]
        begin = np.cumsum(count) - count
        values = self.values[np.repeat(first - begin, count) + np.arange(int(count.sum()))]
        # Of the names only those that occur, in their order.
        present = np.unique(asset)
        names = [self.assets[index] for index in present.tolist()]
        asset = np.searchsorted(present, asset).astype(np.int32)
        times = self.start[place], self.period[place]
        columns = asset, self.signal[place], *times, begin, count, self.clock[place], values
        return ShardBatch, (names, list(self.signals), *columns, self.source, self.limit_us)


@dataclass(slots=True)
class Step:
    """What a shard gives back.

    Attributes
    ----------
    closed
        Base windows that have closed.
    horizons
        Closed longer windows by their length in seconds; cycles and spectra are NaN in them.
    rejected
        Readings that were not accepted.
    silence
        Assets that have fallen silent, or None.
    accepted
        Number of readings accepted.
    """

    closed: list[ClosedWindows] = field(default_factory=list)
    horizons: dict[float, list[ClosedWindows]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    silence: Silence | None = None
    accepted: int = 0


class ShardWindows:
    """The windows of the assets of one shard and class.

    Parameters
    ----------
    equipment
        The class.

    Examples
    --------
    >>> from features.signals import load_class
    >>> shard = ShardWindows(load_class("boiler"))
    >>> batch = ShardBatch(
    ...     assets=["b1"], signals=["flow"], asset=np.zeros(1, np.int32), signal=np.zeros(1, np.int32),
    ...     start=np.zeros(1, np.int64), period=np.full(1, 1_000_000), first=np.zeros(1, np.int64),
    ...     count=np.full(1, 60), clock=np.zeros(1, np.int64), values=np.arange(60.0), source="example")
    >>> shard.push(batch).accepted
    60
    >>> [window] = shard.flush().closed
    >>> float(window.features[0, shard.equipment.feature_index["flow.mean"]])
    29.5
    """

    def __init__(self, equipment: EquipmentClass) -> None:
        self.equipment = equipment
        self.names: list[str] = []
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self._partitions: dict[str, int] = {}
        self._layout = layout_of(equipment)
        self._row_numbers = Numbers(self._row_of)
        signals = {name: index for index, name in enumerate(equipment.signal_names)}
        self._signal_numbers = Numbers(lambda name: signals.get(name, -1))
        self._state = new_state(equipment, self._layout, 0)
        self._pool = grown_pool(None, 16)
        self._pages = grown_pages(None, 0)
        self._segments = grown_segments(equipment, None)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(a.nbytes for a in (*self._state, *self._pool, *self._pages, *self._segments))

    @property
    def pending(self) -> int:
        """Readings in windows that are still open."""
        return int(self._state.samples.sum())

    def push(self, batch: ShardBatch) -> Step:
        """Take a batch of blocks; give what it closes and what is rejected of it."""
        step = Step()
        signal = self._signal_numbers.of(batch.signals)
        place, owner, end = _grouped(batch)
        if signal.min() < 0:
            known = signal[batch.signal[place]] >= 0
            for block in place[~known].tolist():
                step.rejected.append(_rejection(batch, block, 0, int(batch.count[block]), Reason.UNKNOWN_SIGNAL))
            if not known.all():
                place, owner, end = _grouped(replace(batch, places=place[known], owners=None))
        if len(place) == 0:
            return step
        row = self._row_numbers.of(batch.assets, owner)
        if len(self.names) > len(self._state.first_open):
            self._state = grown(self.equipment, self._layout, self._state, len(self.names))
        place, first, count = (c.astype(np.int32, copy=False) for c in (place, batch.first, batch.count))
        blocks = Blocks(
            place, row, end, batch.single, signal, batch.signal, batch.start, batch.period, first, count, batch.clock,
            batch.values, self._partition(batch.source), batch.limit_us,
        )  # fmt: skip
        out = output_of(self.equipment)
        spectra = spectra_for(self.equipment)
        while True:
            wanted = ingest(self._layout, self._state, self._pool, self._pages, self._segments, spectra, blocks, out)
            if wanted == DONE:
                break
            self._drain(step, out, batch)
            if wanted == MORE_RUNS:
                self._pool = grown_pool(self._pool, min(LONGEST, int(batch.count.max()) + 64 + len(self.names)))
            elif wanted == MORE_PAGES:
                self._pages = grown_pages(
                    self._pages, int(min(LONGEST, batch.count.max())) // PAGE + 2 + len(self.names)
                )
            elif wanted == MORE_SEGMENTS:
                self._segments = grown_segments(self.equipment, self._segments)
        self._drain(step, out, batch)
        return step

    def tick(self, source: str, clock_us: int) -> Step:
        """Let the event time of an input partition pass: close what it leaves behind, notice who is silent."""
        partition = self._partition(source)
        step = self._close(partition, clock_us, everything=False)
        state = self._state
        quiet = clock_us - state.arrival > round(self.equipment.silent_after_s * 1e6)
        quiet &= (state.partition == partition) & (state.first_open != NO_WINDOW) & ~state.silent
        rows = np.flatnonzero(quiet).astype(np.int32)
        if len(rows):
            state.silent[rows] = True
            step.silence = Silence(self.names, rows, state.newest[rows], clock_us)
        return step

    def flush(self) -> Step:
        """Close every open window and horizon: the input has ended."""
        return self._close(-1, 0, everything=True)

    def retire(self, names: Iterable[str]) -> tuple[NDArray[np.int32], int]:
        """Forget assets that have left; the next new assets take their rows.

        Returns
        -------
        rows, dropped
            Rows that became free, for the steps that follow to forget them too, and the number of readings of their
            open windows, which nobody will score now.

        Examples
        --------
        >>> from features.signals import load_class
        >>> shard = ShardWindows(load_class("boiler"))
        >>> shard.retire(["b1"])
        (array([], dtype=int32), 0)
        """
        rows = np.array([self._rows.pop(name) for name in dict.fromkeys(names) if name in self._rows], np.int32)
        if len(rows) == 0:
            return rows, 0
        dropped = int(self._state.samples[rows].sum())
        # Windows in flight keep the list of names that they were given.
        self.names = list(self.names)
        for row in rows.tolist():
            self.names[row] = ""
        self._free += rows.tolist()
        forget_rows(self._state, self._pool, self._pages, self._segments, rows)
        empty = new_state(self.equipment, self._layout, 1)
        for name, array in self._state._asdict().items():
            array[rows] = getattr(empty, name)[0]
        self._row_numbers.clear()
        return rows, dropped

    def state(self) -> dict[str, Any]:
        """Return a copy of everything remembered, as a plain dict of arrays with a version."""
        used = len(self.names)
        arrays = state_of(self._state, self._pool, self._pages, self._segments, used)
        return {"version": VERSION, "names": list(self.names), "partitions": dict(self._partitions), **arrays}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned, also that of version 1.

        The arrays are taken, not copied, and the dict is emptied, so that a large state is in memory once.

        Raises
        ------
        ValueError
            If it is of another version, or the class has had other signals or windows.
        """
        self.names, self._partitions, self._state, self._pool, self._pages, self._segments = load_state(
            self.equipment, self._layout, state
        )
        self._rows = {name: row for row, name in enumerate(self.names) if name}
        self._free = [row for row, name in enumerate(self.names) if not name]
        self._row_numbers.clear()

    def _row_of(self, name: str) -> int:
        """Return the row of an asset; a new one takes a free row or the next."""
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = self._free.pop() if self._free else len(self.names)
            if row == len(self.names):
                self.names.append(name)
            else:
                self.names[row] = name
        return row

    def _partition(self, source: str) -> int:
        """Return the number of an input partition: they count in the order in which they appear."""
        return self._partitions.setdefault(source, len(self._partitions))

    def _close(self, partition: int, clock_us: int, everything: bool) -> Step:
        step = Step()
        out, spectra = output_of(self.equipment), spectra_for(self.equipment)
        tables = self._layout, self._state, self._pool, self._pages, self._segments, spectra, out
        while not close_due(*tables, partition, clock_us, everything):
            self._drain(step, out, None)
        self._drain(step, out, None)
        return step

    def _drain(self, step: Step, out: Output, batch: ShardBatch | None) -> None:
        """Move what the kernel has written into a step."""
        n, h, r = (int(out.used[i]) for i in (ROWS, HORIZONS, REJECTS))
        if n:
            order = _by_time(out.window[:n], out.row[:n])
            start = out.window[:n][order] * self._layout.window_us
            step.closed.append(
                ClosedWindows(
                    self.names,
                    out.row[:n][order],
                    start,
                    start + self._layout.window_us,
                    out.samples[:n][order],
                    out.state_code[:n][order],
                    out.features[:n][order],
                )
            )
        for level, length_s in enumerate(self.equipment.horizons_s if h else ()):
            places = np.flatnonzero(out.horizon_level[:h] == level)
            if len(places):
                places = places[_by_time(out.horizon_index[places], out.horizon_row[places])]
                features = np.full((len(places), len(self.equipment.features)), np.nan)
                features[:, : out.horizon_features.shape[1]] = out.horizon_features[places]
                start = out.horizon_index[places] * self._layout.horizon_us[level]
                step.horizons.setdefault(length_s, []).append(
                    ClosedWindows(
                        self.names,
                        out.horizon_row[places],
                        start,
                        start + self._layout.horizon_us[level],
                        out.horizon_samples[places],
                        np.full(len(places), np.nan),
                        features,
                    )
                )
        if batch is not None:
            for i in range(r):
                where = int(out.reject_block[i]), int(out.reject_first[i]), int(out.reject_count[i])
                step.rejected.append(_rejection(batch, *where, Reason(REASONS[out.reject_reason[i]])))
        step.accepted += int(out.used[ACCEPTED])
        for counter in (ROWS, HORIZONS, REJECTS, ACCEPTED):
            out.used[counter] = 0


Groups = tuple[NDArray[np.int32] | NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]


def _grouped(batch: ShardBatch) -> Groups:
    """Return the places of a batch's blocks, those of an asset together, the asset of each group and where it ends."""
    if batch.places is not None and batch.owners is not None and batch.ends is not None:
        return batch.places, batch.owners, batch.ends
    place = np.arange(len(batch.asset)) if batch.places is None else batch.places
    asset = batch.asset[place]
    if len(asset) > 1 and not bool((asset[1:] >= asset[:-1]).all()):
        order = np.argsort(asset, kind="stable")
        place, asset = place[order], asset[order]
    end = np.append(np.flatnonzero(np.diff(asset)) + 1, len(asset))[: len(asset)]
    return place, asset[end - 1], end


def _by_time(window: NDArray[np.int64], row: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the order of windows by (start, row)."""
    order = np.lexsort((row, window))
    return order


def _rejection(batch: ShardBatch, block: int, first: int, count: int, reason: Reason) -> Rejected:
    """Describe rejected samples of a block, with a line of JSON that holds them."""
    period = int(batch.period[block])
    start = int(batch.start[block]) + first * period
    offset = int(batch.first[block]) + first
    values = batch.values[offset : offset + count]
    asset = batch.assets[batch.asset[block]]
    signal = batch.signals[batch.signal[block]]
    shown = [None if np.isnan(v) else v if np.isfinite(v) else str(v) for v in values.tolist()]
    raw = json.dumps({"asset": asset, "signal": signal, "start_us": start, "period_us": period, "values": shown})
    readings = count - int(np.isnan(values).sum())
    return Rejected(reason, readings, batch.source, raw.encode(), asset, signal, start)
