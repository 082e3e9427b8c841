"""The command simulate, into a broker's topic."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event

from features.encode import encode
from features.wire import content_type
from flows.simulator.feed import encoder, feed
from flows.simulator.fleet import Fleet, FleetPlan
from flows.simulator.target import Target
from flows.simulator.write import write_assets, write_truth
from vigie.command import Failure
from vigie.live import stopped_by_signal
from vigie.say import counted, progress

__all__ = ["feed_broker"]


def feed_broker(plan: FleetPlan, target: Target, given: argparse.Namespace) -> int:
    """Send a simulated fleet to a topic; Ctrl-C ends it after what is under way."""
    if given.register is not None:
        _write_register(plan, Path(given.register))
    share = [0.0, 0.0]

    def sent(readings: int, done: float) -> None:
        share[:] = [done, readings]

    with stopped_by_signal(None) as stop, progress(lambda: (share[0], int(share[1]))):
        send = _to_kafka if target.kind == "kafka" else _to_mqtt
        readings = send(plan, target, given, sent, stop)
    end = " until it was stopped" if stop.is_set() else ""
    fleet = f"{counted(given.lifts, 'lift')} and {counted(given.boilers, 'boiler')}"
    print(f"{counted(readings, 'reading')} of {fleet} -> {given.out}{end}")
    return 0


def _to_kafka(
    plan: FleetPlan, target: Target, given: argparse.Namespace, sent: Callable[[int, float], None], stop: Event
) -> int:
    from flows.kafka.feed import Feeder, FeedError

    try:
        broker = f"{target.host}:{target.port}"
        with Feeder(broker, target.topic, given.partitions, content_type(given.message), stop) as feeder:
            return feed(plan, feeder.partitions, encoder(given.message), feeder.send, given.speed, sent, stop)
    except FeedError as error:
        raise Failure(str(error)) from None


def _to_mqtt(
    plan: FleetPlan, target: Target, given: argparse.Namespace, sent: Callable[[int, float], None], stop: Event
) -> int:
    from flows.simulator.mqtt import publish

    try:
        return publish(plan, target, given.message, partial(encode, given.message), sent, given.speed, stop)
    except OSError as error:
        raise Failure(f"{given.out}: the broker cannot be fed: {error.strerror or error}") from None


def _write_register(plan: FleetPlan, folder: Path) -> None:
    """Write what a site must know of the fleet, and what really happens to it."""
    fleet = Fleet(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_assets(fleet.register, folder / "assets.csv")
        write_truth(fleet.truth, folder / "truth.csv")
    except OSError as error:
        raise Failure(f"--register {folder}: it cannot be written: {error}") from None
