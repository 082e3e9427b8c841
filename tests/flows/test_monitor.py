"""The dataflow in the engine: stopped or killed at any message, with one worker or two, it ends as if undisturbed."""

from __future__ import annotations

import pickle
import sqlite3
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from bytewax._bytewax import cluster_main, run_main
from bytewax.inputs import AbortExecution, FixedPartitionedSource, StatefulSourcePartition
from prometheus_client import CollectorRegistry

from features.assets import Register, shard_of
from features.signals import load_class
from flows.credits import Credits
from flows.exposition import exposition
from flows.fleet import Fleet
from flows.intake import Intake
from flows.metrics import Pipeline
from flows.monitor import Monitor, _accounted, build
from flows.recovery import Store, open_store
from flows.results import Results
from flows.sealed import seal
from flows.simulator import fleet as simulator
from flows.simulator.fleet import FleetPlan
from flows.sinks import ArchiveSink, DeadLetterSink
from flows.sources import Message
from flows.steps import Shard
from models.detector import StateError

CLASSES = {name: load_class(name) for name in ("lift", "boiler")}
SHARDS = 4
PLAN = FleetPlan(
    seed=2, lifts=4, boilers=3, start_us=1_767_600_000_000_000, days=0.1, mode="burst", faults="demo"
)  # fmt: skip


@cache
def recorded() -> tuple[Register, dict[str, list[Message]]]:
    """Return a register that lacks an asset, and messages in two partitions, each with the assets of its shards."""
    fleet = simulator.Fleet(PLAN)
    register = {name: asset for name, asset in fleet.register.items() if name != "lift-0004"}
    parts: dict[str, list[Message]] = {"p0": [], "p1": []}
    while fleet.time_us < PLAN.end_us:
        blocks = fleet.advance(min(fleet.time_us + 600_000_000, PLAN.end_us))
        names = blocks.column("asset").cast(pa.string())
        for number, (part, messages) in enumerate(parts.items()):
            mine = pa.array([n for n in pc.unique(names).to_pylist() if shard_of(n, SHARDS) % 2 == number], pa.string())
            some = blocks.filter(pc.is_in(names, mine))
            if some.num_rows:
                messages.append(Message(part, "blocks", some))
    return register, parts


@dataclass
class Recorded(FixedPartitionedSource[Message, dict[str, int]]):
    """Replays what was recorded; ends, or dies, before its message number `until`."""

    until: int
    dies: bool = False
    resumed: dict[str, Any] = field(default_factory=dict)

    def list_parts(self) -> list[str]:
        return list(recorded()[1])

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> StatefulSourcePartition[Message, dict[str, int]]:
        self.resumed[for_part] = resume_state
        return _Recorded(self, for_part, 0 if resume_state is None else resume_state["next"])


class _Recorded(StatefulSourcePartition[Message, dict[str, int]]):
    def __init__(self, source: Recorded, part: str, position: int) -> None:
        self._source, self._part, self._next = source, part, position

    def next_batch(self) -> list[Message]:
        messages = recorded()[1][self._part]
        if self._next >= min(self._source.until, len(messages)):
            if self._source.dies and self._next < len(messages):
                raise AbortExecution
            raise StopIteration
        self._next += 1
        return [messages[self._next - 1]]

    def snapshot(self) -> dict[str, int]:
        return {"next": self._next}


@dataclass
class Site:
    """A run of the flow, with an archive and, if it shall survive, a store."""

    folder: Path
    workers: int
    recovering: bool = True

    def run(self, source: Recorded, epoch_s: float = 0.0, register: Register | None = None) -> dict[str, Any]:
        """Run once, as a process of its own would; return what was shown at the end."""
        register = register or recorded()[0]
        self.pipeline = Pipeline(CollectorRegistry())
        self.fleet = Fleet(CLASSES, register)

        def class_of(name: str) -> str | None:
            known = register.get(name)
            return None if known is None else known.equipment

        last = all(source.until >= len(messages) for messages in recorded()[1].values())
        store: Store | None = None
        if self.recovering:
            store = self.store = open_store(self.folder / "state", SHARDS, CLASSES, "vigie run")
        identity = "" if store is None else store.id
        monitor = Monitor(
            classes=CLASSES,
            class_of=class_of,
            pipeline=self.pipeline,
            shards=SHARDS,
            flush=lambda: last,
            fleet=self.fleet,
            recovering=self.recovering,
        )
        letters = DeadLetterSink(self.folder / "archive", class_of, store=identity)
        results = Results(CLASSES, archive=ArchiveSink(self.folder / "archive", store=identity), dead_letters=letters)
        flow = build(monitor, {"recorded": source}, results)
        kept = None if store is None else store.config()
        epoch = timedelta(seconds=epoch_s)
        if self.workers == 1:
            run_main(flow, epoch_interval=epoch, recovery_config=kept)
        else:
            cluster_main(flow, [], 0, epoch_interval=epoch, recovery_config=kept, worker_count_per_proc=self.workers)
        if store is not None:
            store.close()
        return {"metrics": self.metrics()} | self.tables()

    def metrics(self) -> list[str]:
        own = ("vigie_snapshot", "vigie_window_batch", "vigie_state_bytes")
        lines = exposition(self.fleet, self.pipeline).decode().splitlines()
        return sorted(line for line in lines if not line.startswith(("#", *own)))

    def tables(self) -> dict[str, list[str]]:
        found = {}
        for folder in sorted((self.folder / "archive").iterdir()):
            if folder.is_dir():
                rows = ds.dataset(folder, partitioning="hive").to_table().to_pylist()
                found[folder.name] = sorted(map(repr, rows))
        return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return Site(tmp_path_factory.mktemp("calm"), 1, recovering=False).run(Recorded(10**9), epoch_s=60.0)


