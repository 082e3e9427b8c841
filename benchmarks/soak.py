"""An hour of recorded telemetry at half of what the flow can take, to see that memory is flat and nothing is lost.

The whole flow as `vigie run` has it: recovery store with its snapshots, archive of rejected input, exporter scraped.
The recording is simulated once (or read from a file of blocks, Arrow or Parquet, that is given) and loops: event times
move on at each loop, so that nothing comes twice or late. The flow first runs as fast as it can for half a minute, to
measure its capacity.

    python benchmarks/soak.py --minutes 60 --json figures.json
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from numpy.typing import NDArray

from benchmarks.scale import scraped
from benchmarks.turns import write_figures
from features.assets import Asset, Register
from features.signals import load_class
from features.telemetry import BLOCKS, count_readings
from features.wire import decode_blocks
from flows.known import Known
from flows.recovery import open_store
from flows.runs import Live
from flows.simulator.fleet import Fleet, FleetPlan
from flows.sources import Message
from flows.warmup import compile_kernels

START_US = 1_767_600_000_000_000
RECORDED_S = 900
"""Length of the simulated recording."""

LOOP_S = 60
"""A loop lasts a whole number of minutes: the windows of each loop begin where those of the first did."""

FLAT_SHARE = 0.01
"""Memory is flat when its trend, with twice its uncertainty, stays below this share of it an hour, and not flat when it
is above without. In between the run was too short to tell, which an hour must not be."""
HOUR_MINUTES = 60

CAPACITY_S = 30.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Telemetry that is played again and again.

    Attributes
    ----------
    batches
        Blocks in the order of time.
    readings
        How many each batch holds.
    span_us
        By how much each loop is later than the one before.
    register
        Its assets.
    """

    batches: Sequence[pa.RecordBatch]
    readings: Sequence[int]
    span_us: int
    register: Register

    @classmethod
    def of(cls, batches: Sequence[pa.RecordBatch], register: Register) -> Recording:
        """Measure a recording."""
        starts = [b.column("start").view(pa.int64()).to_numpy() for b in batches]
        ends = [s + _lengths_us(b) for s, b in zip(starts, batches, strict=True)]
        span_us = max(int(e.max()) for e in ends) - min(int(s.min()) for s in starts)
        loops = span_us // (LOOP_S * 1_000_000) + 1
        return cls(batches, [count_readings(b) for b in batches], loops * LOOP_S * 1_000_000, register)

    def message(self, number: int) -> tuple[pa.RecordBatch, int]:
        """Return a batch of the endless recording, and its readings."""
        loop, place = divmod(number, len(self.batches))
        batch = self.batches[place]
        moved = pc.add(batch.column("start").view(pa.int64()), loop * self.span_us).view(BLOCKS.field("start").type)
        return batch.set_column(2, BLOCKS.field("start"), moved), self.readings[place]


def _lengths_us(batch: pa.RecordBatch) -> NDArray[np.int64]:
    counts = np.diff(batch.column("values").offsets.to_numpy()).astype(np.int64)
    lengths: NDArray[np.int64] = np.maximum(counts - 1, 0) * batch.column("period_us").to_numpy()
    return lengths


def simulated(lifts: int, boilers: int) -> Recording:
    """Simulate a recording."""
    plan = FleetPlan(lifts, boilers, START_US, days=RECORDED_S / 86_400, faults="natural", mode="continuous")
    fleet = Fleet(plan)
    batches = [b for b in fleet.stream(plan.start_us + RECORDED_S * 1_000_000) if b.num_rows]
    return Recording.of(batches, fleet.register)


def recorded(path: Path, equipment: str) -> Recording:
    """Read a recording of one class."""
    table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()
    batches = [decode_blocks(b, source=str(path)).blocks for b in table.unify_dictionaries().to_batches()]
    names = {name for b in batches for name in b.column("asset").unique().to_pylist()}
    return Recording.of(batches, {name: Asset(id=name, equipment=equipment) for name in sorted(names)})


class LoopSource(FixedPartitionedSource[Message, dict[str, int]]):
    """Plays a recording: as fast as it goes first, which tells the capacity, and then at half of it."""

    def __init__(self, recording: Recording, seconds: float) -> None:
        self.recording = recording
        self.seconds = seconds
        self.handed = 0
        self.capacity = 0.0
        self.lag_s = 0.0

    def list_parts(self) -> list[str]:
        """Return the one partition."""
        return ["recording"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: dict[str, int] | None
    ) -> StatefulSourcePartition[Message, dict[str, int]]:
        """Return the recording at its beginning."""
        return _Partition(self)


class _Partition(StatefulSourcePartition[Message, dict[str, int]]):
    def __init__(self, source: LoopSource) -> None:
        self._source = source
        self._number = 0
        self._awake: datetime | None = None
        self._begun_s = time.monotonic()
        self._paced = (0.0, 0)

    def next_batch(self) -> list[Message]:
        source, now_s = self._source, time.monotonic()
        if source.capacity == 0.0 and now_s - self._begun_s > CAPACITY_S:
            source.capacity = source.handed / (now_s - self._begun_s)
            self._paced = now_s, source.handed
        if source.capacity > 0.0:
            if now_s - self._paced[0] > source.seconds:
                raise StopIteration
            due_s = self._paced[0] + (source.handed - self._paced[1]) / (0.5 * source.capacity)
            source.lag_s = max(0.0, now_s - due_s)
            if due_s > now_s:
                self._awake = datetime.now(UTC) + timedelta(seconds=due_s - now_s)
                return []
        self._awake = None
        batch, readings = source.recording.message(self._number)
        self._number += 1
        source.handed += readings
        return [Message("recording", "blocks", batch)]

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> dict[str, int]:
        return {"position": self._number}


