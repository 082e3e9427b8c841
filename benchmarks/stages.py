"""Where the time goes: nanoseconds a reading of each stage, for the profiles of `throughput.py`, and memory speed.

Each figure is the median of alternating runs over the same readings, in CPU time of one process, so that other programs
disturb it less; no dataflow is around the stages. What spectra and cycles cost is the difference to the same class
without them.

    python benchmarks/stages.py --runs 5 --json figures.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.profiles import Profile, asset_names
from benchmarks.wires import arrow
from features.assets import Asset
from features.signals import EquipmentClass, load_class
from features.telemetry import count_readings
from features.windows import ShardBatch, ShardWindows
from features.wire import decode_arrow
from flows.clock import arrival_clock
from flows.dealing import Dealer
from flows.fleet import Fleet
from flows.steps import Shard
from models.assessment import Assessor
from models.scoring import Scorer

SHARDS = 16
STAGES = ("decode", "deal", "windows", "spectra", "cycles", "detectors", "assessment", "fleet")


def without(c: EquipmentClass, bands: bool, cycles: bool) -> EquipmentClass:
    """Return the class without spectra or without cycles."""
    signals = c.signals
    if bands:
        signals = {name: msgspec.structs.replace(s, bands_hz=()) for name, s in signals.items()}
    return msgspec.structs.replace(c, signals=signals, cycles={} if cycles else c.cycles)


class Stages:
    """The stages of one class, fed by hand, each with its clock."""

    def __init__(self, c: EquipmentClass, assets: int) -> None:
        self.equipment = c
        names = asset_names(c.name, assets)
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.readings = 0
        shard = Shard({c.name: c}, lambda name: c.name, SHARDS)
        self._deal = Dealer(shard._number)
        self._clock = 0
        variants = {"windows": c, "without bands": without(c, True, False), "bare": without(c, True, True)}
        self._windows = {name: [ShardWindows(v) for _ in range(SHARDS)] for name, v in variants.items()}
        self._scorers = [Scorer(c) for _ in range(SHARDS)]
        self._assessors = [Assessor(c) for _ in range(SHARDS)]
        self._fleet = Fleet({c.name: c}, {name: Asset(id=name, equipment=c.name) for name in names})

    def timed(self, stage: str, work: Callable[..., Any], *given: Any) -> Any:
        """Run a piece of work on the clock of its stage."""
        begun = time.process_time()
        result = work(*given)
        self.spent[stage] += time.process_time() - begun
        return result

    def feed(self, batch: pa.RecordBatch) -> None:
        """Send one message through all stages."""
        data = arrow(batch)
        blocks = self.timed("decode", partial(decode_arrow, source="bench"), data).blocks
        self.readings += count_readings(blocks)
        self._clock, dealt = self.timed("deal", self._dealt, blocks)
        for name in ("without bands", "bare"):
            for number, part in dealt:
                self.timed(name, self._windows[name][number].push, part)
        for number, part in dealt:
            step = self.timed("all windows", self._windows["windows"][number].push, part)
            for closed in step.closed:
                scored = self.timed("detectors", self._scorers[number].step, closed)
                assessed = self.timed("assessment", self._assessors[number].step, scored)
                self.timed("fleet", self._fleet.update, assessed)

    def _dealt(self, blocks: pa.RecordBatch) -> tuple[int, list[tuple[int, ShardBatch]]]:
        clock = arrival_clock(blocks, self._clock)
        return int(clock[-1]), list(self._deal("bench", blocks, clock, 2**62))

    def ns(self) -> dict[str, float]:
        """Return nanoseconds a reading."""
        spent = dict(self.spent)
        whole, banded, bare = spent.pop("all windows"), spent.pop("without bands"), spent.pop("bare")
        spent |= {"windows": bare, "cycles": banded - bare, "spectra": whole - banded}
        return {name: 1e9 * max(0.0, spent[name]) / self.readings for name in STAGES}

    def reset(self) -> None:
        """Begin to count anew."""
        self.spent.clear()
        self.readings = 0


def measure(name: str, assets: int, seconds: int, warm_s: int) -> dict[str, float]:
    """Return nanoseconds a reading of each stage after `warm_s` of event time."""
    c = load_class(name)
    detection = msgspec.structs.replace(c.detection, warm_up=max(10, round(warm_s / c.window_s / 2)))
    stages = Stages(msgspec.structs.replace(c, detection=detection), assets)
    profile = Profile(c, asset_names(name, assets))
    for number in range(seconds // profile.message_s):
        if number == warm_s // profile.message_s:
            stages.reset()
        stages.feed(profile.message(number).batch)
    return stages.ns()


def memory_gb_s() -> dict[str, float]:
    """Return how fast numpy reads and copies what no cache holds."""
    values = np.ones(40_000_000)
    other = np.empty_like(values)

    def best(work: Callable[[], Any]) -> float:
        spent = []
        for _ in range(5):
            begun = time.perf_counter()
            work()
            spent.append(time.perf_counter() - begun)
        return min(spent)

    return {
        "memory_sum_gb_s": values.nbytes / best(values.sum) / 1e9,
        "memory_copy_gb_s": 2 * values.nbytes / best(lambda: np.copyto(other, values)) / 1e9,
    }


def main() -> None:
    """Print the table; with --json, write the figures for machines too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each profile (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat object of figures")
    given = parser.parse_args()
    profiles = {"lift": (250, 400, 200), "boiler": (5000, 420, 240)}
    for name in profiles:
        measure(name, 16, 240, 120)  # compiles, or loads what was compiled
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in profiles}
    for _ in range(given.runs):
        for name, size in profiles.items():
            runs[name].append(measure(name, *size))
    figures = memory_gb_s()
    print(f"{'ns a reading':14}" + "".join(f"{name:>10}" for name in profiles))
    for stage in STAGES:
        for name in profiles:
            figures[f"{name}_{stage}_ns"] = statistics.median(run[stage] for run in runs[name])
        print(f"{stage:14}" + "".join(f"{figures[f'{name}_{stage}_ns']:10.2f}" for name in profiles))
    totals = {name: sum(figures[f"{name}_{stage}_ns"] for stage in STAGES) for name in profiles}
    print(f"{'all':14}" + "".join(f"{totals[name]:10.2f}" for name in profiles))
    read = 8 / figures["memory_sum_gb_s"]
    print(
        f"memory: sum {figures['memory_sum_gb_s']:.1f} GB/s, copy {figures['memory_copy_gb_s']:.1f} GB/s; "
        f"reading a sample of 8 bytes once takes {read:.2f} ns"
    )
    if given.json is not None:
        given.json.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
