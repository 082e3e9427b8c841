"""Speed and memory of the whole flow, Arrow blocks in to metrics out, against what most people would write first.

Each figure is the median of alternating runs; ratios are taken pair by pair, on the same machine, in one call.

    python benchmarks/throughput.py --runs 5 --json figures.json
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import yardstick  # type: ignore[import-not-found]  # beside this file, in no package
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.testing import run_main
from prometheus_client import CollectorRegistry

from features.assets import Asset
from features.signals import EquipmentClass, load_class
from features.telemetry import BLOCKS
from flows.exporter import exposition
from flows.fleet import Fleet
from flows.metrics import Pipeline
from flows.monitor import Monitor, build
from flows.sources import Message

START_US = 1_767_571_200_000_000
MESSAGE_S = 10
"""Event time in a message: all assets, a block of one second a signal."""


class Replay(DynamicSource[Message]):
    """Hands out prepared messages."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Partition:
        """Build the only partition."""
        return _Partition(self._batches)


class _Partition(StatelessSourcePartition[Message]):
    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches

    def next_batch(self) -> list[Message]:
        return [Message("bench", "blocks", next(self._batches))]


def messages(
    equipment: EquipmentClass, assets: int, seconds: int, fastest_hz: float = 100.0
) -> Iterator[pa.RecordBatch]:
    """Yield the telemetry of a fleet: one draw of ten seconds, moved on in time, with a new level each message."""
    rng = np.random.default_rng(7)
    names = [f"{equipment.name}-{i:05d}" for i in range(assets)]
    asset, signal, second, count, period = [], [], [], [], []
    for s in range(MESSAGE_S):
        for number, described in enumerate(equipment.signals.values()):
            period_s = max(described.period_s, 1.0 / fastest_hz)
            if period_s > 1.0 and s % max(1, round(period_s)) != 0:
                continue
            n = max(1, round(1.0 / period_s))
            asset.append(np.arange(assets))
            signal.append(np.full(assets, number))
            second.append(np.full(assets, s))
            count.append(np.full(assets, n))
            period.append(np.full(assets, round(period_s * 1e6) if n > 1 else 0))
    # As gateways deliver: second by second, the signals of an asset together.
    order = np.lexsort((np.concatenate(signal), np.concatenate(asset), np.concatenate(second)))
    assets_, signals, seconds_, counts, periods = (
        np.concatenate(column)[order] for column in (asset, signal, second, count, period)
    )
    low = np.array([max(-5.0, s.range[0]) for s in equipment.signals.values()])
    high = np.array([min(5.0, s.range[1]) for s in equipment.signals.values()])
    owner = np.repeat(signals, counts)
    values = rng.uniform(low[owner], high[owner])
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=BLOCKS.field("values").type)
    asset_column = pa.DictionaryArray.from_arrays(pa.array(assets_, pa.int32()), pa.array(names))
    signal_column = pa.DictionaryArray.from_arrays(pa.array(signals, pa.int32()), pa.array(equipment.signal_names))
    start = START_US + seconds_ * 1_000_000
    for message in range(seconds // MESSAGE_S):
        moved = pa.array(start + message * MESSAGE_S * 1_000_000).cast(pa.timestamp("us", tz="UTC"))
        columns = [asset_column, signal_column, moved, pa.array(periods), lists]
        yield pa.RecordBatch.from_arrays(columns, schema=BLOCKS)


def flow_rate(equipment: EquipmentClass, assets: int, seconds: int, warm_s: int) -> tuple[float, float]:
    """Run the flow; return readings a second after `warm_s` of event time, and bytes of state an asset."""
    names = [f"{equipment.name}-{i:05d}" for i in range(assets)]
    register = {name: Asset(id=name, equipment=equipment.name) for name in names}
    pipeline = Pipeline(CollectorRegistry())
    fleet = Fleet({equipment.name: equipment}, register)
    begun: list[tuple[float, int]] = []

    def timed() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(messages(equipment, assets, seconds)):
            if number == warm_s // MESSAGE_S:
                gc.collect()
                begun.append((time.perf_counter(), pipeline.account()["received"]))
            yield batch

    monitor = Monitor({equipment.name: equipment}, lambda name: equipment.name, pipeline, fleet=fleet)
    run_main(build(monitor, {"bench": Replay(timed())}), epoch_interval=timedelta(seconds=10))
    spent = time.perf_counter() - begun[0][0]
    account = pipeline.account()
    text = exposition(fleet, pipeline)
    assert text.count(b"\nvigie_anomaly_score{") == assets, "every asset has its score in the metrics"
    assert account["received"] == account["scored"], account
    state = sum(pipeline.state_bytes.labels(step)._value.get() for step in ("window", "score", "assess")) / assets
    return (account["received"] - begun[0][1]) / spent, state


def yardstick_rate(equipment: EquipmentClass, assets: int, seconds: int) -> float:
    """Run the yardstick over the same readings, on fewer assets and a shorter time."""
    readings = []
    for batch in messages(equipment, assets, seconds):
        for row in batch.to_pylist():
            step = timedelta(microseconds=row["period_us"])
            begun = row["start"].astimezone(UTC)  # the engine takes no other zone object
            readings += [(row["asset"], (begun + i * step, row["signal"], v)) for i, v in enumerate(row["values"])]
    readings.sort(key=lambda item: item[1][0])
    clock = time.perf_counter()
    yardstick.run(readings)
    return len(readings) / (time.perf_counter() - clock)


def profile(name: str, assets: int, seconds: int, warm_s: int, naive: tuple[int, int], runs: int) -> dict[str, float]:
    """Measure one profile in alternating runs."""
    equipment = load_class(name)
    detection = msgspec.structs.replace(equipment.detection, warm_up=max(10, round(warm_s / equipment.window_s / 2)))
    equipment = msgspec.structs.replace(equipment, detection=detection)
    flow_rate(equipment, 16, 120, 60)  # compiles, or loads what was compiled
    rates, ratios, states = [], [], []
    for _ in range(runs):
        rate, state = flow_rate(equipment, assets, seconds, warm_s)
        rates.append(rate)
        states.append(state)
        ratios.append(rate / yardstick_rate(equipment, *naive))
    return {
        f"{name}_arrow_readings_per_s": statistics.median(rates),
        f"{name}_ratio_naive": statistics.median(ratios),
        f"{name}_state_bytes_per_asset": statistics.median(states),
    }


def main() -> None:
    """Print the table; with --json, write the figures for machines too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat object of figures")
    given = parser.parse_args()
    figures = profile("lift", 250, 600, 200, (3, 120), given.runs)
    figures |= profile("boiler", 5000, 960, 360, (100, 180), given.runs)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'profile':8} {'readings/s':>14} {'x plain bytewax + river':>24} {'state an asset':>16}")
    for name in ("lift", "boiler"):
        print(
            f"{name:8} {figures[f'{name}_arrow_readings_per_s']:14,.0f} {figures[f'{name}_ratio_naive']:24,.0f}"
            f" {figures[f'{name}_state_bytes_per_asset']:14,.0f} B"
        )
    print(
        f"peak memory {figures['peak_mb']:,.0f} MB; one process; "
        f"messages of {MESSAGE_S} s of the fleet, a block a signal and second"
    )
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
