"""The contract of a detector as checks: what `models.detector.Detector` promises, tried on any implementation.

A new detector is done when it passes each of them::

    @pytest.mark.parametrize("check", list(yield_checks()), ids=lambda c: c.__name__)
    def test_contract(check):
        check(lambda n_features, warm_up, seed: MyDetector(n_features, warm_up, seed=seed))
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.detector import Detector

__all__ = ["Check", "DetectorFactory", "yield_checks"]

DetectorFactory = Callable[[int, int, int], Detector]
"""Makes a detector from the number of features, the warm-up in windows and a seed."""

Check = Callable[[DetectorFactory], None]

FEATURES = 3
WARM_UP = 120
ASSETS = 4
LEAST_AUC = 0.8


def yield_checks() -> Iterator[Check]:
    """Give every check; each takes a factory and raises AssertionError where the contract is broken."""
    yield from (
        check_warms_up_first,
        check_scoring_is_pure,
        check_state_round_trip,
        check_missing_features,
        check_constant_input,
        check_huge_values,
        check_offset,
        check_growth,
        check_bounded_memory,
        check_seed,
        check_order_of_rows,
        check_assets_are_separate,
        check_explanation,
        check_rebaseline,
        check_finds_a_shift,
    )


def _windows(n: int, seed: int = 7, assets: int = ASSETS) -> NDArray[np.float64]:
    """Return windows of shape (n, assets, FEATURES): two features go together, each asset has its level."""
    x = np.random.default_rng(seed).normal(size=(n, assets, FEATURES))
    x[:, :, 1] = 0.8 * x[:, :, 0] + 0.6 * x[:, :, 1]
    x *= np.array([1.0, 0.2, 5.0])
    x += np.arange(assets)[:, None] * 10.0 + 20.0
    return x


def _rows(assets: int = ASSETS) -> NDArray[np.int32]:
    return np.arange(assets, dtype=np.int32)


def _learnt(factory: DetectorFactory, n: int = 2 * WARM_UP, assets: int = ASSETS, seed: int = 1) -> Detector:
    detector = factory(FEATURES, WARM_UP, seed)
    detector.grow(assets)
    for x in _windows(n, assets=assets):
        detector.learn(_rows(assets), x)
    return detector


def check_warms_up_first(factory: DetectorFactory) -> None:
    """Check that a detector cannot know before the end of the warm-up, and says so."""
    detector = factory(FEATURES, WARM_UP, 1)
    detector.grow(ASSETS)
    x = _windows(WARM_UP)
    for window in x:
        assert np.isnan(detector.score(_rows(), window)).all(), "a score before the end of the warm-up"
        assert (detector.explain(_rows(), window) == 0.0).all(), "an explanation before the end of the warm-up"
        detector.learn(_rows(), window)
    score = detector.score(_rows(), x[0])
    assert score.shape == (ASSETS,)
    assert score.dtype == np.float64
    assert np.isfinite(score).all(), "no score after the warm-up"


def check_scoring_is_pure(factory: DetectorFactory) -> None:
    """Check that scoring and explaining change neither the detector nor the windows."""
    detector = _learnt(factory)
    x = _windows(3, seed=8)[0]
    before, untouched = x.copy(), copy.deepcopy(detector.state())
    first = detector.score(_rows(), x)
    detector.explain(_rows(), x)
    assert np.array_equal(first, detector.score(_rows(), x)), "a second look at a window gives another score"
    assert np.array_equal(x, before), "the windows were changed"
    _same_state(detector.state(), untouched)


def check_state_round_trip(factory: DetectorFactory) -> None:
    """Check that a detector that loads another's state goes on as that one does."""
    detector = _learnt(factory)
    other = factory(FEATURES, WARM_UP, 1)
    state = detector.state()
    assert "version" in state
    other.load(copy.deepcopy(state))
    for x in _windows(WARM_UP, seed=9):
        assert np.array_equal(detector.score(_rows(), x), other.score(_rows(), x))
        detector.learn(_rows(), x)
        other.learn(_rows(), x)


