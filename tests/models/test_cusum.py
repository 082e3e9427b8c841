"""CUSUM finds small shifts that last."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.cusum import Cusum
from models.hotelling import Hotelling
from models.reference import effective, spread


def rows(assets: int) -> NDArray[np.int32]:
    return np.arange(assets, dtype=np.int32)


def trained(x: NDArray[np.float64], above: float = 0.001) -> Cusum:
    detector = Cusum(x.shape[2], warm_up=len(x), above=above)
    detector.grow(x.shape[1])
    for window in x:
        detector.learn(rows(x.shape[1]), window)
    return detector


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_healthy_windows_seldom_score_above_1(correlation: float) -> None:
    rng = np.random.default_rng(1)
    assets, n = 100, 600
    x = rng.normal(size=(3 * n, assets, 3))
    for i in range(1, 3 * n):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * x[i]
    detector = trained(x[:n], above=0.01)
    above = 0.0
    for window in x[n:]:
        normal = detector.score(rows(assets), window) <= 1.0
        above += 1.0 - normal.mean()
        detector.learn(rows(assets)[normal], window[normal])
    assert above / (2 * n) < 0.015


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_small_shift_that_lasts_is_found_where_no_single_window_shows_it(direction: float) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 1, 2))
    detector, single = trained(x), Hotelling(2, warm_up=500)
    single.grow(1)
    for window in x:
        single.learn(rows(1), window)
    shifted = rng.normal(size=(60, 1, 2)) + np.array([1.8 * direction, 0.0])
    seen = 0
    for window in shifted:
        seen += int(single.score(rows(1), window)[0] > 1.0)
        detector.learn(rows(1), window)
    assert seen <= 3
    assert detector.score(rows(1), shifted[-1])[0] > 1.0
    assert detector.explain(rows(1), shifted[-1])[0].argmax() == 0


def test_sums_of_one_window_are_pages() -> None:
    detector = trained(np.random.default_rng(3).normal(size=(300, 1, 1)))
    state = detector._state
    up, down = state.up[0, 0], state.down[0, 0]
    mean, var = state.mean[0, 0], state.var[0, 0]
    sd = spread(mean, var, effective(300.0, var, state.step[0, 0], float(detector.memory)))
    detector.learn(rows(1), np.array([[2.0]]))
    z = (2.0 - mean) / sd
    assert detector._state.up[0, 0] == pytest.approx(max(0.0, up + z - 1.0), rel=1e-5)
    assert detector._state.down[0, 0] == pytest.approx(max(0.0, down - z - 1.0), rel=1e-5)


def test_one_outlier_fills_no_sum() -> None:
    detector = trained(np.random.default_rng(4).normal(size=(300, 1, 1)))
    assert detector.score(rows(1), np.array([[1e6]]))[0] < 1.0


def test_a_shift_that_is_over_is_soon_forgotten() -> None:
    detector = trained(np.random.default_rng(5).normal(size=(300, 1, 1)))
    for _ in range(200):
        detector.learn(rows(1), np.array([[2.0]]))
    windows = 0
    while detector.score(rows(1), np.array([[0.0]]))[0] > 1.0:
        detector.learn(rows(1), np.array([[0.0]]))
        windows += 1
    assert windows < 50
