"""Spectra of a stream depend on its samples, not on how it was cut, when it came, or where its seconds begin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.signals import Detection, EquipmentClass, Signal
from features.spectra import SpectraPlan, spectral_kurtosis
from features.windows import ShardBatch, ShardWindows

BANDS = ((1.0, 15.0), (15.0, 50.0))
CLASS = EquipmentClass(
    name="rig",
    description="",
    window_s=10.0,
    lateness_s=5.0,
    idle_after_s=60.0,
    silent_after_s=600.0,
    horizons_s=(),
    signals={
        "shake": Signal(unit="m/s2", range=(-1e6, 1e6), period_s=0.01, description="", bands_hz=BANDS),
        "slow": Signal(unit="1", range=(-1e6, 1e6), period_s=1.0, description=""),
    },
    detection=Detection(features=("shake.mean",)),
)
COLUMNS = [c for c, f in enumerate(CLASS.features) if ".band" in f.name or ".envelope" in f.name]
BEGIN_US = 1_700_000_000_000_000
STEP_US = 10_000

Block = tuple[int, NDArray[np.float64]]


def spectra_of(messages: list[list[Block]]) -> dict[int, NDArray[np.float64]]:
    shard = ShardWindows(CLASS)
    closed = []
    for blocks in messages:
        count = np.array([len(values) for _, values in blocks], np.int64)
        start = np.array([at for at, _ in blocks], np.int64)
        zeros = np.zeros(len(blocks), np.int32)
        step = shard.push(
            ShardBatch(
                ["a"],
                ["shake"],
                zeros,
                zeros,
                start,
                np.where(count > 1, STEP_US, 0),
                np.cumsum(count) - count,
                count,
                np.maximum.accumulate(start),
                np.concatenate([values for _, values in blocks]),
                "test",
            )
        )
        assert not step.rejected
        closed += step.closed
    closed += shard.flush().closed
    assert shard.nbytes and len(shard.state()["segments_number"]) == 0, "no buffer is lost"
    return {int(c.start_us[i]): c.features[i, COLUMNS] for c in closed for i in range(len(c.rows))}


def by_definition(first_us: int, values: NDArray[np.float64]) -> dict[int, NDArray[np.float64]]:
    """Look at each whole second of a gapless stream."""
    plan = SpectraPlan(100, 0.01, BANDS)
    at = first_us + np.arange(len(values)) * STEP_US
    second = (at + STEP_US // 100) // 1_000_000
    found: dict[int, list[NDArray[np.float64]]] = {}
    for number in np.unique(second):
        segment = values[second == number]
        window = int(number) * 1_000_000 // 10_000_000 * 10_000_000
        found.setdefault(window, [])
        if len(segment) == 100:
            found[window].append(plan(segment[None])[0])
    result = {}
    for window, rows in found.items():
        if not rows:
            result[window] = np.full(len(COLUMNS), np.nan)
            continue
        means, most = np.mean(rows, axis=0), np.max(rows, axis=0)
        bands = [number for band in range(2) for number in (means[2 + band], most[2 + band])]
        result[window] = np.array([*bands, spectral_kurtosis(means[0], means[1])])
    return result


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_neither_cut_nor_order_nor_phase_matters(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    phase = data.draw(st.sampled_from([0, 370_000, 4_000, 994_999]))
    values = rng.normal(data.draw(st.sampled_from([0.0, 1e3])), 1.0, 2500)
    first_us = BEGIN_US + phase
    longest = data.draw(st.sampled_from([1, 37, 100, 130, 1000]))
    cuts = [0]
    while cuts[-1] < len(values):
        cuts.append(min(len(values), cuts[-1] + int(rng.integers(1, longest + 1))))
    blocks = [(first_us + a * STEP_US, values[a:b]) for a, b in itertools.pairwise(cuts)]
    # Disorder within the lateness, by the end of each block.
    delay = rng.uniform(0, data.draw(st.sampled_from([0.0, 2e6])), len(blocks))
    order = np.argsort([at + len(v) * STEP_US + d for (at, v), d in zip(blocks, delay, strict=True)], kind="stable")
    size = data.draw(st.sampled_from([1, 13, 10_000]))
    messages = [[blocks[i] for i in order[k : k + size]] for k in range(0, len(order), size)]
    found = spectra_of(messages)
    for window, expected in by_definition(first_us, values).items():
        if window in found:
            np.testing.assert_allclose(found[window], expected, rtol=1e-9, atol=1e-12)


def test_whole_seconds_wait_nowhere_and_a_gap_costs_one_segment() -> None:
    values = np.random.default_rng(1).normal(size=1000)
    whole = [(BEGIN_US + k * 1_000_000, values[k * 100 : k * 100 + 100]) for k in range(10)]
    shard = ShardWindows(CLASS)
    before = shard.nbytes
    assert before == ShardWindows(CLASS).nbytes
    expected = SpectraPlan(100, 0.01, BANDS)(values.reshape(10, 100)[[0, 1, 2, 4, 5, 6, 7, 8, 9]])
    broken = values.copy()
    broken[350] = np.nan
    gap = [(at, broken[k * 100 : k * 100 + 100]) for k, (at, _) in enumerate(whole)]
    [(_, features)] = spectra_of([gap]).items()
    assert features[0] == pytest.approx(expected[:, 2].mean(), rel=1e-9)