def check_missing_features(factory: DetectorFactory) -> None:
    """Check that NaN counts neither for nor against, and that a window of nothing else teaches nothing."""
    detector = _learnt(factory)
    x = _windows(3, seed=8)[0]
    nothing = np.full_like(x, np.nan)
    untouched = copy.deepcopy(detector.state())
    detector.learn(_rows(), nothing)
    _same_state(detector.state(), untouched)
    assert (detector.score(_rows(), nothing) <= 1.0).all()
    x[:, 0] = np.nan
    detector.learn(_rows(), x)
    score = detector.score(_rows(), x)
    assert np.isfinite(score).all()
    assert (score <= 1.0).all(), "a missing feature made a usual window abnormal"
    share = detector.explain(_rows(), x)
    assert (share[:, 0] == 0.0).all(), "a missing feature explains a score"
    never = factory(FEATURES, WARM_UP, 1)
    never.grow(ASSETS)
    for x in _windows(2 * WARM_UP):
        x[:, 2] = np.nan
        never.learn(_rows(), x)
    x[:, 2] = 1e6
    assert (never.score(_rows(), x) <= 1.0).all(), "a feature that was never seen before made a window abnormal"


def check_constant_input(factory: DetectorFactory) -> None:
    """Check that a feature that never moves gives finite scores, and none above 1 for what it always was."""
    detector = factory(FEATURES, WARM_UP, 1)
    detector.grow(ASSETS)
    x = np.full((ASSETS, FEATURES), 5.0)
    for _ in range(2 * WARM_UP):
        detector.learn(_rows(), x)
    score = detector.score(_rows(), x)
    assert np.isfinite(score).all()
    assert (score <= 1.0).all()
    assert np.isfinite(detector.score(_rows(), x + 1.0)).all()


def check_huge_values(factory: DetectorFactory) -> None:
    """Check that absurd values have a finite score, and do not blind a detector that learnt them for ever."""
    detector = _learnt(factory)
    for size in (1e12, 1e300, np.inf):
        assert np.isfinite(detector.score(_rows(), np.full((ASSETS, FEATURES), size))).all()
    absurd = np.full((ASSETS, FEATURES), 1e12)
    detector.learn(_rows(), absurd)
    for x in _windows(2 * WARM_UP, seed=9):
        score = detector.score(_rows(), x)
        assert np.isfinite(score).all()
        detector.learn(_rows(), x)
    assert (score <= 1.0).all()


def check_offset(factory: DetectorFactory) -> None:
    """Check that a large offset, such as a counter's, changes the scores by less than a hundredth."""
    plain, shifted = _learnt(factory), factory(FEATURES, WARM_UP, 1)
    shifted.grow(ASSETS)
    for x in _windows(2 * WARM_UP):
        shifted.learn(_rows(), x + 1e9)
    for x in _windows(20, seed=9):
        a, b = plain.score(_rows(), x), shifted.score(_rows(), x + 1e9)
        assert np.allclose(a, b, rtol=0.01, atol=0.01), f"{a} became {b}"


def check_growth(factory: DetectorFactory) -> None:
    """Check that new assets begin with nothing, and that those that were there do not notice."""
    detector, still = _learnt(factory), _learnt(factory)
    for assets in range(ASSETS + 1, ASSETS + 6):
        detector.grow(assets)
    x = _windows(3, seed=8, assets=ASSETS + 5)[0]
    score = detector.score(_rows(ASSETS + 5), x)
    assert np.isnan(score[ASSETS:]).all()
    assert np.array_equal(score[:ASSETS], still.score(_rows(), x[:ASSETS]))


def check_bounded_memory(factory: DetectorFactory) -> None:
    """Check that an asset's state does not grow with what it has seen."""
    short, long = _learnt(factory, 2 * WARM_UP), _learnt(factory, 8 * WARM_UP)
    assert long.nbytes <= 1.25 * short.nbytes, f"{short.nbytes} bytes became {long.nbytes}"


