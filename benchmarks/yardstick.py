"""What most people would write first: plain Bytewax, one item a reading, a window an asset, river for the score.

Nothing in it is slowed down on purpose: it is the shape of the engine's own examples.
"""

from __future__ import annotations

from collections import defaultdict
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
    """A river detector an asset: scores first, learns afterwards."""

    def __init__(self) -> None:
        self.models: dict[str, HalfSpaceTrees] = {}

    def __call__(self, item: tuple[str, tuple[int, Sums]]) -> tuple[str, float]:
        """Score one window."""
        asset, (_, sums) = item
        model = self.models.setdefault(asset, HalfSpaceTrees(n_trees=10, height=8, seed=1))
        features = sums.features()
        score = model.score_one(features)  # type: ignore[no-untyped-call]
        model.learn_one(features)  # type: ignore[no-untyped-call]
        return asset, score


def run(readings: list[Reading]) -> int:
    """Run the flow over the readings, in the order of time; return the number of scores."""
    out: list[Any] = []
    flow = Dataflow("yardstick")
    stream = op.input("input", flow, TestingSource(readings, batch_size=1000))
    clock: EventClock[Any] = EventClock(
        lambda x: x[0], wait_for_system_duration=timedelta(seconds=10), now_getter=lambda: START
    )
    windower = TumblingWindower(length=timedelta(seconds=10), align_to=START)
    windowed = win.fold_window("window", stream, clock, windower, Sums, Sums.add, merged)
    op.output("out", op.map("score", windowed.down, Scores()), TestingSink(out))
    run_main(flow)
    return len(out)
