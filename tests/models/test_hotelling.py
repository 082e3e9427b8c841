"""Hotelling's T2 and Q about a frozen and an adaptive reference."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from models import hotelling
from models.hotelling import Hotelling
from models.reference import effective


def rows(assets: int) -> NDArray[np.int32]:
    return np.arange(assets, dtype=np.int32)


def trained(x: NDArray[np.float64], **options: float) -> Hotelling:
    """Learn windows of shape (n, assets, D), as long as the warm-up."""
    detector = Hotelling(x.shape[2], warm_up=len(x), **options)  # type: ignore[arg-type]
    detector.grow(x.shape[1])
    for window in x:
        detector.learn(rows(x.shape[1]), window)
    return detector


def test_mean_and_covariance_are_those_of_the_windows() -> None:
    x = np.random.default_rng(1).normal([5.0, -2.0, 0.1], [1.0, 3.0, 0.01], (300, 1, 3))
    x[:, :, 1] += 2.0 * x[:, :, 0]
    state = trained(x)._state
    assert np.allclose(state.mean[0], x[:, 0].mean(0), rtol=1e-9)
    assert np.allclose(state.var[0], x[:, 0].var(0), rtol=1e-9)
    cov = np.cov(x[:, 0].T, ddof=0)
    assert np.allclose(state.cov[0][[1, 3, 4]], cov[np.tril_indices(3, -1)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("degrees", [1.0, 2.5, 8.0, 16.0])
@pytest.mark.parametrize("above", [0.01, 0.001])
def test_limit_of_t2_is_chi_squared(degrees: float, above: float) -> None:
    quantile = NormalDist().inv_cdf(1.0 - above)
    assert hotelling._chi2(quantile, degrees) == pytest.approx(stats.chi2.ppf(1.0 - above, degrees), rel=0.04)


def test_limit_of_q_holds_for_the_residual_it_is_for() -> None:
    values = np.array([0.2, 0.1, 0.05, 0.05])
    x = np.random.default_rng(2).normal(size=(200_000, 4)) * np.sqrt(values)
    limit = hotelling._residual_limit(values, NormalDist().inv_cdf(0.99))
    assert ((x**2).sum(1) > limit).mean() == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_healthy_windows_seldom_score_above_1(correlation: float) -> None:
    rng = np.random.default_rng(3)
    assets, d, n = 300, 6, 500
    noise = rng.normal(size=(2 * n, assets, d))
    x = np.empty_like(noise)
    x[0] = noise[0]
    for i in range(1, 2 * n):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * noise[i]
    detector = trained(x[:n], above=0.01)
    share = np.mean([(detector.score(rows(assets), window) > 1.0).mean() for window in x[n:]])
    assert 0.001 < share < 0.02


def test_independent_observations_of_a_correlated_feature() -> None:
    rng = np.random.default_rng(4)
    x = np.zeros(20_000)
    for i in range(1, len(x)):
        x[i] = 0.9 * x[i - 1] + rng.normal()
    independent = effective(float(len(x)), float(x.var()), float((np.diff(x) ** 2).mean()), 1e9)
    assert independent == pytest.approx(len(x) * 0.1 / 1.9, rel=0.1)


def test_a_broken_pattern_is_found_where_each_feature_alone_is_usual() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 1, 2))
    x[:, :, 1] = x[:, :, 0] + 0.1 * x[:, :, 1]
    detector = trained(x)
    assert detector.score(rows(1), np.array([[1.0, 1.0]]))[0] < 1.0
    assert detector.score(rows(1), np.array([[1.0, -1.0]]))[0] > 2.0


def test_slow_wear_shows_against_the_frozen_reference_though_all_of_it_is_learnt() -> None:
    rng = np.random.default_rng(6)
    detector = trained(rng.normal(3.0, 0.1, (200, 1, 1)), memory=200)
    before = detector.expected(rows(1))
    closing_s = 3.0 + np.linspace(0.0, 1.0, 4000) + rng.normal(0.0, 0.1, 4000)
    scores = []
    for value in closing_s:
        scores.append(detector.score(rows(1), np.array([[value]]))[0])
        detector.learn(rows(1), np.array([[value]]))
    assert np.mean(scores[:200]) < 1.0
    assert np.mean(scores[-200:]) > 2.0
    assert detector._state.mean[0, 0] == pytest.approx(4.0, abs=0.1)  # the adaptive one has followed
    assert np.array_equal(before, detector.expected(rows(1)))


def test_a_feature_that_only_drifts_in_the_warm_up_is_not_yet_known() -> None:
    rng = np.random.default_rng(7)
    warming_up = np.linspace(20.0, 45.0, 400)[:, None, None]
    steady = rng.normal(1.0, 0.1, (400, 1, 1))
    detector = trained(np.concatenate((warming_up, steady), axis=2))
    assert detector.score(rows(1), np.array([[60.0, 1.0]]))[0] < 1.0
    assert detector.score(rows(1), np.array([[45.0, 2.0]]))[0] > 1.0
    lower, upper = detector.expected(rows(1))
    assert np.isnan(lower[0, 0])
    assert lower[0, 1] < 1.0 < upper[0, 1]


def test_a_feature_that_is_seldom_seen_joins_the_frozen_reference_later() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(3.0, 0.1, (2000, 1, 2))
    seldom = np.arange(2000) % 40 != 0
    x[seldom, 0, 1] = np.nan
    detector = trained(x[:200])
    slow = np.array([[3.0, 5.0]])
    assert detector.score(rows(1), slow)[0] < 1.0
    for window in x[200:]:
        detector.learn(rows(1), window)
    assert detector.score(rows(1), slow)[0] > 1.0
    assert np.isfinite(detector.expected(rows(1))[0]).all()


def test_a_missing_feature_is_taken_as_least_abnormal() -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(400, 1, 3))
    x[:, :, 1] = x[:, :, 0] + 0.3 * x[:, :, 1]
    detector = trained(x)
    missing = detector.score(rows(1), np.array([[2.0, np.nan, 0.0]]))[0]
    any_value = [detector.score(rows(1), np.array([[2.0, v, 0.0]]))[0] for v in np.linspace(-4.0, 4.0, 41)]
    assert missing == pytest.approx(min(any_value), abs=0.03)
    assert detector.explain(rows(1), np.array([[2.0, np.nan, 0.0]]))[0, 1] == 0.0


def test_an_absurd_window_that_was_learnt_blinds_nothing() -> None:
    x = np.random.default_rng(12).normal(size=(400, 1, 2))
    x[100] = 1e9
    detector = trained(x)
    assert detector.score(rows(1), np.array([[0.0, 0.0]]))[0] < 1.0
    assert detector.score(rows(1), np.array([[6.0, 0.0]]))[0] > 1.0


def test_a_feature_that_was_constant_can_begin_to_move() -> None:
    x = np.random.default_rng(13).normal(2.0, 0.3, (600, 1, 1))
    x[:200] = 0.0
    detector = trained(x)
    assert detector.score(rows(1), np.array([[2.0]]))[0] < 1.0


def test_usual_range_holds_most_of_what_was_learnt() -> None:
    x = np.random.default_rng(10).normal(50.0, 2.0, (500, 1, 1))
    lower, upper = trained(x).expected(rows(1))
    assert lower[0, 0] == pytest.approx(44.0, abs=0.6)
    assert upper[0, 0] == pytest.approx(56.0, abs=0.6)


def test_the_explanation_names_the_feature_that_moved() -> None:
    x = np.random.default_rng(11).normal(size=(400, 1, 5))
    share = trained(x).explain(rows(1), np.array([[0.0, 0.0, 6.0, 0.0, 0.0]]))
    assert share[0].argmax() == 2
    assert share[0, 2] > 0.7
