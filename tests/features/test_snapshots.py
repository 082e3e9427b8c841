"""Stored states: small, complete, and those of the release before still load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.signals import EquipmentClass, load_class
from features.windows import ClosedWindows, ShardBatch, ShardWindows

BEGIN_US = 1_767_571_200_000_000


def seconds_of(c: EquipmentClass, seconds: int, seed: int) -> list[ShardBatch]:
    """Return a message a second of two assets: a block a signal, as those that the stored states were made from."""
    rng = np.random.default_rng(seed)
    found = []
    for s in range(seconds):
        rows = []
        for asset in range(2):
            for number, signal in enumerate(c.signals.values()):
                if signal.period_s > 1 and s % round(signal.period_s):
                    continue
                n = max(1, round(1 / signal.period_s))
                low, high = max(-5, signal.range[0]), min(5, signal.range[1])
                rows.append((asset, number, round(signal.period_s * 1e6) if n > 1 else 0, n, rng.uniform(low, high, n)))
        asset_, signal_, period, count, values = zip(*rows, strict=True)
        counts = np.array(count, np.int64)
        start = np.full(len(rows), BEGIN_US + s * 1_000_000)
        found.append(
            ShardBatch(
                [f"{c.name}-{i}" for i in range(2)],
                list(c.signals),
                np.array(asset_, np.int32),
                np.array(signal_, np.int32),
                start,
                np.array(period, np.int64),
                np.cumsum(counts) - counts,
                counts,
                start.copy(),
                np.concatenate(values),
                "test",
            )
        )
    return found


def table(closed: list[ClosedWindows]) -> NDArray[np.float64]:
    return np.concatenate([windows.features for windows in closed])


@pytest.mark.parametrize(("name", "seconds", "more"), [("lift", 37, 15), ("boiler", 700, 70)])
def test_a_state_of_version_1_goes_on_where_it_stopped(name: str, seconds: int, more: int) -> None:
    c = load_class(name)
    stored = np.load(Path(__file__).parent / f"windows-state-1-{name}.npz")
    state: dict[str, Any] = {n.removeprefix("state_"): stored[n] for n in stored.files if n.startswith("state_")}
    state |= {"version": 1, "names": stored["names"].tolist(), "partitions": json.loads(str(stored["partitions"]))}
    shard = ShardWindows(c)
    shard.load(state)
    closed = []
    for batch in seconds_of(c, seconds + more, 5)[seconds:]:
        closed += shard.push(batch).closed
    last = shard.flush()
    # A slope or a kurtosis that is nearly nothing has no relative error to speak of.
    np.testing.assert_allclose(table([*closed, *last.closed]), stored["expected"], rtol=1e-9, atol=1e-11)
    for horizon, windows in last.horizons.items():
        np.testing.assert_allclose(table(windows), stored[f"horizon_{horizon:g}"], rtol=1e-9, atol=1e-11)


def test_a_state_has_no_free_nodes_and_goes_on() -> None:
    c = load_class("lift")
    batches = seconds_of(c, 40, 3)
    whole, halves = ShardWindows(c), ShardWindows(c)
    expected, found = [], []
    for number, batch in enumerate(batches):
        expected += whole.push(batch).closed
        found += halves.push(batch).closed
        if number % 7 == 3:
            state = halves.state()
            assert len(state["names"]) == len(state["newest"]) == 2
            assert all(len(state[f"pool_{n}"]) == 0 for n in ("first", "following")), "in order there are no older runs"
            assert len(state["segments_values"]) == 0, "whole seconds wait in no buffer"
            assert len(state["pages_values"]) <= 2 * 3 * 20
            halves = ShardWindows(c)
            halves.load(state)
            assert state == {}
    np.testing.assert_array_equal(table([*found, *halves.flush().closed]), table([*expected, *whole.flush().closed]))


def test_a_state_of_another_class_is_refused() -> None:
    shard = ShardWindows(load_class("lift"))
    shard.push(seconds_of(load_class("lift"), 1, 1)[0])
    with pytest.raises(ValueError, match="the class file has changed"):
        ShardWindows(load_class("boiler")).load(shard.state())
    with pytest.raises(ValueError, match="has version None, expected 2"):
        ShardWindows(load_class("boiler")).load({})
