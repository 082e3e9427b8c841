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

from features import moments
from features.acceptance import NONE, Pool, new_pool
from features.ingest import (
    ACCEPTED,
    HORIZONS,
    NEXT,
    NO_WINDOW,
    REASONS,
    REJECTS,
    ROWS,
    Blocks,
    Layout,
    Output,
    State,
    close_due,
    forget_rows,
    ingest,
)
from features.signals import KINDS, STATISTICS, EquipmentClass
from features.spectra import SpectraPlan
from features.telemetry import Reason, Rejected

__all__ = ["ClosedWindows", "ShardBatch", "ShardWindows", "Silence", "Step"]

VERSION = 1
LONGEST_BLOCK = 4096
"""Samples that are taken at once, so that no block asks for more room than this."""
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

    Attributes
    ----------
    assets, signals
        The message's dictionaries of names.
    asset, signal
        Index of each block in them, int32 of shape ``(n,)``.
    start, period
        First sample and step in microseconds, int64 of shape ``(n,)``.
    first, count
        Where the block's samples lie in `values`, int64 of shape ``(n,)``.
    clock
        Newest event time that the input partition had delivered when the block came, int64 of shape ``(n,)``.
    values
        Samples of the whole message, float64.
    source
        Name of the input.
    limit_us
        Latest time that is not in the future.
    """

    assets: Sequence[str]
    signals: Sequence[str]
    asset: NDArray[np.int32]
    signal: NDArray[np.int32]
    start: NDArray[np.int64]
    period: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    clock: NDArray[np.int64]
    values: NDArray[np.float64]
    source: str
    limit_us: int = NO_LIMIT

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the samples that belong to these blocks, not the message that they were cut from."""
        places = np.repeat(self.first - np.concatenate(([0], np.cumsum(self.count)[:-1])), self.count)
        values = self.values[places + np.arange(len(places))]
        first = np.concatenate(([0], np.cumsum(self.count)[:-1]))
        columns = (self.asset, self.signal, self.start, self.period, first, self.count, self.clock, values)
        return ShardBatch, (list(self.assets), list(self.signals), *columns, self.source, self.limit_us)


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
        self._layout = _layout(equipment)
        self._signals = {name: index for index, name in enumerate(equipment.signal_names)}
        self._spectra = _spectra_plans(equipment)
        self._state = _new_state(equipment, self._layout, 0)
        self._pool = new_pool(64)
        self._silent = np.zeros(0, np.bool_)
        self._out = _new_output(equipment, self._layout, 256)

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(a.nbytes for a in (*self._state, *self._pool, self._silent))

    @property
    def pending(self) -> int:
        """Readings in windows that are still open."""
        return int(self._state.samples.sum())

    def push(self, batch: ShardBatch) -> Step:
        """Take a batch of blocks; give what it closes and what is rejected of it."""
        step = Step()
        signal = np.array([self._signals.get(name, -1) for name in batch.signals] or [-1], np.int32)[batch.signal]
        if len(signal) and signal.min() < 0:
            known = signal >= 0
            unknown = _select(batch, ~known)
            step.rejected += [
                _rejection(unknown, block, 0, int(unknown.count[block]), Reason.UNKNOWN_SIGNAL)
                for block in range(len(unknown.start))
            ]
            batch, signal = _select(batch, known), signal[known]
        if len(batch.start) == 0:
            return step
        row = self._row_of(batch)[batch.asset]
        batch, row, signal = self._in_order(batch, row, signal)
        spectrum, spectra = self._spectra_of(batch, signal)
        blocks = Blocks(
            row, signal, batch.start, batch.period, batch.first, batch.count, batch.clock, spectrum,
            batch.values, spectra, self._partition(batch.source), batch.limit_us,
        )  # fmt: skip
        longest = int(batch.count.max())
        while True:
            self._ensure_room(longest)
            ingest(self._layout, self._state, self._pool, blocks, self._out)
            done = self._out.used[NEXT] == len(row)
            self._drain(step, batch)
            if done:
                break
        self._out.used[NEXT] = 0
        self._silent[row] = False
        return step

    def tick(self, source: str, clock_us: int) -> Step:
        """Let the event time of an input partition pass: close what it leaves behind, notice who is silent."""
        partition = self._partition(source)
        step = self._close(partition, clock_us, everything=False)
        quiet = clock_us - self._state.arrival > round(self.equipment.silent_after_s * 1e6)
        quiet &= (self._state.partition == partition) & (self._state.first_open != NO_WINDOW)
        quiet = quiet[: len(self.names)]
        rows = np.flatnonzero(quiet & ~self._silent[: len(self.names)]).astype(np.int32)
        if len(rows):
            self._silent[rows] = True
            step.silence = Silence(self.names, rows, self._state.newest[rows], clock_us)
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
        forget_rows(self._state, self._pool, rows)
        empty = _new_state(self.equipment, self._layout, 1)
        for name, array in self._state._asdict().items():
            array[rows] = getattr(empty, name)[0]
        self._silent[rows] = False
        return rows, dropped

    def state(self) -> dict[str, Any]:
        """Return a copy of everything remembered, as a plain dict of arrays with a version."""
        arrays = {name: array[: len(self.names)].copy() for name, array in self._state._asdict().items()}
        pool = {f"pool_{name}": array.copy() for name, array in self._pool._asdict().items()}
        silent = self._silent[: len(self.names)].copy()
        return {
            "version": VERSION,
            "names": list(self.names),
            "partitions": dict(self._partitions),
            "silent": silent,
            **arrays,
            **pool,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned.

        Raises
        ------
        ValueError
            If it is of another version.
        """
        if state.get("version") != VERSION:
            raise ValueError(f"the state of a shard's windows has version {state.get('version')}, expected {VERSION}")
        self.names = list(state["names"])
        self._rows = {name: row for row, name in enumerate(self.names) if name}
        self._free = [row for row, name in enumerate(self.names) if not name]
        self._partitions = dict(state["partitions"])
        self._state = State(**{name: state[name].copy() for name in State._fields})
        self._pool = Pool(**{name: state[f"pool_{name}"].copy() for name in Pool._fields})
        self._silent = state["silent"].copy()

    def _row_of(self, batch: ShardBatch) -> NDArray[np.int32]:
        """Map the message's asset index to rows of this shard; new assets get the next row."""
        rows = np.full(len(batch.assets), -1, np.int32)
        present = np.zeros(len(batch.assets), np.bool_)
        present[batch.asset] = True
        for index in np.flatnonzero(present).tolist():
            name = batch.assets[index]
            row = self._rows.get(name)
            if row is None:
                row = self._rows[name] = self._free.pop() if self._free else len(self.names)
                if row == len(self.names):
                    self.names.append(name)
                else:
                    self.names[row] = name
            rows[index] = row
        if len(self.names) > len(self._state.first_open):
            self._grow(max(len(self.names), 2 * len(self._state.first_open)))
        return rows

    def _grow(self, assets: int) -> None:
        used = len(self._state.first_open)
        new = _new_state(self.equipment, self._layout, assets)
        for name, array in self._state._asdict().items():
            getattr(new, name)[:used] = array
        self._state = new
        self._silent = np.concatenate((self._silent, np.zeros(assets - used, np.bool_)))

    def _in_order(
        self, batch: ShardBatch, row: NDArray[np.int32], signal: NDArray[np.int32]
    ) -> tuple[ShardBatch, NDArray[np.int32], NDArray[np.int32]]:
        """Cut blocks that could make others late, and sort by start where they are not sorted.

        A vibration block longer than a spectrum is cut to spectra. Any other block that lasts longer than the lateness
        is cut where windows end, because its end would close windows that the next block has yet to fill.
        """
        most = np.full(len(self._signals), LONGEST_BLOCK, np.int64)
        for index, plan in self._spectra.items():
            most[index] = plan.n
        batch, row, signal = _cut(batch, row, signal, -(-batch.count // most[signal]), most[signal])
        last = batch.start + (batch.count - 1) * batch.period
        window_us = self._layout.window_us
        long = (last - batch.start > self._layout.lateness_us) & (batch.period > 0) & (last > batch.start)
        for index in self._spectra:
            long &= signal != index
        windows = np.where(long, last // window_us - batch.start // window_us + 1, 1)
        # Where samples lie further apart than windows, each is a block of its own.
        sparse = windows > batch.count
        batch, row, signal = _cut(
            batch, row, signal, np.where(sparse, batch.count, windows), np.where(sparse, 1, 0), window_us
        )
        if len(row) > 1:
            # An asset's blocks stand together, so that its state is in the cache, and in the order of time.
            if (np.diff(row) < 0).any():
                order = np.argsort(row.astype(np.uint16) if len(self.names) <= 2**16 else row, kind="stable")
                batch, row, signal = _select(batch, order), row[order], signal[order]
            if ((np.diff(batch.start) < 0) & (np.diff(row) == 0)).any():
                order = np.lexsort((batch.start, row))
                batch, row, signal = _select(batch, order), row[order], signal[order]
        return batch, row, signal

    def _spectra_of(
        self, batch: ShardBatch, signal: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Compute the spectra of the blocks that have the length and the rate of their signal's plan."""
        spectrum = np.full(len(signal), -1, np.int64)
        if not self._spectra:
            return spectrum, np.zeros((1, 2))
        width = 2 + max(len(plan.bands) for plan in self._spectra.values())
        found: list[NDArray[np.float64]] = []
        used = 0
        for index, plan in self._spectra.items():
            near = np.abs(batch.period - plan.period_s * 1e6) <= plan.period_s * 1e4
            places = np.flatnonzero((signal == index) & (batch.count == plan.n) & near)
            if len(places) == 0:
                continue
            table = np.zeros((len(places), width))
            result = plan.at(batch.values, batch.first[places])
            table[:, : result.shape[1]] = result
            good = np.isfinite(result).all(axis=1)
            spectrum[places[good]] = used + np.flatnonzero(good)
            found.append(table)
            used += len(places)
        return spectrum, np.concatenate(found) if found else np.zeros((1, width))

    def _ensure_room(self, longest: int) -> None:
        need = 2 * (self._layout.slots + longest) + 64
        if need > len(self._out.row):
            used = self._out.used
            self._out = _new_output(self.equipment, self._layout, need)
            self._out.used[NEXT] = used[NEXT]
        if self._pool.free[1] < longest + 1:
            self._pool = new_pool(2 * len(self._pool.first) + longest, self._pool)

    def _partition(self, source: str) -> int:
        """Return the number of an input partition: they count in the order in which they appear."""
        return self._partitions.setdefault(source, len(self._partitions))

    def _close(self, partition: int, clock_us: int, everything: bool) -> Step:
        step = Step()
        while not close_due(self._layout, self._state, self._pool, self._out, partition, clock_us, everything):
            self._drain(step, None)
        self._drain(step, None)
        return step

    def _drain(self, step: Step, batch: ShardBatch | None) -> None:
        """Move what the kernel has written into a step."""
        out = self._out
        n, h, r = (int(out.used[i]) for i in (ROWS, HORIZONS, REJECTS))
        if n:
            order = np.lexsort((out.row[:n], out.window[:n]))
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
        for level, length_s in enumerate(self.equipment.horizons_s):
            places = np.flatnonzero(out.horizon_level[:h] == level)
            if len(places):
                places = places[np.lexsort((out.horizon_row[places], out.horizon_index[places]))]
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


def _cut(
    batch: ShardBatch,
    row: NDArray[np.int32],
    signal: NDArray[np.int32],
    pieces: NDArray[np.int64],
    size: NDArray[np.int64],
    window_us: int = 1,
) -> tuple[ShardBatch, NDArray[np.int32], NDArray[np.int32]]:
    """Cut blocks into so many pieces: of `size` samples, or where windows end where the size is 0."""
    if not (pieces > 1).any():
        return batch, row, signal
    origin = np.repeat(np.arange(len(pieces)), pieces)
    number = np.arange(len(origin)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    ahead = (batch.start[origin] // window_us + number) * window_us - batch.start[origin]
    at_window = -(-ahead // np.maximum(batch.period[origin], 1))
    skip: NDArray[np.int64] = np.where(size[origin] > 0, number * size[origin], at_window).astype(np.int64)
    skip[number == 0] = 0
    end = np.where(np.append(number[1:], 0) == 0, batch.count[origin], np.append(skip[1:], 0))
    start = batch.start[origin] + skip * batch.period[origin]
    cut = replace(_select(batch, origin), start=start, first=batch.first[origin] + skip, count=end - skip)
    filled = cut.count > 0
    return _select(cut, filled), row[origin][filled], signal[origin][filled]


def _select(batch: ShardBatch, where: NDArray[Any]) -> ShardBatch:
    """Return the blocks at these places; the samples stay where they are."""
    columns = ("asset", "signal", "start", "period", "first", "count", "clock")
    return replace(batch, **{name: getattr(batch, name)[where] for name in columns})


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


def _spectra_plans(equipment: EquipmentClass) -> dict[int, SpectraPlan]:
    """One plan for each signal that has bands: a block of one second, or of 64 samples where that is more."""
    plans = {}
    for index, signal in enumerate(equipment.signals.values()):
        if signal.bands_hz:
            n = max(64, round(1.0 / signal.period_s))
            plans[index] = SpectraPlan(n, signal.period_s, np.array(signal.bands_hz))
    return plans


def _tick(window_us: int, span_us: int) -> int:
    """Return the finest step that divides the window and counts its span in 31 bits."""
    tick = max(1, -(-span_us // 2**30))
    while window_us % tick:
        tick += 1
    return tick


def _layout(c: EquipmentClass) -> Layout:
    """Lay the class out as the arrays that the kernel reads."""
    signals = list(c.signals.values())
    names = c.signal_names
    window_us = round(c.window_s * 1e6)
    lateness_us = round(c.lateness_s * 1e6)
    most = np.array([int(4 * c.window_s / s.period_s) + 16 for s in signals], np.int64)
    spectral = [i for i, s in enumerate(signals) if s.bands_hz]
    queued = sorted({names.index(s) for cycle in c.cycles.values() for s in cycle.signals.values()})
    span_s = c.window_s + c.lateness_s
    room = [int(1.25 * span_s / signals[i].period_s) + 16 for i in queued]
    cycles = list(c.cycles.values())
    kinds = [KINDS[cycle.kind] for cycle in cycles]
    roles = np.full((len(cycles), max([1, *(len(k.roles) for k in kinds)])), -1, np.int64)
    parameters = np.zeros((len(cycles), max([1, *(len(k.parameters) for k in kinds)])))
    for i, (cycle, kind) in enumerate(zip(cycles, kinds, strict=True)):
        roles[i, : len(kind.roles)] = [queued.index(names.index(cycle.signals[role])) for role in kind.roles]
        parameters[i, : len(kind.parameters)] = [cycle.parameters.get(n, default) for n, default in kind.parameters]
    column = len(c.features) - sum(len(k.outputs) for k in kinds)
    band_column = [c.feature_index[f"{names[i]}.band_{signals[i].bands_hz[0][0]:g}_{signals[i].bands_hz[0][1]:g}"]
                   for i in spectral]  # fmt: skip
    return Layout(
        window_us=window_us,
        lateness_us=lateness_us,
        idle_us=round(c.idle_after_s * 1e6),
        tick_us=_tick(window_us, 4 * (window_us + lateness_us)),
        slots=-(-lateness_us // window_us) + 1,
        state_signal=names.index(c.states.signal) if c.states is not None else -1,
        low=np.array([s.range[0] for s in signals]),
        high=np.array([s.range[1] for s in signals]),
        most=most,
        spectral=np.array([spectral.index(i) if i in spectral else -1 for i in range(len(signals))], np.int64),
        bands=np.array([len(signals[i].bands_hz) for i in spectral], np.int64),
        band_column=np.array(band_column, np.int64),
        queue=np.array([queued.index(i) if i in queued else -1 for i in range(len(signals))], np.int64),
        queue_start=np.concatenate(([0], np.cumsum(room, dtype=np.int64))).astype(np.int64),
        cycle_code=np.array([k.code for k in kinds], np.int64),
        cycle_queues=roles,
        cycle_parameters=parameters,
        cycle_state=np.concatenate(([0], np.cumsum([k.state_size for k in kinds], dtype=np.int64))).astype(np.int64),
        cycle_column=(
            column + np.concatenate(([0], np.cumsum([len(k.outputs) for k in kinds], dtype=np.int64)))
        ).astype(np.int64),
        horizon_us=np.array([round(h * 1e6) for h in c.horizons_s], np.int64),
    )


def _new_state(c: EquipmentClass, layout: Layout, assets: int) -> State:
    signals, horizons = len(c.signals), len(c.horizons_s)
    bands = int(layout.bands.max()) if len(layout.bands) else 0
    return State(
        first_open=np.full(assets, NO_WINDOW, np.int64),
        newest=np.full(assets, NO_WINDOW, np.int64),
        arrival=np.full(assets, NO_WINDOW, np.int64),
        partition=np.full(assets, -1, np.int32),
        state_code=np.full(assets, np.nan),
        samples=np.zeros((assets, layout.slots), np.int64),
        moments=np.zeros((assets, layout.slots, signals, moments.SIZE)),
        spectra=np.zeros((assets, layout.slots, len(layout.bands), 3 + 2 * bands)),
        queue_time=np.zeros((assets, int(layout.queue_start[-1])), np.int32),
        queue_value=np.zeros((assets, int(layout.queue_start[-1])), np.float32),
        queue_count=np.zeros((assets, len(layout.queue_start) - 1), np.int32),
        cycles=np.zeros((assets, int(layout.cycle_state[-1]))),
        horizon=np.full((assets, horizons), NO_WINDOW, np.int64),
        horizon_samples=np.zeros((assets, horizons), np.int64),
        horizon_moments=np.zeros((assets, horizons, signals, moments.SIZE)),
        head=np.full((assets, signals), NONE, np.int32),
    )


def _new_output(c: EquipmentClass, layout: Layout, rows: int) -> Output:
    horizons = max(1, len(c.horizons_s)) * rows
    return Output(
        row=np.zeros(rows, np.int32),
        window=np.zeros(rows, np.int64),
        samples=np.zeros(rows, np.int64),
        state_code=np.zeros(rows),
        features=np.zeros((rows, len(c.features))),
        horizon_row=np.zeros(horizons, np.int32),
        horizon_level=np.zeros(horizons, np.int32),
        horizon_index=np.zeros(horizons, np.int64),
        horizon_samples=np.zeros(horizons, np.int64),
        horizon_features=np.zeros((horizons, len(c.signals) * len(STATISTICS))),
        reject_block=np.zeros(rows, np.int64),
        reject_first=np.zeros(rows, np.int64),
        reject_count=np.zeros(rows, np.int64),
        reject_reason=np.zeros(rows, np.int64),
        used=np.zeros(5, np.int64),
    )
