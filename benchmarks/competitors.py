"""One competitor in a process of its own, started by the benchmarks: see `benchmarks.turns`.

python -m benchmarks.competitors flow --class lift --assets 250 --wire arrow --warm 20 --messages 60
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from benchmarks import yardstick
from benchmarks.agreement import yardstick_readings
from benchmarks.batch import Batch
from benchmarks.engine import Flow, new_store, served
from benchmarks.feed import Turns, TurnSource
from benchmarks.profiles import Profile, asset_names, equipment_of, flat
from benchmarks.turns import Result, peak_mb, say, serve


def run_flow(given: argparse.Namespace) -> None:
    """Run this flow, alone or as one process of a cluster that deals the shards out among its processes."""
    equipment = equipment_of(given.equipment, given.warm_up)
    addresses = given.addresses.split(";") if given.addresses else []
    processes = max(1, len(addresses))
    turns = Turns(given.warm, given.messages, given.seconds, clustered=processes > 1)
    flow = Flow(equipment, asset_names(given.equipment, given.assets), turns.pipeline)
    # A partition carries the shards of one worker; a process alone reads them all.
    mine = [given.process] if processes > 1 else range(given.parts)
    profiles = {
        f"part-{part}": Profile(
            equipment,
            asset_names(given.equipment, given.assets, part=part, parts=given.parts),
            given.message_s,
            given.thin,
        )
        for part in mine
    }
    source = TurnSource(profiles, given.wire, turns)
    if given.store is not None and not any(given.store.glob("*.sqlite3")):
        new_store(given.store)
    with served(flow) if given.serve else nullcontext(0) as port:
        turns.before_report = lambda result: result.update(port=port, **(flow.measure_metrics() if port else {}))
        flow.run(source, addresses, given.process, given.store, given.epoch)
    if processes == 1:
        flow.check()
    say({"state_bytes": flow.state_bytes(), "peak_mb": peak_mb()})


def run_batch(given: argparse.Namespace) -> None:
    """Run DuckDB."""
    profile = Profile(equipment_of(given.equipment), asset_names(given.equipment, given.assets), given.message_s)
    readings = [flat(profile.message(number)) for number in range(given.messages)]
    batch = Batch(readings, given.assets, profile.equipment.window_s)
    batch.choose()
    serve(batch.run)


def run_yardstick(given: argparse.Namespace) -> None:
    """Run plain Bytewax and river."""
    profile = Profile(equipment_of(given.equipment), asset_names(given.equipment, given.assets), given.message_s)
    c = profile.equipment
    readings = yardstick_readings([flat(profile.message(number)) for number in range(given.messages)], profile)

    def run() -> Result:
        return {"readings": float(len(readings)), "seconds": yardstick.run(readings, c.window_s, c.lateness_s)}

    serve(run)


RUNS = {"flow": run_flow, "duckdb": run_batch, "naive": run_yardstick}


def main() -> None:
    """Run one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("--class", dest="equipment", default="lift", help="equipment class (default: lift)")
    parser.add_argument("--assets", type=int, default=250)
    parser.add_argument("--message-s", type=int, default=10, help="seconds of telemetry in a message")
    parser.add_argument("--messages", type=int, default=0, help="messages of each partition in a turn, or of a run")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of a turn, instead of --messages")
    parser.add_argument("--wire", default="arrow", help="form of the telemetry (default: arrow)")
    parser.add_argument("--warm", type=int, default=0, help="messages of each partition before the first turn")
    parser.add_argument("--warm-up", type=int, default=10, help="windows until detectors are ready")
    parser.add_argument("--thin", type=int, default=0, help="of them, messages of a minute with few readings")
    parser.add_argument("--parts", type=int, default=1, help="partitions of the input")
    parser.add_argument("--addresses", default="", help="host:port of each process of a cluster, with ; between")
    parser.add_argument("--process", type=int, default=0, help="number of this process in the cluster")
    parser.add_argument("--store", type=Path, help="folder of a recovery store")
    parser.add_argument("--serve", action="store_true", help="serve the metrics, and measure what a scrape costs")
    parser.add_argument("--epoch", type=float, default=60.0, help="seconds between snapshots")
    given = parser.parse_args()
    RUNS[given.name](given)


if __name__ == "__main__":
    main()