def resident_mb() -> float:
    """Return the memory that the process has now, in MB of a million bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


@dataclass
class Watch:
    """Notes the memory, and prints a line each minute."""

    live: Live
    source: LoopSource

    def __post_init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def trend(self) -> tuple[float, float, float]:
        """Return of the last half the mean, the slope an hour, and the uncertainty of that, all in MB.

        The largest of each minute counts, because a snapshot takes memory for a moment; where there are fewer than ten
        minutes, each sample does.
        """
        half = self.samples[len(self.samples) // 2 :]
        size = 12 if len(half) >= 120 else 1
        cut = [max(half[i : i + size], key=lambda s: s[1]) for i in range(0, len(half), size)]
        hours, memory = (np.array([s[i] for s in cut]) for i in (0, 1))
        hours = hours / 3600.0
        if len(cut) < 4:
            return float(memory.mean()), 0.0, float("inf")
        (slope, _), covariance = np.polyfit(hours, memory, 1, cov=True)
        return float(memory.mean()), float(slope), float(np.sqrt(covariance[0, 0]))

    def _run(self) -> None:
        print(
            f"{'minute':>6} {'memory MB':>10} {'lag s':>7} {'readings':>15} {'lost':>8} {'late':>8} {'duplicate':>10}"
        )
        begun, minute = time.monotonic(), 0
        while not self._over.wait(5.0):
            at_s = time.monotonic() - begun
            if self.source.capacity > 0.0:
                self.samples.append((at_s, resident_mb()))
            if at_s >= 60.0 * (minute + 1):
                minute += 1
                account = self.live.pipeline.account()
                gone, late, twice = (
                    lost(account, account["received"]),
                    account.get("late", 0),
                    account.get("duplicate", 0),
                )
                print(
                    f"{minute:6} {resident_mb():10,.0f} {self.source.lag_s:7.2f} {account['received']:15,}"
                    f" {gone:8,} {late:8,} {twice:10,}",
                    flush=True,
                )


def lost(account: dict[str, int], handed: int) -> int:
    """Return the readings that are nowhere: neither scored, nor rejected, nor in an open window.

    Examples
    --------
    >>> lost({"received": 10, "scored": 5, "pending": 3, "late": 1}, 10)
    1
    """
    return handed - sum(count for name, count in account.items() if name != "received")


def main() -> int:
    """Run, print, and say whether memory is flat and nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="length at half the capacity (default: 60)")
    parser.add_argument("--telemetry", type=Path, metavar="FILE", help="blocks to play, instead of simulated ones")
    parser.add_argument("--class", dest="equipment", default="lift", help="class of FILE's assets (default: lift)")
    parser.add_argument("--lifts", type=int, default=40)
    parser.add_argument("--boilers", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat object of figures")
    given = parser.parse_args()
    recording = (
        simulated(given.lifts, given.boilers) if given.telemetry is None else recorded(given.telemetry, given.equipment)
    )
    classes = {name: load_class(name) for name in {asset.equipment for asset in recording.register.values()}}
    compile_kernels(classes.values())
    gc.collect()
    source = LoopSource(recording, 60.0 * given.minutes)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(Path(folder, "store"), 16, classes, "make soak") as store,
    ):
        letters = Path(folder, "rejected")
        live = Live(classes, Known(recording.register), {"recording": source}, store=store, dead_letters=letters)
        ports: list[int] = []
        watch = Watch(live, source)
        with scraped(lambda: ports[0] if ports else None, 5.0), watch:
            account = live.run(lambda server: ports.append(server.port))
    memory, slope, spread = watch.trend()
    gone = lost(account, source.handed)
    allowed = FLAT_SHARE * memory
    flat, grows = slope + 2.0 * spread < allowed, slope - 2.0 * spread > allowed
    said = "flat" if flat else "NOT FLAT" if grows else "of a trend that so short a run does not tell"
    print(
        f"memory {said} ({memory:,.0f} MB, {slope:+.1f} MB an hour, give or take {spread:.1f}),"
        f" {gone:,} of {source.handed:,} readings lost, {account.get('late', 0):,} late, at half of"
        f" {source.capacity:,.0f} readings/s"
    )
    figures = {
        "soak_memory_mb": memory,
        "soak_memory_mb_per_hour": slope,
        "soak_lost": gone,
        "soak_late": account.get("late", 0),
        "soak_capacity_readings_per_s": source.capacity,
    }
    write_figures(given.json, figures)
    return 0 if gone == 0 and (flat or (not grows and given.minutes < HOUR_MINUTES)) else 1


if __name__ == "__main__":
    sys.exit(main())
