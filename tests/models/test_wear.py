"""The wear model against simulation, against the inverse Gaussian, and at the edges of the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from models.wear import (
    ENOUGH,
    FARTHEST,
    SHIFT_AFTER,
    Trend,
    failure_probability,
    first_passage,
    limit_distances,
    log_normal_cdf,
    new_trend,
    normal_quantile,
    observe,
    remaining_life,
    reset,
    under_way,
)

DAY_US = 86_400_000_000.0
HOUR_US = 3_600_000_000

steady = settings(deadline=None, derandomize=True)  # the first example compiles the kernels
moderate = st.floats(-0.3, 0.5)
distances_of = st.floats(0.01, 1.5)
spreads = st.floats(0.0, 0.5)
diffusions = st.floats(1e-4, 0.1)


def follow(values: NDArray[np.float64], sd: float = 0.03, every: int = 1, seconded: bool = True) -> Trend:
    """Observe one value an hour, or every so many hours."""
    trend = new_trend(1, 1)
    for hour, value in enumerate(values):
        observe(trend, 0, 0, hour * every * HOUR_US, DAY_US, float(value), sd**2, seconded)
    return trend


def test_fixed_drift_is_the_inverse_gaussian() -> None:
    distance, drift, diffusion = 0.6, 0.08, 0.004
    mean, shape = distance / drift, distance**2 / diffusion
    law = stats.invgauss(mean / shape, scale=shape)
    days = np.geomspace(0.5, 60.0, 40)
    ours = [first_passage(float(d), distance, drift, 0.0, diffusion) for d in days]
    np.testing.assert_allclose(ours, law.cdf(days), atol=1e-9)


@pytest.mark.parametrize(
    ("distance", "drift", "drift_sd", "diffusion"),
    [(0.5, 0.1, 0.03, 0.004), (0.8, 0.0, 0.05, 0.01), (0.3, -0.02, 0.04, 0.02)],
)
def test_random_drift_agrees_with_simulation(distance: float, drift: float, drift_sd: float, diffusion: float) -> None:
    rng = np.random.default_rng(1)
    paths, steps, days = 20_000, 400, 8.0
    dt = days / steps
    slope = rng.normal(drift, drift_sd, paths)
    position, failed = np.zeros(paths), np.zeros(paths, np.bool_)
    shares = {}
    for step in range(1, steps + 1):
        before = position
        position = before + slope * dt + rng.normal(0.0, math.sqrt(diffusion * dt), paths)
        # Between two steps a Brownian bridge may touch the limit too.
        left, right = np.maximum(distance - before, 0.0), np.maximum(distance - position, 0.0)
        failed |= rng.random(paths) < np.exp(-2.0 * left * right / (diffusion * dt))
        shares[step * dt] = failed.mean()
    for when in (2.0, 4.0, 8.0):
        share = shares[min(shares, key=lambda d: abs(d - when))]
        assert first_passage(when, distance, drift, drift_sd, diffusion) == pytest.approx(share, abs=0.012)


@steady
@given(distance=distances_of, drift=moderate, drift_sd=spreads, diffusion=diffusions)
def test_probability_rises_with_the_horizon(distance: float, drift: float, drift_sd: float, diffusion: float) -> None:
    found = [first_passage(d, distance, drift, drift_sd, diffusion) for d in np.geomspace(1e-3, 1e3, 30).tolist()]
    assert all(0.0 <= p <= 1.0 for p in found)
    assert (np.diff(found) >= -1e-9).all()


@steady
@given(level=st.floats(-0.5, 1.5), variance=st.floats(0.0, 0.2), drift=moderate, drift_sd=spreads)
def test_quantiles_of_the_remaining_life_are_where_the_probability_says(
    level: float, variance: float, drift: float, drift_sd: float
) -> None:
    ways, life = np.empty(3), np.empty(3)
    limit_distances(level, variance, ways)
    assert (ways > 0.0).all()
    remaining_life(ways, drift, drift_sd, 0.001, 1.0, life)
    if math.isnan(life[1]):
        assert np.isnan(life).all()
        return
    known = life[np.isfinite(life)]
    assert (np.diff(known) >= 0.0).all()
    assert (known <= FARTHEST).all()
    for days, goal in zip(known.tolist(), (0.1, 0.5, 0.9), strict=False):
        if days > 1e-3:  # nearer than that the failure is due at once
            assert failure_probability(days, ways, drift, drift_sd, 0.001) >= goal - 1e-9
            assert failure_probability(days / 1.002, ways, drift, drift_sd, 0.001) <= goal + 1e-9


@steady
@given(level=st.floats(-0.5, 1.3), drift=moderate)
def test_more_wear_is_never_safer(level: float, drift: float) -> None:
    near, far = np.empty(3), np.empty(3)
    limit_distances(level + 0.1, 0.001, near)
    limit_distances(level, 0.001, far)
    for days in (0.1, 1.0, 7.0):
        closer = failure_probability(days, near, drift, 0.03, 0.001)
        assert closer >= failure_probability(days, far, drift, 0.03, 0.001) - 1e-12


@steady
@given(x=st.floats(-200.0, 8.0))
def test_log_normal_cdf_agrees_with_scipy(x: float) -> None:
    assert log_normal_cdf(x) == pytest.approx(float(stats.norm.logcdf(x)), rel=1e-7, abs=1e-12)


@steady
@given(p=st.floats(1e-200, 1.0, exclude_max=True))
def test_normal_quantile_inverts_it(p: float) -> None:
    assert normal_quantile(p) == pytest.approx(float(stats.norm.ppf(p)), rel=1e-7, abs=1e-7)


def test_a_steady_drift_is_learned_with_its_uncertainty() -> None:
    rng = np.random.default_rng(2)
    hours = np.arange(6 * 24)
    trend = follow(0.1 * hours / 24 + rng.normal(0.0, 0.03, len(hours)))
    assert trend.level[0, 0] == pytest.approx(0.6, abs=0.03)
    assert trend.drift[0, 0] == pytest.approx(0.1, abs=0.05)
    assert abs(trend.drift[0, 0] - 0.1) < 3.0 * math.sqrt(trend.p_drift[0, 0])


def test_a_healthy_asset_has_a_small_probability_and_no_remaining_life() -> None:
    trend = follow(np.random.default_rng(3).normal(0.0, 0.03, 240))
    ways, life = np.empty(3), np.empty(3)
    limit_distances(trend.level[0, 0], trend.p_level[0, 0], ways)
    sd = math.sqrt(trend.p_drift[0, 0])
    assert 0.0 <= failure_probability(7.0, ways, trend.drift[0, 0], sd, 0.0009) < 0.01
    remaining_life(ways, trend.drift[0, 0], sd, 0.0009, under_way(trend.level[0, 0], 0.001), life)
    assert np.isnan(life).all()


def test_a_spell_of_misuse_moves_nothing() -> None:
    quiet = np.random.default_rng(4).normal(0.0, 0.02, 200)
    spell = quiet.copy()
    spell[150:153] += 1.0
    calm, shaken = follow(quiet), follow(spell)
    assert shaken.level[0, 0] == pytest.approx(calm.level[0, 0], abs=0.01)
    assert shaken.drift[0, 0] == pytest.approx(calm.drift[0, 0], abs=0.01)


def test_an_offset_is_a_new_level_but_no_drift() -> None:
    values = np.random.default_rng(5).normal(0.0, 0.02, 200)
    values[100:] += 0.5
    trend = follow(values)
    assert trend.level[0, 0] == pytest.approx(0.5, abs=0.03)
    assert abs(trend.drift[0, 0]) < 0.03
    early = follow(values[: 100 + SHIFT_AFTER])
    assert early.level[0, 0] == pytest.approx(0.5, abs=0.05)
    assert abs(early.drift[0, 0]) < 0.05


def test_a_jump_that_nobody_seconds_is_the_sensor_s() -> None:
    values = np.random.default_rng(5).normal(0.0, 0.02, 300)
    values[100:200] += 0.5
    assert follow(values[:200], seconded=False).offset[0, 0] == pytest.approx(0.5, abs=0.05)
    assert follow(values[:200], seconded=True).offset[0, 0] == 0.0
    assert follow(values, seconded=False).offset[0, 0] == pytest.approx(0.0, abs=0.05)
    assert follow(-values, seconded=False).offset[0, 0] <= 0.05


def test_uneven_wear_has_a_larger_diffusion_than_smooth_wear() -> None:
    rng = np.random.default_rng(6)
    days = np.repeat(rng.normal(0.0, 0.1, 30).cumsum(), 24)
    smooth, rough = follow(np.zeros(len(days)), 0.1), follow(days, 0.1)
    assert rough.rough[0, 0] / rough.rough_days[0, 0] > 4.0 * smooth.rough[0, 0] / smooth.rough_days[0, 0]


def test_a_gap_makes_less_sure_and_invents_nothing() -> None:
    before = follow(np.full(48, 0.2))
    after = follow(np.full(48, 0.2))
    observe(after, 0, 0, 48 * HOUR_US + int(5 * DAY_US), DAY_US, 0.2, 100.0, True)
    assert after.p_drift[0, 0] > before.p_drift[0, 0]
    assert after.p_level[0, 0] > before.p_level[0, 0]
    assert after.level[0, 0] == pytest.approx(0.2, abs=0.1)


def test_reset_forgets_everything() -> None:
    trend, fresh = follow(np.linspace(0.0, 1.0, 100)), new_trend(1, 1)
    assert trend.seen[0, 0] > ENOUGH
    reset(trend, 0, 0)
    for ours, theirs in zip(trend, fresh, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@steady
@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=60), st.integers(1, 30))
def test_the_filter_stays_sane(values: list[float], every: int) -> None:
    trend = follow(np.array(values), every=every)
    determinant = trend.p_level[0, 0] * trend.p_drift[0, 0] - trend.p_cross[0, 0] ** 2
    assert trend.p_level[0, 0] > 0.0
    assert trend.p_drift[0, 0] > 0.0
    assert determinant > 0.0
    assert np.isfinite([trend.level[0, 0], trend.drift[0, 0]]).all()
