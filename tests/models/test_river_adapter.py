"""Any river detector runs behind the contract."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
from river import anomaly, compose, preprocessing

from models.river_adapter import RiverDetector


def test_river_is_imported_only_by_those_who_use_it() -> None:
    code = "import sys, models.river_adapter, models.scoring; sys.exit('river' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_any_pipeline_of_river_finds_a_shift() -> None:
    def model() -> Any:
        return compose.Pipeline(preprocessing.StandardScaler(), anomaly.LocalOutlierFactor(n_neighbors=10))

    rng = np.random.default_rng(1)
    detector = RiverDetector(model, n_features=2, warm_up=60)
    detector.grow(2)
    rows = np.arange(2, dtype=np.int32)
    for x in rng.normal(5.0, 1.0, (60, 2, 2)):
        detector.learn(rows, x)
    usual = detector.score(rows, np.full((2, 2), 5.0))
    shifted = detector.score(rows, np.full((2, 2), 15.0))
    assert (usual <= 1.0).all()
    assert (shifted > usual).all()


def test_each_asset_has_its_own_model() -> None:
    made: list[Any] = []

    class Counting(anomaly.HalfSpaceTrees):
        def __init__(self) -> None:
            super().__init__(n_trees=2, height=3, window_size=10, seed=1)
            made.append(self)

    detector = RiverDetector(Counting, n_features=1, warm_up=10)
    detector.grow(3)
    for _ in range(12):
        detector.learn(np.array([0, 2], np.int32), np.array([[0.5], [0.9]]))
    assert len(made) == 2
    score = detector.score(np.array([0, 1, 2], np.int32), np.array([[0.5], [0.5], [0.9]]))
    assert np.isnan(score).tolist() == [False, True, False]
