"""What a shard remembers and what the kernels read and write: tables of numpy arrays, a row an asset."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features import moments
from features.acceptance import NONE
from features.fourier import LANES
from features.segments import segment_samples
from features.signals import KINDS, STATISTICS, EquipmentClass
from features.spectra import Lanes, SpectraPlan, Terms

__all__ = [
    "NO_WINDOW",
    "Blocks",
    "Layout",
    "Output",
    "Plan",
    "Spectra",
    "State",
    "Waiting",
    "layout_of",
    "new_output",
    "new_state",
    "plan_keys",
    "spectra_of",
]

NO_WINDOW = -(2**62)
"""Index of the first open window of an asset that has sent nothing yet."""

RATE = 4
"""How much faster than its nominal rate a signal may be sent: it bounds what a window costs."""
SPARE = 16
"""Samples beyond that, for signals of which few fall into a window."""
LEAST_SEGMENT = 8
"""Samples below which there is no spectrum."""


class Layout(NamedTuple):
    """The class, as numbers: set once, never changed."""

    window_us: int
    lateness_us: int
    idle_us: int
    slots: int
    state_signal: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    most: NDArray[np.int64]
    spectral: NDArray[np.int64]  # of each signal, -1 none
    plan: NDArray[np.int64]  # of each spectral signal, -1 none
    segment_us: NDArray[np.int64]
    segment_slots: NDArray[np.int64]
    segments: NDArray[np.int64]  # in a window
    bands: NDArray[np.int64]
    band_column: NDArray[np.int64]
    queue: NDArray[np.int64]  # of each signal, -1 none
    queued: NDArray[np.int64]  # signal of each queue
    queue_start: NDArray[np.int64]  # of each queue among the samples of a window
    cycle_code: NDArray[np.int64]
    cycle_queues: NDArray[np.int64]
    cycle_parameters: NDArray[np.float64]
    cycle_state: NDArray[np.int64]
    cycle_column: NDArray[np.int64]
    horizon_us: NDArray[np.int64]


class State(NamedTuple):
    """What a shard remembers, a row an asset.

    `queue_head` and `queue_tail` are the pages of the samples that the cycles will read; their times are those of the
    accepted runs: `runs` the newest of each signal, `head` the older ones in the pool. `segment` is the first buffer of
    each spectral signal.
    """

    first_open: NDArray[np.int64]
    newest: NDArray[np.int64]
    arrival: NDArray[np.int64]
    partition: NDArray[np.int32]
    silent: NDArray[np.bool_]
    state_code: NDArray[np.float64]
    samples: NDArray[np.int64]
    moments: NDArray[np.float64]
    spectra: NDArray[np.float64]
    queue_head: NDArray[np.int32]
    queue_tail: NDArray[np.int32]
    queue_count: NDArray[np.int32]
    cycles: NDArray[np.float64]
    horizon: NDArray[np.int64]
    horizon_moments: NDArray[np.float64]
    runs: NDArray[np.int64]
    head: NDArray[np.int32]
    segment: NDArray[np.int32]


class Plan(NamedTuple):
    """How a kind of spectrum is computed."""

    terms: Terms
    lanes: Lanes


class Waiting(NamedTuple):
    """Segments that wait to be examined together, by plan and lane: samples, and to whom they belong.

    `used` counts them for each plan; nothing waits between two calls.
    """

    values: NDArray[np.float64]
    row: NDArray[np.int32]
    window: NDArray[np.int64]
    signal: NDArray[np.int64]
    used: NDArray[np.int64]


class Spectra(NamedTuple):
    """The plans of a class, and what waits for them."""

    plans: tuple[Plan, ...]
    waiting: Waiting


class Blocks(NamedTuple):
    """The blocks of a call.

    `place` says which of the message's blocks they are, those of an asset together and in the order of arrival: up to
    `end` those of the asset in `row`. `signal` translates the message's numbers of signals; `clock` is the event time
    of the input partition when the block arrived, which never goes back. `single` says that each block is one sample,
    the next of `values`: then length, period and first need not be read.
    """

    place: NDArray[np.int32]
    row: NDArray[np.int32]
    end: NDArray[np.int64]
    single: bool
    signal: NDArray[np.int32]
    block_signal: NDArray[np.int32]
    start: NDArray[np.int64]
    period: NDArray[np.int64]
    first: NDArray[np.int32]
    length: NDArray[np.int32]
    clock: NDArray[np.int64]
    values: NDArray[np.float64]
    partition: int
    limit_us: int


class Output(NamedTuple):
    """Tables that a call fills; `used` counts their rows."""

    row: NDArray[np.int32]
    window: NDArray[np.int64]
    samples: NDArray[np.int64]
    state_code: NDArray[np.float64]
    features: NDArray[np.float64]
    horizon_row: NDArray[np.int32]
    horizon_level: NDArray[np.int32]
    horizon_index: NDArray[np.int64]
    horizon_samples: NDArray[np.int64]
    horizon_features: NDArray[np.float64]
    reject_block: NDArray[np.int64]
    reject_first: NDArray[np.int64]
    reject_count: NDArray[np.int64]
    reject_reason: NDArray[np.int64]
    used: NDArray[np.int64]


def layout_of(c: EquipmentClass) -> Layout:
    """Lay the class out as the arrays that the kernels read.

    Examples
    --------
    >>> from features.signals import load_class
    >>> layout_of(load_class("lift")).slots
    2
    """
    signals = list(c.signals.values())
    names = c.signal_names
    window_us = round(c.window_s * 1e6)
    lateness_us = round(c.lateness_s * 1e6)
    most = np.array([int(RATE * c.window_s / s.period_s) + SPARE for s in signals], np.int64)
    spectral = [i for i, s in enumerate(signals) if s.bands_hz]
    of_plan = plan_keys(c)
    keys = list(dict.fromkeys(of_plan))
    segment_us = np.array([max(1, round(samples * period_s * 1e6)) for samples, period_s, _ in of_plan], np.int64)
    queued = sorted({names.index(s) for cycle in c.cycles.values() for s in cycle.signals.values()})
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
        slots=-(-lateness_us // window_us) + 1,
        state_signal=names.index(c.states.signal) if c.states is not None else -1,
        low=np.array([s.range[0] for s in signals]),
        high=np.array([s.range[1] for s in signals]),
        most=most,
        spectral=np.array([spectral.index(i) if i in spectral else -1 for i in range(len(signals))], np.int64),
        plan=np.array([keys.index(key) if key[0] >= LEAST_SEGMENT else -1 for key in of_plan], np.int64),
        segment_us=segment_us,
        segment_slots=np.array([samples for samples, _, _ in of_plan], np.int64),
        segments=window_us // segment_us,
        bands=np.array([len(signals[i].bands_hz) for i in spectral], np.int64),
        band_column=np.array(band_column, np.int64),
        queue=np.array([queued.index(i) if i in queued else -1 for i in range(len(signals))], np.int64),
        queued=np.array(queued, np.int64),
        queue_start=_starts([int(most[i]) for i in queued]),
        cycle_code=np.array([k.code for k in kinds], np.int64),
        cycle_queues=roles,
        cycle_parameters=parameters,
        cycle_state=_starts([k.state_size for k in kinds]),
        cycle_column=(column + _starts([len(k.outputs) for k in kinds])).astype(np.int64),
        horizon_us=np.array([round(h * 1e6) for h in c.horizons_s], np.int64),
    )


def _starts(lengths: list[int]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)


def plan_keys(c: EquipmentClass) -> list[tuple[int, float, tuple[tuple[float, float], ...]]]:
    """Return what the plan of each spectral signal is made of: signals that are alike share one."""
    signals = [s for s in c.signals.values() if s.bands_hz]
    return [(segment_samples(c.window_s, s.period_s), s.period_s, s.bands_hz) for s in signals]


def spectra_of(c: EquipmentClass) -> Spectra:
    """Return the plans of a class, at least one, which no signal may use.

    Examples
    --------
    >>> from features.signals import load_class
    >>> spectra_of(load_class("lift")).waiting.values.shape
    (1, 32, 100)
    """
    keys = list(dict.fromkeys(plan_keys(c))) or [(LEAST_SEGMENT, 1.0, ((0.0, 0.5),))]
    plans = [SpectraPlan(max(LEAST_SEGMENT, samples), period_s, bands) for samples, period_s, bands in keys]
    shape = len(plans), LANES
    waiting = Waiting(
        np.zeros((*shape, max(plan.n for plan in plans))),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros(len(plans), np.int64),
    )
    return Spectra(tuple(Plan(plan.terms, plan.lanes()) for plan in plans), waiting)


def new_state(c: EquipmentClass, layout: Layout, assets: int) -> State:
    """Return the state of assets that have sent nothing."""
    signals, horizons = len(c.signals), len(c.horizons_s)
    bands = int(layout.bands.max()) if len(layout.bands) else 0
    return State(
        first_open=np.full(assets, NO_WINDOW, np.int64),
        newest=np.full(assets, NO_WINDOW, np.int64),
        arrival=np.full(assets, NO_WINDOW, np.int64),
        partition=np.full(assets, -1, np.int32),
        silent=np.zeros(assets, np.bool_),
        state_code=np.full(assets, np.nan),
        samples=np.zeros((assets, layout.slots), np.int64),
        moments=np.zeros((assets, layout.slots, signals, moments.SIZE)),
        spectra=np.zeros((assets, layout.slots, len(layout.bands), 3 + 2 * bands)),
        queue_head=np.full((assets, len(layout.queued)), NONE, np.int32),
        queue_tail=np.full((assets, len(layout.queued)), NONE, np.int32),
        queue_count=np.zeros((assets, len(layout.queued)), np.int32),
        cycles=np.zeros((assets, int(layout.cycle_state[-1]))),
        horizon=np.full((assets, horizons), NO_WINDOW, np.int64),
        horizon_moments=np.zeros((assets, horizons, signals, moments.MERGED)),
        runs=np.zeros((assets, signals, 3), np.int64),
        head=np.full((assets, signals), NONE, np.int32),
        segment=np.full((assets, len(layout.bands)), NONE, np.int32),
    )


def new_output(c: EquipmentClass, rows: int, rejections: int) -> Output:
    """Return tables for so many windows and rejections."""
    horizons = max(rows, 64 * (1 + len(c.horizons_s)))
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
        reject_block=np.zeros(rejections, np.int64),
        reject_first=np.zeros(rejections, np.int64),
        reject_count=np.zeros(rejections, np.int64),
        reject_reason=np.zeros(rejections, np.int64),
        used=np.zeros(6, np.int64),
    )
