"""Health: references that hold still, degradation that follows, and what is not known."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.signals import EquipmentClass, load_class
from models.health import (
    DAY_STEPS,
    LEVELS_LEAST,
    SPREAD_LEAST,
    WINDOWS_LEAST,
    Indicators,
    References,
    close_level,
    combine,
    degradation,
    gather,
    indicators_of,
    new_references,
    renew,
    step_s,
)

steady = settings(deadline=None, derandomize=True)


def equipment(**indicators: Any) -> EquipmentClass:
    """Return a class with one failure mode a name, whose indicators are `a.mean`, `b.mean`, ... in turn."""
    signal = {"unit": "1", "range": [-1e6, 1e6], "period_s": 1.0, "description": ""}
    names = "abcdef"
    modes, used = {}, 0
    for name, one in indicators.items():
        several = one if isinstance(one, list) else [one]
        for each in several:
            each.setdefault("feature", f"{names[used]}.mean")
            used += 1
        modes[name] = {"description": "", "advice": "", "indicators": several}
    return msgspec.convert(
        {
            "name": "rig",
            "description": "",
            "window_s": 600.0,
            "lateness_s": 0.0,
            "idle_after_s": 60.0,
            "silent_after_s": 900.0,
            "signals": {n: signal for n in names},
            "detection": {"features": ["a.mean"]},
            "conditions": {"busy": {"feature": "f.mean", "at_least": 1.0}},
            "failure_modes": modes,
        },
        EquipmentClass,
    )


class Rig:
    """One asset whose indicators are fed an hour at a time."""

    def __init__(self, c: EquipmentClass) -> None:
        self.c = c
        self.k: Indicators = indicators_of(c)
        self.r: References = new_references(1, len(self.k.column))
        self.step = 0

    def hour(self, windows: int = WINDOWS_LEAST, **values: float) -> NDArray[np.float64]:
        features = np.full(len(self.c.features), np.nan)
        for name, value in values.items():
            features[self.c.feature_index[f"{name}.mean"]] = value
        for _ in range(windows):
            gather(self.k, self.r, 0, features)
        levels = [close_level(self.k, self.r, 0, i, self.step) for i in range(len(self.k.column))]
        self.step += 1
        return np.array(levels)

    def commission(self, **values: float) -> None:
        for _ in range(DAY_STEPS):
            self.hour(WINDOWS_LEAST, **values)


def test_the_reference_is_the_first_day_and_stays() -> None:
    rig = Rig(equipment(worn={"fails_at": 2.0}))
    for hour in range(DAY_STEPS):
        assert math.isnan(rig.hour(a=10.0 + 0.1 * (hour % 2))[0])
    assert rig.r.frozen[0, 0] == pytest.approx(10.05, abs=0.02)
    frozen = rig.r.frozen[0, 0]
    for _ in range(100):
        levels = rig.hour(a=15.0)
    assert rig.r.frozen[0, 0] == frozen
    assert rig.r.adaptive[0, 0] == pytest.approx(15.0, abs=0.01)
    assert levels[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("indicator", "reference", "value", "gone"),
    [
        ({"fails_at": 1.8}, 3.0, 3.0 * 1.4, 0.5),
        ({"fails_by": 40.0}, 30.0, 50.0, 0.5),
        ({"fails_at": 0.4, "direction": "down"}, 14.0, 14.0 * 0.7, 0.5),
        ({"fails_by": 0.9, "direction": "down"}, 1.5, 0.6, 1.0),
        ({"fails_by": 2.0}, 0.0, -0.5, -0.25),
    ],
)
def test_degradation_goes_from_the_reference_to_the_failure_limit(
    indicator: dict[str, Any], reference: float, value: float, gone: float
) -> None:
    rig = Rig(equipment(worn=indicator))
    rig.commission(a=reference)
    assert rig.hour(a=value)[0] == pytest.approx(gone)
    assert degradation(rig.r, 0, 0, value) == pytest.approx(gone)


def test_a_factor_on_zero_knows_nothing() -> None:
    rig = Rig(equipment(worn={"fails_at": 1.8}))
    rig.commission(a=0.0)
    assert math.isnan(rig.hour(a=5.0)[0])


def test_a_spell_of_misuse_on_the_first_day_is_left_out() -> None:
    rig = Rig(equipment(worn={"fails_at": 2.0}))
    for hour in range(DAY_STEPS):
        rig.hour(a=30.0 if hour in (5, 6, 7) else 10.0 + 0.1 * (hour % 3))
    assert rig.r.frozen[0, 0] == pytest.approx(10.1, abs=0.05)
    assert rig.r.variance[0, 0] < SPREAD_LEAST**2


def test_a_rare_indicator_takes_its_time() -> None:
    rig = Rig(equipment(worn={"fails_at": 2.0}))
    for _ in range(LEVELS_LEAST * WINDOWS_LEAST - 1):
        rig.hour(1, a=10.0)
        assert math.isnan(rig.r.frozen[0, 0])
    rig.hour(1, a=10.0)
    assert rig.r.frozen[0, 0] == 10.0


def test_a_daily_cycle_counts_in_the_uncertainty() -> None:
    white, daily = (Rig(equipment(worn={"fails_at": 2.0})) for _ in range(2))
    noise = np.random.default_rng(1).normal(0.0, 1.0, DAY_STEPS)
    for hour in range(DAY_STEPS):
        white.hour(a=10.0 + noise[hour])
        daily.hour(a=10.0 + math.sqrt(2.0) * math.sin(2.0 * math.pi * hour / 24))
    # Both have the same spread, but a daily cycle says less each hour.
    assert daily.r.variance[0, 0] > 4.0 * white.r.variance[0, 0]


def test_the_condition_decides_which_windows_speak() -> None:
    rig = Rig(equipment(worn={"fails_at": 2.0, "feature": "a.mean@busy"}))
    for _ in range(DAY_STEPS):
        rig.hour(a=10.0, f=2.0)
        rig.hour(a=99.0, f=0.5)
        rig.hour(a=99.0)
    assert rig.r.frozen[0, 0] == 10.0


def mode_of(rig: Rig, levels: NDArray[np.float64]) -> NDArray[np.float64] | None:
    out = np.full(3, np.nan)
    return out if combine(rig.k, rig.r, 0, 0, levels, out) > 0 else None


def two() -> Rig:
    rig = Rig(equipment(worn=[{"fails_at": 2.0}, {"fails_at": 2.0}]))
    rig.commission(a=10.0, b=5.0)
    return rig


def test_two_that_agree_count_more_than_one_that_drifts() -> None:
    together, alone = mode_of(two(), np.array([0.8, 0.8])), mode_of(two(), np.array([0.8, 0.0]))
    assert together is not None
    assert alone is not None
    assert together[0] == pytest.approx(0.8)
    assert alone[0] == pytest.approx(0.2)
    assert alone[2] > together[2]  # and what it says is less certain


def test_a_missing_indicator_leaves_it_to_the_other() -> None:
    only = mode_of(two(), np.array([np.nan, 0.8]))
    assert only is not None
    assert only[0] == pytest.approx(0.8)
    assert mode_of(two(), np.array([np.nan, np.nan])) is None


def test_a_noisy_indicator_counts_less() -> None:
    rig = two()
    rig.r.variance[0, 1] = 0.5**2
    found = mode_of(rig, np.array([0.8, 0.0]))
    assert found is not None
    assert found[0] > 0.6


@steady
@given(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_the_mode_lies_between_its_indicators_and_health(one: float, other: float) -> None:
    found = mode_of(two(), np.array([one, other]))
    assert found is not None
    assert min(one, other, 0.0) - 1e-9 <= found[0] <= max(one, other, 0.0) + 1e-9
    assert found[1] > 0.0


def test_a_renewed_asset_knows_nothing() -> None:
    rig = two()
    rig.hour(a=15.0, b=7.0)
    for i in range(2):
        renew(rig.r, 0, i)
    fresh = new_references(1, 2)
    for name in ("windows", "total", "kept", "began", "frozen", "limit", "adaptive"):
        np.testing.assert_array_equal(getattr(rig.r, name), getattr(fresh, name))


def test_the_shipped_classes_have_indicators() -> None:
    for name in ("lift", "boiler"):
        c = load_class(name)
        k = indicators_of(c)
        assert len(k.first) == len(c.failure_modes) + 1
        assert (k.column >= 0).all()
    assert step_s(load_class("boiler")) == 3600.0


def test_a_short_paging_horizon_shortens_the_step() -> None:
    c = equipment(worn={"fails_at": 2.0})
    short = msgspec.structs.replace(c, window_s=1.0, failure_horizons=("30s", "10min"))
    assert step_s(short) == 25.0
