"""The simulated fleet as files and as an input of the dataflow."""

from __future__ import annotations

import csv
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from bytewax.inputs import StatefulSourcePartition

from features.assets import load_assets
from features.telemetry import BLOCKS
from flows.simulator.fleet import Fault, Fleet, FleetPlan
from flows.simulator.source import SimulatorSource
from flows.simulator.write import Wire, write_fleet
from flows.sources import Message

T0_US = 1_767_600_000_000_000  # Monday 2026-01-05 08:00 UTC
HOUR_US = 3_600_000_000
PLAN = FleetPlan(
    lifts=1,
    boilers=1,
    start_us=T0_US,
    days=1 / 24,
    sampled_trips=60,
    faults=(Fault("lift-0001", "brake", T0_US + HOUR_US // 4, T0_US + HOUR_US // 2),),
)


def expected() -> tuple[int, float]:
    """Return the number of readings of the plan and their sum."""
    values = [batch.column("values").values.to_numpy() for batch in Fleet(PLAN).stream(PLAN.end_us)]
    return sum(map(len, values)), float(sum(v.sum() for v in values))


@pytest.mark.parametrize("wire", ["parquet", "arrow", "jsonl", "csv"])
def test_every_reading_is_written_in_every_form(tmp_path: Path, wire: Wire) -> None:
    shares: list[float] = []
    written = write_fleet(PLAN, tmp_path, wire, lambda readings, share: shares.append(share))
    readings, total = expected()
    assert written == readings
    assert shares[-1] == 1.0 and shares == sorted(shares)
    files = sorted((tmp_path / "telemetry").iterdir())
    count, sum_ = 0, 0.0
    for file in files:
        if wire == "csv":
            table = pacsv.read_csv(file)
            times = table.column("time").to_numpy()
            assert (np.diff(times) > np.timedelta64(0)).all()
            assert set(table.column("asset").to_pylist()) == {file.stem}
            for name in table.column_names[2:]:
                column = table.column(name).drop_null().cast(pa.float64()).to_numpy()
                count, sum_ = count + len(column), sum_ + column.sum()
        elif wire == "jsonl":
            for line in file.read_bytes().splitlines():
                block: dict[str, Any] = msgspec.json.decode(line)
                assert list(block) == ["asset", "signal", "start", "period_us", "values"]
                assert datetime.fromisoformat(block["start"]).tzinfo is not None
                count, sum_ = count + len(block["values"]), sum_ + sum(block["values"])
        else:
            table = pq.read_table(file) if wire == "parquet" else pa.ipc.open_file(file).read_all()
            assert table.schema.names == BLOCKS.names
            flat = table.column("values").combine_chunks().flatten().to_numpy()
            count, sum_ = count + len(flat), sum_ + flat.sum()
    assert count == readings
    assert sum_ == pytest.approx(total, rel=1e-4)
    assert len(files) == (2 if wire == "csv" else 1)


def test_the_register_and_the_truth_can_be_read_again(tmp_path: Path) -> None:
    write_fleet(PLAN, tmp_path)
    register = load_assets(tmp_path / "assets.csv")
    assert register == Fleet(PLAN).register
    assert all(asset.simulated and asset.households > 0 for asset in register.values())
    with (tmp_path / "truth.csv").open(encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert row["asset"] == "lift-0001" and row["kind"] == "wear" and row["failure_mode"] == "brake"
    assert row["onset"] == "2026-01-05T08:15:00Z" and row["breakdown"] == "2026-01-05T08:30:00Z"


def test_an_endless_fleet_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="number of days"):
        write_fleet(FleetPlan(lifts=1, boilers=0, start_us=T0_US), tmp_path)


class Clocks:
    """A monotonic clock and a wall clock that only move when they are told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


def parts(source: SimulatorSource, resume: dict[str, Any] | None = None) -> StatefulSourcePartition[Message, Any]:
    [name] = source.list_parts()
    return source.build_part("simulate", name, resume)


def readings_of(messages: list[Message]) -> int:
    batches: list[Any] = [message.payload for message in messages]
    assert all(m.source == "simulator" and m.wire == "blocks" for m in messages)
    return sum(len(batch.column("values").values) for batch in batches)


def drain(part: StatefulSourcePartition[Message, Any]) -> int:
    total = 0
    while True:
        try:
            total += readings_of(list(part.next_batch()))
        except StopIteration:
            return total


def test_the_source_emits_everything_as_fast_as_it_goes_and_ends() -> None:
    part = parts(SimulatorSource(PLAN))
    assert part.next_awake() is None
    assert drain(part) == expected()[0]


def test_the_source_keeps_to_its_speed() -> None:
    clocks = Clocks()
    plan = FleetPlan(lifts=0, boilers=1, start_us=T0_US, mode="continuous")
    part = parts(SimulatorSource(plan, 10.0, clock=clocks.monotonic, now=clocks.wall))
    assert readings_of(list(part.next_batch())) == 0
    assert part.next_awake() == clocks.wall() + timedelta(seconds=0.5)
    clocks.seconds += 60.0
    assert readings_of(list(part.next_batch())) == pytest.approx(600 * 10 + 10, abs=21)


def test_the_source_catches_up_without_a_rest_when_it_is_behind() -> None:
    clocks = Clocks()
    plan = FleetPlan(lifts=0, boilers=50, start_us=T0_US)
    part = parts(SimulatorSource(plan, 600.0, readings=50_000, clock=clocks.monotonic, now=clocks.wall))
    clocks.seconds += 30.0
    sizes = []
    while part.next_awake() is None:
        sizes.append(readings_of(list(part.next_batch())))
    assert len(sizes) > 10 and max(sizes) < 80_000
    assert sum(sizes) == pytest.approx(18_000 * 50 * 10, rel=0.02)


def test_the_source_resumes_where_its_snapshot_was_taken() -> None:
    source = SimulatorSource(PLAN, readings=100_000)
    part = parts(source)
    before = readings_of(list(part.next_batch()))
    assert before > 0
    assert before + drain(parts(source, part.snapshot())) == expected()[0]


def test_the_source_ends_when_it_is_told() -> None:
    stop = threading.Event()
    part = parts(SimulatorSource(FleetPlan(lifts=1, boilers=1, start_us=T0_US), stop=stop))
    part.next_batch()
    stop.set()
    with pytest.raises(StopIteration):
        part.next_batch()


def test_a_speed_is_above_zero() -> None:
    with pytest.raises(ValueError, match="above 0"):
        SimulatorSource(PLAN, 0.0)
