"""Small fleets for the tests of the table, the exposition and the page."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.signals import EquipmentClass
from flows.metrics import STATES

T0_US = 1_780_000_000_000_000


def _assessed(
    equipment: EquipmentClass,
    names: list[str],
    state: str | list[str] = "ok",
    end_us: int | list[int] = T0_US,
    rows: list[int] | None = None,
    **columns: Any,
) -> Any:
    """Windows of a shard as the assessment gives them: one an asset unless `rows` says else, with round figures."""
    n_features, n_modes = len(equipment.detection.features), len(equipment.failure_modes)
    index = np.arange(len(names), dtype=np.int32) if rows is None else np.array(rows, np.int32)
    n = len(index)
    states = [state] * n if isinstance(state, str) else state
    bad = np.array([s not in ("ok", "warming") for s in states])
    values = {
        "score": np.where(bad, 2.5, 0.25),
        "share": np.full((n, n_features), 1.0 / n_features),
        "x": np.full((n, n_features), 3.5),
        "lower": np.full((n, n_features), 1.0),
        "upper": np.full((n, n_features), 2.0),
        "health": np.full((n, n_modes), 0.75),
        "leading": np.where(bad, 0, -1).astype(np.int16),
        "p_fail": np.tile(np.linspace(0.125, 0.5, len(equipment.failure_horizons)), (n, 1)),
        "rul_s": np.tile([86400.0, 2 * 86400.0, 5 * 86400.0], (n, 1)),
        "top": np.where(bad[:, None], np.array([[10, 7, 0]]), -1).astype(np.int16),
        "top_share": np.where(bad[:, None], np.array([[0.5, 0.25, 0.125]]), 0.0),
        **{name: np.array(value) for name, value in columns.items()},
    }
    ends = np.broadcast_to(np.array(end_us, np.int64), n).copy()
    windows = SimpleNamespace(names=names, rows=index, start_us=ends - 10_000_000, end_us=ends)
    scored = SimpleNamespace(**{name: values.pop(name) for name in ("score", "share", "x", "lower", "upper")})
    codes = np.array([STATES.index(s) for s in states], np.int8)
    return SimpleNamespace(windows=windows, scored=scored, state=codes, candidates=[], **values)


def _decision(asset: str, rung: str = "page", episode: str = "", **columns: Any) -> Any:
    """What the dispatch decides of an episode."""
    return SimpleNamespace(
        **{
            "episode": episode or f"{asset}/door_operator/1",
            "asset": asset,
            "equipment": "lift",
            "failure_mode": "door_operator",
            "opened_us": T0_US,
            "window_start_us": T0_US - 10_000_000,
            "rung": rung,
            "probability": 0.7,
            "outcome": "open",
            "reason": "Closing takes 3.5 s, usual are 1 to 2 s.",
            **columns,
        }
    )


@pytest.fixture
def assessed() -> Callable[..., Any]:
    return _assessed


@pytest.fixture
def decision() -> Callable[..., Any]:
    return _decision
