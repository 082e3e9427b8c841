"""How many MQTT messages of 1 kB a second one core takes: from broker to spool, and from there to decoded blocks.

QoS 1, a real mosquitto, every message on disk before it is acknowledged, read back by position and decoded. The broker
has the messages before the clock runs and keeps the other core, so that the core under test is never idle. The
yardstick is paho-mqtt as it comes, which acknowledges each message and does nothing with it. Runs take turns.

python benchmarks/broker_mqtt.py [--json FILE] [--runs N] [--messages N]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from prometheus_client import CollectorRegistry

from benchmarks.bars import Bar, print_bars
from features.telemetry import count_readings
from features.wire import decode
from flows.metrics import Pipeline
from flows.mqtt.client import Broker, MqttClient
from flows.mqtt.topics import Topics
from flows.spool.source import SpoolSource
from flows.spool.writer import Spool

ASSETS = 250
PARTITIONS = 16
CLIENT = "vigie-bench"
READINGS = 100
"""A second of a vibration signal, as JSON: 1 kB."""


def payload(asset: int, second: int) -> bytes:
    """Return a block of JSON of about 1 kB."""
    row = {
        "asset": f"lift-{asset:04d}",
        "signal": "vibration_z",
        "start": f"2026-01-05T{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z",
        "period_us": 10_000,
        "values": [round(0.001 * ((asset * 7 + second * 13 + i * 31) % 997) - 0.5, 5) for i in range(READINGS)],
    }
    text = json.dumps(row, separators=(",", ":"))
    return text.ljust(1000).encode()[:1000] if len(text) <= 1000 else text.encode()


def publish(port: int, messages: int) -> None:
    """Publish to the session that is waiting, and come back when the broker has everything."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "bench-gateways", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(2000)
    client.max_queued_messages_set(0)
    acknowledged = threading.Semaphore(0)
    client.on_publish = lambda *_: acknowledged.release()
    client.connect("127.0.0.1", port)
    client.loop_start()
    content = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
    content.ContentType = "application/json"
    for n in range(messages):
        asset = n % ASSETS
        client.publish(f"fleet/lift-{asset:04d}", payload(asset, n // ASSETS), qos=1, properties=content)
    for _ in range(messages):
        acknowledged.acquire()
    client.disconnect()
    client.loop_stop()


def alone(port: int, messages: int, folder: Path) -> tuple[float, float]:
    """Receive with paho as it comes; return seconds and seconds of processor."""
    client = paho.Client(CallbackAPIVersion.VERSION2, CLIENT, protocol=MQTTProtocolVersion.MQTTv5)
    wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    wishes.SessionExpiryInterval, wishes.ReceiveMaximum = 3600, 4096
    left = [messages]
    done = threading.Event()

    def received(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            done.set()

    client.on_message = received
    began, used = time.perf_counter(), time.process_time()
    client.connect("127.0.0.1", port, clean_start=False, properties=wishes)
    client.loop_start()
    done.wait()
    took = time.perf_counter() - began, time.process_time() - used
    client.disconnect()
    client.loop_stop()
    return took


def whole(port: int, messages: int, folder: Path) -> tuple[float, float]:
    """Receive, commit, acknowledge, read back and decode; return seconds and seconds of processor."""
    pipeline = Pipeline(CollectorRegistry())
    source = SpoolSource("bench", folder, PARTITIONS, "json", pipeline=pipeline)
    parts: list[Any] = [source.build_part("in", part, None) for part in source.list_parts()]
    awake = dict.fromkeys(range(PARTITIONS), 0.0)
    client = ingest(port, folder, pipeline)
    readings = 0
    began, used = time.perf_counter(), time.process_time()
    client.start()
    while readings < messages * READINGS:
        idle = True
        for n, part in enumerate(parts):
            if awake[n] > time.time():
                continue
            for message in part.next_batch():
                decoded = decode("json", message.payload, source=message.source)
                assert not decoded.rejected
                readings += count_readings(decoded.blocks)
            until = part.next_awake()
            awake[n] = 0.0 if until is None else until.timestamp()
            idle = idle and until is not None
        if idle:  # as the engine does: it sleeps until the next partition is due
            time.sleep(max(0.0, min(awake.values()) - time.time()))
    took = time.perf_counter() - began, time.process_time() - used
    client.stop()
    for part in parts:
        part.close()
    return took


def ingest(port: int, folder: Path, pipeline: Pipeline) -> MqttClient:
    """Return the client under test."""
    topics = Topics(["fleet/{asset}"], PARTITIONS)
    broker = Broker("127.0.0.1", port, CLIENT, topics.subscribed)
    return MqttClient("bench", broker, Spool(folder, PARTITIONS), topics, pipeline)


def run(what: Callable[[int, int, Path], tuple[float, float]], messages: int, folder: Path) -> tuple[float, float]:
    """Start a broker, let it have the messages, and time how they are taken from it on a core of one's own."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
        "persistence false\n"
    )
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    broker = subprocess.Popen(
        [program, "-c", str(folder / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        os.sched_setaffinity(broker.pid, cores[:1])
        subscribe(port, folder / "first")
        publish(port, messages)
        with multiprocessing.get_context("spawn").Pool(1, os.sched_setaffinity, (0, cores[-1:])) as pool:
            pool.apply(warm)
            return pool.apply(what, (port, messages, folder / "spool"))
    finally:
        broker.kill()
        broker.wait()


def warm() -> None:
    """Compile the decoder."""
    decode("json", [payload(0, 0)], source="")


def subscribe(port: int, folder: Path) -> None:
    """Make the session for which the broker keeps the messages."""
    client = ingest(port, folder, Pipeline(CollectorRegistry()))
    client.start()
    while not client.up:
        time.sleep(0.02)
    client.stop()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=40_000)
    arguments = parser.parse_args()
    cases = {"paho_alone": alone, "spool_source_decode": whole}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(arguments.runs):
        for name, what in cases.items():
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                seconds, used = run(what, arguments.messages, Path(folder))
            rates[name].append(arguments.messages / seconds)
            costs[name].append(used / arguments.messages * 1e6)
    figures = {}
    for name in cases:
        figures[f"mqtt_{name}_messages_per_s"] = rate = statistics.median(rates[name])
        figures[f"mqtt_{name}_us_per_message"] = cost = statistics.median(costs[name])
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:22s} {rate:8,.0f} messages/s  ({low:,.0f} to {high:,.0f})  {cost:6.1f} us of processor each")
    bar = Bar("mqtt_spool_source_decode_messages_per_s", "MQTT of 1 kB, broker to decoded, one core", 8_000, "/s")
    print_bars([bar], figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