def test_the_fleet_of_the_test_says_something(undisturbed: dict[str, Any]) -> None:
    assert {"features", "scores", "rejected"} <= undisturbed.keys()
    assert len(undisturbed["scores"]) > 300
    [rejected] = [line for line in undisturbed["metrics"] if 'rejected_total{reason="unknown_asset"}' in line]
    assert float(rejected.split()[1]) > 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_stops_and_kills_change_nothing(tmp_path: Path, undisturbed: dict[str, Any], workers: int, seed: int) -> None:
    """One worker is killed in the middle of an epoch or stopped at its end, two are stopped."""
    random, site = Random(seed), Site(tmp_path, workers)
    longest = max(map(len, recorded()[1].values()))
    for until in sorted(random.sample(range(1, longest), 3)):
        dies = workers == 1 and random.random() < 0.7
        site.run(Recorded(until, dies), epoch_s=random.choice([0.0, 60.0]))
    found = site.run(Recorded(10**9))
    assert found.keys() == undisturbed.keys()
    for name, expected in undisturbed.items():
        assert found[name] == expected, name


@pytest.mark.parametrize("workers", [1, 2])
def test_the_store_tells_what_a_restart_will_be_given(tmp_path: Path, workers: int) -> None:
    site = Site(tmp_path, workers)
    site.run(Recorded(3))
    store = Store.held(tmp_path / "state")
    source = Recorded(5)
    told = {part: store.resume_state("input_recorded", part) for part in source.list_parts()}
    states = store.states()
    assert {"input_recorded", "window", "score", "assess", "show", "archive"} <= states.keys()
    assert len(states["window"]) == SHARDS
    site.run(source)
    assert source.resumed == {part: state["position"] for part, state in told.items()} == {
        "p0": {"next": 3}, "p1": {"next": 3},
    }  # fmt: skip
    assert store.resume_state("input_recorded", "p0")["position"] == {"next": 5}
    assert store.resume_state("input_recorded", "nothing") is None


def test_a_state_that_this_release_cannot_read_ends_the_run_in_a_sentence(tmp_path: Path) -> None:
    site = Site(tmp_path, 1)
    site.run(Recorded(5))
    other = seal({"version": 1, "classes": {"lift": {"windows": {"version": 99}}}})
    for path in (tmp_path / "state").glob("part-*.sqlite3"):
        with sqlite3.connect(path) as part:
            part.execute("UPDATE snaps SET ser_change = ? WHERE step_id = 'monitor.window'", (pickle.dumps(other),))
        part.close()
    try:
        with pytest.raises(StateError, match=r"a state that this release cannot read .* --fresh"):
            site.run(Recorded(10**9))
    finally:
        site.store.close()


def test_an_asset_that_left_during_a_stop_is_gone(tmp_path: Path) -> None:
    """Its page, its series and its rows; what was open of it is rejected, so that the sums agree."""
    register = recorded()[0]
    site = Site(tmp_path, 1)
    site.run(Recorded(8))
    assert any('"lift-0001"' in line for line in site.metrics())
    left = {name: asset for name, asset in register.items() if name != "lift-0001"}
    site.run(Recorded(10**9), register=left)
    assert not any('"lift-0001"' in line for line in site.metrics())
    account = site.pipeline.account()
    assert account["pending"] == 0 and account["received"] == sum(account.values()) - account["received"]


@pytest.mark.parametrize("shards", [1, 4, 16])
def test_a_message_spends_what_it_weighs_however_many_shards_it_is_dealt_to(shards: int) -> None:
    register, parts = recorded()
    classes = {name: asset.equipment for name, asset in register.items()}
    intake = Intake(classes.get, {}, Pipeline(CollectorRegistry()))
    telemetry = intake(parts["p0"][0])
    credits = Credits()
    sent, taken = _accounted(credits)
    items = [sent(dealt) for dealt in Shard(CLASSES, classes.get, shards)(telemetry)]
    samples = len(telemetry.blocks.column("values").flatten())
    assert credits.under_way == 48 * telemetry.blocks.num_rows + 8 * samples
    for _, item in items:
        taken(item)
    assert credits.under_way == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_messages_are_taken_where_their_shards_run(tmp_path: Path, workers: int, undisturbed: dict[str, Any]) -> None:
    """Any number of workers gives the same."""
    found = Site(tmp_path, workers, recovering=False).run(Recorded(10**9), epoch_s=60.0)
    assert found == undisturbed
