"""Assets that leave a shard give back their rows, and what is in flight keeps its names."""

from __future__ import annotations

import numpy as np
import pytest

from features.signals import load_class
from features.windows import ShardBatch, ShardWindows

BOILER = load_class("boiler")


def minute(name: str, start_s: int = 0, value: float = 1.0) -> ShardBatch:
    one = np.zeros(1, np.int64)
    return ShardBatch(
        [name],
        ["flow"],
        one.astype(np.int32),
        one.astype(np.int32),
        np.full(1, start_s * 1_000_000),
        np.full(1, 1_000_000),
        one,
        np.full(1, 60),
        np.full(1, start_s * 1_000_000),
        np.full(60, value),
        "test",
    )


def test_a_row_is_freed_and_used_again() -> None:
    shard = ShardWindows(BOILER)
    for name in ("a", "b", "c"):
        shard.push(minute(name))
    rows, dropped = shard.retire(["b", "nobody", "b"])
    assert rows.tolist() == [1] and dropped == 60
    assert shard.names == ["a", "", "c"] and shard.pending == 120
    shard.push(minute("d", value=3.0))
    assert shard.names == ["a", "d", "c"]
    [closed] = shard.flush().closed
    column = BOILER.feature_index["flow.mean"]
    means = dict(zip([closed.names[row] for row in closed.rows], closed.features[:, column], strict=True))
    assert means == {"a": 1.0, "d": 3.0, "c": 1.0}


def test_windows_in_flight_keep_their_names() -> None:
    shard = ShardWindows(BOILER)
    shard.push(minute("a"))
    [closed] = shard.push(minute("a", start_s=120)).closed
    shard.retire(["a"])
    shard.push(minute("b"))
    assert [closed.names[row] for row in closed.rows] == ["a"]


def test_ten_thousand_changes_do_not_grow_the_state() -> None:
    shard = ShardWindows(BOILER)
    for number in range(100):
        shard.push(minute(f"first-{number}"))
    before = shard.nbytes
    for number in range(10_000):
        shard.retire([f"new-{number - 1}" if number else "first-0"])
        shard.push(minute(f"new-{number}"))
    assert shard.nbytes == before and len(shard.names) == 100
    assert shard.pending == 100 * 60


def test_free_rows_survive_a_restart() -> None:
    shard = ShardWindows(BOILER)
    for name in ("a", "b"):
        shard.push(minute(name))
    shard.retire(["a"])
    again = ShardWindows(BOILER)
    again.load(shard.state())
    again.push(minute("c"))
    assert again.names == ["c", "b"]


@pytest.mark.parametrize("late", [0, 3600])
def test_an_asset_that_comes_back_is_new(late: int) -> None:
    shard = ShardWindows(BOILER)
    shard.push(minute("a", start_s=7200))
    shard.retire(["a"])
    assert not shard.push(minute("a", start_s=late)).rejected
