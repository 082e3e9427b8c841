"""The flow as the benchmarks run it: the only file of them that knows how the flow is put together.

Everything is as `vigie run` has it: all default features and detectors of the class, and metrics out into the table
that `/metrics` is written from.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from bytewax._bytewax import cluster_main
from bytewax.inputs import Source
from bytewax.outputs import Sink
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from benchmarks.profiles import START_US, Profile
from benchmarks.turns import Result
from benchmarks.wires import message_of
from features.assets import Asset
from features.signals import STATISTICS, EquipmentClass
from flows.exporter import Server, exposition
from flows.fleet import Fleet
from flows.memory import keep_freed_memory
from flows.metrics import Pipeline
from flows.monitor import Monitor, build
from flows.results import Results
from flows.sources import Message
from models.assessment import Assessed

EPOCH_S = 60.0
"""Seconds between snapshots: the default of `vigie run`."""


@dataclass
class Flow:
    """The flow over the assets of one class.

    Attributes
    ----------
    equipment, assets
        What is watched.
    shards
        Shards of the class.
    """

    equipment: EquipmentClass
    assets: Sequence[str]
    pipeline: Pipeline
    shards: int = 16

    def __post_init__(self) -> None:
        name = self.equipment.name
        self.fleet = Fleet({name: self.equipment}, {asset: Asset(id=asset, equipment=name) for asset in self.assets})

    def run(
        self,
        source: Source[Message],
        addresses: Sequence[str] = (),
        process: int = 0,
        recovery: Path | None = None,
        epoch_s: float = EPOCH_S,
        flush: bool = True,
        scores: Sink[Any] | None = None,
    ) -> None:
        """Run to the end of the source, alone or as one process of a cluster."""
        keep_freed_memory()
        name = self.equipment.name
        monitor = Monitor(
            {name: self.equipment},
            lambda asset: name,
            self.pipeline,
            shards=self.shards,
            fleet=self.fleet,
            recovering=recovery is not None,
            flush=lambda: flush,
        )
        flow = build(monitor, {"bench": source}, Results(monitor.classes, scores=scores))
        epoch = timedelta(seconds=epoch_s)
        config = None if recovery is None else RecoveryConfig(str(recovery))
        if addresses:
            cluster_main(flow, list(addresses), process, epoch_interval=epoch, recovery_config=config)
        else:
            run_main(flow, epoch_interval=epoch, recovery_config=config)

    def metrics(self) -> bytes:
        """Return what `/metrics` shows."""
        return exposition(self.fleet, self.pipeline)

    def measure_metrics(self) -> Result:
        """Return the series of `/metrics`, and the time on a processor that writing them takes, the median of five."""
        spent = []
        for _ in range(5):
            begun = time.process_time()
            text = self.metrics()
            spent.append(time.process_time() - begun)
        series = text.count(b"\n") - text.count(b"\n# ")
        return {"series": float(series), "exposition_s": statistics.median(spent)}

    def state_bytes(self) -> float:
        """Return the bytes of state of all assets; known once the input has ended."""
        return sum(sample.value for family in self.pipeline.state_bytes.collect() for sample in family.samples)

    def check(self) -> None:
        """Hold the flow to its account: every reading is scored, and every asset has its score in the metrics."""
        account = self.pipeline.account()
        if account["received"] != account["scored"]:
            raise SystemExit(f"readings were not scored: {account}")
        shown = self.metrics().count(b"\nvigie_anomaly_score{")
        if shown != len(self.assets):
            raise SystemExit(f"{shown} of {len(self.assets)} assets have a score in the metrics")


@contextmanager
def served(flow: Flow) -> Iterator[int]:
    """Serve the metrics of a flow as `vigie run` does; yield the port."""
    with Server(flow.fleet, flow.pipeline, page=False) as server:
        yield server.port


def new_store(folder: Path) -> Path:
    """Make an empty recovery store."""
    init_db_dir(folder, 1)
    return folder


def base_features(profile: Profile, messages: range) -> dict[tuple[str, int, str], NDArray[np.float64]]:
    """Return what the flow computes: by asset, number of the window and signal, one value for each of `STATISTICS`."""
    equipment = profile.equipment
    flow = Flow(equipment, profile.assets, Pipeline(CollectorRegistry()))
    sent = [message_of(profile.message(number), "arrow", "bench") for number in messages]
    results: list[tuple[str, Any]] = []
    flow.run(TestingSource(sent), scores=TestingSink(results))
    found = {}
    for _, result in results:
        if not isinstance(result, Assessed):
            continue
        windows = result.windows
        for signal in equipment.signal_names:
            columns = [equipment.feature_index[f"{signal}.{name}"] for name in STATISTICS]
            rows = zip(windows.rows.tolist(), windows.start_us.tolist(), windows.features[:, columns], strict=True)
            for row, start_us, values in rows:
                if values[0] > 0:
                    number = round((start_us - START_US) / 1e6 / equipment.window_s)
                    found[windows.names[row], number, signal] = values
    return found
