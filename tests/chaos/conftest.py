"""A recorded fleet in which pages fall, runs of it that are killed, and what is left of a run when it has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from features.assets import load_assets
from features.signals import load_class
from flows.exporter import exposition
from flows.fleet import Fleet
from flows.metrics import Pipeline
from flows.recovery import Store
from flows.show import Show
from flows.simulator.fleet import FleetPlan
from flows.simulator.write import write_fleet
from flows.steps import Dispatch, Score, Window
from flows.warmup import compile_kernels

FULL = "VIGIE_KILLS" in os.environ
"""Whether this is `make chaos`, which has the time for what every test run has not."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what takes minutes to `make chaos`."""
    long = [] if FULL else [item for item in items if item.get_closest_marker("full") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
SHARDS = 4
START_US = 1_767_571_200_000_000
PATIENCE_S = 120.0


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the telemetry of a fleet that wears, a file for each shard, and its register."""
    compile_kernels(CLASSES.values())  # a run that compiles first takes minutes to begin
    folder = tmp_path_factory.mktemp("recorded")
    plan = FleetPlan(seed=3, lifts=3, boilers=2, start_us=START_US, days=5.0, mode="burst", faults="demo")
    write_fleet(plan, folder, "parquet")
    parts: dict[int, list[pa.Table]] = {shard: [] for shard in range(SHARDS)}
    for path in sorted((folder / "telemetry").glob("*.parquet")):
        table = pq.read_table(path)
        names = table.column("asset").cast(pa.string())
        for shard in range(SHARDS):
            mine = [a for a in pc.unique(names).to_pylist() if zlib.crc32(a.encode()) % SHARDS == shard]
            parts[shard].append(table.filter(pc.is_in(names, pa.array(mine, pa.string()))))
        path.unlink()
    for shard, tables in parts.items():
        if sum(map(len, tables)):
            pq.write_table(pa.concat_tables(tables), folder / f"shard-{shard}.parquet", row_group_size=20_000)
    return folder


@dataclass
class Run:
    """A site of its own, whose run may be killed and started again."""

    folder: Path
    recorded: Path
    speed: float
    arguments: list[str]
    process: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "site.toml").write_text(
            f'name = "Chaos"\nassets = "{self.recorded}/assets.csv"\nshards = {SHARDS}\n'
            f'[[inputs]]\nkind = "files"\nname = "gateway"\nspeed = {self.speed}\n'
            f'paths = ["{self.recorded}/shard-*.parquet"]\n'
            '[outputs]\naddress = "127.0.0.1:0"\narchive = "archive"\ndead_letters = "rejected"\n'
        )

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Start, and wait until the flow runs."""
        command = [sys.executable, "-m", "vigie", "run", "site.toml", "--recovery", "state", *self.arguments]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )
        self.until(lambda: "listening" in self.log.read_text())

    def kill(self) -> None:
        """Kill every process of the run, as a power cut would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        """Wait for the end of the inputs."""
        assert self.process is not None
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert self.process is None or self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def tables(self) -> dict[str, pa.Table]:
        """Return every row of the archive and of the rejected input, sorted, by table."""
        found = {}
        with duckdb.connect() as base:
            for folder in [*(self.folder / "archive").iterdir(), *(self.folder / "rejected").glob("*")]:
                if folder.is_dir():
                    files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning=true, union_by_name=true)"
                    found[folder.name] = base.sql(f"SELECT * FROM {files} ORDER BY ALL").to_arrow_table()
        return found

    def metrics(self) -> list[str]:
        """Return what the metrics say after the newest snapshot, but for what measures this process."""
        pipeline = Pipeline(CollectorRegistry())
        fleet = Fleet(CLASSES, load_assets(self.recorded / "assets.csv"))
        steps: Mapping[str, Callable[[str], Any]] = {
            "window": lambda name: Window(CLASSES[name], pipeline),
            "score": lambda name: Score(CLASSES[name], pipeline),
            "dispatch": lambda name: Dispatch(CLASSES[name], pipeline, fleet.decide),
            "show": lambda name: Show(CLASSES[name], fleet),
        }
        store = Store(self.folder / "state", "")
        for step, states in store.states().items():
            for state in states.values():
                if step in steps:
                    for name, remembered in state["classes"].items():
                        steps[step](name).load(remembered)
                elif step.startswith("input_"):
                    pipeline.count({(n, label): count for n, label, count in state["intake"]["counts"]})
        own = ("vigie_snapshot", "vigie_window_batch", "vigie_input", "vigie_state_bytes")
        lines = exposition(fleet, pipeline).decode().splitlines()
        return sorted(line for line in lines if not line.startswith(("#", *own)))


@pytest.fixture
def run(tmp_path: Path, recorded: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def make(name: str, *arguments: str, speed: float) -> Run:
        made.append(Run(tmp_path / name, recorded, speed, list(arguments)))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.kill()
