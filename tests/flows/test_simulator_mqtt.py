"""A simulated fleet onto a real broker: every reading arrives, the topics are the assets."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from flows.metrics import Pipeline
from flows.mqtt.client import Broker, MqttClient
from flows.mqtt.topics import Topics
from flows.simulator.fleet import Fleet, FleetPlan
from flows.simulator.mqtt import MqttTarget, mqtt_target, publish
from flows.spool.reader import SpoolReader
from flows.spool.writer import Spool

PLAN = FleetPlan(lifts=2, boilers=3, start_us=1_767_600_000_000_000, days=1 / 48, faults="none")


def encode(batch: pa.RecordBatch) -> list[bytes]:
    """One message an asset and second, in the order of both, as plain as possible."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    seconds = batch.column("start").cast(pa.int64()).to_numpy() // 1_000_000
    for row, (second, asset) in enumerate(zip(seconds, batch.column("asset").indices.to_pylist(), strict=True)):
        name = batch.column("asset").dictionary[asset].as_py()
        one = found.setdefault((int(second), asset), {"asset": name, "n": 0, "sum": 0.0})
        values = batch.column("values")[row].as_py()
        one["n"] += len(values)
        one["sum"] += sum(values)
    return [json.dumps(found[key]).encode() for key in sorted(found)]


@pytest.fixture
def port(program: Callable[[str], str], tmp_path: Path) -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
    (tmp_path / "mosquitto.conf").write_text(
        f"listener {number} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
    )
    process = subprocess.Popen(
        [program("mosquitto"), "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", number)) == 0:
                    break
        yield number
    finally:
        process.kill()
        process.wait(30)


def test_every_reading_reaches_the_spool_under_its_asset(port: int, tmp_path: Path) -> None:
    batches = list(Fleet(PLAN).stream(PLAN.end_us, 50_000))
    expected = sum(len(batch.column("values").values) for batch in batches)
    total = sum(float(np.sum(batch.column("values").values.to_numpy())) for batch in batches)
    topics = Topics(["fleet/{asset}"], 1)
    spool = Spool(tmp_path / "spool", 1)
    broker = Broker("127.0.0.1", port, "vigie-test", topics.subscribed)
    client = MqttClient("in", broker, spool, topics, Pipeline(CollectorRegistry()))
    client.start()
    deadline = threading.Event()
    while not client.up:
        deadline.wait(0.01)
    shares: list[float] = []
    target = MqttTarget("127.0.0.1", port, "fleet")
    readings = publish(PLAN, target, "json", encode, lambda _, share: shares.append(share))
    assert readings == expected
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    reader = SpoolReader(tmp_path / "spool", 0)
    rows: list[dict[str, Any]] = []
    while sum(row["n"] for row in rows) < expected:
        for one in (record for piece in reader.read() for record in piece.records()):
            rows.append(json.loads(one.payload))
            assert one.topic == "fleet/" + rows[-1]["asset"]
            assert one.content == "application/json"
        deadline.wait(0.01)
    client.stop()
    reader.close()
    assert sum(row["n"] for row in rows) == expected
    assert sum(row["sum"] for row in rows) == pytest.approx(total)
    assert {row["asset"] for row in rows} == set(PLAN.asset_ids)


def test_a_paced_fleet_follows_the_clock_and_ends_when_it_is_told_to(port: int) -> None:
    plan = FleetPlan(lifts=0, boilers=1, start_us=PLAN.start_us, days=None, mode="continuous", faults="none")
    stop = threading.Event()
    time_s = [0.0]
    sent: list[int] = []

    def clock() -> float:
        time_s[0] += 1.0
        return time_s[0]

    def wrote(readings: int, share: float) -> None:
        sent.append(readings)
        if len(sent) == 10:
            stop.set()

    publish(plan, MqttTarget("127.0.0.1", port, "fleet"), "json", encode, wrote, speed=1.0, stop=stop, clock=clock)
    assert len(sent) == 10
    # About ten readings a second, a second of the clock at a time.
    assert 50 <= sent[-1] <= 250


def test_a_broker_that_is_not_there_is_an_error() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        free = sock.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        publish(PLAN, MqttTarget("127.0.0.1", free, "fleet"), "json", encode)


def test_urls() -> None:
    assert mqtt_target("mqtts://vigie@broker/a/b?password_file=f&ca=c.pem") == MqttTarget(
        "broker", 8883, "a/b", True, "c.pem", "vigie", "f"
    )
    for url in ("mqtt://broker", "mqtt:///x", "http://broker/x", "mqtt://u:p@broker/x", "mqtt://b/+", "mqtt://b/x?y=1"):
        with pytest.raises(ValueError, match="broker"):
            mqtt_target(url)
