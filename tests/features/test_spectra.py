from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.fourier import LANES
from features.spectra import SpectraPlan, band_powers, envelope, spectral_kurtosis

BANDS = [(1.0, 5.0), (5.0, 15.0), (15.0, 30.0), (30.0, 50.0)]


def spectrum_by_definition(x: NDArray[np.float64]) -> list[complex]:
    """Transform the block, less its weighted mean, through the Hann window, term by term."""
    n = len(x)
    w = [math.sin(math.pi * i / n) ** 2 for i in range(n)]
    mean = math.fsum(a * b for a, b in zip(w, x, strict=True)) / math.fsum(w)
    return [
        sum(w[i] * (x[i] - mean) * cmath.exp(-2j * cmath.pi * k * i / n) for i in range(n)) for k in range(n // 2 + 1)
    ]


def powers_by_definition(x: NDArray[np.float64], period_s: float, bands: list[tuple[float, float]]) -> list[float]:
    n = len(x)
    bins = spectrum_by_definition(x)
    square = math.fsum(math.sin(math.pi * i / n) ** 4 for i in range(n))
    powers = []
    for low, high in bands:
        total = 0.0
        for k in range(1, n // 2 + 1):
            hz = round(k / (n * period_s), 9)
            if low <= hz < high or (2 * k == n and hz == high):
                total += abs(bins[k]) ** 2 * (1.0 if 2 * k == n else 2.0)
        powers.append(total / n / square)
    return powers


def envelope_by_definition(x: NDArray[np.float64], first: int, width: int) -> tuple[float, float]:
    """Band-pass to bins [first, first + width), read off the middle two thirds, level the loudness of white noise."""
    n = len(x)
    bins = spectrum_by_definition(x)
    w = np.sin(np.pi * np.arange(n) / n) ** 2
    squares = []
    for i in range(2 * width):
        t = i * n / (2 * width)
        if not n / 6 - 1e-6 <= t <= n * 5 / 6 + 1e-6:
            continue
        y = 2 / n * sum(bins[k] * cmath.exp(2j * cmath.pi * k * t / n) for k in range(first, first + width))
        impulses = np.array(
            [
                2 / n * sum(cmath.exp(2j * cmath.pi * k * (t - j) / n) for k in range(first, first + width))
                for j in range(n)
            ]
        )
        loudness = float(np.sum(np.abs(impulses * w) ** 2))
        squares.append(abs(y) ** 2 * (4 * width / n) / loudness)
    return float(np.mean(squares)), float(np.mean(np.square(squares)))


@pytest.mark.parametrize(
    ("n", "period_s", "bands"),
    [
        (100, 0.01, BANDS),
        (100, 0.01, [(0.0, 50.0)]),
        (64, 0.02, [(2.0, 7.5), (10.0, 25.0)]),
        (75, 0.01, [(1.0, 20.0), (20.0, 50.0)]),
        (84, 0.01, [(1.0, 20.0), (20.0, 50.0)]),
        (94, 0.01, [(1.0, 20.0), (37.0, 50.0)]),
        (32, 0.001, [(0.0, 100.0), (400.0, 500.0)]),
    ],
)
def test_powers_and_envelope_are_those_of_the_definition(
    n: int, period_s: float, bands: list[tuple[float, float]]
) -> None:
    x = np.random.default_rng(n).normal(2.0, 0.3, (3, n))
    got = SpectraPlan(n, period_s, bands)(x)
    low, high = bands[-1]
    inside = [k for k in range(1, (n + 1) // 2) if low <= round(k / (n * period_s), 9) < high]
    for row, block in zip(got, x, strict=True):
        np.testing.assert_allclose(row[2:], powers_by_definition(block, period_s, bands), rtol=1e-9)
        np.testing.assert_allclose(row[:2], envelope_by_definition(block, inside[0], len(inside)), rtol=1e-9)


@given(
    st.integers(8, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, 2**32 - 1))),
    st.floats(-1e3, 1e3),
    st.floats(1e-3, 1e3),
)
@settings(max_examples=50, deadline=None)
def test_bands_that_cover_everything_hold_the_variance(size: tuple[int, int], offset: float, scale: float) -> None:
    n, seed = size
    x = np.random.default_rng(seed).normal(offset, scale, (2, n))
    quarter = 12.5
    bands = [(0.0, quarter), (quarter, 2 * quarter), (2 * quarter, 50.0)]
    w = np.hanning(n + 1)[:n]
    mean = (x @ w / w.sum())[:, None]
    variance = ((x - mean) ** 2 @ w**2) / (w**2).sum()
    np.testing.assert_allclose(band_powers(x, 0.01, bands).sum(axis=1), variance, rtol=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(-100.0, 100.0), st.floats(0.01, 100.0))
@settings(max_examples=30, deadline=None)
def test_an_offset_changes_nothing_and_a_gain_its_square(seed: int, offset: float, gain: float) -> None:
    x = np.random.default_rng(seed).normal(size=(4, 100))
    plan = SpectraPlan(100, 0.01, BANDS)
    expected = plan(x) * np.array([gain**2, gain**4] + [gain**2] * 4)
    np.testing.assert_allclose(plan(gain * x + offset), expected, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 700), st.data())
@settings(max_examples=20, deadline=None)
def test_a_block_does_not_depend_on_its_company(seed: int, m: int, data: st.DataObject) -> None:
    x = np.random.default_rng(seed).normal(size=(m, 100))
    plan = SpectraPlan(100, 0.01, BANDS)
    whole = plan(x)
    one = data.draw(st.integers(0, m - 1))
    np.testing.assert_array_equal(plan(x[one : one + 1])[0], whole[one])
    np.testing.assert_array_equal(plan(x[one:]), whole[one:])
    np.testing.assert_array_equal(plan(x[one % 2 :: 2]), whole[one % 2 :: 2])


@pytest.mark.parametrize("m", [0, 1, LANES - 1, LANES, LANES + 1])
def test_any_number_of_blocks(m: int) -> None:
    x = np.random.default_rng(m).normal(size=(m, 64))
    plan = SpectraPlan(64, 0.01, [(1.0, 50.0)])
    assert plan(x).shape == (m, 3)
    np.testing.assert_array_equal(plan(x), np.concatenate([plan(x[i : i + 1]) for i in range(m)] or [plan(x)]))


def test_float32_is_read_exactly() -> None:
    x = np.random.default_rng(0).normal(size=(5, 100)).astype(np.float32)
    plan = SpectraPlan(100, 0.01, BANDS)
    np.testing.assert_allclose(plan(x), plan(x.astype(np.float64)), rtol=1e-12)


def test_a_drift_does_not_leak_into_the_high_bands() -> None:
    # A car that accelerates changes its vertical acceleration by 1 m/s2 in a second; a bearing speaks at 0.01 m/s2.
    drift = np.linspace(-0.5, 0.5, 100)[None, :]
    assert band_powers(drift, 0.01, BANDS)[0, 3] < 0.001 * 0.01**2


def test_an_edge_belongs_to_the_band_above_it() -> None:
    t = np.arange(100) * 0.01
    fifteen = np.sin(2 * np.pi * 15.0 * t)[None, :]
    low, high = band_powers(fifteen, 0.01, [(14.0, 15.0), (15.0, 16.0)])[0]
    # The main lobe of a Hann window is four bins wide: 1/6, 2/3, 1/6 of the power.
    assert low == pytest.approx(0.5 / 6) and high == pytest.approx(0.5 * 2 / 3)
    nyquist = np.cos(np.pi * np.arange(100))[None, :]
    assert band_powers(nyquist, 0.01, [(40.0, 50.0)])[0, 0] == pytest.approx(1.0)


def test_spectral_kurtosis_is_zero_for_noise_and_high_for_impacts() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(20_000, 100))
    square, fourth = envelope(noise, 0.01, (30.0, 50.0)).mean(axis=0)
    assert spectral_kurtosis(square, fourth) == pytest.approx(0.0, abs=0.02)
    assert square == pytest.approx(2.0 * 20.0 / 50.0, rel=0.01)
    impacts = 0.1 * noise + (rng.random(noise.shape) < 0.02) * rng.normal(size=noise.shape)
    square, fourth = envelope(impacts, 0.01, (30.0, 50.0)).mean(axis=0)
    assert spectral_kurtosis(square, fourth) > 2.0


def test_a_block_with_a_gap_is_unknown_and_spoils_no_other() -> None:
    x = np.random.default_rng(2).normal(size=(3, 100))
    plan = SpectraPlan(100, 0.01, BANDS)
    clean = plan(x)
    for bad in (np.nan, np.inf):
        broken = x.copy()
        broken[1, 7] = bad
        got = plan(broken)
        assert np.isnan(got[1]).all()
        np.testing.assert_array_equal(got[[0, 2]], clean[[0, 2]])


def test_a_band_between_two_bins_is_silent_and_has_no_envelope() -> None:
    got = SpectraPlan(100, 0.01, [(10.2, 10.8)])(np.random.default_rng(3).normal(size=(1, 100)))[0]
    assert got[2] == 0.0 and np.isnan(got[:2]).all()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(m, 100\)"):
        SpectraPlan(100, 0.01, BANDS)(np.zeros((2, 99)))
    with pytest.raises(ValueError, match="at least 8"):
        SpectraPlan(4, 0.01, BANDS)
