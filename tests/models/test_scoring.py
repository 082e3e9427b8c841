"""The scoring step of a shard."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from features.signals import ClassFileError, Condition, EquipmentClass, load_class
from features.windows import ClosedWindows
from models.detector import StateError
from models.scoring import Scored, Scorer

WARM_UP = 100
FEATURES = ("flow.mean", "water_pressure.mean", "pump_power.mean@running")


def small(**detection: Any) -> EquipmentClass:
    """Return the boiler with three features, one of them known only while the pump runs."""
    boiler = load_class("boiler")
    changed = msgspec.structs.replace(
        boiler.detection, **({"features": FEATURES, "warm_up": WARM_UP, "memory": 1000} | detection)
    )
    running = {"running": Condition(feature="flow.max", at_least=0.5)}
    return msgspec.structs.replace(boiler, detection=changed, conditions=running)


def windows_of(
    equipment: EquipmentClass, n: int, assets: int, seed: int = 1, first: int = 0
) -> tuple[ClosedWindows, NDArray[np.float64]]:
    """Return n windows of each asset in the order of time, and their table to be changed in place."""
    rng = np.random.default_rng(seed)
    table = np.full((n * assets, len(equipment.features)), np.nan)
    for name, mean, sd in (("flow", 2.0, 0.1), ("water_pressure", 1.5, 0.02), ("pump_power", 60.0, 3.0)):
        table[:, equipment.feature_index[f"{name}.mean"]] = rng.normal(mean, sd, n * assets)
    table[:, equipment.feature_index["flow.max"]] = 2.5
    start = np.repeat(np.arange(first, first + n) * 60_000_000, assets)
    windows = ClosedWindows(
        names=[f"b{i}" for i in range(assets)],
        rows=np.tile(np.arange(assets, dtype=np.int32), n),
        start_us=start,
        end_us=start + 60_000_000,
        samples=np.full(n * assets, 600),
        state_code=np.zeros(n * assets),
        features=table,
    )
    return windows, table


def part(windows: ClosedWindows, chosen: Any, names: list[str] | None = None) -> ClosedWindows:
    return ClosedWindows(
        names or windows.names,
        windows.rows[chosen],
        windows.start_us[chosen],
        windows.end_us[chosen],
        windows.samples[chosen],
        windows.state_code[chosen],
        windows.features[chosen],
    )


def joined(scored: list[Scored], name: str) -> NDArray[np.float64]:
    return np.concatenate([getattr(s, name) for s in scored])


FIELDS = ("x", "score", "warming", "share", "lower", "upper")


@pytest.mark.parametrize("smoothing", [1, 8])
def test_the_split_into_calls_changes_nothing(smoothing: int) -> None:
    equipment = small(smoothing=smoothing)
    windows, _ = windows_of(equipment, 3 * WARM_UP, 4)
    whole = Scorer(equipment).step(windows)
    scorer = Scorer(equipment)
    cuts = [0, 3, 4, 50, 333, 334, len(windows.rows)]
    parts = [scorer.step(part(windows, slice(a, b))) for a, b in pairwise(cuts)]
    for name in FIELDS:
        assert np.array_equal(getattr(whole, name), joined(parts, name), equal_nan=True), name


def test_other_assets_change_nothing() -> None:
    equipment = small(smoothing=3)
    windows, _ = windows_of(equipment, 3 * WARM_UP, 5)
    together = Scorer(equipment).step(windows)
    mine = windows.rows == 3
    alone = part(windows, mine, ["b3"])
    alone.rows[:] = 0
    apart = Scorer(equipment).step(alone)
    for name in FIELDS:
        assert np.array_equal(getattr(together, name)[mine], getattr(apart, name), equal_nan=True), name


def test_an_asset_is_neutral_until_it_has_warmed_up() -> None:
    equipment = small()
    windows, table = windows_of(equipment, WARM_UP + 10, 1)
    table[5:20] = np.nan  # windows without data do not count
    scored = Scorer(equipment).step(windows)
    assert scored.warming.tolist() == [True] * WARM_UP + [True] * 10
    windows, _ = windows_of(equipment, WARM_UP + 10, 1)
    scored = Scorer(equipment).step(windows)
    assert scored.warming.tolist() == [True] * WARM_UP + [False] * 10
    assert (scored.score[:WARM_UP] == 0.0).all()
    assert (scored.score[WARM_UP:] > 0.0).all()
    assert np.isnan(scored.lower[:WARM_UP]).all()
    assert np.isfinite(scored.lower[WARM_UP:]).all()


def test_windows_above_the_alarm_level_are_not_learnt() -> None:
    equipment = small()
    scorer = Scorer(equipment)
    windows, table = windows_of(equipment, 3 * WARM_UP, 1)
    table[WARM_UP:, equipment.feature_index["water_pressure.mean"]] -= 0.4
    scored = scorer.step(windows)
    assert (scored.score[WARM_UP:] > 1.0).all()
    assert (scored.share[WARM_UP:].argmax(1) == 1).all()
    back, _ = windows_of(equipment, 20, 1, seed=2, first=3 * WARM_UP)
    assert (scorer.step(back).score <= 1.0).all()


def test_a_feature_is_unknown_where_its_condition_does_not_hold() -> None:
    equipment = small()
    windows, table = windows_of(equipment, 2 * WARM_UP, 1)
    off = np.arange(2 * WARM_UP) % 3 == 0
    table[off, equipment.feature_index["flow.max"]] = 0.0
    table[off, equipment.feature_index["pump_power.mean"]] = 0.0
    scored = Scorer(equipment).step(windows)
    assert np.isnan(scored.x[:, 2]).tolist() == off.tolist()
    assert (scored.score[WARM_UP:] <= 1.0).all()
    table[-1, equipment.feature_index["flow.max"]] = np.nan  # not known whether it holds
    assert np.isnan(Scorer(equipment).step(windows).x[-1, 2])


def test_smoothing_is_the_exponentially_weighted_mean() -> None:
    equipment = small(smoothing=4)
    windows, table = windows_of(equipment, 30, 2)
    column = equipment.feature_index["flow.mean"]
    table[7, column] = np.nan
    x = Scorer(equipment).step(windows).x[:, 0]
    for row in (0, 1):
        values = table[row::2, column]
        known = values[~np.isnan(values)]
        for n in (1, 2, 10, len(known)):
            weights = (1.0 - 0.4) ** np.arange(n)[::-1]
            expected = (known[:n] * weights).sum() / weights.sum()
            seen = x[row::2][~np.isnan(values)][n - 1]
            assert seen == pytest.approx(expected, rel=1e-12)
    assert np.isnan(x[7])


def test_out_of_service_an_asset_says_nothing() -> None:
    equipment = small()
    windows, table = windows_of(equipment, 2 * WARM_UP, 1)
    stopped = slice(WARM_UP + 20, WARM_UP + 50)
    windows.state_code[stopped] = 1.0
    table[stopped, equipment.feature_index["flow.mean"]] = 0.0
    scored = Scorer(equipment).step(windows)
    assert (scored.score[stopped] == 0.0).all()
    assert (scored.share[stopped] == 0.0).all()
    assert not scored.warming[stopped].any()
    assert (scored.score <= 1.0).all()


def test_a_repaired_asset_warms_up_again() -> None:
    equipment = small()
    scorer = Scorer(equipment)
    scorer.step(windows_of(equipment, 2 * WARM_UP, 2)[0])
    scorer.rebaseline(np.array([1], np.int32))
    after = scorer.step(windows_of(equipment, 1, 2, first=2 * WARM_UP)[0])
    assert after.warming.tolist() == [False, True]


def test_it_goes_on_from_a_stored_state() -> None:
    equipment = small(smoothing=5)
    windows, _ = windows_of(equipment, 3 * WARM_UP, 3)
    whole = Scorer(equipment).step(windows)
    first, second = Scorer(equipment), Scorer(equipment)
    cut = 3 * 150
    before = first.step(part(windows, slice(0, cut)))
    second.load(first.state())
    after = second.step(part(windows, slice(cut, None)))
    for name in FIELDS:
        assert np.array_equal(getattr(whole, name), joined([before, after], name), equal_nan=True), name


def test_a_state_that_does_not_fit_is_refused() -> None:
    scorer = Scorer(small())
    with pytest.raises(StateError, match="version"):
        scorer.load({"version": 0})
    with pytest.raises(StateError, match="the class file has changed"):
        scorer.load(Scorer(small(detectors=("cusum",))).state())


def test_an_unknown_detector_is_a_fault_of_the_class_file() -> None:
    with pytest.raises(ClassFileError, match=r"\$\.detection\.detectors: no detector is called 'oracle'"):
        Scorer(small(detectors=("oracle",)))


def test_no_window_is_no_fault() -> None:
    equipment = small()
    windows, _ = windows_of(equipment, 1, 1)
    scored = Scorer(equipment).step(part(windows, slice(0, 0)))
    assert scored.score.shape == (0,)
    assert scored.x.shape == (0, 3)


@pytest.mark.parametrize("name", ["lift", "boiler"])
def test_state_of_an_asset_is_below_ten_kilobytes(name: str) -> None:
    equipment = load_class(name)
    scorer = Scorer(equipment)
    windows, _ = windows_of(small(), 1, 100)
    wide = ClosedWindows(
        windows.names, windows.rows, windows.start_us, windows.end_us, windows.samples, windows.state_code,
        np.full((100, len(equipment.features)), np.nan),
    )  # fmt: skip
    scorer.step(wide)
    assert scorer.nbytes / 100 < 10_000


def test_a_row_whose_asset_left_is_new() -> None:
    equipment = small()
    windows, _ = windows_of(equipment, WARM_UP + 20, 3)
    scorer, fresh = Scorer(equipment), Scorer(equipment)
    scorer.step(windows)
    scorer.forget(np.array([1, 7], np.int32))
    follow, _ = windows_of(equipment, WARM_UP + 20, 3, seed=2, first=500)
    got, alone = scorer.step(follow), fresh.step(follow)
    mine = follow.rows == 1
    np.testing.assert_array_equal(got.score[mine], alone.score[mine])
    assert got.warming[mine][:WARM_UP].all() and not got.warming[follow.rows == 0].any()
