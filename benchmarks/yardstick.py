"""What most people would write first: plain Bytewax, one item a reading, a window an asset, river for the score.

Nothing in it is slowed down on purpose: it is the shape of the engine's own examples.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower
from bytewax.testing import TestingSink, TestingSource, run_main
from river.anomaly import HalfSpaceTrees

Reading = tuple[str, tuple[datetime, str, float]]

START = datetime(2026, 1, 5, tzinfo=UTC)


class Sums:
    """Seven features of each signal of a window, kept up one reading at a time."""

    def __init__(self) -> None:
        self.of: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 1e300, -1e300, 0.0, 0.0])

    def add(self, item: tuple[datetime, str, float]) -> Sums:
        """Add one reading."""
        _, signal, value = item
        s = self.of[signal]
        s[0] += 1
        delta = value - s[1]
        s[1] += delta / s[0]
        s[2] += delta * (value - s[1])
        s[3] = min(s[3], value)
        s[4] = max(s[4], value)
        s[5] += value * value
        s[6] = value
        return self

    def features(self) -> dict[str, float]:
        """Return the window's features by name."""
        names = ("count", "mean", "m2", "min", "max", "squares", "last")
        return {f"{signal}.{n}": v for signal, s in self.of.items() for n, v in zip(names, s, strict=True)}


def merged(one: Sums, other: Sums) -> Sums:
    """Merge two windows, as the engine asks for where two of them touch."""
    for signal, b in other.of.items():
        a = one.of[signal]
        n, delta = a[0] + b[0], b[1] - a[1]
        a[2] += b[2] + delta * delta * a[0] * b[0] / n
        a[1] += delta * b[0] / n
        a[0], a[3], a[4], a[5], a[6] = n, min(a[3], b[3]), max(a[4], b[4]), a[5] + b[5], b[6]
    return one


class Scores:
    """A river detector an asset: scores first, learns afterwards.

    Detectors are made when the flow is, because making one takes longer than hundreds of scores.
    """

    def __init__(self, assets: Iterable[str]) -> None:
        self.models = {asset: HalfSpaceTrees(n_trees=10, height=8, seed=1) for asset in assets}

    def __call__(self, item: tuple[str, tuple[int, Sums]]) -> tuple[str, float]:
        """Score one window."""
        asset, (_, sums) = item
        model = self.models[asset]
        features = sums.features()
        score = model.score_one(features)  # type: ignore[no-untyped-call]
        model.learn_one(features)  # type: ignore[no-untyped-call]
        return asset, score


def run(readings: list[Reading], window_s: float, wait_s: float) -> float:
    """Run the flow over the readings, in the order of time; return the seconds that it took."""
    out: list[Any] = []
    flow = Dataflow("yardstick")
    windows = _windows(flow, readings, window_s, wait_s)
    op.output("out", op.map("score", windows, Scores({asset for asset, _ in readings})), TestingSink(out))
    begun = time.perf_counter()
    run_main(flow)
    spent = time.perf_counter() - begun
    if not out:
        raise SystemExit("the yardstick scored nothing")
    return spent


def features(readings: list[Reading], window_s: float, wait_s: float) -> dict[tuple[str, int], dict[str, float]]:
    """Return the features of each asset and window, by the window's number."""
    out: list[tuple[str, tuple[int, Sums]]] = []
    flow = Dataflow("yardstick")
    op.output("out", _windows(flow, readings, window_s, wait_s), TestingSink(out))
    run_main(flow)
    return {(asset, number): sums.features() for asset, (number, sums) in out}


def _windows(flow: Dataflow, readings: list[Reading], window_s: float, wait_s: float) -> Any:
    stream = op.input("input", flow, TestingSource(readings, batch_size=1000))
    clock: EventClock[Any] = EventClock(
        lambda x: x[0], wait_for_system_duration=timedelta(seconds=wait_s), now_getter=lambda: START
    )
    windower = TumblingWindower(length=timedelta(seconds=window_s), align_to=START)
    return win.fold_window("window", stream, clock, windower, Sums, Sums.add, merged).down
