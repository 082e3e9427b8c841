"""Compiles every kernel before the first reading is read, on made-up readings that go nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import msgspec
import numpy as np
import pyarrow as pa
from prometheus_client import CollectorRegistry

from features.encode import encode
from features.signals import EquipmentClass
from features.telemetry import BLOCKS
from features.wire import MessageWire, decode
from flows.intake import Intake
from flows.metrics import Pipeline
from flows.sources import Message
from flows.steps import Assess, Score, Shard, Window

__all__ = ["compile_kernels"]

WINDOWS = 40
"""Windows that are run: more than the shortest warm-up of a detector."""


def compile_kernels(classes: Iterable[EquipmentClass]) -> None:
    """Run the steps of each class once; a second, or a minute where nothing has been compiled on this machine yet."""
    for equipment in classes:
        _run(equipment)
        _read(equipment)


def _read(equipment: EquipmentClass) -> None:
    """Read messages of every form, as brokers send them."""
    blocks = _readings(equipment)
    for wire in get_args(MessageWire):
        decode(wire, encode(wire, blocks)[:2], source="warm-up")


def _run(equipment: EquipmentClass) -> None:
    detection = msgspec.structs.replace(equipment.detection, warm_up=10)
    short = msgspec.structs.replace(equipment, detection=detection)
    pipeline = Pipeline(CollectorRegistry())
    intake = Intake(lambda asset: short.name, {}, pipeline)
    deal = Shard({short.name: short}, lambda asset: short.name, 1)
    window, score, assess = Window(short, pipeline), Score(short, pipeline), Assess(short, pipeline)
    batches = [item for _, (_, item) in deal(intake(Message("warm-up", "blocks", _readings(short))))]
    steps = [step for item in batches for step in window(item)]
    for step in [*steps, *window.end()]:
        for scored in score(step):
            for _ in assess(scored):
                pass


def _readings(equipment: EquipmentClass) -> pa.RecordBatch:
    """Return a block a window and signal, and a second one out of order, of noise in the middle of the range."""
    rng = np.random.default_rng(0)
    window_us = round(equipment.window_s * 1e6)
    rows = []
    for number in range(WINDOWS):
        for name, signal in equipment.signals.items():
            low, high = max(signal.range[0], -10.0), min(signal.range[1], 10.0)
            n = max(1, min(100, round(equipment.window_s / signal.period_s)))
            row = {"asset": "warm-up", "signal": name, "period_us": round(signal.period_s * 1e6) if n > 1 else 0}
            rows.append(row | {"start": number * window_us, "values": rng.uniform(low, high, n).tolist()})
    rows.append(rows[0] | {"start": (WINDOWS - 1) * window_us - 1})
    return pa.RecordBatch.from_pylist(rows, schema=BLOCKS)
