"""Every detector keeps the contract."""

from __future__ import annotations

import pytest
from river import anomaly, compose, preprocessing

from models.checks import Check, DetectorFactory, yield_checks
from models.cusum import Cusum
from models.detector import Detector, StateError
from models.half_space_trees import HalfSpaceTrees
from models.hotelling import Hotelling
from models.river_adapter import RiverDetector
from models.scoring import DETECTORS


def river(n_features: int, warm_up: int, seed: int) -> Detector:
    def model() -> compose.Pipeline:
        trees = anomaly.HalfSpaceTrees(n_trees=5, height=4, window_size=30, seed=seed)
        return compose.Pipeline(preprocessing.MinMaxScaler(), trees)

    return RiverDetector(model, n_features, warm_up)


FACTORIES: dict[str, DetectorFactory] = {
    "hotelling": lambda n_features, warm_up, seed: Hotelling(n_features, warm_up),
    "half_space_trees": lambda n_features, warm_up, seed: HalfSpaceTrees(n_features, warm_up, seed=seed),
    "cusum": lambda n_features, warm_up, seed: Cusum(n_features, warm_up),
    "river": river,
}


def test_every_detector_that_a_class_may_name_is_checked() -> None:
    assert set(DETECTORS) <= set(FACTORIES)


@pytest.mark.parametrize("check", list(yield_checks()), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FACTORIES)
def test_contract(name: str, check: Check) -> None:
    check(FACTORIES[name])


@pytest.mark.parametrize("name", FACTORIES)
def test_a_state_of_another_version_is_refused(name: str) -> None:
    with pytest.raises(StateError, match="reset the recovery store"):
        FACTORIES[name](2, 100, 0).load({"version": -1})


@pytest.mark.parametrize("name", ["hotelling", "half_space_trees", "cusum"])
def test_a_state_of_other_features_is_refused(name: str) -> None:
    with pytest.raises(StateError, match="the class file has changed"):
        FACTORIES[name](2, 100, 0).load(FACTORIES[name](3, 100, 0).state())


@pytest.mark.parametrize("name", ["half_space_trees"])
def test_another_seed_gives_other_trees(name: str) -> None:
    a, b = (HalfSpaceTrees(3, seed=seed).forest.threshold for seed in (0, 1))
    assert (a != b).any()