def check_seed(factory: DetectorFactory) -> None:
    """Check that the same seed and windows give the same scores."""
    x = _windows(3, seed=8)[0]
    assert np.array_equal(_learnt(factory, seed=3).score(_rows(), x), _learnt(factory, seed=3).score(_rows(), x))


def check_order_of_rows(factory: DetectorFactory) -> None:
    """Check that neither the order of assets in a call matters, nor whether they come in one call or many."""
    together, apart = _learnt(factory, WARM_UP), _learnt(factory, WARM_UP)
    order = np.array([2, 0, 3, 1])
    for x in _windows(WARM_UP, seed=9):
        score = together.score(_rows(), x)
        assert np.array_equal(score[order], apart.score(_rows()[order], x[order]))
        together.learn(_rows(), x)
        for row in order:
            apart.learn(_rows()[row : row + 1], x[row : row + 1])


def check_assets_are_separate(factory: DetectorFactory) -> None:
    """Check that what one asset goes through leaves no trace in another."""
    calm, stormy = _learnt(factory), _learnt(factory)
    for x in _windows(WARM_UP, seed=9):
        calm.learn(_rows(), x)
        x[0] *= 100.0
        stormy.learn(_rows(), x)
    x = _windows(3, seed=8)[0]
    assert np.array_equal(calm.score(_rows(), x)[1:], stormy.score(_rows(), x)[1:])


def check_explanation(factory: DetectorFactory) -> None:
    """Check that shares sum to 1 or are all 0, and that the largest is that of a feature that was shifted."""
    detector = _learnt(factory)
    for x in _windows(20, seed=9):
        share = detector.explain(_rows(), x)
        assert share.shape == x.shape
        assert (share >= 0.0).all()
        total = share.sum(1)
        assert np.all((np.abs(total - 1.0) < 1e-9) | (total == 0.0))
    x = _windows(1, seed=9)[0]
    x[:, 2] += 60.0
    share = detector.explain(_rows(), x)
    assert ((share.argmax(1) == 2) | (share.sum(1) == 0.0)).all(), "another feature explains the shift"


def check_rebaseline(factory: DetectorFactory) -> None:
    """Check that a repaired asset warms up again, and is then judged by what it shows now."""
    detector = _learnt(factory)
    detector.rebaseline(_rows()[:1])
    x = _windows(2 * WARM_UP, seed=9)
    score = detector.score(_rows(), x[0])
    assert np.isnan(score[0])
    assert np.isfinite(score[1:]).all()
    fresh = factory(FEATURES, WARM_UP, 1)
    fresh.grow(ASSETS)
    for window in x:
        detector.learn(_rows()[:1], window[:1] + 50.0)
        fresh.learn(_rows()[:1], window[:1] + 50.0)
    last = x[:1, 0] + 50.0
    assert np.array_equal(detector.score(_rows()[:1], last), fresh.score(_rows()[:1], last))


def check_finds_a_shift(factory: DetectorFactory) -> None:
    """Check that a shift, scored before it is learnt, ranks above usual windows, so high is abnormal."""
    detector = _learnt(factory)
    usual: list[NDArray[np.float64]] = []
    shifted: list[NDArray[np.float64]] = []
    for number, x in enumerate(_windows(200, seed=9)):
        if number % 20 >= 15:
            x += 5.0 * np.array([1.0, 0.2, 5.0])
        score = detector.score(_rows(), x)
        (shifted if number % 20 >= 15 else usual).append(score)
        normal = score <= 1.0
        detector.learn(_rows()[normal], x[normal])
    low, high = np.concatenate(usual), np.concatenate(shifted)
    above = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    assert above > LEAST_AUC, f"area under the curve {above:.2f}"


def _same_state(a: object, b: object) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in a:
            _same_state(a[key], b[key])
    elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), "the state was changed"
    else:
        assert a == b, "the state was changed"
