"""The command simulate, into a broker's topic."""

from __future__ import annotations

import argparse
from pathlib import Path

from features.wire import content_type
from flows.simulator.feed import encoder, feed
from flows.simulator.fleet import Fleet, FleetPlan
from flows.simulator.target import Target
from flows.simulator.write import write_assets, write_truth
from vigie.command import Failure
from vigie.live import stopped_by_signal
from vigie.say import progress

__all__ = ["feed_broker"]


def feed_broker(plan: FleetPlan, target: Target, given: argparse.Namespace) -> int:
    """Send a simulated fleet to a topic; Ctrl-C ends it after what is under way."""
    from flows.kafka.feed import Feeder, FeedError

    if target.kind != "kafka":
        raise Failure(f"{given.out}: only kafka:// can be fed")
    if given.register is not None:
        _write_register(plan, Path(given.register))
    share = [0.0, 0.0]

    def sent(readings: int, done: float) -> None:
        share[:] = [done, readings]

    with stopped_by_signal(None) as stop, progress(lambda: (share[0], int(share[1]))):
        try:
            content = content_type(given.message)
            broker = f"{target.host}:{target.port}"
            with Feeder(broker, target.topic, given.partitions, content, stop) as feeder:
                encode = encoder(given.message)
                readings = feed(plan, feeder.partitions, encode, feeder.send, given.speed, sent, stop)
        except FeedError as error:
            raise Failure(str(error)) from None
    end = " until it was stopped" if stop.is_set() else ""
    print(f"{readings:,} readings of {given.lifts} lifts and {given.boilers} boilers -> {given.out}{end}")
    return 0


def _write_register(plan: FleetPlan, folder: Path) -> None:
    """Write what a site must know of the fleet, and what really happens to it."""
    fleet = Fleet(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_assets(fleet.register, folder / "assets.csv")
        write_truth(fleet.truth, folder / "truth.csv")
    except OSError as error:
        raise Failure(f"--register {folder}: it cannot be written: {error}") from None
