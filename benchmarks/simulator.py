"""How fast the simulator is, in readings a second of one core: the median of five runs each, in turn.

python benchmarks/simulator.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

from flows.simulator.fleet import Fleet, FleetPlan

START_US = 1_767_600_000_000_000
HOUR_US = 3_600_000_000
CASES: dict[str, tuple[FleetPlan, float]] = {
    "lift_burst": (FleetPlan(lifts=200, boilers=0, start_us=START_US, faults="natural"), 3.0),
    "lift_continuous": (FleetPlan(lifts=20, boilers=0, start_us=START_US, faults="natural", mode="continuous"), 1.0),
    "boiler_burst": (FleetPlan(lifts=0, boilers=500, start_us=START_US, faults="natural"), 1.0),
    "boiler_continuous": (FleetPlan(lifts=0, boilers=500, start_us=START_US, faults="natural", mode="continuous"), 0.2),
}


def readings_per_s(plan: FleetPlan, hours: float) -> float:
    """Simulate a span and return the readings a second."""
    fleet = Fleet(plan)
    began = time.perf_counter()
    readings = sum(len(b.column("values").values) for b in fleet.stream(plan.start_us + int(hours * HOUR_US)))
    return readings / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    for plan, _ in CASES.values():
        readings_per_s(plan, 0.05)  # compile
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(arguments.runs):
        for name, (plan, hours) in CASES.items():
            found[name].append(readings_per_s(plan, hours))
    figures = {f"{name}_readings_per_s": statistics.median(runs) for name, runs in found.items()}
    for name, runs in found.items():
        low, high = min(runs) / 1e6, max(runs) / 1e6
        print(f"{name:20s} {statistics.median(runs) / 1e6:8.1f} M readings/s  ({low:.1f} to {high:.1f})")
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    print(f"{'peak memory':20s} {figures['peak_mb']:8.0f} MB, interpreter and kernels included")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
