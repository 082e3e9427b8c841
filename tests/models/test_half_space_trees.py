"""Half-space trees give river's scores on river's trees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import anomaly

from models.half_space_trees import Forest, HalfSpaceTrees, grown, mass_score

FEATURES, TREES, HEIGHT, WINDOW = 4, 7, 5, 50


def forest_of(model: Any, names: list[str]) -> Forest:
    """Copy the splits of river's trees, node i with the children 2 i + 1 and 2 i + 2."""
    feature = np.zeros((TREES, 2**HEIGHT - 1), np.int64)
    threshold = np.zeros((TREES, 2**HEIGHT - 1))
    for t, tree in enumerate(model.trees):
        todo = [(0, tree)]
        while todo:
            i, node = todo.pop()
            if i < feature.shape[1]:
                feature[t, i], threshold[t, i] = names.index(node.feature), node.threshold
                todo += [(2 * i + 1, node.children[0]), (2 * i + 2, node.children[1])]
    return Forest(feature, threshold)


def test_scores_are_rivers() -> None:
    names = ["a", "b", "c", "d"]
    theirs: Any = anomaly.HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=WINDOW, seed=3)
    x = np.clip(np.random.default_rng(5).normal(0.5, 0.15, (4 * WINDOW + 20, FEATURES)), 0.0, 1.0)
    x[-5:] = 0.97
    # One window only makes river grow its trees; both then see the same.
    probe: Any = anomaly.HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=WINDOW, seed=3)
    probe.learn_one(dict(zip(names, x[0], strict=True)))

    ours = HalfSpaceTrees(FEATURES, warm_up=3 * WINDOW, n_trees=TREES, height=HEIGHT)
    ours.forest = forest_of(probe, names)
    assert ours.window == WINDOW
    ours.grow(1)
    state = ours._state
    # Normalisation off: the identity is "known" from the first window on.
    state.seen[:] = ours.warm_up - 2 * WINDOW
    state.mean[:], state.scale[:] = 0.5, 1.0
    state.learnt[:] = ours.warm_up - 2 * WINDOW
    nodes = 2 ** (HEIGHT + 1) - 1
    row = np.zeros(1, np.int32)
    compared = 0
    for window in x:
        values = dict(zip(names, window, strict=True))
        score = theirs.score_one(values)
        if score != 0:
            mass = mass_score(window, ours.forest, state.reference[0], WINDOW)
            assert abs(1.0 - mass / (TREES * WINDOW * nodes) - score) < 1e-9
            compared += 1
        theirs.learn_one(values)
        ours.learn(row, window[None])
    assert compared == 3 * WINDOW + 20


def test_one_seed_gives_one_forest_inside_the_unit_cube() -> None:
    a, b = grown(3, 15, 5, seed=1), grown(3, 15, 5, seed=1)
    assert np.array_equal(a.feature, b.feature)
    assert np.array_equal(a.threshold, b.threshold)
    assert a.threshold.min() > 0.0
    assert a.threshold.max() < 1.0


def test_masses_fit_one_byte_however_long_the_warm_up() -> None:
    detector = HalfSpaceTrees(2, warm_up=6000)
    detector.grow(1)
    rng = np.random.default_rng(1)
    row = np.zeros(1, np.int32)
    for x in rng.normal(size=(6600, 1, 2)):
        detector.learn(row, x)
    masses: NDArray[np.uint8] = detector.state()["reference"]
    assert detector.window == 250
    assert (masses[0].sum(axis=1) == 250).all()


def test_a_window_unusual_in_several_features_is_above_the_alarm_level() -> None:
    rng = np.random.default_rng(2)
    assets = 50
    rows = np.arange(assets, dtype=np.int32)
    detector = HalfSpaceTrees(5, warm_up=600)
    detector.grow(assets)
    for x in rng.normal(size=(600, assets, 5)):
        detector.learn(rows, x)
    usual = np.concatenate([detector.score(rows, x) for x in rng.normal(size=(40, assets, 5))])
    worn = detector.score(rows, rng.normal(size=(assets, 5)) + 5.0)
    assert (usual > 1.0).mean() < 0.004
    assert (worn > 1.0).mean() > 0.9


def test_a_window_that_lacks_most_features_is_no_combination() -> None:
    rng = np.random.default_rng(3)
    detector, row = HalfSpaceTrees(4, warm_up=90), np.zeros(1, np.int32)
    detector.grow(1)
    standing = np.array([[20.0, np.nan, np.nan, np.nan]])
    for x in rng.normal(size=(90, 1, 4)):
        detector.learn(row, x)
        for _ in range(10):
            detector.learn(row, standing)
    assert detector.state()["learnt"][0] == 90
    assert detector.score(row, standing)[0] == 0.0
    assert detector.score(row, np.full((1, 4), 0.1))[0] > 0.0
